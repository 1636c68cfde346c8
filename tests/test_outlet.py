"""The output of `say`: growing files, pipes, the loudspeaker, and what errors leave behind."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import AudioError, GenerationError, PlaybackError, Qwen3TTS, Request
from mlx_qwen3_tts.audio.player import open_device
from mlx_qwen3_tts.audio.write import AudioWriter, open_writer
from mlx_qwen3_tts.cli.output import Progress, SpeechOutput, open_output
from mlx_qwen3_tts.cli.say import request_for_text
from mlx_qwen3_tts.result import AudioChunk, SynthesisTiming
from tests.support import checkpoints
from tests.support.device import NULL, RATE, Device, opener
from tests.support.process import ROOT, heed_interrupts, spawn, without_coverage

WAVE = (0.5 * np.sin(np.arange(48000) * 2 * np.pi * 440 / RATE)).astype(np.float32)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_writer(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    writer = open_writer(path, RATE)
    for start in range(0, len(WAVE), 5000):
        writer.write(WAVE[start : start + 5000])
        assert not path.exists()
    writer.close()
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    assert abs(len(audio) - len(WAVE)) < 3000
    assert np.argmax(np.abs(np.fft.rfft(audio[4800:28800]))) == 440
    if suffix in ("wav", "flac"):
        np.testing.assert_allclose(audio, WAVE, atol=1.01 / 32768)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_aborted_writer_leaves_nothing(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    writer = open_writer(path, RATE)
    writer.write(WAVE)
    writer.abort()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_writer_restarts(tmp_path, suffix):
    """No dropped audio is left, whether it is longer or shorter than the new audio."""
    path, sizes = tmp_path / f"a.{suffix}", []
    noise = np.random.RandomState(0).uniform(-1, 1, 72000).astype(np.float32)  # no format compresses it well
    for dropped in (0, 100, len(noise)):
        writer = open_writer(path, RATE)
        if dropped:
            writer.write(noise[:dropped])
            assert writer.can_restart
            writer.restart()
            assert writer.seconds == 0
        writer.write(WAVE[:24000])
        writer.close()
        audio, _ = soundfile.read(path, dtype="float32")
        assert abs(len(audio) - 24000) < 3000
        assert np.argmax(np.abs(np.fft.rfft(audio[:24000], 24000))) == 440
        sizes.append(path.stat().st_size)
    assert len(set(sizes)) == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_grows_during_generation(checkpoint, tmp_path, run_cli, monkeypatch):
    """It grows even without a seed, although a runaway would then be dropped."""
    sizes, write = [], AudioWriter.write

    def watched(writer: AudioWriter, audio: np.ndarray) -> None:
        write(writer, audio)
        sizes.append(sum(path.stat().st_size for path in tmp_path.glob(".*.part")))

    monkeypatch.setattr(AudioWriter, "write", watched)
    made, stream = [], Qwen3TTS.stream_attempts

    def counted(*args):
        for attempt in stream(*args):
            made.append(len(sizes))
            yield attempt

    monkeypatch.setattr(Qwen3TTS, "stream_attempts", counted)
    code, _, err = run_cli("say", "Hello", "--model", checkpoint, "--max-frames", 12, "-o", tmp_path / "a.wav")
    assert code == 0, err
    assert made == list(range(len(sizes))), "each chunk is written before the next one is generated"
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 44 + 2 * 64


@pytest.mark.parametrize(
    "suffix, limit", [("wav", 10), ("mp3", 10), *((suffix, 12_000) for suffix in ("wav", "flac", "ogg", "mp3"))]
)
def test_full_disk_keeps_a_valid_file_or_none(tmp_path, suffix, limit):
    """A limit on the size of files simulates a full disk."""
    path = tmp_path / f"a.{suffix}"
    code = f"""
