"""OpenAI's JSON, with vLLM-Omni's additional fields, to a Request.

body ─ read_json ─ parse_call ─ SpeechCall ─ request (with the voice that was found) ─► Request
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..audio.encode import MEDIA_TYPES
from ..audio.stretch import MAX_SPEED, MIN_SPEED
from ..capabilities import MODEL_KINDS
from ..option import invalid, is_number, options_of
from ..request import Request, Sampling
from ..text.unicode import is_unicode
from ..voice import VoiceClonePrompt
from .problem import Problem
from .settings import Settings

MAX_ITEMS = 32  # of a batch
STREAM_FORMATS = ("audio", "sse")
TASK_TYPES = {kind.lower(): model_type for model_type, kind in MODEL_KINDS.items()}  # "customvoice" to "custom_voice"

SAMPLING = tuple(name for name, _ in options_of(Sampling))
# The fields of Request, but those that HTTP has in another form; the server itself cuts the audio into chunks.
OTHER_FORM = ("text", "voice", "instruct", "sampling", "chunk_frames")
OPTIONS = tuple(name for name, _ in options_of(Request) if name not in OTHER_FORM)
STRINGS = ("model", "instructions", "response_format", "stream_format", "ref_audio", "ref_text", "task_type")
KNOWN = {"input", "voice", "speed", "x_vector_only_mode", "max_new_tokens", *STRINGS, *OPTIONS, *SAMPLING}
# Fields without effect: audio is always streamed.
WITHOUT_EFFECT = {"stream", "stream_audio", "type"}
NOT_IGNORED = KNOWN | WITHOUT_EFFECT
# Commas in a body: of fields, items, and texts. The parsing of a body of millions of values would hold up everybody.
MAX_COMMAS = 2**16


@dataclass(frozen=True)
class SpeechCall:
    """What a client asks for, with the types checked; the values are checked by Request and by the model."""

    text: str
    model: str | None
    voice: str | None
    response_format: str
    speed: float
    sse: bool
    task_type: str | None  # as in config.json
    instruct: str | None
    clip: bytes | None  # the reference audio
    clip_text: str | None
    options: dict[str, Any]  # of Request
    sampling: dict[str, Any]
    ignored: tuple[str, ...]  # fields that are unknown

    def request(self, voice: str | VoiceClonePrompt | None, text: Any = None) -> Request:
        """Return the request in a voice that was found. text: in place of the call's. Raises RequestError."""
        if text is None:
            text = self.text
        return Request(
            text,
            voice=voice,
            instruct=self.instruct,
            sampling=Sampling(**self.sampling),
            **self.options,
        )


