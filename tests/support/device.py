"""A stand-in for the loudspeaker, which consumes 24,000 samples a second in real time."""

import threading
import time

import numpy as np

RATE, BLOCK, FRAME = 24000, 480, 1920
SCHEDULE = [FRAME / RATE * count for count in (1, 1, 2, 4, 8)]


NULL = "pcm.!default { type null }\nctl.!default { type null }\n"


class Device:
    """Takes a block every 20 ms, as a sound card does."""

    def __init__(self, sample_rate, callback, channels=1, samplerate=None):
        self.samplerate = samplerate or sample_rate
        self.callback, self.channels = callback, channels
        self.heard, self.times, self.stopped = [], [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        due = self.began = time.monotonic()
        while not self.stopped.is_set():
            out = np.full((BLOCK, self.channels), np.nan, np.float32)
            self.callback(out, BLOCK, None, None)
            self.times.append(time.monotonic())
            self.heard.append(out)
            # The device does not catch up after a late block, so that a busy machine slows it as well as the writer.
            due = max(due + BLOCK / self.samplerate, time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)

    def start(self):
        self.thread.start()

    def stop(self):
        self.stopped.set()
        self.thread.join()

    abort = stop

    def close(self):
        assert self.stopped.is_set()

    @property
    def sound(self) -> np.ndarray:
        return np.concatenate(self.heard)


def opener(opened: list[Device], **options):
    """Return a function that opens a device and appends it to `opened`."""

    def open_stream(*args) -> Device:
        device = Device(*args, **options)
        opened.append(device)
        return device

    return open_stream


def speech(seconds: float) -> np.ndarray:
    """Return samples that are all different and nonzero."""
    return np.linspace(0.2, 0.9, int(seconds * RATE), dtype=np.float32)
