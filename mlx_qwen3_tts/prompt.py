"""A request to the embeddings that the talker starts from. The only file that knows the modes apart.

    [instruct] ─ role ─ language tags, [speaker], bos ─ text        (one embedding a position, text and codec added)
      user turn  3 ids  tts_pad ... tts_bos + codec ids

Two layouts of the text: `non_streaming_mode` puts all of it before the first frame; otherwise its first token comes
with the start of speech and one more is added to each frame's embedding, then tts_eos, then tts_pad.
Source: Qwen3TTSForConditionalGeneration.generate, Qwen3TTSModel._build_assistant_text and _build_instruct_text.
"""

from dataclasses import dataclass

import mlx.core as mx

from .config import ModelConfig
from .errors import RequestError
from .sampling import DEFAULTS, Sampling
from .talker import Talker
from .tokenizer import TextTokenizer

MODEL_NAMES = {
    "custom_voice": "a CustomVoice model, such as Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
    "voice_design": "a VoiceDesign model, such as Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign",
    "base": "a Base model, such as Qwen/Qwen3-TTS-12Hz-0.6B-Base",
}


@dataclass(frozen=True)
class Request:
    """What to say and how. See Qwen3TTS.synthesize for the fields."""

    text: str
    voice: str | None = None
    language: str | None = None
    instruct: str | None = None
    seed: int | None = None
    sampling: Sampling = DEFAULTS
    max_frames: int | None = None
    non_streaming_mode: bool | None = None


@dataclass(frozen=True)
class Prompt:
    """Where the talker starts, and what it is fed beside the codes while it speaks."""

    embeddings: mx.array  # [1, positions, hidden]
    trailing: mx.array  # [1, steps, hidden]: added to the embeddings of frames 0, 1, ...
    padding: mx.array  # [1, 1, hidden]: added to those of all later frames

    def text_at(self, frame: int) -> mx.array:
        """What is added to the embedding of frame `frame` [1, 1, hidden]."""
        return self.trailing[:, frame : frame + 1] if frame < self.trailing.shape[1] else self.padding


def speakers(config: ModelConfig) -> list[str]:
    """The preset voices of a checkpoint."""
    return list(config.talker_config.spk_id)


def languages(config: ModelConfig) -> list[str]:
    """The languages that a request may name. Dialects come with their speakers and are not named."""
    return ["auto", *(name for name in config.talker_config.codec_language_id if "dialect" not in name)]


def default_speaker(config: ModelConfig) -> str | None:
    """The preset voice used where none is named; None for models without."""
    return next(iter(config.talker_config.spk_id), None) if config.tts_model_type == "custom_voice" else None


def check(request: Request, config: ModelConfig) -> None:
    """Refuse what this checkpoint cannot do. The one place that says which option goes with which model.

                            voice (preset)      instruct
        CustomVoice 0.6B    yes, or default     no
        CustomVoice 1.7B    yes, or default     optional
        VoiceDesign         no                  required, may be empty
        Base                no                  no

    Raises RequestError, naming the model that can.
    """
    kind, size = config.tts_model_type, config.tts_model_size
    _check_numbers(request)
    if not isinstance(request.text, str) or not request.text.strip():
        raise RequestError("the text is empty: give at least one word to say")
    if kind == "base":
        raise RequestError(
            f"this is a Base model, which speaks in cloned voices only; use {MODEL_NAMES['custom_voice']}"
        )
    if request.voice is not None:
        if kind == "voice_design":
            raise RequestError(
                f"this VoiceDesign model has no preset voices: describe one with instruct, or use "
                f"{MODEL_NAMES['custom_voice']}"
            )
        if request.voice.lower() not in speakers(config):
            raise RequestError(f"unknown voice {request.voice!r}; this model has: {', '.join(speakers(config))}")
    if request.language is not None and request.language.lower() not in languages(config):
        raise RequestError(f"unknown language {request.language!r}; this model has: {', '.join(languages(config))}")
    if kind == "voice_design" and request.instruct is None:
        raise RequestError("a VoiceDesign model needs instruct: describe the voice, as in 'a calm, deep male voice'")
    if request.instruct and kind == "custom_voice" and size == "0b6":
        raise RequestError("the 0.6B CustomVoice model takes no instruct; use Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice")


