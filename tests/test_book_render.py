"""Books in the making: what is made, with which seeds, what is kept, and what a second run makes."""

import json
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import GenerationError, Qwen3TTS, Request, RequestError, Sampling
from mlx_qwen3_tts.errors import BookError, DocumentError
from mlx_qwen3_tts.files import PartialPath
from mlx_qwen3_tts.generation.runaway import retry_seed
from mlx_qwen3_tts.longform import plan, render as public_render
from mlx_qwen3_tts.longform.distributed import Team, collect
from mlx_qwen3_tts.longform.fingerprint import model_fingerprint
from mlx_qwen3_tts.longform.options import BookOptions
from mlx_qwen3_tts.longform.parts import sound_key
from mlx_qwen3_tts.longform.render import DONE, MISSING, PROVISIONAL, Renderer, folder_beside
from mlx_qwen3_tts.longform.takes import DamagedTake, Take, TakeStore
from tests.support.books import CHAPTERS, Puppet, document_of, plan_of, tone
from tests.support.engine import on_mlx_thread

COUNT = sum(map(len, CHAPTERS))
SHORT = (("One.", "Two."), ("Three.", "Four five."), ("Six.",))
OPTIONS = BookOptions(batch_size=3, seed=1)


@pytest.fixture(scope="module")
def clock() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained("demo")


def plausible(request) -> np.ndarray:
    """The sound of a request: it depends on its text and seed."""
    rng = np.random.RandomState(request.seed % 2**32)
    return tone(0.07 * len(request.text), frequency=100 + rng.randint(200)) + 0.01 * rng.randn(
        round(0.07 * len(request.text) * 24000)
    ).astype(np.float32)


@pytest.fixture
def puppet(clock) -> Puppet:
    return Puppet(clock, plausible)


def render(
    tts, folder, planned=None, options=OPTIONS, name="book.wav", subtitles=None, folder_format=None, **more
) -> Renderer:
    """Render a book into a folder."""
    renderer = Renderer(tts, planned or plan_of(), folder / "book.book", options, **more)
    for _ in renderer.run(folder / name, subtitles, folder_format):
        pass
    return renderer


def texts(puppet) -> list[str]:
    """What was spoken, in any order; forgotten then."""
    found = sorted(request.text for request in puppet.requests)
    puppet.requests.clear()
    return found


def test_a_book(clock, tmp_path):
    """The takes are what the model says for each segment alone; the manifest has all of them."""
    planned = plan_of(SHORT)
    progress = []
    done = public_render(clock, planned, tmp_path / "times.wav", OPTIONS, on_progress=progress.append)
    assert done.target == tmp_path / "times.wav"
    assert (done.segments, done.flaws) == (5, ())
    assert done.seconds == pytest.approx(soundfile.info(done.target).duration)
    manifest = json.loads((tmp_path / "times.book" / "manifest.json").read_text())
    for segment, entry in zip(planned.segments, manifest["segments"], strict=True):
        assert (entry["place"], entry["text"], entry["seed"]) == (segment.place, segment.text, segment.seed)
        if segment.chapter == 2:
            alone = clock.synthesize(segment.text, seed=segment.seed)
            kept, _ = soundfile.read(tmp_path / "times.book" / entry["file"], dtype="float32")
            np.testing.assert_allclose(kept, alone.audio, atol=1 / 20000)
            assert (entry["frames"], entry["samples"]) == (len(alone.codes), len(alone.audio))
        assert entry["voice"] == clock.default_speaker
    stages = [one.stage for one in progress]
    assert stages == sorted(stages)
    assert [one.done for one in progress if one.stage == "speak"][-1] == 5
    assert progress[-1].seconds_left == 0


def test_a_second_run_makes_nothing(puppet, tmp_path):
    render(puppet, tmp_path)
    first = (tmp_path / "book.wav").read_bytes()
    assert len(texts(puppet)) == COUNT
    (tmp_path / "book.wav").unlink()
    render(puppet, tmp_path)
    assert texts(puppet) == []
    assert (tmp_path / "book.wav").read_bytes() == first


