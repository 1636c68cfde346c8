"""The sound of a book: trimmed silence, exact pauses, even loudness, no clicks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.audio.loudness import integrated_loudness
from mlx_qwen3_tts.longform import BookOptions, Renderer
from mlx_qwen3_tts.longform.sound import Gains, fade_ends, speech_bounds
from mlx_qwen3_tts.longform.takes import Take
from tests.support.books import Puppet, plan_of, tone

RATE = 24000
OPTIONS = BookOptions()
PAUSE = 6000  # samples: plan_of's quarter of a second
LEAD = round(0.03 * RATE)
TAIL = round(0.08 * RATE)


@pytest.fixture(scope="module")
def clock() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained("demo")


def book(clock, folder, sounds, options=OPTIONS, voices=("slt",)) -> tuple[np.ndarray, Renderer]:
    """Return the audio of a book of one chapter whose segments sound like this, and its renderer."""
    texts = [f"{'One two three four five. ' * 3}{number}." for number in range(len(sounds))]
    planned = plan_of([texts])
    segments = tuple(
        replace(segment, voice=voices[i % len(voices)], seconds=len(sounds[i]) / RATE)
        for i, segment in enumerate(planned.segments)
    )
    by_text = dict(zip(texts, sounds, strict=True))
    renderer = Renderer(
        Puppet(clock, lambda request: by_text[request.text]), replace(planned, segments=segments), folder / "b.book",
        options,
    )  # fmt: skip
    for _ in renderer.run(folder / "b.wav", "json"):
        pass
    assert renderer.flaws == ()
    audio, rate = soundfile.read(folder / "b.wav", dtype="float32")
    assert rate == RATE
    return audio, renderer


def padded(audio, before, after) -> np.ndarray:
    """Return audio with silence at its ends, which has some noise."""
    silence = 1e-4 * np.random.RandomState(0).randn(before + after).astype(np.float32)
    return np.concatenate([silence[:before], audio, silence[before:]])


def test_silence_is_trimmed_and_pauses_are_exact(clock, tmp_path):
    """Speech of any level is found to 10 ms; between two segments there are the margins and the pause."""
    sounds = [padded(tone(2.4, level=level), 9000, 20000) for level in (0.5, 0.05)]
    audio, _ = book(clock, tmp_path, sounds, BookOptions(loudness=None))
    lengths = []
    for sound in sounds:
        start, end = speech_bounds(np.pad(sound, (0, -len(sound) % 3840)), RATE)
        assert 9000 - LEAD - 240 <= start <= 9000 - LEAD
        assert 9000 + 57600 + TAIL <= end <= 9000 + 57600 + TAIL + 240
        lengths.append(end - start)
    assert len(audio) == sum(lengths) + 2 * PAUSE
    assert not audio[lengths[0] : lengths[0] + PAUSE].any(), "a pause is silent, and exactly as long"
    assert audio[lengths[0] - TAIL // 2 : lengths[0] - 200].any()


def test_bounds_of_silence_and_of_nothing():
    assert speech_bounds(np.zeros(1000, np.float32), RATE) == (0, 1000)
    assert speech_bounds(np.zeros(0, np.float32), RATE) == (0, 0)
    assert speech_bounds(np.ones(100, np.float32), RATE) == (0, 100)


def test_sound_that_is_40_db_softer_is_not_speech():
    for decibels, start in ((-39, 0), (-41, 2400 - LEAD)):
        softer = np.full(2400, 0.5 * 10 ** (decibels / 20), np.float32)
        audio = np.concatenate([softer, np.full(2400, 0.5, np.float32), np.zeros(4800, np.float32)])
        assert speech_bounds(audio, RATE) == (start, 4800 + TAIL)


def test_ends_are_faded_over_5_ms():
    faded = fade_ends(np.ones(1000, np.float32), RATE)
    assert faded[0] == faded[-1] == 0
    assert faded[60] == faded[-61] == pytest.approx(0.5)
    assert (faded < 1).sum() == 2 * 120


def largest_step(audio) -> float:
    return float(np.abs(np.diff(audio)).max())


def test_no_click_at_joins(clock, tmp_path):
    """A segment that ends inside a loud sound is faded: no step is larger than those of the sound itself."""
    sounds = [tone(3.2, level=0.5, frequency=330 + i)[50 + i :][: 18 * 3840] for i in range(4)]
    own = max(largest_step(sound) for sound in sounds)
    assert max(abs(sound[end]) for sound in sounds for end in (0, -1)) > 2 * own, "unfaded, a join would click"
    audio, _ = book(clock, tmp_path, sounds, BookOptions(loudness=None))
    assert len(audio) == 4 * (18 * 3840 + PAUSE), "nothing was trimmed"
    assert largest_step(audio) <= 1.05 * own
    assert audio[0] == audio[18 * 3840 - 1] == 0
    assert len(fade_ends(sounds[0][:1], RATE)) == 1


def test_loudness_is_even_and_peaks_are_below_full_scale(clock, tmp_path):
    """Loud and soft segments, with single peaks that would clip."""
    rng = np.random.RandomState(1)
    sounds = []
    for level in (0.6, 0.05, 0.1, 0.3):
        sound = tone(3.2, level=level) * (0.6 + 0.4 * np.sin(np.arange(76800) / 3000)).astype(np.float32)
        sound[rng.randint(1000, 70000, 3)] = min(0.99, 6 * level)
        sounds.append(sound)
    audio, renderer = book(clock, tmp_path, sounds)
    parts = np.split(audio, np.cumsum([renderer.takes[p.key].end - renderer.takes[p.key].start + PAUSE
                                       for p in renderer.parts])[:-1])  # fmt: skip
    measured = [integrated_loudness(part[:-PAUSE], RATE) for part in parts]
    np.testing.assert_allclose(measured, -18, atol=0.7)
    assert np.abs(audio).max() <= 10 ** (-1 / 20) + 1e-4
    before = [renderer.takes[part.key].loudness for part in renderer.parts]
    assert max(before) - min(before) > 15


def take(key: str, seconds: float, loudness: float | None) -> Take:
    return Take(key, "", 0, 1, 1, 100000, 0, round(seconds * RATE), loudness)


def test_short_segments_take_the_gain_of_their_voice():
    takes = [("a", take("1", 3, -20)), ("a", take("2", 4, -24)), ("a", take("3", 5, -25)), ("b", take("4", 3, -10))]
    gains = Gains(takes, RATE, -18)
    assert gains.factor("a", take("5", 0.3, None)) == pytest.approx(10 ** (6 / 20))
    assert gains.factor("a", take("6", 1.0, -30)) == pytest.approx(10 ** (6 / 20)), "of the median, -24"
    assert gains.factor("a", takes[0][1]) == pytest.approx(10 ** (2 / 20))
    assert gains.factor("a", take("10", 1.99, -30)) == pytest.approx(10 ** (6 / 20))
    assert gains.factor("a", take("11", 2.0, -30)) == pytest.approx(10 ** (12 / 20)), "long enough to be measured"
    assert Gains([("a", take("1", 1.99, -20))], RATE, -18).factor("a", take("2", 0.3, None)) == 1
    assert gains.factor("b", take("7", 1.0, -30)) == pytest.approx(10 ** (-8 / 20))
    assert gains.factor("c", take("8", 1.0, -20)) == pytest.approx(10 ** (2 / 20)), "no long one: its own"
    assert gains.factor("c", take("9", 0.2, None)) == 1
    assert Gains(takes, RATE, None).factor("a", takes[0][1]) == 1


@pytest.mark.parametrize("speed", [0.8, 1.37])
def test_speed_and_the_times_of_subtitles(clock, tmp_path, speed):
    """Speech gets shorter, pauses do not; subtitles name the samples of the file."""
    sounds = [tone(2.0 + 0.3 * i) for i in range(3)]
    audio, renderer = book(clock, tmp_path, sounds, BookOptions(speed=speed))
    lengths = [renderer.takes[part.key].end - renderer.takes[part.key].start for part in renderer.parts]
    stretched = [round(length / speed) for length in lengths]
    assert len(audio) == sum(stretched) + 3 * PAUSE
    cues = json.loads((tmp_path / "b.json").read_text())["cues"]
    starts = np.cumsum([0, *(length + PAUSE for length in stretched)])
    assert [cue["start_sample"] for cue in cues] == list(starts[:-1])
    assert [cue["end_sample"] for cue in cues] == [s + n for s, n in zip(starts, stretched, strict=False)]
    for cue in cues:
        assert not audio[cue["end_sample"] : cue["end_sample"] + PAUSE].any()
        assert np.abs(audio[cue["end_sample"] - 4000 : cue["end_sample"]]).max() > 0.01
