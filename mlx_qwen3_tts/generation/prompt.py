"""A request to the embeddings that the talker starts from. The only file that knows the modes apart.

    [instruct] ─ role ─ language tags, [speaker], bos ─ [reference] text   (each position: text + codec embedding)
      user turn  3 ids  tts_pad ... tts_bos + codec ids

Two layouts of the text: `non_streaming_mode` puts all of it before the first frame; otherwise its first token comes
with the start of speech and one more is added to each frame's embedding, then tts_eos, then tts_pad. In the second
the text may come piece by piece while the model speaks: where it runs dry, the speech waits.
A cloned voice puts its speaker embedding in the speaker's place and, in in-context mode, its reference text and codes
before the text, as if the model had just spoken them.
Source: Qwen3TTSForConditionalGeneration.generate and generate_icl_prompt; the _build_* methods of Qwen3TTSModel.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

import mlx.core as mx

from ..config.model import ModelConfig
from ..errors import RequestError
from ..models.talker import Talker
from ..text.feed import EMPTY_TEXT, TextIds, check_pieces
from ..text.incremental import encode_live
from ..text.tokenizer import TextTokenizer
from ..text.unicode import check_text
from ..voice import VoiceClonePrompt
from .sampling import DEFAULTS, Sampling

MODEL_NAMES = {
    "custom_voice": "a CustomVoice model, such as Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
    "voice_design": "a VoiceDesign model, such as Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign",
    "base": "a Base model, such as Qwen/Qwen3-TTS-12Hz-0.6B-Base",
}
MODEL_KINDS = {"custom_voice": "CustomVoice", "voice_design": "VoiceDesign", "base": "Base"}
SIZES = {1024: "0.6B", 2048: "1.7B"}


@dataclass(frozen=True)
class Request:
    """What to say and how. See Qwen3TTS.synthesize for the fields."""

    text: str | Iterable[str]
    voice: str | VoiceClonePrompt | None = None
    language: str | None = None
    instruct: str | None = None
    seed: int | None = None
    sampling: Sampling = DEFAULTS
    max_frames: int | None = None
    non_streaming_mode: bool | None = None
    frames_per_token: float | None = None
    stop_runaway: bool = True


class Prompt(NamedTuple):
    """Where the talker starts, and the text that it is fed beside the codes while it speaks."""

    embeddings: mx.array  # [1, positions, hidden]
    text: TextIds  # the next id is embedded and added to each frame's embedding
    prefix: int = 0  # positions that the text has no part in: voice, language, instruction


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

                            voice                   instruct
        CustomVoice 0.6B    preset, or default      no
        CustomVoice 1.7B    preset, or default      optional
        VoiceDesign         no                      required, may be empty
        Base                cloned, required        no

    Raises RequestError, naming the model that can.
    """
    kind, size = config.tts_model_type, config.tts_model_size
    check_values(request)
    if kind == "base":
        _check_clone(request.voice, config)
    elif isinstance(request.voice, VoiceClonePrompt):
        raise RequestError(f"a {MODEL_KINDS[kind]} model cannot speak in a cloned voice; use {MODEL_NAMES['base']}")
    elif request.voice is not None:
        if kind == "voice_design":
            raise RequestError(
                f"this VoiceDesign model has no preset voices: describe one with instruct, or use "
                f"{MODEL_NAMES['custom_voice']}"
            )
        if match(request.voice, speakers(config)) is None:
            raise RequestError(f"unknown voice {request.voice!r}; this model has: {', '.join(speakers(config))}")
    if request.language is not None and match(request.language, languages(config)) is None:
        raise RequestError(f"unknown language {request.language!r}; this model has: {', '.join(languages(config))}")
    if kind == "voice_design" and request.instruct is None:
        raise RequestError("a VoiceDesign model needs instruct: describe the voice, as in 'a calm, deep male voice'")
    if request.instruct and kind == "custom_voice" and size == "0b6":
        raise RequestError("the 0.6B CustomVoice model takes no instruct; use Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice")
    if request.instruct and kind == "base":
        raise RequestError("a Base model takes no instruct; use Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice")


def check_cloning(config: ModelConfig) -> None:
    """Refuse to make a voice where the model cannot. Raises RequestError."""
    if config.tts_model_type != "base":
        raise RequestError(
            f"a {MODEL_KINDS[config.tts_model_type]} model cannot clone a voice; use {MODEL_NAMES['base']}"
        )


