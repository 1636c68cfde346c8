"""`finetune`: a voice of one's own, from recordings and their texts.

data ─ FineTuner ─ progress, a sample at each evaluation ─ adapter or checkpoint
"""

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tqdm import tqdm

from ..errors import RequestError, TrainingError
from ..training.finetune import FineTuner, FineTuning
from ..training.lora import PARTS, LoraOptions
from ..training.trainer import Progress, TrainingOptions
from .console import emit, note
from .options import DEFAULT_BASE, add_model
from .parser import Commands

LEARNING_RATES = {"lora": 1e-4, "full": 1e-5}
MB = 1e6
GB = 1e9


def add_finetune(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "finetune",
        help="train a voice on recordings",
        description="Train a Base model on recordings and their texts. Writes an adapter of some MB (--lora), or a "
        "CustomVoice checkpoint of all weights (--full).",
    )
    parser.add_argument(
        "data", help="a JSONL file (audio, text, language, speaker), a folder of wav and txt files, or a metadata.csv"
    )
    parser.add_argument("--name", help="name of the speaker; needed unless each clip has a speaker of its own")
    parser.add_argument("--out", required=True, metavar="DIR", help="the adapter or checkpoint to write")
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on where an interrupted run ended")
    earlier.add_argument("--overwrite", action="store_true", help="replace what an earlier run has left in DIR")
    add_model(parser, DEFAULT_BASE)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--lora", type=int, metavar="RANK", help="train adapters of this rank (default: 16)")
    kind.add_argument("--full", action="store_true", help="train all weights: some 10 GB of memory for 0.6B")
    lora = parser.add_argument_group("adapters")
    lora.add_argument("--lora-scale", type=float, metavar="X", help="of the adapters' output (default: 2)")
    lora.add_argument(
        "--lora-dropout", type=float, metavar="P", help="share of an adapter's inputs to drop (default: 0)"
    )
    lora.add_argument("--lora-layers", type=int, metavar="N", help="the last N layers of each part (default: all)")
    lora.add_argument("--lora-parts", choices=[*PARTS, "both"], help="which transformer to train (default: both)")
    add_training(parser)
    parser.set_defaults(run=finetune)
    return parser


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options of training."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=10, help="times that each clip is seen (default: %(default)s)")
    group.add_argument("--learning-rate", type=float, metavar="X", help="default: 1e-4 with --lora, 1e-5 with --full")
    group.add_argument("--batch-size", type=int, default=1, metavar="N", help="clips at a time (default: %(default)s)")
    group.add_argument(
        "--accumulate",
        type=int,
        default=4,
        metavar="N",
        help="batches whose gradients are added (default: %(default)s)",
    )
    group.add_argument("--low-memory", action="store_true", help="keep less for the gradients, and compute it again")
    group.add_argument("--max-seconds", type=float, default=30.0, metavar="S", help="leave longer clips out (30)")
    group.add_argument(
        "--held-out", type=float, default=0.05, metavar="P", help="share of the clips for validation (default: 0.05)"
    )
    group.add_argument(
        "--non-streaming-mode",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the text layout to train: all text before the speech (default), or one token a frame",
    )
    group.add_argument("--seed", type=int, default=0, help="order, dropout and initial adapters (default: 0)")
    group.add_argument("--say", metavar="TEXT", help="speak a text after each epoch, into DIR-epoch-N.wav")
    group.add_argument("--cache", metavar="DIR", help="keeps the clips' codes (default: beside the data)")
    group.add_argument(
        "--save-every",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="save the state this often, in addition to the end of each epoch, for --resume (default: 10)",
    )


def finetune(args: argparse.Namespace) -> None:
    """Train, report progress, and write the result."""
    tuner = prepare(args)
    if args.resume:
        note(f"resumed after step {tuner.trainer.step} of {tuner.trainer.steps}")
    try:
        report_data(tuner)
        best = train(tuner, args.say)
    except (KeyboardInterrupt, SystemExit):  # the latter is SIGTERM's
        if tuner.trainer.is_main and tuner.state_path.exists():
            note(f"interrupted after step {tuner.trainer.step}; the same command with --resume goes on")
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):  # MLX's own
            raise
        raise TrainingError("memory ran out: lower --batch-size or --max-seconds, or pass --low-memory") from None
    if tuner.trainer.is_main:
        kind = "checkpoint" if args.full else "adapter"
        epoch = "of an earlier epoch" if best is None else f"of epoch {best.epoch}"
        emit(f"{tuner.out}: {kind} {epoch}, voices {', '.join(tuner.voices)}")