def test_an_edit_makes_one_segment(puppet, tmp_path):
    render(puppet, tmp_path)
    texts(puppet)
    edited = [list(chapter) for chapter in CHAPTERS]
    edited[1][0] = "Four five six eight."
    render(puppet, tmp_path, plan_of(edited))
    assert texts(puppet) == ["Four five six eight."]
    render(puppet, tmp_path)
    assert texts(puppet) == [], "the text before is still there"


@pytest.mark.parametrize(
    "change",
    [{"voice": "rms"}, {"language": "english"}, {"sampling": Sampling(temperature=0.5)}],
    ids=["voice", "language", "sampling"],
)
def test_what_shapes_the_sound_makes_all_anew(puppet, tmp_path, change):
    render(puppet, tmp_path)
    texts(puppet)
    render(puppet, tmp_path, options=replace(OPTIONS, **change))
    assert len(texts(puppet)) == COUNT


@pytest.mark.parametrize(
    "change", [{"text": "Two."}, {"instruct": "Calm."}, {"seed": 2}, {"max_frames": 9}, {"non_streaming_mode": True}]
)
def test_what_shapes_the_sound_is_in_the_key(clock, change):
    """Also what the demo cannot do."""

    def key(request):
        engine = clock.engine
        return sound_key(
            request, "model", "voice", request.sampling.resolve(engine.generation_config), engine.tokenizer
        )

    request = Request("One.", seed=1)
    assert key(request) == key(replace(request))
    assert key(request) != key(replace(request, **change))


def test_the_model_shapes_the_sound(puppet, tmp_path):
    """Another model is told by its weights; defaults that are named, and the voice in another case, change nothing."""
    render(puppet, tmp_path)
    texts(puppet)
    same = replace(OPTIONS, voice=puppet.default_speaker.upper(), sampling=Sampling(temperature=0.9), language="auto")
    assert puppet.generation_config.temperature == 0.9
    render(puppet, tmp_path, options=same)
    assert texts(puppet) == []
    other = Puppet(Qwen3TTS.from_pretrained("demo", dtype="bfloat16"), plausible)  # nothing differs but the weights
    render(other, tmp_path)
    assert len(texts(other)) == COUNT


def test_fingerprints_of_models():
    """Equal for the same files, another one for any weight of talker or codec, and for another type."""
    tts = Qwen3TTS.from_pretrained("demo")
    first = model_fingerprint(tts)
    assert len(first) == 32
    assert model_fingerprint(Qwen3TTS.from_pretrained("demo")) == first
    assert model_fingerprint(Qwen3TTS.from_pretrained("demo", dtype="bfloat16")) != first
    found = {first}
    for network, layer, axis in (
        (tts.network, tts.talker.codec_head, 0),
        (tts.network, tts.talker.codec_head, 1),
        (tts.codec.network, tts.codec.network.decoder.quantizer.rvq_first.vq.layers[0].codebook, 0),
    ):
        assert any(layer is module for module in network.modules())
        swapped = mx.array([1, 0, *range(2, layer.weight.shape[axis])])
        layer.weight = on_mlx_thread(tts, partial(mx.take, layer.weight, swapped, axis))
        found.add(model_fingerprint(tts))
    assert len(found) == 4, "two rows or columns that change places are another weight"


def test_settings_of_a_model_are_in_its_fingerprint(clock):
    """Some shape the speech and no weight, such as the base of the positions."""
    talker = replace(clock.config.talker_config, rope_theta=2 * clock.config.talker_config.rope_theta)
    other = Puppet(clock, plausible)
    other.config = replace(clock.config, talker_config=talker)
    assert model_fingerprint(other) != model_fingerprint(clock)


@pytest.mark.parametrize("change", [{"speed": 1.25}, {"loudness": None}, {"batch_size": 1}, {"attempts": 1}])
def test_what_shapes_the_book_alone_makes_nothing(puppet, tmp_path, change):
    render(puppet, tmp_path)
    texts(puppet)
    render(puppet, tmp_path, options=replace(OPTIONS, **change), name="other.flac")
    assert texts(puppet) == []


