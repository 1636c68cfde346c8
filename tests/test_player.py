"""The player, through a stand-in device that consumes 24,000 samples a second in real time.

No sample is lost, repeated or changed, and playback does not underrun if generation is faster than real time.
"""

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mlx_qwen3_tts import PlaybackError
from mlx_qwen3_tts.audio.player import Player, open_device, prebuffer_seconds
from tests.support.device import BLOCK, FRAME, NULL, RATE, SCHEDULE, Device, opener, speech


def play(
    audio: np.ndarray, sizes: list[int], delays: list[float], remaining=None, **device
) -> tuple[Player, np.ndarray]:
    """Write `audio` in pieces of `sizes` samples, each after its delay, drain, and return what the device heard."""
    opened = []
    player = Player(RATE, opener(opened, **device), SCHEDULE)
    start, player.late = 0, 0.0
    for size, delay in zip(sizes, delays, strict=True):
        due = time.monotonic() + delay
        time.sleep(delay)
        player.late = max(player.late, time.monotonic() - due)
        left = (len(audio) - start - size) / RATE
        player.write(audio[start : start + size], delay, left if remaining == "known" else remaining)
        start += size
    assert start >= len(audio)
    player.drain()
    return player, opened[0].sound


def pieces(seconds: float) -> list[int]:
    """Return the lengths of the chunks of a stream of that many seconds."""
    sizes, left, counts = [], int(seconds * RATE), [1, 1, 2, 4]
    while left > 0:
        size = min(left, FRAME * (counts.pop(0) if counts else 8))
        sizes.append(size)
        left -= size
    return sizes


def play_undisturbed(*args, **options) -> tuple[Player, np.ndarray]:
    """Like `play`, but repeated if the machine was too busy to wake the writer in time."""
    for _ in range(5):
        player, sound = play(*args, **options)
        if player.late < 0.02:
            break
    return player, sound


def heard_whole(audio: np.ndarray, sound: np.ndarray) -> bool:
    """Return whether every sample was heard in order, with only silence and ramps in between."""
    found = 0
    for sample in sound[:, 0]:
        found += found < len(audio) and sample == audio[found]
    heard = sound[:, 0] != 0
    runs = int(np.count_nonzero(heard & ~np.concatenate([[False], heard[:-1]])))
    ramp = int(0.005 * RATE) - 2  # without its two ends, the sample itself and zero
    return found == len(audio) and int(np.count_nonzero(heard)) - len(audio) == runs * 2 * ramp


@pytest.mark.parametrize("factor", [0.02, 0.3, 0.55, 0.8])
def test_faster_than_real_time(factor):
    """Generation takes `factor` times the audio's duration; no run underruns, and fast ones start at once."""
    audio, sizes = speech(1.6), pieces(1.6)
    player, sound = play_undisturbed(audio, sizes, [factor * size / RATE for size in sizes])
    assert player.underruns == 0
    assert heard_whole(audio, sound)
    if factor <= 0.3:
        first = np.flatnonzero(sound[:, 0])[0] / RATE
        assert first < 0.25


@pytest.mark.slow
def test_slower_than_real_time_waits_just_long_enough():
    audio, sizes = speech(1.6), pieces(1.6)
    delays = [1.5 * size / RATE for size in sizes]
    player, sound = play_undisturbed(audio, sizes, delays, remaining="known")
    assert player.underruns == 0
    assert heard_whole(audio, sound)
    silence = np.flatnonzero(sound[:, 0])[0] / RATE
    assert 0.3 < silence < sum(delays), "it neither began at once nor waited for the end"


def test_bursts_and_jitter():
    """Generation is twice as fast as real time on average, in bursts."""
    audio, sizes = speech(1.6), pieces(1.6)
    rng = np.random.RandomState(0)
    delays = [0.5 * size / RATE * rng.uniform(0.6, 1.4) for size in sizes]
    player, sound = play_undisturbed(audio, sizes, delays)
    assert player.underruns == 0
    assert heard_whole(audio, sound)


def test_stall_is_counted_and_loses_nothing():
    audio, sizes = speech(0.64), pieces(0.64)
    delays = [0.01] * len(sizes)
    delays[-1] = 1.2  # half of the audio is played before
    player, sound = play(audio, sizes, delays)
    assert player.underruns == 1
    assert heard_whole(audio, sound)


def test_no_clicks():
    """Ramps lead from silence to sound and back, also around an underrun; there are no clicks inside the sound."""
    audio, sizes = speech(0.64), pieces(0.64)
    delays = [0.01] * len(sizes)
    delays[-1] = 1.2
    _, sound = play(audio, sizes, delays)
    steps = np.abs(np.diff(np.concatenate([[0], sound[:, 0], [0]])))
    assert steps.max() < 0.02, "the largest sample is 0.9, and a ramp has 120 steps"