def check_reference(text: str | None, trim: bool, tail: float, max_seconds: float) -> None:
    """Refuse options of Qwen3TTS.clone_voice that no clip could be taken with. Raises RequestError."""
    if text is not None:
        if not isinstance(text, str) or not text.strip():
            raise RequestError("the reference text is empty: give what the clip says, or leave it out")
        check_text("the reference text", text)
    if not isinstance(trim, bool):
        raise RequestError(f"trim must be True or False, not {trim!r}")
    if not _is_number(max_seconds) or not 0 < max_seconds < float("inf"):
        raise RequestError(f"max_seconds must be a number of seconds, not {max_seconds!r}")
    if not _is_number(tail) or not 0 <= tail <= max_seconds:
        raise RequestError(f"tail must be from 0 to {max_seconds:g} seconds, not {tail!r}")
    if tail and text is None:
        raise RequestError("tail has no effect without a transcript: give the text, or leave it out")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_clone(voice: str | VoiceClonePrompt | None, config: ModelConfig) -> None:
    """A Base model speaks in a voice made for its width and its codebooks, and in no other."""
    if not isinstance(voice, VoiceClonePrompt):
        raise RequestError(
            f"a Base model speaks in cloned voices only: clone one from a clip, or use {MODEL_NAMES['custom_voice']}"
        )
    width, talker = len(voice.speaker_embedding), config.talker_config
    if width != talker.hidden_size:
        raise RequestError(
            f"this voice was made for a model of width {width} ({SIZES.get(width, 'another size')}), this one has "
            f"{talker.hidden_size} ({SIZES.get(talker.hidden_size, 'another size')}): clone it again with this model"
        )
    codes = voice.ref_codes
    if codes is not None and (
        codes.shape[1] != talker.num_code_groups
        or (codes.size and not 0 <= codes.min() <= codes.max() < talker.num_codes)
    ):
        raise RequestError("this voice's codes are not of this model's codebooks: clone it again with this model")


def check_values(request: Request) -> None:
    """Refuse what no checkpoint could take. Raises RequestError."""
    kinds = {
        "text": str | Iterable,
        "voice": str | VoiceClonePrompt | None,
        "language": str | None,
        "instruct": str | None,
        "seed": Integral | None,
        "sampling": Sampling,
        "max_frames": Integral | None,
        "non_streaming_mode": bool | None,
        "frames_per_token": Real | None,
        "stop_runaway": bool,
    }
    for name, kind in kinds.items():
        value = getattr(request, name)
        wrong = not isinstance(value, kind) or (name == "text" and isinstance(value, bytes | Mapping))
        if wrong or (isinstance(value, bool) and name not in ("non_streaming_mode", "stop_runaway")):
            raise RequestError(f"{name} cannot be {value!r}, of type {type(value).__name__}")
        if isinstance(value, str):
            check_text(name, value)
    if isinstance(request.text, str) and not request.text.strip():
        raise RequestError(EMPTY_TEXT)
    for name, least, most in (("seed", 0, 2**63 - 1), ("max_frames", 1, 2**31 - 1)):
        value = getattr(request, name)
        if value is not None and not least <= value <= most:
            raise RequestError(f"{name} must be a whole number from {least} to {most}, not {value}")
    _check_budget(request)
    request.sampling.check()


def _check_budget(request: Request) -> None:
    """A frame budget is a number above 0 that is not overruled. Raises RequestError."""
    budget = request.frames_per_token
    if budget is None:
        return
    if not 0 < budget <= 1e6:
        raise RequestError(f"frames_per_token must be a number above 0, and at most a million, not {budget}")
    if request.max_frames is not None:
        raise RequestError("frames_per_token has no effect beside max_frames; leave one out")
    if not request.stop_runaway:
        raise RequestError("frames_per_token has no effect while stop_runaway is off; leave one out")


