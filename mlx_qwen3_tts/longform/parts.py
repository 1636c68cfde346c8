"""Segments as they are asked of the model, and the key of everything that shapes their sound.

Segment, BookOptions, model, voices ─ PartBuilder ─ Part: a Request, and the key of its take

A part whose key has a take is made already, whatever changed elsewhere in the book.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from ..capabilities import check_request
from ..config.model import GenerationConfig
from ..errors import RequestError
from ..generation.runaway import retry_seed
from ..request import Request
from ..text.tokenizer import TextTokenizer
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt
from .fingerprint import model_fingerprint, voice_fingerprint
from .options import BookOptions
from .plan import Segment

SOUND_VERSION = 1  # raise it when the package speaks the same request in another way
BOOK_VOICE = "(the book's)"  # the name of a cloned voice, which has none
CHUNK_FRAMES = 8  # nobody waits for the first sound

Voice = str | VoiceClonePrompt


@dataclass(frozen=True)
class Part:
    """A segment as it is asked of the model.

    request: with the seed of the first attempt. key: of what shapes its sound. origin: the key with the plan's seed.
    is_chosen: the user chose the seed, so that no other one is tried. voice: names the voice among those of the book.
    """

    segment: Segment
    request: Request
    key: str
    origin: str
    is_chosen: bool
    voice: str

    def attempt(self, number: int) -> Request:
        """Return the request of an attempt, from 0; each has a seed that follows from the one before."""
        seed = self.request.seed
        assert seed is not None
        for _ in range(number):
            seed = retry_seed(seed)
        return replace(self.request, seed=seed)


def sound_key(request: Request, model: str, voice: str, sampling: GenerationConfig, tokenizer: TextTokenizer) -> str:
    """Return the hash of everything that shapes a request's sound, 32 hexadecimal digits.

    model, voice: their fingerprints. sampling: with the checkpoint's defaults filled in.
    """
    assert isinstance(request.text, str)
    shape = {
        "version": SOUND_VERSION,
        "model": model,
        "voice": voice,
        "text": request.text,
        "tokens": [int(token) for token in tokenizer.encode(request.text)],
        "language": (request.language or "auto").lower(),
        "instruct": request.instruct or "",
        "sampling": asdict(sampling),
        "seed": request.seed,
        "layout": request.non_streaming_mode,
        "max_frames": request.max_frames,
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:32]


class PartBuilder:
    """Turns segments into parts."""

    def __init__(self, tts: Qwen3TTS, options: BookOptions, voices: Mapping[str, Voice]) -> None:
        """voices: by the names that the script uses; other names are preset voices."""
        self._tts = tts
        self._options = options
        self._voices = voices
        self.fingerprint = model_fingerprint(tts)
        self._voice_prints: dict[str | None, str] = {}

    def check(self, segment: Segment) -> None:
        """Raise RequestError for a voice or a language that the model does not have."""
        try:
            check_request(self._request(segment), self._tts.config)
        except RequestError as error:
            where = f"segment {segment.place}: " if segment.voice is not None else ""
            raise RequestError(f"{where}{error}", *error.arguments) from None

    def part(self, segment: Segment, chosen: Mapping[str, int]) -> Part:
        """Return the part of a segment. chosen: the seeds that the user chose, by the parts' origins."""
        request = self._request(segment)
        origin = self._key(request, segment.voice)
        key = origin
        if origin in chosen:
            request = replace(request, seed=chosen[origin])
            key = self._key(request, segment.voice)
        return Part(segment, request, key, origin, origin in chosen, self._name(segment))

    def _name(self, segment: Segment) -> str:
        own = self._options.voice
        if own is None:
            own = self._tts.default_speaker
        return segment.voice or (own if isinstance(own, str) else BOOK_VOICE)

    def _request(self, segment: Segment) -> Request:
        options = self._options
        voice = options.voice
        if segment.voice is not None:
            voice = self._voices.get(segment.voice, segment.voice)
        return Request(
            segment.text,
            voice=voice,
            language=options.language,
            instruct=options.instruct,
            seed=segment.seed,
            sampling=options.sampling,
            non_streaming_mode=True,
            chunk_frames=CHUNK_FRAMES,
        )

    def _key(self, request: Request, voice: str | None) -> str:
        """Return the key of a request. voice: the segment's name of its voice."""
        if voice not in self._voice_prints:
            self._voice_prints[voice] = voice_fingerprint(self._tts, request.voice)
        engine = self._tts.engine
        sampling = request.sampling.resolve(engine.generation_config)
        return sound_key(request, self.fingerprint, self._voice_prints[voice], sampling, engine.tokenizer)