import resource, sys
from mlx_qwen3_tts.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
import mlx_qwen3_tts.demo, mlx_qwen3_tts.cli as cli
sys.exit(main())
"""
    checkpoint = checkpoints.write(tmp_path / "c", "equal")
    command = [sys.executable, "-c", code, "say", "Hello", "--model", checkpoint, "--max-frames", "100", "-o", path]
    done = subprocess.run(command, capture_output=True, text=True, env=without_coverage())
    if done.returncode == 0:  # a compressed file of this noise may fit
        assert suffix in ("ogg", "mp3")
        return
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "cannot write" in last
    assert str(path) in last
    left = {p.name for p in tmp_path.iterdir()} - {"c"}
    assert left <= {path.name}
    assert limit > 10 or not left
    if suffix == "wav" and limit > 10:
        assert left == {path.name}
    if left:
        assert soundfile.info(path).frames > 1920
        assert len(soundfile.read(path)[0]) > 1920


def test_stream_header_has_no_length(tmp_path):
    buffer = io.BytesIO()
    writer = open_writer(buffer, RATE)
    writer.write(WAVE[:1000])
    writer.close()
    assert buffer.getvalue()[4:8] == b"\xff\xff\xff\xff"
    assert len(buffer.getvalue()) == 44 + 2000
    audio, _ = soundfile.read(io.BytesIO(buffer.getvalue()))
    assert len(audio) == 1000


def test_speech_starts_before_piped_text_ends():
    process = subprocess.Popen(
        spawn("say", "-", "--model", "demo-random", "--seed", 1, "--max-frames", 16, "-o", "-", "--voice", "ben"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write("Hello world, 今天".encode()[:-1])  # cut inside a character
    process.stdin.flush()
    header = process.stdout.read(44 + 2 * 1920)
    assert header[:4] == b"RIFF"
    assert process.poll() is None
    process.stdin.write("天 this is a voice.\n\nAnd a second paragraph.".encode()[2:])
    process.stdin.close()
    rest = process.stdout.read()
    assert process.wait() == 0, process.stderr.read()
    assert len(rest) % (2 * 1920) == 0


@pytest.fixture
def run_piped(run_cli, tmp_path, monkeypatch):
    """Run the command line with these bytes as its standard input."""

    def run(data: bytes, *argv) -> tuple[int, str, str]:
        (tmp_path / "stdin").write_bytes(data)
        with (tmp_path / "stdin").open("rb") as file:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
            return run_cli(*argv)

    return run


@pytest.mark.parametrize("seeds", [(5, 6), (2**63 - 1, 0)])
def test_each_paragraph_has_its_own_seed(run_piped, tmp_path, checkpoint, seeds):
    """The highest seed wraps around."""
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_new_tokens": 3}))
    text = b"Hello world.\n\nHello world.\n"
    code, _, err = run_piped(text, "say", "-", "--model", checkpoint, "--seed", seeds[0], "-o", tmp_path / "a.wav")
    assert code == 0, err
    audio, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    tts = Qwen3TTS.from_pretrained(checkpoint)
    expected = [tts.synthesize("Hello world.", seed=seed, non_streaming_mode=False).audio for seed in seeds]
    np.testing.assert_allclose(audio, np.concatenate(expected), atol=1e-4)


def test_paragraphs_share_the_frame_limit():
    """After 4 of 6 frames two are left for the second paragraph, which has the next seed."""
    request = Request("One.", seed=5, max_frames=6, language="english")
    second = request_for_text(request, "Two.", number=1, frames=4)
    assert second == Request("Two.", seed=6, max_frames=2, language="english")


def test_empty_pipe(run_piped, checkpoint):
    for text in (b"", b"\n \n"):
        code, _, err = run_piped(text, "say", "-", "--model", checkpoint, "-o", "-")
        assert code == 1
        assert "text is empty" in err


def test_invalid_bytes_in_the_middle_keep_the_speech_so_far(run_piped, checkpoint, tmp_path):
    text = b"Hello world, this is a voice. \xff\xff and more"
    code, _, err = run_piped(text, "say", "-", "--model", checkpoint, "--seed", 1, "-o", tmp_path / "a.wav")
    assert code == 1
    assert "not UTF-8" in err
    assert soundfile.info(tmp_path / "a.wav").frames > 64


def test_stats(run_cli, checkpoint, tmp_path):
    _, _, err = run_cli(
        "say", "Hi", "--model", checkpoint, "--seed", 1, "--max-frames", 3, "--stats", "-o", tmp_path / "a.wav"
    )
    assert "time to first audio" in err
    assert "peak memory" in err
    assert "seed" in err


@pytest.mark.parametrize("counts", ["0", "1,x", "", "1,-2"])
def test_invalid_chunk_frames(run_cli, counts):
    assert run_cli("say", "Hi", "--model", "demo-random", "--chunk-frames", counts)[0] == 2


def test_chunk_frames_change_nothing(run_cli, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(Qwen3TTS, "warm_up", lambda *_: None)
    argv = ("say", "Hi", "--model", checkpoint, "--seed", 1, "--max-frames", 9)
    run_cli(*argv, "-o", tmp_path / "a.wav", "--chunk-frames", "1")
    run_cli(*argv, "-o", tmp_path / "b.wav", "--chunk-frames", "4,5")
    a, b = (soundfile.read(tmp_path / name, dtype="int16")[0].astype(int) for name in ("a.wav", "b.wav"))
    assert np.abs(a - b).max() <= 1


# --- the loudspeaker ---


@pytest.fixture
def device(monkeypatch) -> list[Device]:
    """A fake loudspeaker; the list holds it once it is open."""
    opened = []

    def open_device(name=None):
        return opener(opened)

    monkeypatch.setattr("mlx_qwen3_tts.cli.say.open_device", open_device)
    return opened


def test_say_plays_by_default(run_cli, device, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli("say", "Hello", "--model", "demo-random", "--seed", 1, "--max-frames", 7, "--stats")
    assert code == 0
    assert "played: 7 frames" in err
    factor = float(re.search(r"real-time factor ([0-9.]+)", err)[1])
    assert factor > 0.5 or "underruns 0" in err, "a busy machine may be slower than real time"
    sound = device[0].sound[:, 0]
    expected = demo.synthesize("Hello", seed=1, max_frames=7).audio
    begin = next(i for i in range(len(sound)) if np.allclose(sound[i : i + 100], expected[:100], atol=1e-6))
    heard = len(expected) if "underruns 0" in err else 1920  # an underrun interrupts what follows
    np.testing.assert_allclose(sound[begin : begin + heard], expected[:heard], atol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_play_and_write(run_cli, device, tmp_path):
    code, _, _ = run_cli(
        "say", "Hello", "--model", "demo-random", "--seed", 1, "--max-frames", 5, "--play", "-o", tmp_path / "a.wav"
    )
    assert code == 0
    assert soundfile.info(tmp_path / "a.wav").frames == 5 * 1920
    assert np.count_nonzero(device[0].sound) > 5 * 1900


def test_device_needs_playing(run_cli, device, tmp_path):
    code, _, err = run_cli("say", "Hello", "--model", "demo-random", "--device", "x", "-o", tmp_path / "a.wav")
    assert code == 1
    assert "--play" in err


def run_with_alsa(tmp_path, config: str | None, *argv) -> subprocess.CompletedProcess:
    environment = dict(os.environ)
    if config is not None:
        (tmp_path / "asound.conf").write_text(config)
        environment["ALSA_CONFIG_PATH"] = str(tmp_path / "asound.conf")
    return subprocess.run(spawn("say", "Hello", "--model", "demo-random", "--seed", 1, "--max-frames", 3, *argv),
                          env=environment, cwd=tmp_path, capture_output=True, text=True)  # fmt: skip


def test_no_device_writes_a_file(tmp_path):
    """A file is also written if PortAudio itself is missing."""
    try:
        open_device()
    except PlaybackError:
        pass
    else:
        pytest.skip("there is a device here")
    done = run_with_alsa(tmp_path, None)
    assert done.returncode == 0, done.stderr
    assert "the speech goes to speech.wav" in done.stderr
    assert soundfile.info(tmp_path / "speech.wav").frames == 3 * 1920
    asked = run_with_alsa(tmp_path, None, "--play", "-o", "b.wav")
    assert asked.returncode == 1
    assert "-o" in asked.stderr.splitlines()[-1]
    assert not (tmp_path / "b.wav").exists()


def test_device_that_does_not_exist(tmp_path):
    pytest.importorskip("sounddevice", exc_type=OSError)
    if not sys.platform.startswith("linux"):
        pytest.skip("ALSA is Linux's")
    done = run_with_alsa(tmp_path, NULL, "--device", "nope")
    assert done.returncode == 1
    assert "no output device 'nope'; choose from: 0 default" in done.stderr.splitlines()[-1]


def test_device_that_refuses_mono_or_the_rate(monkeypatch):
    sounddevice = pytest.importorskip("sounddevice", exc_type=OSError)
    asked = []

    class OutputStream:
        def __init__(self, rate, channels, **options):
            asked.append((rate, channels))
            if (rate, channels) != takes:
                raise sounddevice.PortAudioError("Invalid sample rate [PaErrorCode -9997]")

        def start(self):
            raise sounddevice.PortAudioError("Unanticipated host error")

        stop = abort = close = start

    monkeypatch.setattr(sounddevice, "OutputStream", OutputStream)
    monkeypatch.setattr(sounddevice, "query_devices", lambda *a: {"default_samplerate": 48000.0, "name": "card"})
    takes = (48000, 2)
    stream = open_device()(24000, None)
    with pytest.raises(PlaybackError, match="does not start"):
        stream.start()
    stream.stop()  # a device that is gone has nothing left to stop
    stream.close()
    assert asked == [(24000, 1), (24000, 2), (48000, 1), (48000, 2)]
    takes = None
    with pytest.raises(PlaybackError, match=r"card takes no audio \(Invalid sample rate\): choose"):
        open_device()(24000, None)


def interrupt(code: str) -> tuple[float, list[float]]:
    """Run `code` until it prints "ready", then send Ctrl-C; return the time of the signal and the printed times.

    All processes share the clock.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=pipe, stdout=pipe, cwd=ROOT, preexec_fn=heed_interrupts
    )
    assert process.stdout.readline() == b"ready\n", process.stderr.read()
    time.sleep(0.1)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert b"Traceback" not in err
    return sent, [float(line) for line in out.split()]


