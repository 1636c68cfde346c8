"""Audio in and out: reading, mel spectrogram, writing, playing."""
