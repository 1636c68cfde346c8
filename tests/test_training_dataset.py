"""Training data: every format of it, which clips are left out and why, the cache of codes, voices, and the split."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from mlx_qwen3_tts import Qwen3TTS, TrainingError
from mlx_qwen3_tts.codec.codec import Codec
from mlx_qwen3_tts.training import checks, codes_cache
from mlx_qwen3_tts.training.checks import count_letters, rate_problems, speaking_rate
from mlx_qwen3_tts.training.codes_cache import cache_beside, codec_fingerprint
from mlx_qwen3_tts.training.dataset import Clip, read_clips
from mlx_qwen3_tts.training.prepare import Example, prepare, split
from tests.support import checkpoints, sounds
from tests.support.golden import SHARED

TEXT = "This takes a second."  # 16 letters
SECOND = sounds.speech(1.0)
RECORDINGS = sorted((SHARED / "audio").glob("*.wav"))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Qwen3TTS:
    directory = tmp_path_factory.mktemp("base") / "checkpoint"
    return Qwen3TTS.from_pretrained(checkpoints.write(directory, "equal", "base"))


def write(path: Path, samples: np.ndarray | None = None, rate: int = 24000, subtype: str = "FLOAT") -> Path:
    """Write a clip; by default one second of speech."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, SECOND if samples is None else samples, rate, subtype=subtype)
    return path