def test_interrupt_is_silent_within_100_ms(tmp_path):
    """The time is measured from the signal to the last block with sound."""
    checkpoint = checkpoints.write(tmp_path / "c", "equal")  # faster than real time
    code = f"""
import sys, time, threading
from mlx_qwen3_tts import cli
from mlx_qwen3_tts.cli import say
from tests.support.device import opener
opened = []
say.open_device = lambda name=None: opener(opened)
def wait():
    while not (opened and any(block.any() for block in opened[0].heard[-5:])):
        time.sleep(0.02)
    print("ready", flush=True)
threading.Thread(target=wait, daemon=True).start()
code = cli.main(["say", "Hello", "--model", {str(checkpoint)!r}, "--greedy"])
assert code == 130, code
sounding = [i for i, block in enumerate(opened[0].heard) if block.any()]
print(opened[0].times[sounding[-1]])
"""
    sent, (last,) = interrupt(code)
    assert last - sent < 0.1, "sound was played for too long"


def test_interrupt_is_handled_during_a_long_computation():
    """The computation runs on the MLX thread, so that Python's handler runs at once and both sound and caller end."""
    code = """
import sys, time, mlx.core as mx, numpy as np
from tests.support.device import opener, speech
from mlx_qwen3_tts.cli.output import SpeechOutput, open_output
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
from mlx_qwen3_tts.audio.player import Player
opened = []
player = Player(24000, opener(opened), [0.08])
try:
    with open_output(SpeechOutput("played", None, player)):
        player.write(speech(8), 0.1, 0, pause=True)
        while not any(block.any() for block in opened[0].heard):
            time.sleep(0.02)
        def compute(products, ready=False):
            x = mx.full((400, 400), 1 / 400)
            for _ in range(products):
                x = x @ x
            if ready:
                print("ready", flush=True)
            mx.eval(x)
        MLX_THREAD.run(compute, 1)
        began = time.monotonic()
        MLX_THREAD.run(compute, 10)
        products = int(10 * 1.2 / (time.monotonic() - began))  # 1.2 s
        MLX_THREAD.run(compute, products, ready=True)
except KeyboardInterrupt:
    print(time.monotonic())
sounding = [i for i, block in enumerate(opened[0].heard) if block.any()]
print(opened[0].times[sounding[-1]])
"""
    sent, (told, last) = interrupt(code)
    assert last - sent < 0.1
    assert told - sent < 0.3, "the caller waited for the computation"


