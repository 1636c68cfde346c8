"""`finetune` from the command line: data to an adapter or a checkpoint that speaks."""

import json
import re
import shutil
import signal
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from mlx_qwen3_tts import Qwen3TTS, Sampling, TrainingError
from mlx_qwen3_tts.training.finetune import FineTuner, FineTuning
from mlx_qwen3_tts.training.lora import LoraOptions
from mlx_qwen3_tts.training.trainer import TrainingOptions
from tests.support import training

GREEDY = Sampling(do_sample=False, subtalker_dosample=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return training.write_base(tmp_path_factory.mktemp("finetune") / "base")


@pytest.fixture
def data(tmp_path):
    """Write ten clips of a voice-like sound, the fewest of which one is held out, and one that is silent."""
    rng = np.random.RandomState(0)
    lines = []
    for i in range(10):
        seconds = 0.5 + 0.02 * i
        times = np.arange(int(24000 * seconds)) / 24000
        tone = sum(np.sin(2 * np.pi * (110 + 5 * i) * n * times) / n for n in range(1, 12))
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * tone + 0.01 * rng.randn(len(tone)), 24000)
        lines.append({"audio": f"{i}.wav", "text": "Hello world", "language": "english"})
    soundfile.write(tmp_path / "silent.wav", np.zeros(12000), 24000)
    lines.append({"audio": "silent.wav", "text": "Hello world"})
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def finetune(run_cli, data, base, out, *argv):
    return run_cli("finetune", data, "--model", base, "--name", "Anna", "--out", out, "--epochs", 2, *argv)


def test_an_adapter(run_cli, data, base, tmp_path, monkeypatch):
    """It is small, speaks with --adapter, and converts; the sample of each epoch is written."""
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.SPARE_FRAMES", 2)  # the samples never end by themselves
    monkeypatch.setattr("mlx_qwen3_tts.generation.runaway.FRAMES_PER_TOKEN", 0.1)
    out = tmp_path / "anna"
    code, printed, err = finetune(run_cli, data, base, out, "--lora", 4, "--say", "Hello")
    assert code == 0, err
    assert "left out: silent.wav" in err
    assert "9 clips" in err
    assert "1 for validation, 1 left out; 6 steps" in err
    assert re.search(r"memory: some [\d.]+ MB \([\d.]+ MB weights", err)
    assert re.search(r"time: some \d+ s for 6 steps", err)
    assert "validation" in err
    assert f"{out}: adapter of epoch" in printed
    assert {path.name for path in out.iterdir()} == {
        "adapters.safetensors", "adapter_config.json", "speakers.safetensors",
    }  # fmt: skip
    assert soundfile.info(tmp_path / "anna-epoch-2.wav").frames > 0
    tts = Qwen3TTS.from_pretrained(base, adapter=out)
    expected = tts.synthesize("Hello", voice="Anna", seed=1, max_frames=5, stop_runaway=False)
    speech = tmp_path / "a.wav"
    options = ("--voice", "anna", "--seed", 1, "--max-frames", 5, "--no-stop-runaway", "-o", speech)
    code, _, err = run_cli("say", "Hello", "--model", base, "--adapter", out, *options)
    assert code == 0, err
    np.testing.assert_allclose(soundfile.read(speech)[0], expected.audio, atol=1e-4)
    code, _, err = run_cli(
        "convert", "--model", base, "--adapter", out, "--out", tmp_path / "model", "--dtype", "float32"
    )
    assert code == 0, err
    again = Qwen3TTS.from_pretrained(tmp_path / "model")
    assert again.speakers == ["anna"]
    codes = [
        one.synthesize("Hello", voice="ANNA", sampling=GREEDY, max_frames=5, stop_runaway=False).codes
        for one in (tts, again)
    ]
    np.testing.assert_array_equal(*codes)


def test_all_weights(run_cli, data, base, tmp_path):
    """A CustomVoice checkpoint; its weights have moved."""
    out = tmp_path / "anna-model"
    options = ("--full", "--epochs", 1, "--learning-rate", 1e-3, "--low-memory")
    code, printed, err = finetune(run_cli, data, base, out, *options)
    assert code == 0, err
    assert "checkpoint of epoch" in printed
    tts = Qwen3TTS.from_pretrained(out)
    assert (tts.model_type, tts.speakers) == ("custom_voice", ["anna"])
    assert len(tts.synthesize("Hello", seed=1, max_frames=4, stop_runaway=False).codes) == 4
    before, after = (load_file(path / "model.safetensors")["talker.codec_head.weight"] for path in (base, out))
    assert (before != after).any()