def write_jsonl(path: Path, *lines: dict | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def clip(audio: Path, text: str = TEXT, **changes) -> Clip:
    return replace(Clip(audio, text, None, "anna", None, None, "data.jsonl, line 1", audio.name), **changes)


def reason(base: Qwen3TTS, tmp_path: Path, *clips: Clip, **options) -> str | None:
    """Return why the first clip is left out, beside one that is not. The tests share a cache of codes."""
    good = clip(write(tmp_path / "good" / "good.wav"))
    prepared = prepare(base, [*clips, good], Path(base.name).with_name("codes"), **options)
    assert [example.source for example in prepared.examples][-1] == "good.wav"
    reasons = {one.source: one.reason for one in prepared.left_out}
    assert len(prepared.examples) + len(reasons) == len(clips) + 1
    return reasons.get(clips[0].source)


# Sources


def test_jsonl(tmp_path):
    for name in ("a.wav", "deep/b.wav", "ref.wav"):
        write(tmp_path / name)
    source = write_jsonl(
        tmp_path / "data.jsonl",
        "\ufeff" + json.dumps({"audio": "a.wav", "text": " Hello.\u2028You. "}),
        "",
        {
            "audio": str(tmp_path / "deep" / "b.wav"), "text": "Ça va ?", "ref_audio": "ref.wav", "language": "French",
            "speaker": " bob ", "audio_codes": [list(range(16)), [7] * 16], "duration": 1.0,
        },
        {"audio": "deep/b.wav", "text": None, "ref_audio": None, "language": "", "speaker": "", "audio_codes": None},
    )  # fmt: skip
    first, second, third = read_clips(source, "anna")
    assert (first.audio, first.text, first.where) == (tmp_path / "a.wav", "Hello.\u2028You.", f"{source}, line 1")
    assert (first.language, first.speaker, first.ref_audio, first.codes) == (None, "anna", None, None)
    assert first.source == "a.wav"
    assert (second.audio, second.where) == (tmp_path / "deep" / "b.wav", f"{source}, line 3")
    assert (second.language, second.speaker, second.ref_audio) == ("French", "bob", tmp_path / "ref.wav")
    assert second.codes.dtype == np.int32
    assert second.codes.shape == (2, 16)
    assert (third.text, third.language, third.speaker, third.codes) == ("", None, "anna", None)


def test_paths_start_from_the_folder_of_the_file(tmp_path, monkeypatch):
    write(tmp_path / "data" / "a.wav")
    write_jsonl(tmp_path / "data" / "data.jsonl", {"audio": "a.wav", "text": "Hello."})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (Path("data/data.jsonl"), Path("~/data/data.jsonl")):
        assert read_clips(source, "anna")[0].audio.samefile(tmp_path / "data" / "a.wav")


def test_folder(tmp_path):
    for name in ("b.wav", "a.flac", "deep/c.ogg", "d.wav", "e.wav", ".hidden.wav", ".codes/f.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sounds.speech(0.6), 24000)
    (tmp_path / "a.txt").write_text("\ufeffOver two\r\n\r\n lines.\n")
    (tmp_path / "a.lab").write_text("the second choice")
    (tmp_path / "b.lab").write_text("From a label.")
    (tmp_path / "deep" / "c.txt").write_text("Deep.")
    (tmp_path / "e.txt").write_text("")
    (tmp_path / "g.M4A").write_bytes(b"what libsndfile does not read")
    (tmp_path / "readme.txt").write_text("no clip")
    clips = read_clips(tmp_path, "anna")
    assert [(one.source, one.text) for one in clips] == [
        ("a.flac", "Over two lines."), ("b.wav", "From a label."), ("d.wav", ""), ("deep/c.ogg", "Deep."),
        ("e.wav", ""), ("g.M4A", ""),
    ]  # fmt: skip
    assert {(one.speaker, one.audio) for one in clips} == {("anna", tmp_path / o.source) for o in clips}
    assert [one.where for one in clips] == [str(one.audio) for one in clips]


@pytest.mark.parametrize("given", ["", "metadata.csv"])
def test_ljspeech(tmp_path, given):
    for name in ("LJ1", "LJ2", "LJ3"):
        write(tmp_path / "wavs" / f"{name}.wav")
    (tmp_path / "metadata.csv").write_text('LJ1|In 1455.|In "fourteen".\nLJ2|Plain.\n\nLJ3|Only this.|\n')
    clips = read_clips(tmp_path / given, "anna")
    lines = [f"{tmp_path / 'metadata.csv'}, line {number}" for number in (1, 2, 4)]
    assert [(one.source, one.text, one.where) for one in clips] == [
        ("wavs/LJ1.wav", 'In "fourteen".', lines[0]), ("wavs/LJ2.wav", "Plain.", lines[1]),
        ("wavs/LJ3.wav", "Only this.", lines[2]),
    ]  # fmt: skip
    assert all(one.audio.is_file() and one.speaker == "anna" for one in clips)


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"audio": "a.wav", "text": }', r"line 2: not valid JSON \(Expecting value at column 28\)"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ("1" * 10_000, "line 2: not"),
        ('["a.wav"]', "line 2: not an object .* but a list"),
        ('{"text": "Hello."}', "line 2: audio is missing"),
        ('{"audio": " ", "text": "Hello."}', "line 2: audio is missing"),
        ('{"audio": 5, "text": "Hello."}', "line 2: audio is 5; it must be a string"),
        ('{"audio": "a.wav", "text": ["Hello."]}', "line 2: text is .* must be a string"),
        ('{"audio": "a.wav", "text": "Hello.", "language": 1}', "line 2: language is 1"),
        ('{"audio": "a.wav", "text": "Hello.", "ref_audio": {}}', "line 2: ref_audio is {}"),
        ('{"audio": "a.wav", "text": "Hello.", "speaker": 3}', "line 2: speaker is 3"),
        ('{"audio": "a.wav", "text": "Hello.", "speaker": "\\ud800"}', "line 2: speaker .* Unicode"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": []}', "line 2: audio_codes"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": [1, 2]}', "line 2: audio_codes"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": [[1, 2], [3]]}', "line 2: audio_codes"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": [[1.5, 2]]}', "line 2: audio_codes"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": [[-1, 2]]}', "line 2: audio_codes"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": [[99999999999999999999]]}', "line 2: audio_codes"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": [[2147483648]]}', "line 2: audio_codes"),
        ('{"audio": "a.wav", "text": "Hello.", "audio_codes": "codes.npy"}', "line 2: audio_codes"),
        ('{"audio": "no.wav", "text": "Hello."}', r"line 2: .*no\.wav does not exist; relative paths start from"),
        ('{"audio": "a.wav", "text": "Hello.", "ref_audio": "no.wav"}', r"line 2: .*no\.wav does not exist"),
        ('{"audio": "a\\u0000.wav", "text": "Hello."}', "line 2: .* does not exist"),
        ('{"audio": "a.wav", "text": "Hello.", "speaker": "ANNA"}', "line 2: the speakers 'anna' and 'ANNA'"),
    ],
)
def test_invalid_line(tmp_path, line, message):
    write(tmp_path / "a.wav")
    source = write_jsonl(tmp_path / "data.jsonl", {"audio": "a.wav", "text": "Hello."}, line)
    with pytest.raises(TrainingError, match=message) as caught:
        read_clips(source, "anna")
    assert len(str(caught.value).splitlines()) == 1


