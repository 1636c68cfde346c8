"""`voices`: the library of cloned voices, a model's preset voices and languages, and the speakers of an adapter."""

import argparse
from pathlib import Path

from ..capabilities import MODEL_KINDS, default_speaker, languages, match, speakers
from ..checkpoint.adapter import adapter_path, check_config, read_adapter
from ..checkpoint.load import read_config
from ..checkpoint.speakers import custom_voice_config
from ..config.model import ModelConfig
from ..errors import CheckpointError, DownloadError, RequestError, VoiceError, printable
from ..hub import CONFIG_FILES, resolve
from ..suggest import suggest
from ..voice import VoiceClonePrompt
from ..voice_library import library_names, library_path
from .console import emit, note
from .flags import error_message
from .options import DEFAULT_MODEL, add_model
from .parser import Commands
from .settings import setting_value


def add_voices(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "voices",
        help="list voices and languages",
        description="List your library of cloned voices, and a model's preset voices and languages; with --adapter "
        "the speakers of an adapter.",
    )
    add_model(parser, f"{DEFAULT_MODEL}; with --adapter the one that it was trained on", dtype=False)
    parser.add_argument("--adapter", metavar="DIR", help="list the speakers of an adapter from `finetune`")
    parser.add_argument("--remove", metavar="NAME", help="delete a voice from your library")
    parser.set_defaults(run=voices)
    return parser


def voices(args: argparse.Namespace) -> None:
    """List the library, then a checkpoint's preset voices and languages; or remove a voice from the library."""
    if args.remove is not None:
        remove(args)
        return
    list_voices(args.model, args.revision, args.adapter)


def list_voices(named: str | None, revision: str | None, adapter: str | None) -> None:
    """List the library, then the voices and languages of a model that was named, or of the default one."""
    if (path := adapter_path(adapter)) is not None:
        list_adapter(path, named, revision)
        return
    names = library_names()
    for name in names:
        emit(f"cloned    {name}  {printable(describe(library_path(name)))}")
    try:
        model = named or setting_value("model") or DEFAULT_MODEL
        with resolve(model, progress=True, files=CONFIG_FILES, revision=revision) as directory:
            config = read_config(directory)
    except DownloadError as error:
        if named is not None or not names:
            raise
        note(error_message(error))  # the library, which the user wants as well, is listed all the same
        return
    list_model(config)


def remove(args: argparse.Namespace) -> None:
    """Delete a voice from the library. Raises VoiceError and RequestError."""
    if args.model is not None or args.revision is not None or args.adapter is not None:
        raise RequestError("--remove deletes a voice of your library: leave --model, --revision and --adapter out")
    path = library_path(match(args.remove, library_names()) or args.remove)
    if not path.exists():
        message = f"there is no voice {args.remove!r} in {path.parent}"
        raise VoiceError(suggest(message, args.remove, library_names(), "`voices` lists what there is"))
    try:
        path.unlink()
    except OSError as error:
        raise VoiceError(f"cannot delete {path}: {error.strerror}") from None
    note(f"removed {path}")


def list_adapter(path: Path, model: str | None, revision: str | None) -> None:
    """Print the speakers of an adapter, and the languages of its model, which need not be at hand."""
    adapter = read_adapter(path)
    try:
        with resolve(model or adapter.base, progress=True, files=CONFIG_FILES, revision=revision) as directory:
            config = read_config(directory)
    except (DownloadError, CheckpointError) as error:
        if model is not None:
            raise
        for name in adapter.speakers:
            emit(f"voice     {name}")
        note(error_message(error))
        return
    check_config(config, adapter)
    list_model(custom_voice_config(config, adapter.speakers))


def list_model(config: ModelConfig) -> None:
    """Print the preset voices, with their dialects, and the languages of a model."""
    dialects = config.talker_config.spk_is_dialect
    for name in speakers(config):
        line = f"voice     {name}"
        if dialects[name]:
            line += f" ({dialects[name]})"
        if name == default_speaker(config):
            line += " (default)"
        emit(line)
    if not speakers(config):
        note(f"a {MODEL_KINDS[config.tts_model_type]} model has no preset voices")
    for name in languages(config):
        emit(f"language  {name}")


def describe(path: Path) -> str:
    """Return what is known about a voice file, or why it cannot be read."""
    try:
        voice = VoiceClonePrompt.load(path)
    except VoiceError as error:
        return f"(unusable: {error_message(error)})"
    model = voice.provenance.get("model", "unknown model")
    seconds = voice.provenance.get("seconds", "?")
    text = "timbre only" if voice.ref_text is None else repr(voice.ref_text)
    designed = f", designed: {instruct!r}" if (instruct := voice.provenance.get("instruct")) else ""
    return f"({model}, {seconds} s, {text}{designed})"