def match(name: str, names: list[str]) -> str | None:
    """The one of `names` that is `name`, whatever its capitals; with the same ones, where there is one."""
    return name if name in names else next((known for known in names if known.lower() == name.lower()), None)


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
        name = match(language or "auto", languages(self.config))
        dialect = config.spk_is_dialect[voice] if voice else False
        if dialect and name.lower() in ("chinese", "auto"):
            name = dialect
        return None if name == "auto" else config.codec_language_id[name]

    def _codec_prefix(self, language_id: int | None, speaker: mx.array | None) -> mx.array:
        """Language tags, speaker, pad, bos: [1, positions, hidden]. speaker: its embedding [1, 1, hidden]."""
        config = self.config.talker_config
        if language_id is None:
            tags = [config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id]
        else:
            tags = [config.codec_think_id, config.codec_think_bos_id, language_id, config.codec_think_eos_id]
        parts = [self.talker.embed_codec(tags), self.talker.embed_codec([config.codec_pad_id, config.codec_bos_id])]
        return mx.concatenate(parts if speaker is None else [parts[0], speaker, parts[1]], axis=1)

    def _speaker(self, voice: str | VoiceClonePrompt | None) -> mx.array | None:
        """What stands in the speaker's place [1, 1, hidden]."""
        if isinstance(voice, VoiceClonePrompt):
            embedding = mx.array(voice.speaker_embedding)[None, None]
            return embedding.astype(self.talker.dtype)
        return self.talker.embed_codec([self.config.talker_config.spk_id[voice]]) if voice else None

    def _text(self, request: Request, reference: VoiceClonePrompt | None) -> tuple[list[int], TextIds]:
        """The ids of the role, which a newline at the start of the text reaches into, and those of the text."""
        pieces = [request.text] if isinstance(request.text, str) else request.text
        if request.non_streaming_mode:
            pieces = ["".join(check_pieces(pieces))]
        batches = encode_live(self.tokenizer, "assistant\n", check_pieces(pieces))
        text = TextIds(batches, self.config.tts_eos_token_id, self.config.tts_pad_token_id)
        role = [self.config.im_start_token_id, *text.take(2)]
        if reference:
            text.put_back(self.text_ids(reference.ref_text)[3:-5])
        return role, text

    def build(self, request: Request) -> Prompt:
        """The prompt of a request that `check` has passed.

        Raises RequestError where it is longer than the model's context, and, where the text comes piece by piece, for
        pieces that are no text.
        """
        config, talker = self.config, self.talker
        voice = request.voice or default_speaker(config)
        if isinstance(voice, str):
            voice = match(voice, speakers(config))
        preset = voice if isinstance(voice, str) else None
        reference = voice if isinstance(voice, VoiceClonePrompt) and voice.ref_codes is not None else None
        instruct = self.instruct_ids(request.instruct) if request.instruct else []
        role, text = self._text(request, reference)

        prefix = self._codec_prefix(self.language_id(request.language, preset), self._speaker(voice))
        tags = talker.embed_text([config.tts_pad_token_id] * (prefix.shape[1] - 2) + [config.tts_bos_token_id])
        # What the codec side starts from: bos, and in in-context mode the reference's frames after it.
        codec = prefix[:, -1:]
        if reference:
            codec = mx.concatenate([codec, talker.embed_frames(mx.array(reference.ref_codes)[None])], axis=1)
        whole_first = (
            isinstance(request.text, str) if request.non_streaming_mode is None else request.non_streaming_mode
        )
        start = self._in_turn(text, codec) if whole_first else talker.embed_text(text.take(codec.shape[1])) + codec
        parts = [talker.embed_text(instruct + role), tags + prefix[:, :-1], start]
        unchanging = len(instruct) + len(role) + tags.shape[1]
        if reference:  # its text stands first in both layouts
            transcript = len(self.text_ids(reference.ref_text)[3:-5])
            unchanging += transcript if whole_first else min(transcript, codec.shape[1] - 1)
        prompt = Prompt(mx.concatenate(parts, axis=1), text, unchanging)
        self._check_length(prompt)
        text.begin_speech()
        return prompt

    def _in_turn(self, text: TextIds, codec: mx.array) -> mx.array:
        """All of the text and its end, each position with codec_pad; then the codec side, each with tts_pad."""
        codec_pad = self.talker.embed_codec([self.config.talker_config.codec_pad_id])
        pad = self.talker.embed_text([self.config.tts_pad_token_id])
        return mx.concatenate([self.talker.embed_text(text.rest()) + codec_pad, codec + pad], axis=1)

    def _check_length(self, prompt: Prompt) -> None:
        """The prompt must fit into the context and, interleaved, the frames that carry what is known of its text."""
        context = self.config.talker_config.max_position_embeddings
        positions = prompt.embeddings.shape[1] + prompt.text.known
        if positions >= context:
            raise RequestError(f"the text takes {positions} of the model's {context} positions; split it into parts")
