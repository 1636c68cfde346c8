"""Fine-tune a Base checkpoint on recordings: the steps from data to an adapter or a checkpoint.

data ─ read_clips ─ prepare ─ split ─ sequences ─ Trainer ─┬─ write_adapter      (LoRA)
        Base model, not fused ──────────────────────┘      └─ write_checkpoint   (all weights)
"""

import math
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..errors import TrainingError
from ..generation.engine import Engine
from ..generation.frames import FrameFunctions
from ..hub import hub_name, resolve
from ..option import is_number
from ..result import SynthesisResult
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt
from .codes_cache import cache_beside
from .dataset import read_clips
from .export import speaker_ids, write_adapter, write_checkpoint
from .lora import LoraOptions, add_lora, lora_weights, require_mlx_lm
from .loss import TrainingSequence, make_sequence
from .memory import MemoryEstimate, estimate_memory
from .prepare import Example, LeftOut, Prepared, prepare, split
from .trainer import Progress, Trainer, TrainingOptions

STATE_SUFFIX = ".state"  # the suffix of the directory beside the result that holds an interrupted run

OnClip = Callable[[int, int], None]


@dataclass(frozen=True)
class FineTuning:
    """What to train, in addition to TrainingOptions. Raises TrainingError for values out of range."""

    name: str | None  # the speaker of clips that name none; None if all of them name one
    lora: LoraOptions | None  # None trains all weights
    non_streaming_mode: bool = True  # the text layout that `synthesize` uses for a string
    max_seconds: float = 30.0  # longer clips are left out
    held_out: float = 0.05  # share of the clips that measures the validation loss
    save_every: float = 10.0  # minutes after which the state is saved, in addition to the end of each epoch

    def __post_init__(self) -> None:
        if not is_number(self.save_every) or not 0 < self.save_every < math.inf:
            message = f"save_every must be a number of minutes above 0, not {self.save_every!r}"
            raise TrainingError(message, "save_every")


class FineTuner:
    """A model and data that are ready to be trained."""

    def __init__(
        self, data: str | Path, model: str | Path, out: str | Path, what: FineTuning, options: TrainingOptions,
        dtype: str | None = None, cache: str | Path | None = None, on_clip: OnClip | None = None,
        resume: bool = False, overwrite: bool = False,
    ) -> None:  # fmt: skip
        """Load the model and prepare the data, whose codes are cached beside it.

        out: the directory to write: an adapter, or a checkpoint of all weights. dtype: to compute in; None takes
        bfloat16 on a GPU and float32 on the CPU. The weights that are trained are float32. cache: the directory that
        keeps the clips' codes; None takes one beside the data.
        on_clip: called with the number of clips that are prepared, and with the number of all.
        resume: go on where an interrupted run with the same data and options ended. overwrite: start over, and replace
        what such a run, or one that has ended, has left at `out`, which is an error otherwise.
        Raises TrainingError for invalid data and options, CheckpointError, DownloadError.
        """
        known = "config.json"
        if what.lora is not None:
            require_mlx_lm()  # before the data is prepared, which may take long
            known = "adapters.safetensors"
        self.what = what
        self.options = options
        self.out = check_out(out, known)
        if mx.distributed.init().rank() == 0:  # the process that writes
            check_earlier_run(self.out, self.state_path, resume, overwrite)
        clips = read_clips(Path(data), what.name)
        self._files = ExitStack()  # a built-in model has its files in a temporary directory
        directory = self._files.enter_context(resolve(model))
        self._source = directory.resolve()
        self.tts = load_for_training(model, self._source, dtype, what.lora is None)
        speaker_ids({clip.speaker for clip in clips}, self.tts.config)
        if cache is None:
            cache = cache_beside(Path(data))
        prepared = prepare(self.tts, clips, cache=Path(cache), max_seconds=what.max_seconds, progress=on_clip)
        self.voices = prepared.voices
        self.left_out: list[LeftOut] = prepared.left_out
        self.train, self.held_out = split(prepared.examples, what.held_out, options.seed)
        engine = self.tts.engine
        self._lora_parameters = None
        if what.lora is not None:
            self._lora_parameters = engine.worker.run(add_lora, engine.network, what.lora, options.seed)
        sequences = self._sequences(prepared, self.train)
        compute = None if what.lora is not None else compute_dtype(engine, dtype)
        held_out = self._sequences(prepared, self.held_out)
        description = f"{model}, {dtype}, {what.lora}, {what.non_streaming_mode}"
        self.trainer = Trainer(engine, sequences, held_out, options, compute, description)
        self.memory: MemoryEstimate = estimate_memory(engine.network, sequences, options)
        if resume:
            self.trainer.load_state(self.state_path)

    @property
    def state_path(self) -> Path:
        """The directory of an interrupted run."""
        return self.out.with_name(self.out.name + STATE_SUFFIX)

    def _sequences(self, prepared: Prepared, examples: list[Example]) -> list[TrainingSequence]:
        builder = self.tts.engine.prompts
        return [
            make_sequence(
                builder, one.text, one.codes, prepared.voices[one.speaker], one.language, self.what.non_streaming_mode
            )
            for one in examples
        ]

    def run(self) -> Generator[Progress, None, None]:
        """Train to the end, and write the best weights whenever there are better ones; yields after each step.

        The state is saved after each epoch, every `save_every` minutes, and if the iteration is closed early or meets
        Ctrl-C or SIGTERM: with `resume` the next FineTuner goes on. It is removed at the end, and kept as it was after
        an error. Close the iterator if you leave it early (contextlib.closing).
        """
        if self.trainer.step == 0:
            self._remove_state()  # an earlier run's state, which this run replaces
        self._saved_step = self.trainer.step
        try:
            yield from self._steps()
        except Exception:  # a step that has failed may be half done
            raise
        except BaseException:
            self._save()
            raise
        self._remove_state()
        self._files.close()

    def _steps(self) -> Iterator[Progress]:
        trainer = self.trainer
        saved = time.monotonic()
        for progress in trainer.run():
            ends_epoch = progress.epoch_loss is not None
            if progress.is_best and trainer.is_main:
                self.tts.engine.worker.run(self._write)
            if ends_epoch or time.monotonic() - saved >= 60 * self.what.save_every:
                self._save()
                saved = time.monotonic()
            yield progress

    def _save(self) -> None:
        """Save the state, unless it was saved after this step."""
        if self.trainer.is_main and self.trainer.step != self._saved_step:
            self.trainer.save_state(self.state_path)
        self._saved_step = self.trainer.step

    def _remove_state(self) -> None:
        if self.trainer.is_main:
            shutil.rmtree(self.state_path, ignore_errors=True)

    def _write(self) -> None:
        """Write the weights as they are now. On the MLX thread."""
        engine = self.tts.engine
        if self._lora_parameters is None:
            write_checkpoint(self.out, self._source, engine.network, engine.config, self.voices)
        else:
            weights = lora_weights(engine.network)
            write_adapter(self.out, weights, self._lora_parameters, self.voices, self.tts.name, engine.config)

    def say(self, text: str, speaker: str | None = None, seed: int = 0) -> SynthesisResult:
        """Speak a text with the weights as they are now, in the voice of a speaker; None takes the first."""
        name = speaker or next(iter(self.voices))
        voice = VoiceClonePrompt(speaker_embedding=self.voices[name])
        self.tts.network.eval()
        try:
            return self.tts.synthesize(text, voice=voice, seed=seed, non_streaming_mode=self.what.non_streaming_mode)
        finally:
            self.tts.network.train()