def test_every_clip_has_a_speaker(tmp_path):
    """A name is needed only if a clip has no speaker of its own."""
    write(tmp_path / "a.wav")
    lines = [{"audio": "a.wav", "text": "Hello.", "speaker": name} for name in ("anna", "ben")]
    source = write_jsonl(tmp_path / "data.jsonl", *lines)
    assert [one.speaker for one in read_clips(source)] == ["anna", "ben"]
    write_jsonl(source, *lines, {"audio": "a.wav", "text": "Hello.", "speaker": " "})
    with pytest.raises(TrainingError, match=r"data\.jsonl, line 3: speaker is missing: .* or name for all") as caught:
        read_clips(source)
    assert caught.value.arguments == ("name",)
    (tmp_path / "metadata.csv").write_text("LJ1|Hello.\n")
    for other in (tmp_path, tmp_path / "metadata.csv"):
        with pytest.raises(TrainingError, match="has no name: give name"):
            read_clips(other)


def test_all_missing_files_are_counted(tmp_path):
    lines = [{"audio": f"{i % 3}.wav", "text": "Hello.", "ref_audio": "ref.wav"} for i in range(6)]
    source = write_jsonl(tmp_path / "data.jsonl", *lines)
    with pytest.raises(TrainingError, match=r"line 1: .*0\.wav does not exist \(and 3 other files\)"):
        read_clips(source, "anna")


def test_invalid_sources(tmp_path):
    def refuse(source: Path, message: str, name: str = "anna"):
        with pytest.raises(TrainingError, match=message):
            read_clips(source, name)

    refuse(tmp_path / "no.jsonl", "does not exist: give a JSONL file, a folder")
    refuse(tmp_path, "has no clips")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    refuse(empty, "has no clips")
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{}\n{"audio": "\xe9.wav"}\n'.replace(b"{}", b""))
    refuse(latin, "line 2: not UTF-8")
    os.mkfifo(tmp_path / "pipe.jsonl")
    refuse(tmp_path / "pipe.jsonl", "not a regular file")
    refuse(tmp_path, "name must be the name of the speaker", name=" ")
    csv = tmp_path / "metadata.csv"
    for text in ("LJ1|a|b\nLJ2\n", "LJ1|a|b\n|a|b\n", "LJ1|a|b\nLJ2|a|b|c\n"):
        csv.write_text(text)
        refuse(csv, r"line 2: not of the form ID\|text")
    csv.write_text("LJ1|a|b\n")
    refuse(csv, r"line 1: .*wavs/LJ1\.wav does not exist")


# Clips that are left out, each with one just inside the limit


def test_too_long(base, tmp_path):
    exact, longer = write(tmp_path / "exact.wav"), write(tmp_path / "longer.wav", sounds.speech(1.001))
    assert reason(base, tmp_path, clip(exact), max_seconds=1.0) is None
    assert reason(base, tmp_path, clip(longer), max_seconds=1.0).startswith("too long: more than 1 s")
    for rate in (11025, 22050, 44100, 48000):  # resampling rounds the length up
        exact = write(tmp_path / f"{rate}.wav", sounds.noise(1.0, rate), rate)
        assert reason(base, tmp_path, clip(exact), max_seconds=1.0) is None


def test_too_short(base, tmp_path):
    exact, shorter = write(tmp_path / "0.wav", sounds.speech(0.5)), write(tmp_path / "1.wav", sounds.speech(0.499))
    assert reason(base, tmp_path, clip(exact, "Yes.")) is None
    assert reason(base, tmp_path, clip(shorter, "Yes.")) == "too short: 0.50 s, at least 0.5 s are needed"


def test_silent(base, tmp_path):
    speech = SECOND / np.abs(SECOND).max()
    quiet = write(tmp_path / "quiet.wav", 1.01 * checks.MIN_PEAK * speech)
    silent = write(tmp_path / "silent.wav", 0.99 * checks.MIN_PEAK * speech)
    assert reason(base, tmp_path, clip(quiet)) is None
    assert reason(base, tmp_path, clip(silent)).startswith("silent: ")
    assert reason(base, tmp_path, clip(write(tmp_path / "zeros.wav", np.zeros(24000)))).startswith("silent: ")


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_24"])
def test_clipped(base, tmp_path, subtype):
    def with_clipped(count: int) -> Clip:
        samples = SECOND.copy()
        samples[1000 : 1000 + count] = np.where(np.arange(count) % 2, -1, 1)
        return clip(write(tmp_path / f"{count}.wav", samples, subtype=subtype))

    assert reason(base, tmp_path, with_clipped(24)) is None
    assert reason(base, tmp_path, with_clipped(25)) == "clipped: 0.1% of the samples are at full scale"
    beyond = clip(write(tmp_path / "beyond.wav", np.clip(30 * SECOND, -1, 1), subtype=subtype))
    assert reason(base, tmp_path, beyond).startswith("clipped: ")


