"""The endpoints over HTTP.

POST /v1/audio/speech         audio, while it is made          GET    /v1/audio/voices
POST /v1/audio/speech/batch   several texts, base64            POST   /v1/audio/voices         a clip to a voice
GET  /v1/models, /v1/audio/models                              DELETE /v1/audio/voices/NAME
GET  /health, /metrics
"""

import asyncio
import base64
import secrets
import time
from functools import partial
from typing import Any

from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from ..audio.encode import MEDIA_TYPES
from ..capabilities import MODEL_KINDS, instructions, languages
from .endpoint import Exchange
from .metrics import MEDIA_TYPE
from .models import ALIASES, ServedModel
from .problem import Problem
from .protocol import SpeechCall, parse_batch, parse_call, read_json
from .reply import SpeechEncoder, audio_bytes, events, send_all, whole_file, with_first
from .service import Service
from .speech import SpeechStream, whole_speech
from .voices import Upload

SPEECH = "/v1/audio/speech"
BATCH = f"{SPEECH}/batch"
STARTED = int(time.time())
FORM_OVERHEAD = 2**16  # bytes of a form beyond the clip
MAX_NAMES = 10  # unknown fields that a header names


async def speech(exchange: Exchange) -> None:
    """Speak a text and send the audio while it is made."""
    service = exchange.service
    body = await exchange.body(service.settings.max_body)
    call = await service.workers.parse(lambda: parse_call(read_json(body), service.settings), len(body))
    served, name = service.voices.choose(call)
    patience = exchange.patience()
    tts = await patience.during(exchange.stack.enter_async_context(service.models.use(served)))
    voice = await patience.during(service.voices.find(call, served, tts, name))
    stream = SpeechStream(tts, call.request(voice), service.gate, began=exchange.began)
    encoder = SpeechEncoder(call, tts.sample_rate, service.workers)
    await patience.during(exchange.stack.enter_async_context(stream))
    data = audio_bytes(stream, encoder)
    exchange.stack.push_async_callback(data.aclose)  # type: ignore[attr-defined]
    first = await patience.during(anext(data))  # an error before the first chunk gets its own HTTP status
    audio = with_first(first, data)
    if call.sse:
        audio = events(audio, stream, call.response_format, partial(service.problem, name=SPEECH))
    await patience.during(send_all(exchange.note, _start(call, served, stream, tts.sample_rate), audio))
    exchange.details = service.count_speech(call.text, stream, exchange.seconds)


def _start(call: SpeechCall, served: ServedModel, stream: SpeechStream, sample_rate: int) -> dict[str, Any]:
    """Return the beginning of a response."""
    media_type = "text/event-stream" if call.sse else MEDIA_TYPES[call.response_format]
    headers = {
        "Content-Type": media_type,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # a proxy passes on what there is
        "X-Model": served.name,
        "X-Seed": str(stream.seed),
        "X-Audio-Sample-Rate": str(sample_rate),
    }
    if call.ignored:
        names = [name for name in call.ignored if name.isascii() and name.isidentifier()]
        headers["X-Ignored-Fields"] = ", ".join(name[:40] for name in names[:MAX_NAMES]) or "some"
    raw = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": raw}


async def batch(exchange: Exchange) -> Response:
    """Speak several texts side by side and return all of their audio."""
    service = exchange.service
    body = await exchange.body(service.settings.max_body)
    calls = await service.workers.parse(lambda: parse_batch(read_json(body), service.settings), len(body))
    service.gate.check_room()
    patience = exchange.patience()
    turns = asyncio.Semaphore(service.settings.batch_size)
    results = await patience.during(
        asyncio.gather(*(_item(service, turns, index, call) for index, call in enumerate(calls)))
    )
    succeeded = sum(result["status"] == "success" for result in results)
    exchange.details = f"{succeeded} of {len(results)} texts in {exchange.seconds:.2f} s"
    answer = {
        "id": f"speech-batch-{secrets.token_hex(8)}",
        "results": results,
        "total": len(results),
        "succeeded": succeeded,
        "failed": len(results) - succeeded,
    }
    return JSONResponse(answer)