def _check_numbers(request: Request) -> None:
    """Whole numbers in range; True and False are not numbers here."""
    for name, least in (("seed", 0), ("max_frames", 1)):
        value = getattr(request, name)
        if value is not None and (type(value) is not int or not least <= value < 2**63):
            raise RequestError(f"{name} must be a whole number from {least} on, not {value!r}")


class PromptBuilder:
    """Builds prompts for one checkpoint."""

    def __init__(self, config: ModelConfig, talker: Talker, tokenizer: TextTokenizer) -> None:
        self.config, self.talker, self.tokenizer = config, talker, tokenizer

    def text_ids(self, text: str) -> list[int]:
        """`<|im_start|>assistant\\n{text}<|im_end|>\\n<|im_start|>assistant\\n` as ids: 3 for the role, text, 5.

        "assistant", the newline and the text are encoded as one string, since a newline at the start of the text
        joins the one before it.
        """
        config = self.config
        newline = self.tokenizer.encode("\n")
        tail = [
            config.im_end_token_id,
            *newline,
            config.im_start_token_id,
            config.assistant_token_id,
            *newline,
        ]
        return [config.im_start_token_id, *self.tokenizer.encode(f"assistant\n{text}"), *tail]

    def instruct_ids(self, instruct: str) -> list[int]:
        """`<|im_start|>user\\n{instruct}<|im_end|>\\n` as ids."""
        middle = self.tokenizer.encode(f"user\n{instruct}")
        return [
            self.config.im_start_token_id,
            *middle,
            self.config.im_end_token_id,
            *self.tokenizer.encode("\n"),
        ]

    def language_id(self, language: str | None, voice: str | None) -> int | None:
        """The id of the language tag, None for auto. A dialect speaker turns Chinese and auto into the dialect."""
        config = self.config.talker_config
        name = (language or "auto").lower()
        dialect = config.spk_is_dialect[voice] if voice else False
        if dialect and name in ("chinese", "auto"):
            name = dialect
        return None if name == "auto" else config.codec_language_id[name]

    def _codec_prefix(self, language_id: int | None, voice: str | None) -> list[int]:
        """Language tags, speaker, pad, bos."""
        config = self.config.talker_config
        if language_id is None:
            tags = [config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id]
        else:
            tags = [config.codec_think_id, config.codec_think_bos_id, language_id, config.codec_think_eos_id]
        speaker = [config.spk_id[voice]] if voice else []
        return [*tags, *speaker, config.codec_pad_id, config.codec_bos_id]

    def build(self, request: Request) -> Prompt:
        """The prompt of a request that `check` has passed.

        Raises RequestError where it is longer than the model's context.
        """
        config, talker = self.config, self.talker
        voice = request.voice.lower() if request.voice else default_speaker(config)
        ids = self.text_ids(request.text)
        role, text = ids[:3], ids[3:-5]
        instruct = self.instruct_ids(request.instruct) if request.instruct else []
        prefix = self._codec_prefix(self.language_id(request.language, voice), voice)
        self._check_length(len(instruct) + len(role) + len(prefix) + len(text) + 1)

        pad, eos = talker.embed_text([config.tts_pad_token_id]), talker.embed_text([config.tts_eos_token_id])
        tags = [config.tts_pad_token_id] * (len(prefix) - 2) + [config.tts_bos_token_id]
        codec = talker.embed_codec(prefix)
        parts = [talker.embed_text(instruct + role), talker.embed_text(tags) + codec[:, :-1]]
        text_and_eos = mx.concatenate([talker.embed_text(text), eos], axis=1)
        if request.non_streaming_mode is False:
            parts.append(text_and_eos[:, :1] + codec[:, -1:])
            trailing = text_and_eos[:, 1:]
        else:
            codec_pad = talker.embed_codec([config.talker_config.codec_pad_id])
            parts += [text_and_eos + codec_pad, pad + codec[:, -1:]]
            trailing = pad
        return Prompt(mx.concatenate(parts, axis=1), trailing, pad)

    def _check_length(self, positions: int) -> None:
        """`positions`: what the prompt and, in the streaming layout, the frames that carry its text take."""
        context = self.config.talker_config.max_position_embeddings
        if positions >= context:
            raise RequestError(f"the text takes {positions} of the model's {context} positions; split it into parts")