def test_batches_are_sorted_by_length_in_windows(puppet, tmp_path):
    long = [[f"{'One ' * (number % 5 + 1)}{number}." for number in range(40)]]
    render(puppet, tmp_path, plan_of(long), BookOptions(batch_size=2))
    assert puppet.most == 2
    spoken = [request.text for request in puppet.requests]
    assert set(spoken[:16]) == set(long[0][:16]), "the first window comes first"
    seconds = [len(re.findall("One", text)) for text in spoken]
    assert seconds[:16] == sorted(seconds[:16], reverse=True)


# --- attempts ---


def test_a_failed_segment_is_made_with_other_seeds(clock, tmp_path):
    """Runaways and cut-off speech, silence, and lengths that do not fit the text."""
    planned = plan_of()
    bad = [
        "runaway", "length", np.zeros(24000, np.float32), tone(0.1), tone(20.0), GenerationError("not finite"),
    ]  # fmt: skip
    first = {segment.text: outcome for segment, outcome in zip(planned.segments, bad, strict=False)}
    second = {planned.segments[1].text: tone(0.1)}
    seeds = {segment.text: segment.seed for segment in planned.segments}

    def speak(request):
        if request.seed == seeds[request.text]:
            return first.get(request.text, plausible(request))
        if request.seed == retry_seed(seeds[request.text]):
            return second.get(request.text, plausible(request))
        return plausible(request)

    puppet = Puppet(clock, speak)
    renderer = render(puppet, tmp_path, planned)
    assert renderer.flaws == ()
    attempts = [renderer.takes[part.key].attempts for part in renderer.parts]
    assert attempts == [2, 3, 2, 2, 2, 2, 1]
    assert renderer.takes[renderer.parts[1].key].seed == retry_seed(retry_seed(seeds[planned.segments[1].text]))
    texts(puppet)
    render(puppet, tmp_path, planned)
    assert texts(puppet) == []


def test_the_least_wrong_is_kept_and_listed(clock, tmp_path):
    planned = plan_of([["One two three."]])
    seed = planned.segments[0].seed
    outcomes = {seed: tone(0.1), retry_seed(seed): "runaway", retry_seed(retry_seed(seed)): np.zeros(9600, np.float32)}
    puppet = Puppet(clock, lambda request: outcomes[request.seed])
    renderer = render(puppet, tmp_path, planned)
    take = renderer.takes[renderer.parts[0].key]
    assert (take.seed, take.attempts) == (retry_seed(seed), 3)
    flaw = renderer.flaws[0]
    assert (flaw.place, flaw.text, flaw.problem) == ("1:1", "One two three.", "it ran on after its text, which was cut")
    texts(puppet)
    outcomes[retry_seed(retry_seed(retry_seed(seed)))] = tone(1.0)
    assert render(puppet, tmp_path, planned, replace(OPTIONS, attempts=5)).flaws == (), "more attempts go on"
    assert len(puppet.requests) == 1


def test_a_segment_that_cannot_be_made(clock, tmp_path):
    """The others are made, and no book is written."""

    def speak(request):
        return GenerationError("not finite") if request.text == "Eight nine." else plausible(request)

    puppet = Puppet(clock, speak)
    with pytest.raises(BookError, match=r"segment 3:2 cannot be made: not finite; the others are kept"):
        render(puppet, tmp_path)
    assert not (tmp_path / "book.wav").exists()
    assert len(puppet.requests) == COUNT - 1 + 3
    puppet.requests.clear()
    puppet.speak = plausible
    render(puppet, tmp_path)
    assert texts(puppet) == ["Eight nine."]


# --- once more ---