def test_no_text(base, tmp_path):
    audio = write(tmp_path / "a.wav")
    assert reason(base, tmp_path, clip(audio, "")) == "no text"
    assert reason(base, tmp_path, clip(audio, " \n")) == "no text"
    assert reason(base, tmp_path, clip(audio, "... – !")).startswith("no text that can be spoken")
    assert reason(base, tmp_path, clip(audio, "Hello \ud800")) == "the text is not valid Unicode"
    for text in ("Hm.", "Привет", "はい", "42"):
        assert reason(base, tmp_path, clip(audio, text)) is None


def test_text_that_no_speech_fits(base, tmp_path):
    audio, long = write(tmp_path / "a.wav"), write(tmp_path / "long.wav", np.tile(SECOND, 4))
    assert reason(base, tmp_path, clip(audio, "a" * 32)) is None  # and 8 for silence: 40 letters a second
    assert reason(base, tmp_path, clip(audio, "a" * 33)) == (
        "the text does not fit: it is too long for the clip (41 letters a second)"
    )
    assert reason(base, tmp_path, clip(long, "a b.c d")) is None  # 12 in 4 s
    assert reason(base, tmp_path, clip(long, "a b.c")) == (
        "the text does not fit: it is too short for the clip (2.8 letters a second)"
    )


def test_text_unlike_the_speakers_others(base, tmp_path):
    """Eight clips of a speaker have a median; each speaker has one of their own."""
    audio = write(tmp_path / "a.wav")
    shared = clip(audio, "a" * 6, ref_audio=audio)  # so that one embedding serves all
    others = [replace(shared, source=f"{i}") for i in range(6)]  # 14 letters a second
    slow = [replace(shared, text="a", speaker="bob", source=f"bob {i}") for i in range(8)]  # 9
    assert reason(base, tmp_path, clip(audio, "a" * 27), *others, *slow) is None  # 35
    assert reason(base, tmp_path, clip(audio, "a" * 28), *others, *slow) == (
        "the text does not fit: 36.0 letters a second; this speaker's median is 14.0"
    )
    assert reason(base, tmp_path, clip(audio, "a" * 28), *others[:5]) is None, "too few for a median"


def test_few_wrong_texts_do_not_move_the_median():
    rates = [14.0] * 10 + [40.0] * 4 + [3.0] * 4
    assert [problem is None for problem in rate_problems(rates)] == [True] * 10 + [False] * 8
    assert rate_problems([]) == []


def test_writing_systems_have_about_the_same_rate():
    """Four sentences of some four seconds each, one of them a number."""
    texts = [
        "The weather is very nice today, so we are going for a walk.", "今天天气非常好，所以我们要出去散步走一走。",
        "今日はとても天気がいいので、散歩に行きます。", "오늘은 날씨가 정말 좋아서 산책하러 나갑니다.",
        "192 837 465 019",
    ]  # fmt: skip
    rates = [speaking_rate(text, 4.0) for text in texts]
    assert max(rates) / min(rates) < 1.3
    assert count_letters("Ab1 - 字ｱ") == 2 + 4 + 3 + 1


