"""Who speaks: the voice of a name or a file, and the model that it needs. What `say`, `book` and others share.

name, or that of the settings ─┬─ a voice file, or the library ─ VoiceClonePrompt ─ the model that made it
                               └─ a preset voice ─ the model that was named, that of the settings, or the default
"""

import argparse
import os
import shlex
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

from ..capabilities import check_request, match, speakers
from ..checkpoint.adapter import adapter_path, read_adapter
from ..checkpoint.load import read_config
from ..config.model import ModelConfig
from ..errors import RequestError, VoiceError
from ..hub import CONFIG_FILES, hub_name, resolve
from ..program import program_name
from ..released import LANGUAGES, PRESET_MODELS, VOICES
from ..request import Request
from ..suggest import suggest, unknown
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt
from ..voice_library import library, library_names, library_path
from .console import note
from .options import DEFAULT_BASE, DEFAULT_MODEL
from .settings import setting_value


class HasVoice(Protocol):
    """Options of speech, as a frozen dataclass: a Request or a book's."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def voice(self) -> str | VoiceClonePrompt | None:
        """Who speaks."""

    @property
    def language(self) -> str | None:
        """What is spoken."""


Spoken = TypeVar("Spoken", bound=HasVoice)


def find_voice(name: str | None, model: str | None) -> str | VoiceClonePrompt | None:
    """Return the voice of a file, or of the library unless a named model may have a preset voice of that name."""
    if name is None:
        return None
    if name.endswith(".safetensors") or os.sep in name:
        return VoiceClonePrompt.load(name)
    if model is None and match(name, library_names()):
        return from_library(name)
    return name


def from_library(name: str) -> VoiceClonePrompt:
    """Return a voice of the library, in any case. Raises VoiceError."""
    known = match(name, library_names())
    if known is None:
        message = f"there is no voice {name!r} in your library ({library()})"
        raise VoiceError(suggest(message, name, library_names(), "`voices` lists it"))
    return VoiceClonePrompt.load(library_path(known))


def configured_voice(args: argparse.Namespace) -> str | None:
    """Return the voice of the user's settings, unless the arguments say who speaks."""
    if args.voice is not None or args.adapter is not None or getattr(args, "ref_audio", None) is not None:
        return None
    return setting_value("voice")


def model_for(args: argparse.Namespace, voice: str | VoiceClonePrompt | None, clones: bool = False) -> str:
    """Return the model that was named, or the one that the adapter or the voice needs, and print which one it is.

    Otherwise it is the one of the user's settings, if it has the voice, or the default.
    clones: the model is to clone a voice, so that it must be a Base model.
    Raises RequestError if no released model has the voice.
    """
    if args.model is not None:
        return args.model
    subject = "voice"
    if (adapter := adapter_path(args.adapter)) is not None:
        model = read_adapter(adapter).base
        subject = "adapter"
    elif isinstance(voice, VoiceClonePrompt):
        model = voice.provenance.get("model") or DEFAULT_BASE
    elif clones:
        return base_model()
    elif args.voice is None:
        return preset_model(None)
    else:
        return preset_model(voice)
    note(f"model: {model} (the one that the {subject} was made with; --model takes another)")
    return model


def check_released(model: str, args: argparse.Namespace, voice: str | VoiceClonePrompt | None) -> None:
    """Refuse a voice or a language that a released model with preset voices lacks, before it is downloaded.

    voice: the one that --voice names. Raises RequestError.
    """
    if hub_name(model) not in PRESET_MODELS or args.revision is not None:
        return
    preset = args.voice if isinstance(voice, str) else None
    for kind, name, known in (("voice", preset, VOICES), ("language", args.language, LANGUAGES)):
        if name is not None and match(name, list(known)) is None:
            raise RequestError(unknown(kind, name, known, f"this model has: {', '.join(known)}"))


def base_model() -> str:
    """Return the model of the user's settings if it is a Base model, or the default one."""
    configured = setting_value("model")
    if configured is not None and config_of(configured).tts_model_type == "base":
        return configured
    return DEFAULT_BASE


def preset_model(voice: str | None) -> str:
    """Return the model of the user's settings, or the default, with a note, if only that has the preset voice.

    Raises RequestError for a voice that the default model does not have, before it is downloaded.
    """
    configured = setting_value("model")
    is_released = voice is None or match(voice, list(VOICES)) is not None
    if configured is None and not is_released:
        known = [*VOICES, *library_names()]
        rest = f"{DEFAULT_MODEL} and your library have: {', '.join(known)}"
        raise RequestError(unknown("voice", str(voice), known, rest))
    if configured is None:
        return DEFAULT_MODEL
    if voice is None or not is_released or match(voice, speakers(config_of(configured))) is not None:
        return configured
    note(f"model: {DEFAULT_MODEL} (your settings' {configured} has no voice {voice}; --model takes another)")
    return DEFAULT_MODEL


def config_of(model: str) -> ModelConfig:
    """Return the configuration of a model, of which nothing else is downloaded."""
    with resolve(model, progress=True, files=CONFIG_FILES) as directory:
        return read_config(directory)


def configured_language(args: argparse.Namespace) -> str | None:
    """Return the language that was named, or that of the user's settings; an adapter's speakers have their own."""
    if args.language is not None or args.adapter is not None:
        return args.language
    return setting_value("language")


def fit_settings(tts: Qwen3TTS, request: Spoken, args: argparse.Namespace) -> Spoken:
    """Return a request, or the options of a book, without the settings' voice and language if the model lacks them.

    Prints a note for each that it leaves out.
    """
    if args.voice is None and request.voice is not None and not has_voice(tts.config, request.voice):
        note(f"{tts.name} does not have the voice of your settings; ignoring it")
        request = replace(request, voice=None)
    if args.language is None and request.language is not None and match(request.language, tts.languages) is None:
        note(f"{tts.name} does not have the language of your settings, {request.language}; ignoring it")
        request = replace(request, language=None)
    return request


def has_voice(config: ModelConfig, voice: str | VoiceClonePrompt) -> bool:
    """Return whether a model speaks in a preset voice, a voice of the library or a cloned voice."""
    if isinstance(voice, str):
        names = library_names() if config.tts_model_type == "base" else speakers(config)
        return match(voice, names) is not None
    if config.tts_model_type != "base":
        return False
    try:
        check_request(Request("any", voice=voice), config)
    except RequestError:
        return False
    return True


def default_voice_notice(tts: Qwen3TTS, voice: str | VoiceClonePrompt | None, args: argparse.Namespace) -> str | None:
    """Return a line about the voice if none was named."""
    if voice is not None or tts.default_speaker is None:
        return None
    command = "voices"
    if args.adapter is not None:
        command += f" --adapter {shlex.quote(args.adapter)}"
    elif args.model is not None:
        command += f" --model {shlex.quote(args.model)}"
    return f"voice: {tts.default_speaker} (the default; `{program_name()} {command}` lists the others)"
