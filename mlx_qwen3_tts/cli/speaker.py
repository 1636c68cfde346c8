"""Who speaks: the voice of a name or a file, and the model that it needs. What `say`, `book` and others share.

name ─┬─ a voice file, or the library ─ VoiceClonePrompt ─ the model that made it
      └─ a preset voice ─ the model that was named, or the default
"""

import argparse
import os

from ..capabilities import match
from ..checkpoint.adapter import adapter_path, read_adapter
from ..errors import VoiceError
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt
from ..voice_library import library, library_names, library_path
from .console import note
from .options import DEFAULT_BASE, DEFAULT_MODEL


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
        raise VoiceError(f"there is no voice {name!r} in your library ({library()}); `voices` lists it")
    return VoiceClonePrompt.load(library_path(known))


def model_for(args: argparse.Namespace, voice: str | VoiceClonePrompt | None, clones: bool = False) -> str:
    """Return the model that was named, or the one that the adapter or the voice needs, which is told.

    clones: the model is to clone a voice, so that the default is a Base model.
    """
    if args.model is not None:
        return args.model
    subject = "voice"
    if (adapter := adapter_path(args.adapter)) is not None:
        model = read_adapter(adapter).base
        subject = "adapter"
    elif isinstance(voice, VoiceClonePrompt):
        model = voice.provenance.get("model") or DEFAULT_BASE
    else:
        return DEFAULT_BASE if clones else DEFAULT_MODEL
    note(f"model: {model} (the one that the {subject} was made with; --model takes another)")
    return model


def default_voice_notice(tts: Qwen3TTS, voice: str | VoiceClonePrompt | None, adapter: str | None) -> str | None:
    """Return a line about the voice if none was named."""
    if voice is not None or tts.default_speaker is None:
        return None
    command = "voices" if adapter is None else f"voices --adapter {adapter}"
    return f"voice: {tts.default_speaker} (the default; `mlx-qwen3-tts {command}` lists the others)"