def test_redo(puppet, tmp_path):
    """One segment gets the seed of the user's choice, and keeps it."""
    render(puppet, tmp_path)
    before, rate = soundfile.read(tmp_path / "book.wav")
    texts(puppet)
    render(puppet, tmp_path, redo=["2:1"], redo_seed=5)
    assert [(request.text, request.seed) for request in puppet.requests] == [("Four five six seven.", 5)]
    texts(puppet)
    after, _ = soundfile.read(tmp_path / "book.wav")
    start = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b) / rate
    assert start > 1, "the first chapter is as before"
    assert render(puppet, tmp_path).takes
    assert texts(puppet) == []
    render(puppet, tmp_path, redo=["2:1"])
    assert [request.seed for request in puppet.requests] == [retry_seed(5)], "without a seed the next one that follows"


def test_a_chosen_seed_is_not_replaced(clock, tmp_path):
    puppet = Puppet(clock, lambda request: "runaway" if request.seed == 5 else plausible(request))
    renderer = render(puppet, tmp_path, redo=["2:1"], redo_seed=5)
    assert [flaw.place for flaw in renderer.flaws] == ["2:1"]
    assert len(puppet.requests) == COUNT


@pytest.mark.parametrize("place", ["4:1", "1:9", "1", "x:y"])
def test_redo_of_an_unknown_place(puppet, tmp_path, place):
    with pytest.raises(DocumentError):
        render(puppet, tmp_path, redo=[place])


# --- what is there ---


def damage(path) -> None:
    """Damage the end of a file's audio, whose header stays whole."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_a_damaged_take_is_made_again(puppet, tmp_path):
    render(puppet, tmp_path)
    whole = (tmp_path / "book.wav").read_bytes()
    texts(puppet)
    takes = sorted((tmp_path / "book.book" / "segments").iterdir())
    takes[0].write_bytes(b"fLaC")
    damage(takes[1])
    shutil.copy(takes[3], takes[2])  # that of another segment
    shutil.copy(takes[3], takes[4])
    render(puppet, tmp_path)
    assert len(texts(puppet)) == 4
    assert (tmp_path / "book.wav").read_bytes() == whole


@pytest.mark.parametrize("samples", [999, 1001])
def test_a_take_of_another_length_is_damaged(tmp_path, samples):
    store = TakeStore(tmp_path, 24000)
    take = Take("a", "One.", 0, 1, 1, samples=samples, start=0, end=999, loudness=None)
    store.write(take, np.zeros(1000, np.float32))
    assert store.read("a") is None
    with pytest.raises(DamagedTake, match="is damaged: delete it"):
        store.audio(take)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged .*: delete it, and give the book's seed again"),
        ("[]", "not that of a book"), ('{"format": "x"}', "not that of a book"),
        ('{"format": "mlx_qwen3_tts.book", "version": 2}', "version 2"),
        ('{"format": "mlx_qwen3_tts.book", "version": 1, "seed": -1, "chosen": {}}', "seeds"),
        ('{"format": "mlx_qwen3_tts.book", "version": 1, "seed": 1, "chosen": {"a": "b"}}', "seeds"),
        ("[" * 5000, "damaged"),
    ],
)  # fmt: skip
def test_a_damaged_manifest(puppet, tmp_path, content, message):
    folder = tmp_path / "book.book"
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    with pytest.raises(BookError, match=message):
        render(puppet, tmp_path)


def test_a_manifest_that_cannot_be_read_is_not_called_damaged(puppet, tmp_path, monkeypatch):
    """Nobody is told to delete it, with the seeds that are in it."""

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", denied)
    with pytest.raises(BookError, match=r"^cannot read .*manifest.json, which has .*: Permission denied$"):
        render(puppet, tmp_path)


def test_a_full_disk_loses_nothing(puppet, tmp_path, monkeypatch):
    """What was made before stays, the error is one line, and the next run makes the rest."""
    put = TakeStore.put
    count = []

    def full(self, key, data):
        count.append(key)
        if len(count) > 3:
            monkeypatch.setattr("pathlib.Path.open", no_space)
        put(self, key, data)

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TakeStore, "put", full)
        with pytest.raises(BookError, match=r"No space left on device; what was made is kept"):
            render(puppet, tmp_path)
        patch.undo()
    monkeypatch.undo()
    assert len(list((tmp_path / "book.book" / "segments").iterdir())) == 3
    assert not (tmp_path / "book.wav").exists()
    texts(puppet)
    render(puppet, tmp_path)
    assert len(texts(puppet)) == COUNT - 3


@pytest.mark.parametrize("name", ["book.wav", "book.srt"])
def test_a_full_disk_at_the_end_says_what_is_kept(puppet, tmp_path, monkeypatch, name):
    """The book or its subtitles cannot be written any more; the segments can be used by the next run."""
    with monkeypatch.context() as patch:
        commit = PartialPath.commit

        def full(self, *_):
            if self.target.name == name:
                raise OSError(28, "No space left on device")
            commit(self)

        patch.setattr(PartialPath, "commit", full)
        with pytest.raises(BookError) as raised:
            render(puppet, tmp_path, subtitles="srt")
    folder = tmp_path / "book.book"
    assert str(raised.value) == (
        f"cannot write {tmp_path / name}: No space left on device; the segments are kept in {folder}: run the same "
        "again to go on"
    )
    texts(puppet)
    render(puppet, tmp_path, subtitles="srt")
    assert texts(puppet) == []


def test_leftovers_of_a_killed_process_are_removed(puppet, tmp_path):
    render(puppet, tmp_path)
    left = tmp_path / "book.book" / "segments" / ".abc.flac.1234abcd.part"
    left.write_bytes(b"x")
    beside = tmp_path / ".book.wav.1234abcd.part"
    beside.write_bytes(b"x")
    render(puppet, tmp_path)
    assert not left.exists()
    assert not beside.exists()


def test_an_interrupted_launch_counts_what_others_made(puppet, tmp_path):
    """In a shared folder the first process finds the others' segments, also if it does not come to collect them."""
    renderer = Renderer(puppet, plan_of(), tmp_path / "book.book", OPTIONS)
    renderer.team.size = 2
    renderer.team.gather = lambda row: np.stack([row, np.zeros_like(row)])
    render(puppet, tmp_path)  # the other process
    work = renderer.make()
    next(work)
    work.close()
    assert renderer.missing == []
    entries = json.loads((tmp_path / "book.book" / "manifest.json").read_text())["segments"]
    assert all(entry["made"] for entry in entries)