def test_all_weights_of_a_built_in_model(run_cli, data, tmp_path):
    """Its files are still there when the result is written."""
    code, _, err = finetune(run_cli, data, "demo-base", tmp_path / "out", "--full", "--epochs", 1, "--accumulate", 16)
    assert code == 0, err
    assert Qwen3TTS.from_pretrained(tmp_path / "out").speakers == ["anna"]


def test_a_state_of_other_adapters_is_refused(run_cli, data, base, tmp_path):
    """The adapter that is there stays."""
    code, _, err = finetune(run_cli, data, base, tmp_path / "out", "--lora", 4, "--epochs", 1, "--accumulate", 16)
    assert code == 0, err
    kept = (tmp_path / "out" / "adapters.safetensors").read_bytes()
    state = tmp_path / "out.state"
    state.mkdir()
    (state / "state.json").write_text('{"format": 2, "run": {"epochs": 2}}')
    code, _, err = finetune(run_cli, data, base, tmp_path / "out", "--lora", 2, "--resume")
    assert (code, "is not that of this run" in err) == (1, True)
    assert (tmp_path / "out" / "adapters.safetensors").read_bytes() == kept


# A step takes 0.3 s more, so that a signal meets an epoch before the last one on a busy machine as well.
SLOW_STEPS = """
import sys, time
from mlx_qwen3_tts.__main__ import main
from mlx_qwen3_tts.training.descent import Descent

def slow(self, batches):
    for step in run(self, batches):
        time.sleep(0.3)
        yield step

run = Descent.run
Descent.run = slow
sys.exit(main())
"""


