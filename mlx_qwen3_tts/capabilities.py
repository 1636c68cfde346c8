"""What a checkpoint can do: its voices and languages, and which option goes with which type of model."""

from collections.abc import Sequence

from .config.model import ModelConfig
from .errors import RequestError
from .option import is_number
from .request import Request
from .suggest import unknown
from .text.unicode import check_text, composed
from .voice import VoiceClonePrompt

MODEL_NAMES = {
    "custom_voice": "a CustomVoice model, such as Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
    "voice_design": "a VoiceDesign model, such as Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign",
    "base": "a Base model, such as Qwen/Qwen3-TTS-12Hz-0.6B-Base",
}
MODEL_KINDS = {"custom_voice": "CustomVoice", "voice_design": "VoiceDesign", "base": "Base"}
SIZES = {1024: "0.6B", 2048: "1.7B"}


def speakers(config: ModelConfig) -> list[str]:
    """Return the preset voices of a checkpoint."""
    return list(config.talker_config.spk_id)


def languages(config: ModelConfig) -> list[str]:
    """Return the languages that a request may name. Dialects follow from their speakers and are not named."""
    return ["auto", *(name for name in config.talker_config.codec_language_id if "dialect" not in name)]


def instructions(config: ModelConfig) -> str:
    """Return whether a request may have `instruct`: "required", "optional" or "none"."""
    if config.tts_model_type == "voice_design":
        return "required"
    if config.tts_model_type == "custom_voice" and config.tts_model_size != "0b6":
        return "optional"
    return "none"


def default_speaker(config: ModelConfig) -> str | None:
    """Return the preset voice used if none is named; None for models without preset voices."""
    if config.tts_model_type != "custom_voice":
        return None
    return next(iter(config.talker_config.spk_id), None)


def match(name: str, names: list[str]) -> str | None:
    """Return the one of `names` that equals `name`, or else the one that differs in case or in spelling of accents."""
    if name in names:
        return name
    folded = composed(name).lower()
    return next((known for known in names if composed(known).lower() == folded), None)


def language_name(language: str | None, config: ModelConfig) -> str:
    """Return the name of a language as the checkpoint spells it; None is "auto". Raises RequestError."""
    if language is None:
        return "auto"
    name = match(language, languages(config))
    if name is None:
        raise RequestError(unknown("language", language, languages(config), _has(languages(config))), about="language")
    return name


def speaker_name(voice: str, config: ModelConfig) -> str:
    """Return the name of a preset voice as the checkpoint spells it. Raises RequestError."""
    name = match(voice, speakers(config))
    if name is None:
        raise RequestError(unknown("voice", voice, speakers(config), _has(speakers(config))), about="voice")
    return name


def _has(names: list[str]) -> str:
    return f"this model has: {', '.join(names)}"


def check_request(request: Request, config: ModelConfig) -> None:
    """Raise RequestError for a request that the checkpoint cannot serve, naming a model that can.

                        voice                   instruct
    CustomVoice 0.6B    preset, or default      no
    CustomVoice 1.7B    preset, or default      optional
    VoiceDesign         no                      required, may be empty
    Base                cloned, required        no
    """
    _check_voice(request.voice, config)
    _check_instruct(request.instruct, config)
    language_name(request.language, config)


def _check_voice(voice: str | VoiceClonePrompt | None, config: ModelConfig) -> None:
    kind = config.tts_model_type
    if kind == "base":
        _check_clone(voice, config)
    elif isinstance(voice, VoiceClonePrompt):
        message = f"a {MODEL_KINDS[kind]} model cannot speak in a cloned voice; use {MODEL_NAMES['base']}"
        raise RequestError(message, about="voice")
    elif voice is not None and kind == "voice_design":
        raise RequestError(
            f"this VoiceDesign model has no preset voices: describe one with instruct, or use "
            f"{MODEL_NAMES['custom_voice']}",
            "instruct",
            about="voice",
        )
    elif voice is not None:
        speaker_name(voice, config)


def _check_instruct(instruct: str | None, config: ModelConfig) -> None:
    kind = config.tts_model_type
    allowed = instructions(config)
    if allowed == "required" and instruct is None:
        message = "a VoiceDesign model needs instruct: describe the voice, as in 'a calm, deep male voice'"
        raise RequestError(message, "instruct")
    if instruct and allowed == "none" and kind == "custom_voice":
        message = "the 0.6B CustomVoice model takes no instruct; use Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice"
        raise RequestError(message, "instruct")
    if instruct and allowed == "none":
        message = "a Base model takes no instruct; use Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice"
        raise RequestError(message, "instruct")


def _check_clone(voice: str | VoiceClonePrompt | None, config: ModelConfig) -> None:
    """Raise RequestError unless the voice was made for a Base model of this width and these codebooks."""
    if not isinstance(voice, VoiceClonePrompt):
        raise RequestError(
            f"a Base model speaks in cloned voices only: clone one from a clip, or use {MODEL_NAMES['custom_voice']}",
            about="voice",
        )
    width = len(voice.speaker_embedding)
    talker = config.talker_config
    if width != talker.hidden_size:
        raise RequestError(
            f"this voice was made for a model of width {width} ({SIZES.get(width, 'another size')}), this one has "
            f"{talker.hidden_size} ({SIZES.get(talker.hidden_size, 'another size')}): clone it again with this model",
            about="voice",
        )
    codes = voice.ref_codes
    if codes is None:
        return
    in_range = codes.size == 0 or 0 <= codes.min() <= codes.max() < talker.num_codes
    if codes.shape[1] != talker.num_code_groups or not in_range:
        message = "this voice's codes are not of this model's codebooks: clone it again with this model"
        raise RequestError(message, about="voice")


def check_cloning(config: ModelConfig) -> None:
    """Raise RequestError if the model cannot clone a voice."""
    if config.tts_model_type != "base":
        kind = MODEL_KINDS[config.tts_model_type]
        raise RequestError(f"a {kind} model cannot clone a voice; use {MODEL_NAMES['base']}", about="model")


def check_reference(text: str | None, trim: bool, tail: float, max_seconds: float) -> None:
    """Raise RequestError for invalid arguments of Qwen3TTS.clone_voice."""
    if text is not None:
        if not isinstance(text, str) or not text.strip():
            raise RequestError(
                "the reference text is empty: give what the clip says, or leave it out", about="ref_text"
            )
        check_text("the reference text", text, about="ref_text")
    if not isinstance(trim, bool):
        raise RequestError(f"trim must be True or False, not {trim!r}", "trim")
    if not is_number(max_seconds) or not 0 < max_seconds < float("inf"):
        message = f"max_seconds must be a number of seconds above 0, not {max_seconds!r}"
        raise RequestError(message, "max_seconds")
    if not is_number(tail) or not 0 <= tail <= max_seconds:
        raise RequestError(f"tail must be from 0 to {max_seconds:g} seconds, not {tail!r}", "tail")
    if tail and text is None:
        raise RequestError("tail has no effect without a transcript: give the text, or leave it out", "tail")


def requests_for(
    config: ModelConfig,
    texts: Sequence[str],
    voice: str | VoiceClonePrompt | None,
    instruct: str | None,
    max_frames: int,
) -> list[Request]:
    """Return one request for each text, each with a seed of its own; a VoiceDesign model may go without a description.

    Raises RequestError for a request that the model cannot serve.
    """
    if instruct is None and config.tts_model_type == "voice_design":
        instruct = ""
    requests = []
    for seed, text in enumerate(texts):
        request = Request(text, voice=voice, instruct=instruct, seed=seed, max_frames=max_frames)
        check_request(request, config)
        requests.append(request)
    return requests
