"""The voices of a server: presets of its models, and the user's library, which clients list, extend and shorten.

    name, or clip ─ VoiceFinder ─ the model that speaks, and what Request takes as its voice
    upload ─ checks ─ clone_voice ─ the library

A name of a voice is looked up; no part of a request becomes a path.
"""

import hashlib
import io
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..capabilities import MODEL_NAMES, default_speaker, match
from ..errors import AudioError, VoiceError
from ..suggest import suggest, unknown
from ..text.unicode import composed
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt
from ..voice_library import library_names, library_path
from .gate import QueueFull
from .models import Models, ServedModel
from .problem import Problem, in_http_words
from .protocol import SpeechCall, too_large
from .settings import Settings
from .workers import Workers

OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
KEPT_CLIPS = 32  # voices of reference clips in requests
CONSENT = re.compile(r"true|1|yes|on|cons_\w+", re.IGNORECASE)  # the last one: OpenAI's id of a recorded consent
MAX_CONSENT = 128  # characters

Voice = str | VoiceClonePrompt | None


@dataclass(frozen=True)
class Upload:
    """A clip that is to become a voice of the library."""

    clip: bytes
    name: str
    text: str | None
    consent: str
    model: str | None
    replace: bool


class Voices:
    """Finds, lists, makes and deletes voices."""

    def __init__(self, models: Models, settings: Settings, workers: Workers) -> None:
        self._models = models
        self._settings = settings
        self._workers = workers
        self._clips: OrderedDict[tuple[str, str], VoiceClonePrompt] = OrderedDict()  # by clip, text and model
        self._cloning = 0  # clips whose voice is made, or waits for it

    # For a request

    def choose(self, call: SpeechCall) -> tuple[ServedModel, str | None]:
        """Return the model that speaks, and the name of the voice as it spells it; None takes the model's default.

        Raises Problem.
        """
        name = call.voice
        if name is not None:
            name = self._settings.voice_aliases.get(name.lower(), name)
        is_preset = name is not None and any(match(name, served.speakers) for served in self._models.all)
        saved = None if name is None or is_preset else match(name, library_names())
        kind = None
        if call.clip is not None or saved is not None:
            kind = "base"
        served = self._models.choose(call.model, call.task_type, partial(self._suits, name, saved), kind)
        if call.clip is not None:
            return served, None
        if name is None or saved is not None:
            return served, saved
        preset = match(name, served.speakers)
        if preset is None:
            raise self._unknown(name, served)
        return served, preset

    async def find(self, call: SpeechCall, served: ServedModel, tts: Qwen3TTS, name: str | None) -> Voice:
        """Return what Request takes as `voice`. Raises Problem, and what Qwen3TTS.clone_voice raises."""
        if call.clip is not None:
            return await self._of_clip(call.clip, call.clip_text, served, tts)
        if name is None or name in served.speakers:
            return name
        return await self._workers.fast(partial(read_voice, name))

    def _suits(self, name: str | None, saved: str | None, served: ServedModel) -> bool:
        if saved is not None:
            try:
                width = len(read_voice(saved).speaker_embedding)
            except Problem:
                return True
            return width == served.config.talker_config.hidden_size
        return name is None or match(name, served.speakers) is not None

    def _unknown(self, name: str, served: ServedModel) -> Problem:
        """Return the problem of a voice that the model does not have."""
        if served.kind == "voice_design":
            message = "a VoiceDesign model has no preset voices: describe one with instructions, and leave voice empty"
            return Problem(400, message, "voice", "voice_not_found")
        known = list(served.speakers)
        if any(one.kind == "base" for one in self._models.all):  # others cannot speak in the library's voices
            known += library_names()
        listed = f"this server has: {', '.join(known)}" if known else "upload one, or describe one with instructions"
        message = unknown("voice", name, known, listed)
        if name.lower() in OPENAI_VOICES:
            message += f"; to let {name!r} stand for one of them, start the server with --voice-alias {name}=NAME"
        return Problem(400, message, "voice", "voice_not_found")

    async def _of_clip(self, clip: bytes, text: str | None, served: ServedModel, tts: Qwen3TTS) -> VoiceClonePrompt:
        """Clone the voice of a request's clip; that of a clip that was used recently is kept."""
        key = (hashlib.sha256(clip).hexdigest() + (text or ""), served.name)
        voice = self._clips.get(key)
        if voice is None:
            voice = await self._clone(tts, clip, text, "ref_audio")
            self._clips[key] = voice
            while len(self._clips) > KEPT_CLIPS:
                self._clips.popitem(last=False)
        self._clips.move_to_end(key)
        return voice

    async def _clone(self, tts: Qwen3TTS, clip: bytes, text: str | None, param: str) -> VoiceClonePrompt:
        """Make a voice. param: the field of the clip.

        Raises QueueFull if as many clips as there are places and a queue for speech wait already, Problem for a clip
        that cannot be used, and RequestError.
        """
        if self._cloning >= self._settings.batch_size + self._settings.queue_size:
            raise QueueFull
        seconds = self._settings.max_ref_seconds
        self._cloning += 1
        try:
            return await self._workers.slow(partial(tts.clone_voice, io.BytesIO(clip), text, max_seconds=seconds))
        except AudioError as error:
            raise Problem(400, in_http_words(error), param) from None
        finally:
            self._cloning -= 1

    # The library

    def list(self) -> dict[str, Any]:
        """Return all voices.

        `voices` is what Open WebUI reads, `uploaded_voices` what clients of vLLM-Omni read.
        """
        voices = []
        for name in dict.fromkeys(name for served in self._models.all for name in served.speakers):
            models = [served.name for served in self._models.all if name in served.speakers]
            is_default = name == default_speaker(self._models.default.config)
            voices.append(_entry(name, "preset", models) | {"default": is_default})
        uploaded = []
        for name in library_names():
            try:
                uploaded.append(_uploaded(name))
            except (Problem, OSError):
                continue  # damaged, or deleted meanwhile
            voices.append(_entry(name, "library", [served.name for served in self._models.of_kind("base")]))
        return {"object": "list", "voices": voices, "uploaded_voices": uploaded}

    async def save(self, upload: Upload) -> dict[str, Any]:
        """Make a voice of the library from a clip. Raises Problem, and what Qwen3TTS.clone_voice raises."""
        if not CONSENT.fullmatch(upload.consent.strip()):
            message = "consent is missing: send consent=true if the speaker has agreed that this voice is made"
            raise Problem(400, message, "consent", "consent_required")
        if len(upload.clip) > self._settings.max_upload:
            raise too_large("audio_sample", self._settings)
        existing = self._check_name(upload)
        served = self._base(upload.model)
        async with self._models.use(served) as tts:
            made = await self._clone(tts, upload.clip, upload.text, "audio_sample")
        made.provenance.update(clip="upload", consent=upload.consent.strip()[:MAX_CONSENT])
        name = existing or composed(upload.name)
        await self._workers.fast(partial(_save, made, name, upload.replace))
        voice = _uploaded(name)
        entry = _entry(name, "library", [one.name for one in self._models.of_kind("base")])
        return entry | {"created_at": voice["created_at"], "success": True, "voice": voice, "warnings": made.warnings}

    def delete(self, name: str) -> dict[str, Any]:
        """Delete a voice of the library. Raises Problem."""
        known = match(name, library_names())
        if known is None:
            message = suggest(
                f"there is no voice {name!r} in the library", name, library_names(), "/v1/audio/voices lists it"
            )
            raise Problem(404, message, "name", "voice_not_found")
        try:
            library_path(known).unlink()
        except OSError as error:
            raise Problem(500, f"the voice {known!r} cannot be deleted: {error.strerror}") from None
        return {"id": known, "deleted": True, "success": True, "message": f"the voice {known!r} was deleted"}

    def _check_name(self, upload: Upload) -> str | None:
        """Return the name of the voice that an upload replaces. Raises Problem for a name that it may not have."""
        try:
            library_path(upload.name)
        except VoiceError as error:
            raise Problem(400, str(error), "name") from None
        if any(match(upload.name, served.speakers) for served in self._models.all):
            raise Problem(400, f"{upload.name!r} is a preset voice: choose another name", "name")
        existing = match(upload.name, library_names())
        if existing is not None and not upload.replace:
            raise _exists(existing)
        return existing

    def _base(self, name: str | None) -> ServedModel:
        """Return the model that clones. Raises Problem."""
        if name is not None:
            return self._models.named(name)
        models = self._models.of_kind("base")
        if not models:
            raise Problem(400, f"this server clones no voices: start it with --model of {MODEL_NAMES['base']}", "model")
        return models[0]