def test_once_more_takes_a_seed_that_was_not_tried(clock, tmp_path):
    """A segment that failed three times had three seeds."""
    planned = plan_of([["One two three."]])
    puppet = Puppet(clock, lambda request: tone(0.05))
    for redo in ((), ["1:1"]):
        renderer = Renderer(puppet, planned, tmp_path / "b.book", replace(OPTIONS, attempts=3), redo=redo)
        for _ in renderer.make():
            pass
    seeds = [request.seed for request in puppet.requests]
    assert len(seeds) == len(set(seeds)) == 4


# --- voices and models ---


def test_a_designed_voice_is_refused(puppet, tmp_path):
    puppet.model_type = "voice_design"
    with pytest.raises(BookError, match=r"another speaker: .*design .*--save-as NAME`, and .* voice NAME"):
        render(puppet, tmp_path)


def test_an_unknown_voice_is_reported_before_the_work(puppet, tmp_path):
    with pytest.raises(RequestError, match=r"segment 1:1: unknown voice 'nobody'"):
        render(puppet, tmp_path, plan_of(voice="nobody"))
    with pytest.raises(RequestError, match="unknown voice 'nobody'; this model has"):
        render(puppet, tmp_path, options=BookOptions(voice="nobody"))
    assert puppet.requests == []


def test_voices_of_the_script(puppet, tmp_path):
    render(puppet, tmp_path, plan_of(voice="narrator"), voices={"narrator": "rms"})
    assert {request.voice for request in puppet.requests} == {"rms"}


def test_cloned_voices_are_identified_by_their_bytes(demo_base, tmp_path):
    from tests.support import sounds

    puppet = Puppet(demo_base, plausible)
    voice = demo_base.clone_voice(sounds.SOUNDS["speech"], "hello this voice")
    options = replace(OPTIONS, voice=voice)
    render(puppet, tmp_path, options=options)
    texts(puppet)
    named = replace(voice, provenance={"clip": "another name"})
    render(puppet, tmp_path, options=replace(OPTIONS, voice=named))
    assert texts(puppet) == []
    other = replace(voice, ref_codes=voice.ref_codes[:-1])
    render(puppet, tmp_path, options=replace(OPTIONS, voice=other))
    assert len(texts(puppet)) == COUNT