def test_max_frames_count_for_all_of_an_endless_pipe(tmp_path):
    path = shlex.quote(str(tmp_path / "e.wav"))
    line = (
        "yes hello there | "
        + shlex.join(spawn("say", "-", "--model", "demo-random", "--seed", 1, "--max-frames", 5))
        + f" -o {path}"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "e.wav").frames == 5 * 1920


def test_closed_pipe_is_not_reported():
    line = (
        shlex.join(spawn("say", "Hello world", "--model", "demo-random", "--max-frames", 60, "-o", "-"))
        + " | head -c 100"
    )
    process = subprocess.run(["bash", "-c", line], capture_output=True)
    assert process.returncode == 0
    assert len(process.stdout) == 100
    assert b"error" not in process.stderr.lower()
    assert b"frames" not in process.stderr


def test_an_interrupt_before_the_first_frame_leaves_nothing(run_cli, checkpoint, tmp_path, monkeypatch):
    def interrupted(**options):
        assert list(tmp_path.glob(".*.part"))
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_qwen3_tts.cli.output.tqdm", interrupted)
    assert run_cli("say", "Hello", "--model", checkpoint, "-o", tmp_path / "a.wav")[0] == 130
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_a_stream_that_refuses_the_header():
    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(AudioError, match="cannot write standard output: No space left"):
        open_writer(Full(), RATE)