@pytest.mark.parametrize("offset", [0, 1, 5, 100, 359, 360, 361, 479])
def test_no_clicks_wherever_an_underrun_starts(offset):
    """An underrun may start anywhere in a block, even if the ramp does not fit; playback resumes at once."""
    heard = []
    device = Silent()
    player = Player(RATE, device.open, SCHEDULE)

    def block() -> None:
        heard.append(device.block())

    ramp = int(0.005 * RATE) - 1
    player.write(np.full(2 * BLOCK - ramp - offset, 0.9, np.float32), 0.01, pause=True)
    block()
    block()
    player.write(np.full(BLOCK, 0.8, np.float32), 0.01, pause=True)
    for _ in range(4):
        block()
    sound = np.concatenate(heard)
    assert np.abs(np.diff(np.concatenate([[0], sound, [0]]))).max() < 0.02
    assert np.count_nonzero(sound == np.float32(0.8)) >= BLOCK


class Silent:
    """A device that calls back only when the test does."""

    samplerate = RATE

    def __init__(self):
        self.ended = []

    def open(self, sample_rate, callback):
        self.callback = callback
        return self

    def block(self) -> np.ndarray:
        """Take a block [samples]."""
        out = np.full((BLOCK, 1), np.nan, np.float32)
        self.callback(out, BLOCK, None, None)
        return out[:, 0]

    def start(self):
        pass

    def stop(self):
        self.ended.append("stop")

    def abort(self):
        self.ended.append("abort")

    def close(self):
        self.ended.append("close")