def test_folders():
    assert str(folder_beside("a/novel.m4b")) == "a/novel.book"
    assert str(folder_beside("a/novel")) == "a/novel.book"
    assert str(folder_beside("a/vol.1", "mp3")) == "a/vol.1.book"


def test_a_document_is_planned(clock, tmp_path):
    """Chapters are chosen, subtitles are beside the book, and each stage can be used alone."""
    puppet = Puppet(clock, plausible)
    done = public_render(puppet, document_of(), tmp_path / "a.flac", chapters=[2], subtitles="srt")
    planned = plan(document_of(), BookOptions(), [2])
    assert done.segments == len(planned.segments)
    assert sorted(texts(puppet)) == sorted(segment.text for segment in planned.segments)
    assert (tmp_path / "a.srt").read_text().startswith("1\n00:00:00,000 --> ")
    renderer = Renderer(puppet, planned, tmp_path / "b.book")
    for _ in renderer.make():
        pass
    for _ in renderer.assemble(tmp_path / "b.flac"):
        pass
    assert (tmp_path / "b.flac").read_bytes() == (tmp_path / "a.flac").read_bytes()


def test_an_unfinished_book_is_not_assembled(puppet, tmp_path):
    with pytest.raises(BookError, match=r"segment 1:1 is not made yet \(7 of 7 are missing\)"):
        next(Renderer(puppet, plan_of(), tmp_path / "b.book").assemble(tmp_path / "b.wav"))


def test_a_folder_of_chapters(puppet, tmp_path):
    """Each chapter has a file and its own subtitles, whose times begin with it."""
    render(puppet, tmp_path, name="book", subtitles="json", folder_format="flac")
    files = sorted(path.name for path in (tmp_path / "book").iterdir())
    assert files == [f"0{number} Part {number}.{suffix}" for number in (1, 2, 3) for suffix in ("flac", "json")]
    for number in (1, 2, 3):
        cues = json.loads((tmp_path / "book" / f"0{number} Part {number}.json").read_text())["cues"]
        assert [cue["text"] for cue in cues] == list(CHAPTERS[number - 1])
        assert cues[0]["start_sample"] == (0 if number == 1 else 24000), "the pause before"
        assert cues[-1]["end_sample"] + 6000 == soundfile.info(tmp_path / "book" / files[2 * number - 2]).frames


def test_a_chapter_alone_replaces_its_file(puppet, tmp_path):
    """It has the number that it has in the whole book."""
    import mutagen

    public_render(puppet, document_of(), tmp_path / "book", OPTIONS, folder_format="flac")
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "book").iterdir()}
    public_render(puppet, document_of(), tmp_path / "book", OPTIONS, chapters=[1], folder_format="flac")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "book").iterdir()}
    assert set(after) == set(files)
    assert [name for name in files if files[name] != after[name]] == ["02 Part 2.flac"]
    assert mutagen.File(tmp_path / "book" / "02 Part 2.flac")["tracknumber"] == ["2/3"]


def test_one_process_at_a_time_writes_a_book(puppet, tmp_path, monkeypatch):
    """Another one would remove the half-written files of the first as those of a killed process."""
    renderer = Renderer(puppet, plan_of(), tmp_path / "book.book", OPTIONS)
    first = renderer.run(tmp_path / "book.wav")
    next(first)
    half = tmp_path / "book.book" / "segments" / ".abc.flac.1234abcd.part"
    half.touch()
    with pytest.raises(BookError, match=r"another process writes to .*book.book: wait for its end, or stop it"):
        render(puppet, tmp_path)
    assert half.exists()
    for _ in first:
        pass
    render(puppet, tmp_path)
    assert not half.exists()

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert render(puppet, tmp_path).flaws == (), "on a file system without locks"