def test_errors_of_the_writer_name_the_file(tmp_path):
    with pytest.raises(AudioError, match="must end in"):
        open_writer(tmp_path / "a.xyz", RATE)


# --- chunks to figures, without a model ---


class NotedPlayer:
    """Notes what it is told."""

    playing = False
    speed = None
    buffered = 0.0
    waited = 0.25
    underruns = 2

    def __init__(self):
        self.told = []

    def write(self, audio, work, remaining, pause):
        self.told.append((len(audio), pytest.approx(work), pytest.approx(remaining), pause))

    def drain(self):
        self.told.append("drain")

    def abort(self):
        self.told.append("abort")


def chunk(frames: int, before: int, total: float, **options) -> AudioChunk:
    """Return a chunk of 0.08 s a frame after `before` others, of whose total half a second was the prompt's."""
    frames_so_far = before + frames
    timing = SynthesisTiming(0.5, total - 0.6, 0.1, 0.8, total, frames_so_far, frames_so_far * 0.08, 2**20 * frames)
    options = {"seed": 7, **options}
    audio = np.full(frames * 1920, 0.25, np.float32)
    return AudioChunk(audio=audio, codes=np.zeros((frames, 16)), sample_rate=RATE, timing=timing, **options)


def test_what_the_player_learns_of_each_chunk():
    """Its work without the prompt's, and what is to come: 14 bytes a second, at least 1 s, at most max_frames."""
    player = NotedPlayer()
    output = SpeechOutput("played", None, player)
    output.begin_text("é" * 14, max_frames=15)
    output.write(chunk(1, 0, 0.8))
    output.write(chunk(6, 1, 1.0, text_ran_dry=True))
    output.write(chunk(5, 7, 1.5))
    output.write(chunk(2, 12, 1.6, is_final=True, finish_reason="stop"))
    assert player.told == [
        (1920, 0.3, 15 * 0.08 - 0.08, False), (6 * 1920, 0.2, 0.64, True), (5 * 1920, 0.5, 0.24, False),
        (2 * 1920, 0.1, 0.08, True),
    ]  # fmt: skip
    player.told.clear()
    output.begin_text("a" * 35, max_frames=None)
    output.write(chunk(10, 0, 1.0), seconds=1.7)
    output.write(chunk(10, 10, 3.0), seconds=0.6)
    assert player.told == [(19200, 1.7, 1.7, False), (19200, 0.6, 1.0, False)]
    player.told.clear()
    output.begin_text(None, max_frames=None)
    output.write(chunk(0, 0, 0.8))
    output.begin_text(None, max_frames=100)
    output.write(chunk(10, 0, 0.8))
    assert player.told == [(0, 0.3, None, False), (19200, 0.3, 7.2, False)]