def read_json(body: bytes) -> dict[str, Any]:
    """Return the object in a body. Raises Problem."""
    if body.count(b",") > MAX_COMMAS:
        raise Problem(400, "the body has too many values: send a smaller one", code="too_large")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not valid JSON", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Problem(422, f"the body must be a JSON object, not {type(value).__name__}")
    return cast(dict[str, Any], value)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def parse_call(
    fields: Mapping[str, Any], settings: Settings, default_format: str = "mp3", needs_text: bool = True
) -> SpeechCall:
    """Return the call of a JSON object. Raises Problem for values of wrong types and beyond the server's limits.

    default_format: of the response, if none is named. needs_text: False for a session whose text is to come.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for name in STRINGS:
        _string(given, name)
    text = _text(given, settings) if needs_text else ""
    clip, clip_text = _clip(given, settings)
    options = {name: given[name] for name in OPTIONS if name in given}
    if "max_new_tokens" in given:
        _add_max_new_tokens(given, options)
    task_type = _task_type(given)
    return SpeechCall(
        text=text,
        model=given.get("model") or None,
        voice=_voice(given),
        response_format=_one_of(given, "response_format", tuple(MEDIA_TYPES), default_format),
        speed=_speed(given),
        sse=_one_of(given, "stream_format", STREAM_FORMATS, "audio") == "sse",
        task_type=task_type,
        instruct=given.get("instructions"),
        clip=clip,
        clip_text=clip_text,
        options=options,
        sampling={name: given[name] for name in SAMPLING if name in given},
        ignored=tuple(name for name in given if name not in NOT_IGNORED),
    )


def parse_batch(fields: Mapping[str, Any], settings: Settings) -> list[SpeechCall | Problem]:
    """Return the calls of a batch: each item with the batch's own fields as defaults; a Problem for an invalid one.

    Raises Problem if there are no items, or more than the server takes.
    """
    items = fields.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
        raise Problem(422, f"items must be a list of 1 to {MAX_ITEMS} objects", "items")
    defaults = {name: value for name, value in fields.items() if name not in ("items", "stream_format")}
    calls: list[SpeechCall | Problem] = []
    for item in items:
        try:
            if not isinstance(item, dict):
                raise Problem(422, "an item must be an object", "items")
            own = {name: value for name, value in item.items() if value is not None}
            calls.append(parse_call({**defaults, **own}, settings, default_format="wav"))
        except Problem as problem:
            calls.append(problem)
    total = sum(len(call.text) for call in calls if isinstance(call, SpeechCall))
    if total > 4 * settings.max_text:
        message = f"the texts of a batch have {total} characters and the limit is {4 * settings.max_text}: send less"
        raise Problem(400, message, "items", "string_above_max_length")
    return calls


def _string(given: Mapping[str, Any], name: str) -> None:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise Problem(422, f"{name} must be a string, not {type(value).__name__}", name)
    if not is_unicode(value):
        raise Problem(400, f"{name} must be valid Unicode: it has half of a surrogate pair", name)


def _text(given: Mapping[str, Any], settings: Settings) -> str:
    if "input" not in given:
        raise Problem(422, "input is missing: give the text to say", "input")
    _string(given, "input")
    text: str = given["input"]
    check_length(len(text), settings)
    return text


def check_length(length: int, settings: Settings) -> None:
    """Raise Problem for a text that is too long."""
    if length > settings.max_text:
        raise Problem(
            400,
            f"input has {length} characters and the limit is {settings.max_text}: send it in parts",
            "input",
            "string_above_max_length",
        )


def _voice(given: Mapping[str, Any]) -> str | None:
    """Return the name in `voice`, which is a string or {"id": name}."""
    voice = given.get("voice")
    if isinstance(voice, dict):
        voice = voice.get("id")
        if voice is None:
            raise Problem(422, 'voice must be a name, or an object with an "id"', "voice")
    if voice is not None and not isinstance(voice, str):
        raise Problem(422, f"voice must be a string, not {type(voice).__name__}", "voice")
    _string({"voice": voice or ""}, "voice")
    return voice or None


def _speed(given: Mapping[str, Any]) -> float:
    speed = given.get("speed", 1.0)
    if not is_number(speed) or not MIN_SPEED <= speed <= MAX_SPEED:
        raise Problem(400, str(invalid("speed", f"a number from {MIN_SPEED:g} to {MAX_SPEED:g}", speed)), "speed")
    return float(speed)


def _one_of(given: Mapping[str, Any], name: str, values: tuple[str, ...], default: str) -> str:
    value = str(given.get(name) or default).lower()
    if value not in values:
        raise Problem(400, str(invalid(name, f"one of {', '.join(values)}", value)), name)
    return value


def _task_type(given: Mapping[str, Any]) -> str | None:
    """Return the kind of model as config.json has it, if one is named."""
    name = given.get("task_type")
    if name is None:
        return None
    if name.lower() not in TASK_TYPES:
        raise Problem(422, f"task_type must be one of {', '.join(MODEL_KINDS.values())}", "task_type")
    return TASK_TYPES[name.lower()]


def _add_max_new_tokens(given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Set max_frames. The official max_new_tokens counts one more: its last code is never completed to a frame."""
    count = given["max_new_tokens"]
    if not isinstance(count, int) or isinstance(count, bool) or not 2 <= count < 2**31:
        raise Problem(400, str(invalid("max_new_tokens", "a whole number above 1", count)), "max_new_tokens")
    options.setdefault("max_frames", count - 1)


def _clip(given: Mapping[str, Any], settings: Settings) -> tuple[bytes | None, str | None]:
    """Return the reference clip, decoded, and its transcript, if it is to be used."""
    timbre_only = given.get("x_vector_only_mode", False)
    if not isinstance(timbre_only, bool):
        raise Problem(422, "x_vector_only_mode must be true or false", "x_vector_only_mode")
    text = given.get("ref_text") or None
    url = given.get("ref_audio") or None
    if url is None:
        if text is not None or timbre_only:
            name = "ref_text" if text is not None else "x_vector_only_mode"
            raise Problem(400, f"{name} has no effect without ref_audio; leave it out", name)
        return None, None
    header, comma, data = url.partition(",")
    if not header.lower().startswith("data:") or not header.lower().endswith(";base64") or not comma:
        raise Problem(
            400,
            "ref_audio must be a data URL (data:audio/wav;base64,...): this server fetches nothing and opens no files",
            "ref_audio",
        )
    if len(data) * 3 // 4 > settings.max_upload + 2:
        raise too_large("ref_audio", settings)
    try:
        clip = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(400, "ref_audio is not valid base64", "ref_audio") from None
    if timbre_only:
        return clip, None
    return clip, text


def too_large(name: str, settings: Settings) -> Problem:
    """Return the problem of a clip that has too many bytes."""
    return Problem(413, f"{name} is larger than {settings.max_upload / 1e6:g} MB: cut the clip", name, "too_large")