# --- files and other processes ---


def test_a_take_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A power failure then leaves the whole file, or none."""
    synced = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append(os.fstat(number).st_size))
    TakeStore(tmp_path, 24000).put("abc", bytes(100))
    assert synced == [100]


def test_wrong_outputs_are_refused_before_anything_is_spoken(puppet, tmp_path):
    for name, options in (("a.wav", {"subtitles": "txt"}), ("no folder/a.wav", {})):
        with pytest.raises(BookError):
            public_render(puppet, plan_of(), tmp_path / name, OPTIONS, **options)
    assert puppet.requests == []
    assert list(tmp_path.iterdir()) == []


def test_times_in_one_file_begin_with_the_book(puppet, tmp_path):
    renderer = render(puppet, tmp_path, name="book.wav", subtitles="json")
    cues = json.loads((tmp_path / "book.json").read_text())["cues"]
    assert cues[0]["start_sample"] == 0
    assert cues[-1]["end_sample"] + 6000 == soundfile.info(tmp_path / "book.wav").frames
    assert len(cues) == len(renderer.parts)


class Launch:
    """Threads that are the members of a launch; `worker` of each stands in for the MLX thread."""

    def __init__(self, size: int, monkeypatch) -> None:
        self._here = threading.local()
        self._rows = [None] * size
        self._barrier = threading.Barrier(size, timeout=10)
        self._group = SimpleNamespace(rank=lambda: self._here.rank, size=lambda: size)
        monkeypatch.setattr(mx.distributed, "init", lambda: self._group)
        monkeypatch.setattr(mx.distributed, "all_gather", lambda row, group: np.concatenate(self._exchange(row)))
        monkeypatch.setattr(mx.distributed, "all_sum", lambda row, group: np.sum(self._exchange(row), 0, np.uint8))
        monkeypatch.setattr(mx, "array", np.array)

    def _exchange(self, row):
        self._rows[self._here.rank] = row
        self._barrier.wait()
        rows = list(self._rows)
        self._barrier.wait()
        return rows

    def run(self, work) -> list:
        """Return what each member's work gives; it gets the member's Team."""

        def member(rank):
            self._here.rank = rank
            return work(Team(SimpleNamespace(run=lambda function: function())))

        with ThreadPoolExecutor(len(self._rows)) as pool:
            return list(pool.map(member, range(len(self._rows))))


def test_members_of_a_launch_hear_each_other(monkeypatch):
    def work(team):
        gathered = team.gather(np.array([team.rank, 7], np.uint8)).tolist()
        sent = team.send(b"the take" if team.rank == 1 else None, 1)
        return gathered, sent, team.share("abcde")

    gathered = [[0, 7], [1, 7]]
    expected = [(gathered, b"the take", list("ace")), (gathered, b"the take", list("bd"))]
    assert Launch(2, monkeypatch).run(work) == expected


def test_a_member_alone_asks_nobody(monkeypatch):
    launch = Launch(1, monkeypatch)
    monkeypatch.setattr(mx.distributed, "all_gather", None)
    monkeypatch.setattr(mx.distributed, "all_sum", None)
    row = np.array([1, 2], np.uint8)
    assert launch.run(lambda team: (team.gather(row).tolist(), team.send(b"x", 0))) == [([[1, 2]], b"x")]


def test_the_first_member_gets_what_is_better_than_its_own(tmp_path, monkeypatch):
    """Also what would be made once more: it is better than nothing."""
    states = np.array([[MISSING, MISSING, PROVISIONAL, DONE], [PROVISIONAL, MISSING, DONE, DONE]], np.uint8)

    def work(team):
        store = TakeStore(tmp_path / str(team.rank), 24000)
        store.folder.mkdir()
        for key in "acd":
            if team.rank == 1:
                store.put(key, key.encode())
        return collect(team, store, "abcd", states)

    assert Launch(2, monkeypatch).run(work) == [2, 2]
    assert {path.stem: path.read_bytes() for path in (tmp_path / "0").iterdir()} == {"a": b"a", "c": b"c"}