def train(tuner: FineTuner, text: str | None) -> Progress | None:
    """Train to the end, with a sample of a text after each epoch; return the best step, None if it was earlier."""
    best: Progress | None = None
    with progress_line() as bar, closing(tuner.run()) as steps:
        for progress in steps:
            bar.set_description_str(describe(progress))
            if progress.is_best:
                best = progress
            if progress.epoch_loss is not None:
                end_epoch(tuner, progress, progress.epoch_loss, text)
    return best


def prepare(args: argparse.Namespace) -> FineTuner:
    """Check the arguments, load the model and prepare the data."""
    options = ("lora_scale", "lora_dropout", "lora_layers", "lora_parts")
    if args.full and any(getattr(args, name) is not None for name in options):
        raise RequestError("--lora-scale, --lora-dropout, --lora-layers and --lora-parts have no effect with --full")
    if args.say is not None and not args.say.strip():
        raise RequestError("--say needs a text to speak")
    rate = args.learning_rate
    if rate is None:
        rate = LEARNING_RATES["full" if args.full else "lora"]
    training = TrainingOptions(
        epochs=args.epochs,
        batch_size=args.batch_size,
        accumulate=args.accumulate,
        learning_rate=rate,
        seed=args.seed,
        low_memory=args.low_memory,
    )
    what = FineTuning(
        name=args.name,
        lora=lora_options(args),
        non_streaming_mode=args.non_streaming_mode,
        max_seconds=args.max_seconds,
        held_out=args.held_out,
        save_every=args.save_every,
    )
    with progress_line() as bar:

        def show(done: int, count: int) -> None:
            bar.set_description_str(f"preparing clip {done} of {count}")

        return FineTuner(
            args.data, args.model or DEFAULT_BASE, args.out, what, training, args.dtype, args.cache, show,
            resume=args.resume, overwrite=args.overwrite,
        )  # fmt: skip


def lora_options(args: argparse.Namespace) -> LoraOptions | None:
    """Return the options of the adapters; None with --full."""
    if args.full:
        return None
    given = {"rank": args.lora, "scale": args.lora_scale, "dropout": args.lora_dropout, "num_layers": args.lora_layers}
    if args.lora_parts not in (None, "both"):
        given["parts"] = (args.lora_parts,)
    return LoraOptions(**{name: value for name, value in given.items() if value is not None})


def report_data(tuner: FineTuner) -> None:
    """Say what is trained on, what was left out, and what memory and time it takes."""
    trainer = tuner.trainer
    if not trainer.is_main:
        return
    for one in tuner.left_out:
        note(f"left out: {one.source}: {one.reason}")
    minutes = sum(one.seconds for one in tuner.train) / 60
    note(
        f"{len(tuner.train)} clips ({minutes:.1f} min) of {', '.join(tuner.voices)} to train on, {len(tuner.held_out)} "
        f"for validation, {len(tuner.left_out)} left out; {trainer.steps} steps"
    )
    memory = tuner.memory
    note(
        f"memory: some {in_bytes(memory.total)} ({in_bytes(memory.weights)} weights, {in_bytes(memory.training)} "
        f"gradients and optimizer, {in_bytes(memory.activations)} for the longest batch; --low-memory takes less)"
    )
    seconds = trainer.estimate_seconds()
    left = trainer.steps - trainer.step
    note(f"time: some {in_time(seconds)} for {left} steps, by the time of one batch; samples (--say) not counted")


def in_bytes(count: int) -> str:
    """Return a number of bytes as text."""
    if count >= 0.95 * GB:
        return f"{count / GB:.1f} GB"
    if count >= 10 * MB:
        return f"{count / MB:.0f} MB"
    return f"{count / MB:.1f} MB"


def in_time(seconds: float) -> str:
    """Return a duration as text."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{rest} s"


def describe(progress: Progress) -> str:
    """Return the progress as one line."""
    return (
        f"step {progress.step} of {progress.steps}, epoch {progress.epoch}: loss {progress.talker_loss:.3f} talker, "
        f"{progress.predictor_loss:.3f} predictor, {in_time(progress.seconds_left)} left"
    )


def end_epoch(tuner: FineTuner, progress: Progress, means: tuple[float, float], text: str | None) -> None:
    """Print the losses of an epoch, and speak a sample."""
    line = f"epoch {progress.epoch}: loss {means[0]:.3f} talker, {means[1]:.3f} predictor"
    if progress.validation is not None:
        line += f"; validation {progress.validation[0]:.3f} talker, {progress.validation[1]:.3f} predictor"
    if progress.is_best:
        line += " (best, written)"
    if not tuner.trainer.is_main:
        return
    note(line)
    if text is not None:
        path = Path(f"{tuner.out}-epoch-{progress.epoch}.wav")
        tuner.say(text).save(path)
        note(f"sample: {path}")


@contextmanager
def progress_line() -> Iterator[tqdm]:
    """Show a line of progress on a terminal."""
    with tqdm(bar_format="{desc}", disable=None, leave=False) as bar:
        yield bar
