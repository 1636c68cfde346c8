"""What a user asks for: a request and its sampling options, each declared once with its rule and its help text.

The values are checked when an instance is made. What depends on the model is checked in capabilities.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from typing import Any

from .config.model import GenerationConfig
from .errors import RequestError
from .option import (
    Option,
    check_options,
    check_string,
    invalid,
    is_number,
    number,
    string,
    switch,
    whole_number,
)
from .text.feed import EMPTY_TEXT
from .voice import VoiceClonePrompt

CHUNK_FRAMES = (1, 1, 2, 4, 8)  # frames in the first chunks of a stream; the last number is that of all further ones
MAX_SEED = 2**63 - 1

# The lowest temperature is 0.001: float32 logits overflow if they are divided by less than that.
TEMPERATURE_NOTE = "; for the most likely code every time, switch sampling off"


@dataclass(frozen=True)
class Sampling:
    """Sampling options under the names of generation_config.json; None means the checkpoint's own default.

    The subtalker is the code predictor.
    Raises RequestError for a value out of range, and for one without effect because the draw that it shapes is
    switched off.
    """

    do_sample: bool | None = switch("draw codebook 0 at random; off: take the most likely code")
    temperature: float | None = number("temperature of codebook 0", 0.001, 1000, TEMPERATURE_NOTE)
    top_k: int | None = whole_number("draw codebook 0 from the k most likely codes", 0, 2**31 - 1, " (0: no limit)")
    top_p: float | None = number(
        "draw codebook 0 from this share of the probability", 0, 1, " (1: no limit)", above=True
    )
    repetition_penalty: float | None = number("penalty for codes that were generated before", 0.001, 1000, " (1: none)")
    subtalker_dosample: bool | None = switch("draw codebooks 1 to 15 at random; off: take the most likely code")
    subtalker_temperature: float | None = number("temperature of codebooks 1 to 15", 0.001, 1000, TEMPERATURE_NOTE)
    subtalker_top_k: int | None = whole_number(
        "draw codebooks 1 to 15 from the k most likely codes", 0, 2**31 - 1, " (0: no limit)"
    )
    subtalker_top_p: float | None = number(
        "draw codebooks 1 to 15 from this share of the probability", 0, 1, " (1: no limit)", above=True
    )

    def __post_init__(self) -> None:
        check_options(Sampling, vars(self))
        for name, draw in self._without_effect(self.do_sample, self.subtalker_dosample):
            raise RequestError(f"{name} has no effect with {draw}=False; leave one out", name, draw)

    def _without_effect(self, do_sample: bool | None, subtalker_dosample: bool | None) -> Iterator[tuple[str, str]]:
        """Yield each given option of a draw that is switched off, and the draw's switch; None is not known yet."""
        switches = (("do_sample", do_sample, ""), ("subtalker_dosample", subtalker_dosample, "subtalker_"))
        for draw, value, prefix in switches:
            for name in (f"{prefix}temperature", f"{prefix}top_k", f"{prefix}top_p"):
                if value is False and getattr(self, name) is not None:
                    yield name, draw

    def resolve(self, defaults: GenerationConfig) -> GenerationConfig:
        """Return a checkpoint's generation_config.json with these options in place of its own.

        Raises RequestError for an option without effect, because the checkpoint switches its draw off.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        # Numbers of other libraries become Python's own.
        given = {name: type(getattr(defaults, name))(value) for name, value in given.items()}
        resolved = replace(defaults, **given)
        for name, draw in self._without_effect(resolved.do_sample, resolved.subtalker_dosample):
            raise RequestError(
                f"{name} has no effect: this checkpoint's default is {draw}=False; pass {draw}=True, or leave {name} "
                "out",
                name,
                draw,
            )
        return resolved


DEFAULTS = Sampling()


def check_defaults(config: GenerationConfig) -> None:
    """Raise RequestError if the sampling defaults of a checkpoint are out of range."""
    check_options(Sampling, asdict(config))


def _check_spoken_text(name: str, value: Any) -> None:
    if isinstance(value, str):
        check_string(name, value)
        if not value.strip():
            raise RequestError(EMPTY_TEXT, about="text")
    elif not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise invalid(name, "a string or an iterable of strings", value)


def _check_voice(name: str, value: Any) -> None:
    if isinstance(value, str):
        check_string(name, value)
    elif not isinstance(value, VoiceClonePrompt):
        raise invalid(name, "the name of a preset voice or a VoiceClonePrompt", value)


def _check_sampling(name: str, value: Any) -> None:
    if not isinstance(value, Sampling):
        raise invalid(name, "a Sampling", value)


def _check_chunk_frames(name: str, value: Any) -> None:
    sizes = value if isinstance(value, Sequence) else [value]
    if isinstance(value, str) or not sizes or not all(is_number(size, Integral) and size > 0 for size in sizes):
        raise invalid(name, "a whole number above 0, or a sequence of them", value)


def _parse_chunk_frames(text: str) -> tuple[int, ...]:
    """Parse "1,1,2". Raises ValueError for anything but numbers above 0."""
    sizes = tuple(int(part) for part in text.split(","))
    if min(sizes) < 1:
        raise ValueError(text)
    return sizes


@dataclass(frozen=True)
class Request:
    """What to say and how. The fields are the arguments of Qwen3TTS.synthesize and Qwen3TTS.stream.

    text: a string, or an iterable of strings that may still be written while the speech has begun, such as the output
    of a language model. It is asked for more, on the caller's thread, when the speech has caught up with it.
    voice: a preset voice of a CustomVoice model, in any case; None takes `default_speaker`. For a Base model the result
    of `clone_voice` or of VoiceClonePrompt.load.
    language: one of `languages`, in any case; None is "auto".
    instruct: how to speak (CustomVoice 1.7B), or a description of the voice (VoiceDesign, which requires it).
    seed: the same seed gives the same audio on the same machine; None draws one, which the result names.
    sampling: see Sampling.
    max_frames: maximum number of frames (80 ms each); None takes the checkpoint's limit, and the text's frame budget.
    non_streaming_mode: True puts the whole text before the first frame, False feeds one text token a frame; None takes
    True for a string and False for an iterable.
    frames_per_token: of the frame budget, which is 250 frames and this many for each token of the text; None takes 12.
    stop_runaway: end speech that continues in silence or in a cycle after its text (see generation/runaway.py). False:
    as the official code, without detector, budget and second attempt.
    max_silence: seconds of silence after which the speech counts as a runaway; None takes 4. Raise it for texts with
    longer pauses.
    chunk_frames: frames in each chunk of a stream, a number or a sequence whose last number is that of all further
    chunks; None takes CHUNK_FRAMES. A chunk is shorter if the text of its next frame is not known yet, and comes later
    and longer after a pause of over a second (see generation/runaway.py). The audio does not depend on it.
    Raises RequestError for an invalid value, and for options that exclude each other.
    """

    text: str | Iterable[str] = field(metadata={"option": Option("what to say", _check_spoken_text, str)})
    voice: str | VoiceClonePrompt | None = field(
        default=None,
        metadata={"option": Option("a preset voice, a saved voice, or a voice file (see `voices`)", _check_voice, str)},
    )
    language: str | None = string("language of the text (default: auto)")
    instruct: str | None = string("how to speak, or a description of the voice (VoiceDesign)")
    seed: int | None = whole_number("the same seed gives the same audio", 0, MAX_SEED)
    sampling: Sampling = field(default=DEFAULTS, metadata={"option": Option("sampling options", _check_sampling)})
    max_frames: int | None = whole_number("maximum number of frames (80 ms each), for all of the text", 1, 2**31 - 1)
    non_streaming_mode: bool | None = switch(
        "put the whole text before the first frame (default), or feed one text token a frame (default for -)"
    )
    frames_per_token: float | None = number(
        "without a frame limit a text may take 250 frames and N for each of its tokens (default: 12, some 3 times what "
        "speech takes)", 0, 1e6, above=True,
    )  # fmt: skip
    stop_runaway: bool = switch(
        "end speech that continues in silence or in a cycle after its text (default). Without a seed, a text that is "
        "written to a file is then generated once more. Off: as the official code, which has no frame budget either",
        default=True,
    )
    max_silence: float | None = number(
        "seconds of silence after which the speech has run away (default: 4); raise it for texts with long pauses",
        2,
        600,
    )
    chunk_frames: int | Sequence[int] | None = field(
        default=None,
        metadata={
            "option": Option(
                "frames in the first chunks of the audio, the last number for all further ones (default: 1,1,2,4,8)",
                _check_chunk_frames,
                _parse_chunk_frames,
                metavar="N,...",
            )
        },
    )

    def __post_init__(self) -> None:
        check_options(Request, vars(self))
        if self.frames_per_token is not None and self.max_frames is not None:
            message = "frames_per_token has no effect if max_frames is given; leave one out"
            raise RequestError(message, "frames_per_token", "max_frames")
        for name in ("frames_per_token", "max_silence"):
            if getattr(self, name) is not None and not self.stop_runaway:
                message = f"{name} has no effect with stop_runaway=False; leave one out"
                raise RequestError(message, name, "stop_runaway")

    @property
    def chunk_sizes(self) -> Sequence[int]:
        """Frames in the first chunks, the last number for all further ones."""
        if self.chunk_frames is None:
            return CHUNK_FRAMES
        if isinstance(self.chunk_frames, Sequence):
            return self.chunk_frames
        return (self.chunk_frames,)