def test_the_figures_of_all_texts(capsys):
    """Sums, but the first audio and seed, the highest peak, and the last unusual ending."""
    output = SpeechOutput("played", None, NotedPlayer())
    for number, reason in enumerate(("length", "runaway", "stop")):
        output.begin_text("Hello", None)
        output.write(chunk(5, 0, 1.0, seed=number))
        output.write(chunk(20 - number, 5, 2.0, seed=number, is_final=True, finish_reason=reason))
    assert str(output.progress) == "72 frames, 5.8 s of audio, 0.96x real time"
    output.report(show_stats=True)
    assert capsys.readouterr().err == "", "nothing was kept yet"
    output.finish()
    output.report(show_stats=True)
    told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("mlx-qwen3-tts: ") for line in told] == [
        "played: 72 frames, 5.76 s of audio (it ran on after its text, which was cut: another --seed may do better) "
        "in 6.00 s, real-time factor 1.04, seed 0",
        "time to first audio 800 ms, peak memory 20 MB",
        "time to first sound 1050 ms, underruns 2",
    ]
    assert str(Progress()) == "0 frames, 0.0 s of audio, 0.00x real time"


@pytest.mark.parametrize(
    "playing, speed, buffered, is_told",
    [(False, 0.8, 0.31, True), (False, 0.8, 0.3, False), (False, 1.0, 0.5, False), (True, 0.8, 0.5, False)],
)
def test_waiting_is_reported_once(capsys, playing, speed, buffered, is_told):
    player = NotedPlayer()
    player.playing, player.speed, player.buffered = playing, speed, buffered
    output = SpeechOutput("played", None, player)
    output.write(chunk(1, 0, 0.8))
    output.write(chunk(1, 1, 0.9))
    assert capsys.readouterr().err.count("playback waits") == is_told


def outcome(path, error: BaseException | None, frames: int = 5) -> tuple[list, list[str], bool]:
    """End an output to a file and a player with an error; return what they did, and whether a report is due."""
    output = SpeechOutput("a.wav", open_writer(path, RATE), NotedPlayer())
    expected = nullcontext() if error is None else pytest.raises(type(error))
    with expected, open_output(output):
        if frames:
            output.write(chunk(frames, 0, 0.8))
        if error is not None:
            raise error
    files = [entry.name for entry in path.parent.iterdir()]
    return output.player.told[bool(frames) :], files, output.has_output


def test_what_an_error_leaves(tmp_path):
    """One of the model keeps the audio so far; Ctrl-C, a dead device and a closed pipe leave nothing, at once."""
    for number, error in enumerate((None, GenerationError("x"), OSError("x"), RuntimeError("x"), MemoryError())):
        (tmp_path / str(number)).mkdir()
        ends = ["drain"] if error is None else ["drain", "abort"]
        assert outcome(tmp_path / str(number) / "a.wav", error) == (ends, ["a.wav"], True)
    for error in (KeyboardInterrupt(), PlaybackError("x"), BrokenPipeError(), ZeroDivisionError()):
        (tmp_path / "none").mkdir(exist_ok=True)
        assert outcome(tmp_path / "none" / "a.wav", error) == (["abort"], [], False)
    assert outcome(tmp_path / "none" / "a.wav", GenerationError("x"), frames=0) == (["drain", "abort"], [], False)
    assert outcome(tmp_path / "none" / "a.wav", None, frames=0) == (["drain"], ["a.wav"], False)


def test_a_file_that_could_not_be_kept_is_not_reported(tmp_path, monkeypatch):
    writer = open_writer(tmp_path / "a.m4a", RATE)
    output = SpeechOutput("a.m4a", writer, None)

    def full(frame):
        raise OSError(28, "No space left on device")

    with pytest.raises(AudioError, match="nothing was kept"), open_output(output):
        output.write(chunk(20, 0, 0.8))
        monkeypatch.setattr(writer, "encode", full)
        output.write(chunk(20, 20, 1.5))
    assert list(tmp_path.iterdir()) == []
    assert not output.has_output


def test_who_may_speak_again(tmp_path):
    """Only what nobody has heard: all of it in a file."""
    writer = open_writer(tmp_path / "a.wav", RATE)
    output = SpeechOutput("a.wav", writer, None)
    output.write(chunk(5, 0, 0.8))
    assert output.can_restart
    output.restart()
    assert (writer.seconds, output.progress) == (0, Progress())
    writer.abort()
    assert not SpeechOutput("a.wav", writer, NotedPlayer()).can_restart
    assert not SpeechOutput("played", None, NotedPlayer()).can_restart
    assert not SpeechOutput("-", open_writer(io.BytesIO(), RATE), None).can_restart
