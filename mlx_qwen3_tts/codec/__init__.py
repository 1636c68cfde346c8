"""The 12.5 Hz codec: 16 codes a frame, 80 ms a frame, 24 kHz mono."""