def test_unreadable(base, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("no audio")
    assert reason(base, tmp_path, clip(text)).startswith("cannot be read as audio")
    (tmp_path / "folder.wav").mkdir()
    assert reason(base, tmp_path, clip(tmp_path / "folder.wav")) == "is a directory, not an audio file"
    assert reason(base, tmp_path, clip(write(tmp_path / "empty.wav", np.zeros(0)))) == "has no samples"
    bad = SECOND.copy()
    bad[5] = np.nan
    assert "not finite" in reason(base, tmp_path, clip(write(tmp_path / "nan.wav", bad)))
    assert reason(base, tmp_path, clip(tmp_path / "gone.wav")) == "does not exist"


def test_failing_disks(base, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(5, "Input/output error")

    source = write_jsonl(tmp_path / "data.jsonl", {"audio": "a.wav", "text": "Hello."})
    clips = [clip(write(tmp_path / "a.wav"))]
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(TrainingError, match=r"cannot read .*data\.jsonl: Input/output error"):
        read_clips(source, "anna")
    # libsndfile has read the clip by then; what fails is the second reading, for the key of its codes.
    with pytest.raises(TrainingError, match=r"a\.wav: cannot be read: Input/output error"):
        prepare(base, clips, tmp_path / "cache")


def test_unusable_reference(base, tmp_path):
    audio, text = write(tmp_path / "a.wav"), tmp_path / "ref.wav"
    text.write_text("no audio")
    short, enough = write(tmp_path / "0.wav", sounds.speech(0.09)), write(tmp_path / "1.wav", sounds.speech(0.1))
    assert reason(base, tmp_path, clip(audio, ref_audio=text)).startswith("ref_audio: ")
    assert "0.1 s are needed" in reason(base, tmp_path, clip(audio, ref_audio=short))
    assert reason(base, tmp_path, clip(audio, ref_audio=enough)) is None


def test_given_codes(base, tmp_path):
    audio = write(tmp_path / "a.wav", sounds.speech(1.6))  # 20 frames
    codes = np.arange(22 * 16, dtype=np.int32).reshape(22, 16) % 256
    prepared = prepare(base, [clip(audio, codes=codes)])
    np.testing.assert_array_equal(prepared.examples[0].codes, codes)
    for count in (17, 23):
        problem = reason(base, tmp_path, clip(audio, codes=np.zeros((count, 16), np.int32)))
        assert problem == f"audio_codes do not fit: they have {count} frames, the audio 20"
    num_codes = base.config.talker_config.num_codes
    for wrong in (np.zeros((20, 15), np.int32), np.full((20, 16), num_codes, np.int32)):
        message = rf"data\.jsonl, line 1: audio_codes .* 16 codebooks of {num_codes} codes"
        with pytest.raises(TrainingError, match=message):
            prepare(base, [clip(audio, codes=wrong)])


def test_nothing_is_usable(base, tmp_path):
    clips = [clip(write(tmp_path / "a.wav"), "")] * 2
    with pytest.raises(TrainingError, match=r"none of the 2 clips can be used; a\.wav: no text"):
        prepare(base, clips)
    with pytest.raises(TrainingError, match="none of the 0 clips"):
        prepare(base, [])


@pytest.mark.parametrize("value", [0.4, -1, float("inf"), float("nan"), "30", True, None])
def test_invalid_limit(base, value):
    with pytest.raises(TrainingError, match="max_seconds must be") as caught:
        prepare(base, [], max_seconds=value)
    assert caught.value.arguments == ("max_seconds",)


@pytest.mark.parametrize("kind, name", [("custom_voice", "CustomVoice"), ("voice_design", "VoiceDesign")])
def test_only_base_models_are_tuned(tmp_path, kind, name):
    tts = Qwen3TTS.from_pretrained(checkpoints.write(tmp_path / "checkpoint", "equal", kind))
    with pytest.raises(TrainingError, match=f"a {name} model cannot be fine-tuned: use a Base model, such as Qwen/"):
        prepare(tts, [clip(write(tmp_path / "a.wav"))])


# Examples


def test_examples(base, tmp_path):
    """Any rate and number of channels; codes and embedding are those that cloning makes."""
    stereo = np.stack([sounds.speech(1.3, 44100), sounds.speech(1.3, 44100) / 2], axis=1)
    audio = write(tmp_path / "a.wav", stereo, 44100, "PCM_16")
    first, second = clip(audio, language="English"), clip(write(tmp_path / "b.wav"), language="AUTO")
    calls = []
    prepared = prepare(base, [first, second], progress=lambda *call: calls.append(call))
    example = prepared.examples[0]
    made = base.clone_voice(audio, TEXT)
    np.testing.assert_array_equal(example.codes, made.ref_codes)
    assert example.codes.dtype == np.int32
    assert example.seconds == pytest.approx(1.3)
    assert (example.text, example.language, example.speaker, example.source) == (TEXT, "english", "anna", "a.wav")
    assert prepared.examples[1].language == "auto"
    assert prepared.left_out == []
    assert calls == [(1, 2), (2, 2)]
    expected = (made.speaker_embedding + base.clone_voice(second.audio).speaker_embedding) / 2
    np.testing.assert_allclose(prepared.voices["anna"], expected, rtol=1e-6)


def test_unknown_language(base, tmp_path):
    with pytest.raises(TrainingError, match=r"^data\.jsonl, line 1: unknown language 'klingon'; this model has: auto"):
        prepare(base, [clip(write(tmp_path / "a.wav"), language="klingon")])


def test_voices_of_several_speakers(base, tmp_path, spy):
    """The mean of the clips that are used, from the reference where there is one, which is read once."""
    paths = [write(tmp_path / f"{i}.wav", part) for i, part in enumerate(np.split(sounds.speech(2.8), 4))]
    reference = write(tmp_path / "ref.wav", sounds.chirp(1.0))
    calls = spy(base, "clone_voice")
    clips = [
        clip(paths[0]), clip(paths[1], speaker="bob"), clip(paths[2], ref_audio=reference),
        clip(paths[3], speaker="cleo", ref_audio=reference), clip(paths[1], ""), clip(paths[0], "", speaker="dan"),
    ]  # fmt: skip
    prepared = prepare(base, clips)
    assert len(calls) == 3
    embeddings = [base.clone_voice(path).speaker_embedding for path in (*paths, reference)]
    assert list(prepared.voices) == ["anna", "bob", "cleo"]
    np.testing.assert_allclose(prepared.voices["anna"], (embeddings[0] + embeddings[4]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(prepared.voices["bob"], embeddings[1])
    np.testing.assert_array_equal(prepared.voices["cleo"], embeddings[4])
    assert all(voice.dtype == np.float32 and voice.shape == (32,) for voice in prepared.voices.values())


@pytest.mark.skipif(not RECORDINGS, reason="no recordings in ../shared/audio")
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_speech_is_used(base, tmp_path, path):
    """Five-second pieces, half a second of silence at both ends, of a text as long as narrators read in it."""
    samples, rate = soundfile.read(path, dtype="float32")
    quiet = np.zeros(rate // 2, np.float32)
    clips = []
    for i in range(2):
        piece = np.concatenate([quiet, samples[5 * rate * i : 5 * rate * (i + 1)], quiet])
        clips.append(clip(write(tmp_path / f"{i}.wav", piece, rate), "As many letters as narrators read. " * 2))
    prepared = prepare(base, clips)
    assert prepared.left_out == []
    assert [len(example.codes) for example in prepared.examples] == [75, 75]


# The cache of codes


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """The lengths of the clips that a codec has encoded."""
    lengths: list[int] = []
    encode = Codec.encode

    def noted(self, audio, sample_rate):
        lengths.append(len(audio))
        return encode(self, audio, sample_rate)

    monkeypatch.setattr(Codec, "encode", noted)
    return lengths


def clips_of_lengths(tmp_path: Path, *lengths: float) -> list[Clip]:
    return [clip(write(tmp_path / f"{i}.wav", sounds.speech(length))) for i, length in enumerate(lengths)]


def test_codes_are_made_once(base, tmp_path, encoded):
    clips = clips_of_lengths(tmp_path, 0.7, 0.8)
    cache = cache_beside(tmp_path)
    assert cache == cache_beside(tmp_path / "0.wav") == tmp_path / ".codes"
    first = prepare(base, clips, cache)
    assert encoded == [16800, 19200]
    assert len(list(cache.iterdir())) == 2
    second = prepare(base, clips, cache)
    assert encoded == [16800, 19200]
    for one, other in zip(first.examples, second.examples, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(first.voices["anna"], second.voices["anna"])
    assert len(read_clips(tmp_path, "anna")) == 2, "the cache is not data"


def test_without_a_cache_nothing_is_written(base, tmp_path, encoded):
    clips = clips_of_lengths(tmp_path, 0.7)
    for _ in range(2):
        prepare(base, clips)
    assert encoded == [16800, 16800]
    assert [path.name for path in tmp_path.iterdir()] == ["0.wav"]


def test_an_interrupted_run_goes_on(base, tmp_path, encoded):
    clips = clips_of_lengths(tmp_path, 0.7, 0.8, 0.9)

    def interrupt(count: int, total: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(base, clips, tmp_path / "cache", progress=interrupt)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    prepared = prepare(base, clips, tmp_path / "cache")
    assert encoded == [16800, 19200, 21600]
    expected = prepare(base, clips)
    for one, other in zip(prepared.examples, expected.examples, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)


def test_a_changed_clip_is_encoded_again(base, tmp_path, encoded):
    clips = clips_of_lengths(tmp_path, 0.7, 0.8)
    before = prepare(base, clips, tmp_path / "cache").examples
    write(clips[0].audio, sounds.noise(0.7))
    clips[1].audio.rename(tmp_path / "renamed.wav")
    after = prepare(base, [clips[0], clip(tmp_path / "renamed.wav")], tmp_path / "cache").examples
    assert encoded == [16800, 19200, 16800], "another name is not another clip"
    assert (before[0].codes != after[0].codes).any()
    np.testing.assert_array_equal(before[1].codes, after[1].codes)


@pytest.mark.parametrize("shape, seed", [("projected", checkpoints.GOLDEN_SEED), ("equal", 3)])
def test_another_codec_encodes_again(base, tmp_path, encoded, shape, seed):
    """A codec of another configuration, and one with other weights."""
    clips = clips_of_lengths(tmp_path, 0.7)
    other = Qwen3TTS.from_pretrained(checkpoints.write(tmp_path / "checkpoint", shape, "base", seed))
    for model in (base, other, base, other):
        examples = prepare(model, clips, tmp_path / "cache").examples
        np.testing.assert_array_equal(examples[0].codes, model.clone_voice(clips[0].audio, TEXT).ref_codes)
    assert encoded == [16800] * (2 + 4), "two for the cache, and four for the comparison"


def test_a_model_loaded_again_has_the_same_codec(base, tmp_path):
    other = Qwen3TTS.from_pretrained(checkpoints.write(tmp_path / "checkpoint", "equal", "base"))
    first, second = (tts.engine.worker.run(codec_fingerprint, tts.codec) for tts in (base, other))
    assert first == second


def test_damaged_codes_are_made_again(base, tmp_path, encoded):
    clips = clips_of_lengths(tmp_path, 0.7)
    expected = prepare(base, clips, tmp_path / "cache").examples[0].codes
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    wrong = [
        b"", whole[:50], whole[:-1], codes_cache.save({"other": expected}), codes_cache.save({"codes": expected[1:]}),
        codes_cache.save({"codes": expected.astype(np.int64)}), codes_cache.save({"codes": expected + 2048}),
    ]  # fmt: skip
    for data in wrong:
        path.write_bytes(data)
        np.testing.assert_array_equal(prepare(base, clips, tmp_path / "cache").examples[0].codes, expected)
        np.testing.assert_array_equal(load_file(path)["codes"], expected)
    assert len(encoded) == 1 + len(wrong)


def test_codes_that_cannot_be_written(base, tmp_path, monkeypatch):
    clips = clips_of_lengths(tmp_path, 0.7)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"cannot write the codes to .*file \(File exists\)") as caught:
        prepare(base, clips, tmp_path / "file")
    assert caught.value.arguments == ("cache",)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(codes_cache, "write_file", full)
    with pytest.raises(TrainingError, match=r"\(No space left on device\): free some space"):
        prepare(base, clips, tmp_path / "cache")


# The split


def examples_of(count: int) -> list[Example]:
    return [Example(TEXT, None, "anna", np.zeros((1, 16), np.int32), 1.0, f"{i}.wav") for i in range(count)]


@pytest.mark.parametrize("count, held", [(0, 0), (9, 0), (10, 1), (29, 1), (30, 2), (100, 5)])
def test_size_of_the_split(count, held):
    examples = examples_of(count)
    train, held_out = split(examples)
    assert len(held_out) == held
    assert [one for one in examples if one in train] == train
    assert [one for one in examples if one in held_out] == held_out
    assert len(train) + len(held_out) == count


def test_split_depends_on_names_and_seed_alone():
    examples = examples_of(40)
    held_out = {one.source for one in split(examples, 0.1)[1]}
    assert {one.source for one in split(examples[::-1], 0.1)[1]} == held_out
    assert {one.source for one in split(examples, 0.1, seed=1)[1]} != held_out
    assert {one.source for one in split(examples, 0.2)[1]} > held_out
    assert split(examples, 0)[1] == []
    assert sorted(held_out) == ["11.wav", "20.wav", "24.wav", "31.wav"], (
        "it is the same in every process and on every machine"
    )


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan"), "0.1", True])
def test_invalid_share(share):
    with pytest.raises(TrainingError, match="share must be"):
        split(examples_of(20), share)