def read_voice(name: str) -> VoiceClonePrompt:
    """Return a voice of the library. Raises Problem, without the path of the file."""
    try:
        return VoiceClonePrompt.load(library_path(name))
    except VoiceError:
        raise Problem(500, f"the voice {name!r} cannot be read: `mlx-qwen3-tts voices` says why", "voice") from None


def _exists(name: str) -> Problem:
    message = f"there is a voice {name!r} already: send replace=true, or choose another name"
    return Problem(409, message, "name", "voice_exists")


def _save(voice: VoiceClonePrompt, name: str, replace: bool) -> None:
    path = library_path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        voice.save(path, replace)
    except (OSError, VoiceError):
        if not replace and path.exists():  # made meanwhile
            raise _exists(name) from None
        raise Problem(500, f"the voice {name!r} cannot be saved: check the server's disk") from None


def _entry(name: str, kind: str, models: list[str]) -> dict[str, Any]:
    return {"id": name, "name": name, "object": "audio.voice", "type": kind, "models": models}


def _uploaded(name: str) -> dict[str, Any]:
    """Return what vLLM-Omni says of an uploaded voice. Raises Problem and OSError."""
    voice = read_voice(name)
    status = library_path(name).stat()
    entry = {
        "name": name,
        "consent": voice.provenance.get("consent", ""),
        "created_at": int(status.st_mtime),
        "file_size": status.st_size,
        "mime_type": "application/octet-stream",
    }
    if voice.ref_text is not None:
        entry["ref_text"] = voice.ref_text
    return entry