@pytest.mark.slow
def test_signals_save_and_resume_goes_on(data, base, tmp_path, run_cli):
    """The adapter is the one of a run that was not interrupted, to the bit."""
    command = ["finetune", data, "--model", base, "--name", "anna", "--lora", "2", "--epochs", "4", "--out"]
    one = [*command, tmp_path / "one"]
    for stop, code, resume in ((signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ("--resume",))):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW_STEPS, *map(str, one), *resume], stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        while not re.match(r"epoch \d:", process.stderr.readline()):
            assert process.poll() is None
        process.send_signal(stop)
        _, rest = process.communicate(timeout=60)
        assert (process.returncode, "the same command with --resume goes on" in rest) == (code, True)
        assert (tmp_path / "one.state" / "state.json").exists()
    code, _, err = run_cli(*one, "--resume")
    assert code == 0, err
    assert "resumed after step" in err
    assert not (tmp_path / "one.state").exists(), "the run has ended"
    assert run_cli(*command, tmp_path / "two")[0] == 0
    for name in ("adapters.safetensors", "speakers.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.slow
def test_an_earlier_run_is_not_lost(run_cli, data, base, tmp_path):
    """Neither its result nor its state, unless that is asked for; it is missed before the model is loaded."""
    out, no_model = tmp_path / "out", tmp_path / "no-model"
    code, _, err = finetune(run_cli, data, no_model, out, "--resume")
    assert (code, "there is no interrupted run in" in err) == (1, True)
    assert "out.state: leave --resume out" in err
    assert finetune(run_cli, data, base, out, "--lora", 2)[0] == 0
    written = (out / "adapters.safetensors").read_bytes()
    code, _, err = finetune(run_cli, data, no_model, out)
    assert (code, "is the result of another run: replace it with --overwrite" in err) == (1, True)
    (tmp_path / "out.state").mkdir()
    code, _, err = finetune(run_cli, data, no_model, out)
    assert (code, "is an interrupted run: go on with --resume, or start over with --overwrite" in err) == (1, True)
    assert (out / "adapters.safetensors").read_bytes() == written
    code, _, err = finetune(run_cli, data, base, out, "--lora", 2, "--seed", 1, "--overwrite")
    assert code == 0, err
    assert (out / "adapters.safetensors").read_bytes() != written
    assert not (tmp_path / "out.state").exists()


def tuner_of(data, base, out, save_every: float, overwrite: bool = False) -> FineTuner:
    what = FineTuning("anna", LoraOptions(rank=2), save_every=save_every)
    return FineTuner(data, base, out, what, TrainingOptions(epochs=1, accumulate=3), overwrite=overwrite)


def test_the_state_is_saved_in_time(data, base, tmp_path):
    """After some minutes, not only at the end of an epoch: whatever happens then, this much is kept."""
    for minutes, is_saved in ((1e-9, True), (60, False)):
        tuner = tuner_of(data, base, tmp_path / "out", save_every=minutes)
        steps = tuner.run()
        next(steps)
        assert tuner.trainer.steps_per_epoch > 1
        assert tuner.state_path.exists() == is_saved
        steps.close()
        assert json.loads((tuner.state_path / "state.json").read_text())["step"] == 1, "closing it saves the state"
        shutil.rmtree(tuner.state_path)


def test_a_step_that_fails_is_not_saved(data, base, tmp_path, monkeypatch):
    """It may be half done. The state of a run that is overwritten goes when this one begins."""
    (tmp_path / "out.state").mkdir()
    tuner = tuner_of(data, base, tmp_path / "out", save_every=60, overwrite=True)
    steps = tuner.run()
    next(steps)
    assert not tuner.state_path.exists()

    def fail(*_args):
        raise MemoryError

    monkeypatch.setattr("mlx_qwen3_tts.training.trainer.losses", fail)
    with pytest.raises(MemoryError):
        next(steps)
    assert not tuner.state_path.exists()


def test_a_full_disk(data, base, tmp_path, monkeypatch):
    """The last state is kept, and the message is one line."""
    tuner = tuner_of(data, base, tmp_path / "out", save_every=1e-9)
    steps = tuner.run()
    next(steps)
    before = (tuner.state_path / "state.json").read_bytes()

    def fail(*_args):
        raise RuntimeError("[save_safetensors] Failed to write")

    monkeypatch.setattr(mx, "save_safetensors", fail)
    with pytest.raises(TrainingError, match=r"cannot save the state of step 2 in .*free some space"):
        next(steps)
    assert (tuner.state_path / "state.json").read_bytes() == before


def test_speakers_of_their_own(run_cli, data, base, tmp_path):
    """They need no --name; a clip without one does."""
    lines = [json.loads(line) | {"speaker": "Ben"} for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    argv = ["finetune", data, "--model", base, "--out", tmp_path / "out", "--epochs", 1, "--lora", 2]
    code, printed, err = run_cli(*argv)
    assert code == 0, err
    assert "voices Ben" in printed
    data.write_text(json.dumps({"audio": "0.wav", "text": "Hello"}))
    code, _, err = run_cli(*argv, "--overwrite")
    assert (code, "line 1: speaker is missing: give one in each line, or --name for all clips" in err) == (1, True)


@pytest.mark.parametrize(
    "argv, message",
    [
        (("--full", "--lora-scale", 3), "have no effect with --full"),
        (("--lora", 0), "--lora must be a whole number above 0"),
        (("--epochs", 0), "--epochs must be"),
        (("--learning-rate", 0), "--learning-rate must be a number above 0"),
        (("--held-out", 2), "--held-out"),
        (("--max-seconds", -1), "--max-seconds"),
        (("--save-every", 0), "--save-every must be a number of minutes above 0"),
        (("--seed", -1), "--seed must be"),
        (("--lora-dropout", 2), "--lora-dropout must be"),
    ],
)
def test_wrong_options(run_cli, data, base, tmp_path, argv, message):
    code, _, err = finetune(run_cli, data, base, tmp_path / "out", *argv)
    assert code == 1
    assert message in err


def test_wrong_models_and_targets(run_cli, data, base, tmp_path):
    assert "Base" in finetune(run_cli, data, "demo-random", tmp_path / "out")[2]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("kept")
    assert "files of another kind" in finetune(run_cli, data, base, tmp_path / "other")[2]
    assert "there is no directory" in finetune(run_cli, data, base, tmp_path / "no" / "out")[2]
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"audio": "0.wav", "text": "Hello"}\n{"audio": \n')
    code, _, err = finetune(run_cli, broken, base, tmp_path / "out")
    assert (code, "line 2" in err or ":2" in err) == (1, True)


def test_mlx_lm_is_missed_before_the_data_is_prepared(run_cli, data, base, tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_qwen3_tts.training.lora.find_spec", lambda _name: None)
    code, _, err = finetune(run_cli, data, base, tmp_path / "out")
    assert (code, "pip install mlx-lm" in err) == (1, True)
    assert not (tmp_path / ".codes").exists()