class FakeClock:
    """The player's time, in which nobody really sleeps."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("mlx_qwen3_tts.audio.player.time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds < 0.1, "the end of the sound would be noticed late"
        self.now += seconds


def test_dead_device_is_abandoned(monkeypatch):
    """After 3 s without a sample taken, at the end and while the queue holds a minute."""
    clock = FakeClock(monkeypatch)
    device = Silent()
    player = Player(RATE, device.open, SCHEDULE)
    player.write(speech(0.5), 0.01, pause=True)
    with pytest.raises(PlaybackError, match=r"no sound for 3 s.*still connected"):
        player.drain()
    assert 3 < clock.now - 100 < 3.1
    assert device.ended == ["abort", "close"]
    player = Player(RATE, Silent().open, SCHEDULE)
    for _ in range(60):
        player.write(speech(1.0), 0.01, pause=True)
    with pytest.raises(PlaybackError, match="still connected"):
        player.write(speech(1.0), 0.01, pause=True)


def test_a_slow_device_is_not_abandoned(monkeypatch):
    """It takes a block every 2 s."""
    device = Silent()
    clock = FakeClock(monkeypatch)
    player = Player(RATE, device.open, SCHEDULE)
    player.write(speech(0.1), 0.01, pause=True)

    def sleep(seconds: float) -> None:
        before = clock.now // 2
        clock.now += seconds
        if clock.now // 2 > before:
            device.block()

    clock.sleep = sleep
    player.drain()
    assert player.played == 0.1
    assert device.ended == ["stop", "close"]


def test_nothing_is_left_to_play_after_abort(monkeypatch):
    FakeClock(monkeypatch)
    device = Silent()
    player = Player(RATE, device.open, SCHEDULE)
    player.write(speech(0.1), 0.01, pause=True)
    player.abort()
    assert device.ended == ["abort", "close"]
    player.drain()


def test_the_wait_for_the_first_sound(monkeypatch):
    """It counts from the first audio, and only once."""
    clock = FakeClock(monkeypatch)
    device = Silent()
    player = Player(RATE, device.open, SCHEDULE)
    player.write(np.zeros(0, np.float32), 0.5)
    assert player.speed is None
    clock.now += 1
    player.write(speech(0.1), 0.5)
    assert (player.playing, player.waited) == (False, None)
    clock.now += 3.5
    player.write(speech(0.1), 0.5)
    player.write(speech(0.1), 0.5, pause=True)
    assert (player.playing, player.waited) == (True, 3.5)
    while player.playing:
        device.block()
    clock.now += 1
    player.write(speech(0.1), 0.5, pause=True)
    assert (player.playing, player.waited) == (True, 3.5)


def test_speed_and_buffered():
    """The speed is that of all work; what the device has taken is no longer buffered."""
    device = Silent()
    player = Player(RATE, device.open, SCHEDULE)
    player.write(speech(0.2), 0.0)
    assert player.speed > 1000
    player.write(speech(0.4), 0.2)
    assert player.speed == pytest.approx(3)
    assert player.buffered == pytest.approx(0.6)
    device.block()
    assert player.played == pytest.approx((BLOCK - 118) / RATE), "a block, of which the ramp was a part"
    assert player.buffered == pytest.approx(0.6 - player.played)


@pytest.mark.parametrize("remaining, starts", [(0.3, True), (0.4, False)])
def test_the_next_chunks_are_those_of_the_schedule(remaining, starts):
    """After 0.1 s at twice real time, 0.1 s and then one chunk with all the rest come: 0.2 s in time, 0.3 s late."""
    device = Silent()
    player = Player(RATE, device.open, [0.1, 0.1, 5.0])
    player.write(speech(0.1), 0.05, remaining)
    assert player.playing is starts
    player.write(speech(0.1), 0.05, pause=True)
    for _ in range(12):
        device.block()
    assert (player.playing, player.buffered, player.underruns) == (False, 0, 0)
    player.write(speech(0.1), 0.05, remaining)  # the next text begins with the first chunk
    assert player.playing is starts


def test_playback_prebuffers_again_after_an_underrun():
    device = Silent()
    player = Player(RATE, device.open, SCHEDULE)
    player.write(speech(0.02), 0.04, remaining=0)
    assert player.playing
    for number in range(3):
        device.block()
        assert (player.playing, player.underruns) == ((True, 0) if number == 0 else (False, 1))
    player.write(speech(0.1), 0.2, remaining=10)
    assert not player.playing
    player.write(speech(0.1), 0.2, remaining=0)
    assert player.playing


def test_nan_samples_do_not_hang():
    audio = np.full(4000, np.nan, np.float32)
    _, sound = play(audio, [4000], [0])
    assert not sound.any()


def heard_within_a_second(device: Device, samples: float) -> int:
    """Wait until a device has heard that many samples of sound, at most a second; return how many there are."""
    end = time.monotonic() + 1
    while (heard := sum(map(np.count_nonzero, device.heard))) < samples and time.monotonic() < end:
        time.sleep(0.02)
    return int(heard)


@pytest.mark.parametrize("speed", [0.02, 1.5])
def test_playback_does_not_wait_for_a_pausing_text(speed):
    """The queue is played at once if the text pauses, before and after the pause, and no underrun is counted."""
    opened = []
    player = Player(RATE, opener(opened), SCHEDULE)
    began = time.monotonic()
    player.write(speech(0.3), 0.3 * speed, pause=True)
    first = heard_within_a_second(opened[0], 0.3 * RATE)
    assert first >= 0.3 * RATE
    time.sleep(0.1)
    player.write(speech(0.3), 0.3 * speed, pause=True)
    assert heard_within_a_second(opened[0], first + 0.3 * RATE) >= first + 0.3 * RATE
    player.drain()
    assert player.underruns == 0
    assert player.waited < 0.1
    assert time.monotonic() - began < 2.2


def test_underflow_of_the_device_is_counted():
    device = Silent()
    player = Player(RATE, device.open, SCHEDULE)
    for underflow, count in ((False, 0), (True, 1)):
        device.callback(np.zeros((BLOCK, 1), np.float32), BLOCK, None, SimpleNamespace(output_underflow=underflow))
        assert player.underruns == count


def test_one_short_piece_is_played():
    audio = speech(0.02)
    player, sound = play(audio, [len(audio)], [0.01])
    assert heard_whole(audio, sound)
    assert player.underruns == 0
    assert player.played == 0.02, "the ramps around it are not speech"


def test_no_audio():
    player, sound = play(np.zeros(0, np.float32), [0], [0])
    assert not sound.any()
    assert player.underruns == 0


def test_stereo_device_hears_both_sides():
    audio = speech(0.3)
    _, sound = play(audio, pieces(0.3), [0] * len(pieces(0.3)), channels=2)
    np.testing.assert_array_equal(sound[:, 0], sound[:, 1])
    assert heard_whole(audio, sound)


def test_device_of_another_rate():
    t = np.arange(int(0.6 * RATE)) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    player, sound = play(tone, pieces(0.6), [0] * len(pieces(0.6)), samplerate=48000)
    assert player.played == pytest.approx(0.6, abs=1e-4), "the resampler's last samples are played, too"
    loud = sound[np.abs(sound[:, 0]) > 1e-3, 0]
    assert abs(len(loud) - 0.6 * 48000) < 0.02 * 48000
    spectrum = np.abs(np.fft.rfft(loud[4000:24000]))
    assert abs(np.argmax(spectrum) * 48000 / 20000 - 440) < 5


def test_abort_and_mute_are_silent_within_100_ms():
    opened = []
    player = Player(RATE, opener(opened), SCHEDULE)
    for _ in range(3):
        player.write(speech(1.0), 0.1)
    time.sleep(0.2)
    assert player.playing
    player.mute()
    time.sleep(0.1)
    heard = len(opened[0].heard)
    time.sleep(0.1)
    assert not np.concatenate(opened[0].heard[heard:]).any()
    player.drain()
    player = Player(RATE, Device, SCHEDULE)
    player.write(speech(1.0), 0.1)
    began = time.monotonic()
    player.abort()
    assert time.monotonic() - began < 0.1


def test_prebuffer_seconds():
    forever = [0.1] * 1000
    assert prebuffer_seconds(1e9, forever, 10) < 1e-6
    assert prebuffer_seconds(1.0, forever, 10) == pytest.approx(0.1)
    assert prebuffer_seconds(0.5, forever, 10) == pytest.approx(10 * (1 / 0.5 - 1) + 0.1, rel=0.02)
    assert prebuffer_seconds(1.25, [0.1, 0.2, 0.4, 0.8], 99) == pytest.approx(1.5 / 1.25 - 0.7)
    assert prebuffer_seconds(0.5, [8.0], 2) == 4, "a chunk is no longer than what remains"


def test_half_a_minute_is_planned_for_if_the_rest_is_unknown():
    """At 0.9 times real time, with a margin of a tenth, 30 s of speech need 7 s ahead, and a last chunk."""

    def seconds_ahead(remaining: float | None) -> float:
        player = Player(RATE, Silent().open, SCHEDULE)
        while not player.playing:
            player.write(speech(0.2), 0.2 / 0.9, remaining)
        return player.buffered

    assert 7 < seconds_ahead(None) < 8
    assert 1 < seconds_ahead(5) < 2


# --- the real sound system ---


def test_sounddevice_is_imported_only_to_play():
    code = "import mlx_qwen3_tts.cli, sys; assert 'sounddevice' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_portaudio(monkeypatch):
    class Refuses:
        def find_spec(self, name, *args):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refuses(), *sys.meta_path])
    with pytest.raises(PlaybackError, match=r"install PortAudio"):
        open_device()


@pytest.fixture
def sound_system(monkeypatch) -> list:
    """PortAudio with a card of 48 kHz; the list holds what was asked of it."""
    sounddevice = pytest.importorskip("sounddevice", exc_type=OSError)
    asked = []
    devices = [
        {"index": 0, "name": "mic", "max_output_channels": 0, "default_samplerate": 44100.0},
        {"index": 1, "name": "card", "max_output_channels": 2, "default_samplerate": 48000.0},
    ]

    def query_devices(device=None, kind=None):
        asked.append((device, kind))
        if kind is None:
            return devices
        if device in (None, 1, "card"):
            return devices[1]
        raise ValueError("No such device")

    monkeypatch.setattr(sounddevice, "query_devices", query_devices)
    monkeypatch.setattr(sounddevice, "OutputStream", lambda *args, **options: asked.append((args, options)))
    asked.append(devices)
    return asked


@pytest.mark.parametrize("device, chosen", [(None, None), ("1", 1), ("card", "card")])
def test_choosing_a_device(sound_system, device, chosen):
    """By its number or its name. It may hold 50 ms of sound, which is what sounds on after Ctrl-C."""
    open_device(device)(RATE, print)
    asked, opened = sound_system[1:]
    assert asked == (chosen, "output")
    options = dict(channels=1, device=chosen, dtype="float32", callback=print, latency=0.05)
    assert opened == ((RATE,), options)


def test_devices_that_do_not_exist(sound_system):
    with pytest.raises(PlaybackError, match=r"no output device 'nope'; choose from: 1 card$"):
        open_device("nope")
    with pytest.raises(PlaybackError, match="name of the device is empty"):
        open_device("")
    sound_system[0].pop()
    with pytest.raises(PlaybackError, match="no audio output device here"):
        open_device("2")


def test_real_portaudio(tmp_path):
    """On Linux, with ALSA's null device: the real library runs the callback, and all samples go through it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("ALSA is Linux's")
    try:
        import sounddevice  # noqa: F401
    except OSError:
        pytest.skip("PortAudio is not installed here")
    (tmp_path / "asound.conf").write_text(NULL)
    code = """
import numpy as np
from mlx_qwen3_tts import PlaybackError
from mlx_qwen3_tts.audio.player import Player, open_device
player = Player(24000, open_device(), [0.08])
for _ in range(10):
    player.write(np.full(1920, 0.1, np.float32), 0.01)
player.drain()
assert player.played == 0.8
try:
    open_device("no such device")
except PlaybackError as error:
    assert "no output device 'no such device'; choose from: 0 default" in str(error), error
else:
    raise AssertionError
"""
    environment = {"ALSA_CONFIG_PATH": str(tmp_path / "asound.conf")}
    import os

    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