def check_out(out: str | Path, known: str) -> Path:
    """Return the directory to write. Raises TrainingError if it cannot be written, or if it has other files.

    known: a file of what may be replaced.
    """
    path = Path(out).expanduser()
    if path.exists() and not path.is_dir():
        raise TrainingError(f"cannot write {out}: it is a file; name a directory", "out")
    if not path.parent.is_dir():
        raise TrainingError(f"cannot write {out}: there is no directory {path.parent}", "out")
    if path.is_dir() and any(path.iterdir()) and not (path / known).exists():
        raise TrainingError(f"cannot write {out}: the directory has files of another kind; name another one", "out")
    return path


def check_earlier_run(out: Path, state: Path, resume: bool, overwrite: bool) -> None:
    """Raise TrainingError if there is nothing to resume, or something that would be lost. out: from check_out."""
    if resume and overwrite:
        raise TrainingError("resume goes on and overwrite starts over: leave one out", "resume", "overwrite")
    if resume and not state.is_dir():
        raise TrainingError(f"there is no interrupted run in {state}: leave resume out", "resume")
    if resume or overwrite:
        return
    if state.exists():
        message = f"{state} is an interrupted run: go on with resume, or start over with overwrite"
        raise TrainingError(message, "resume", "overwrite")
    if out.is_dir() and any(out.iterdir()):
        message = f"{out} is the result of another run: replace it with overwrite, or name another directory"
        raise TrainingError(message, "overwrite")


def load_for_training(model: str | Path, directory: Path, dtype: str | None, full: bool) -> Qwen3TTS:
    """Load a Base model with the parameters of its files; all weights are trained as float32.

    Requests run without compiled functions and kept prefixes, since the weights change.
    """
    if full:
        dtype = "float32"
    engine = Engine.load(directory, dtype, fused=False)
    engine.functions = FrameFunctions(engine.talker, compiled=False)
    engine.prefixes = None
    if "speaker_encoder" in engine.network:
        engine.network.speaker_encoder.freeze()
    return Qwen3TTS(hub_name(model), engine)


def compute_dtype(engine: Engine, dtype: str | None) -> mx.Dtype | None:
    """Return the type to compute in if all weights are trained; None for float32."""
    if dtype is None:
        dtype = "float32" if engine.worker.device.type == mx.cpu else "bfloat16"
    if dtype == "float32":
        return None
    return getattr(mx, dtype)