async def _item(service: Service, turns: asyncio.Semaphore, index: int, call: SpeechCall | Problem) -> dict[str, Any]:
    """Return the result of one text of a batch; it fails alone."""
    try:
        if isinstance(call, Problem):
            raise call
        async with turns:
            return {"index": index, "status": "success", **await _speak_item(service, call)}
    except Exception as error:  # noqa: BLE001  (of this text: the others go on)
        return {"index": index, "status": "error", "error": service.problem(error, BATCH).message}


async def _speak_item(service: Service, call: SpeechCall) -> dict[str, Any]:
    began = time.perf_counter()
    served, name = service.voices.choose(call)
    async with service.models.use(served) as tts:
        voice = await service.voices.find(call, served, tts, name)
        chunks, stream = await whole_speech(tts, call.request(voice), service.gate, patient=True)
        data = await whole_file(call, chunks, service.workers)
    service.count_speech(call.text, stream, time.perf_counter() - began)
    return {
        "audio_data": base64.b64encode(data).decode(),
        "media_type": MEDIA_TYPES[call.response_format],
        "usage": stream.usage,
        "seed": chunks[-1].seed,
    }


async def list_voices(exchange: Exchange) -> Response:
    """List the voices."""
    return JSONResponse(await exchange.service.workers.fast(exchange.service.voices.list))


async def upload_voice(exchange: Exchange) -> Response:
    """Make a voice of the library from a clip."""
    service = exchange.service
    form = await exchange.form(service.settings.max_upload + FORM_OVERHEAD)
    clip = form.get("audio_sample") or form.get("sample")
    if not isinstance(clip, UploadFile):
        raise Problem(422, "audio_sample is missing: send a clip as a file", "audio_sample")
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    if not fields.get("name"):
        raise Problem(422, "name is missing: give the voice a name", "name")
    upload = Upload(
        clip=await clip.read(),
        name=fields["name"],
        text=fields.get("ref_text") or None,
        consent=fields.get("consent", ""),
        model=fields.get("model") or None,
        replace=fields.get("replace", "").lower() in ("1", "true", "yes", "on"),
    )
    made = await exchange.patience().during(service.voices.save(upload))
    exchange.details = f"{len(upload.clip)} bytes"
    return JSONResponse(made)


async def delete_voice(exchange: Exchange) -> Response:
    """Delete a voice of the library."""
    name = exchange.request.path_params["name"]
    voices = exchange.service.voices
    return JSONResponse(await exchange.service.workers.fast(lambda: voices.delete(name)))


def _model_entries(service: Service) -> list[dict[str, Any]]:
    return [
        {
            "id": served.name,
            "name": served.name,
            "object": "model",
            "created": STARTED,
            "owned_by": "mlx-qwen3-tts",
            "type": MODEL_KINDS[served.kind],
            "loaded": served.tts is not None,
            "bytes": served.size,
            "languages": languages(served.config),
            "instructions": instructions(served.config),
        }
        for served in service.models.all
    ]


async def list_models(exchange: Exchange) -> Response:
    """List the models, as OpenAI does, and what a request may have."""
    settings = exchange.service.settings
    limits = {
        "characters": settings.max_text,
        "upload_bytes": settings.max_upload,
        "clip_seconds": settings.max_ref_seconds,
    }
    entries = _model_entries(exchange.service)
    return JSONResponse({"object": "list", "data": entries, "aliases": ALIASES, "limits": limits})


async def list_audio_models(exchange: Exchange) -> Response:
    """List the models, as Open WebUI reads them."""
    return JSONResponse({"models": _model_entries(exchange.service)})


async def retrieve_model(exchange: Exchange) -> Response:
    """Return one model."""
    service = exchange.service
    served = service.models.named(exchange.request.path_params["name"])
    return JSONResponse(next(entry for entry in _model_entries(service) if entry["id"] == served.name))


async def health(exchange: Exchange) -> Response:
    """Tell whether speech can be made."""
    service = exchange.service
    if service.stopping:
        return JSONResponse({"status": "stopping"}, 503)
    if not service.models.ready:
        return JSONResponse({"status": "loading"}, 503, {"Retry-After": "5"})
    return JSONResponse({"status": "ok", "batch": service.gate.inside, "queue": service.gate.waiting})


async def metrics(exchange: Exchange) -> Response:
    """Return the counters."""
    return Response(exchange.service.metrics.text(), media_type=MEDIA_TYPE)
