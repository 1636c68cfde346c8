"""Qwen3TTS: the model that users hold. Text in, speech out, whole or in chunks.

arguments ─ Request ─ Engine ─ AudioChunk, AudioChunk, ... ─ SynthesisResult
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from numbers import Integral
from pathlib import Path

import mlx.core as mx
import numpy as np

from .audio.mel import mel_spectrogram
from .audio.read import Audio, read_audio, resample, trim_silence
from .capabilities import check_cloning, check_reference, default_speaker, languages, speakers
from .checkpoint.adapter import adapter_path
from .codec.codec import Codec
from .demo import registry as demo
from .errors import AudioError, GenerationError, RequestError
from .generation.engine import Engine
from .generation.listen import BATCH_SIZE, BatchListener
from .generation.scheduler import Scheduler
from .generation.stream import stream_attempts, stream_chunks
from .hub import hub_name, resolve
from .models.network import Network
from .models.talker import Talker
from .option import arguments_of, invalid, is_number
from .request import Request
from .result import AudioChunk, SynthesisResult
from .voice import MAX_SECONDS, VoiceClonePrompt, check_clip
from .voice_design import DesignedReference, check_design, reference_text

WHOLE_CHUNKS = 8  # frames in each chunk if nobody waits for the first
MIN_SAMPLES = 2400  # samples of the shortest clip: the speaker encoder's convolutions reflect at its ends


class Qwen3TTS:
    """A loaded Qwen3-TTS checkpoint.

    It may be used from any thread. Requests of several threads take turns, chunk by chunk.
    """

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.config = engine.config
        self.generation_config = engine.generation_config
        self._engine: Engine | None = engine
        self._scheduler: Scheduler | None = Scheduler(engine)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        dtype: str | None = None,
        progress: bool = False,
        revision: str | None = None,
        adapter: str | Path | None = None,
    ) -> "Qwen3TTS":
        """Load a checkpoint. The model computes on the device that is MLX's default now.

        model: a directory, a hub id (downloaded once), a short name of a released checkpoint such as "0.6B" or
        "1.7B-design", or "demo", the built-in checkpoint that says times and numbers.
        dtype: "float32", "bfloat16" or "float16"; None takes the checkpoint's own on a GPU and float32 on the CPU.
        progress: show downloads on stderr.
        revision: a branch, a tag or a commit of a hub model; None takes its main branch.
        adapter: the directory of an adapter that was trained on this Base model. It is merged into the weights, and
        the result is a CustomVoice model with the adapter's speakers.
        Raises CheckpointError for a checkpoint or an adapter that is damaged, not implemented or of another model,
        DownloadError, and RequestError for an unknown dtype or a revision of a model that is not from the hub.
        """
        merged = adapter_path(adapter)
        with resolve(model, progress, revision=revision) as directory:
            named = str(model) in demo.NAMES or not os.path.isdir(os.path.expanduser(model))
            name = hub_name(model) if named else str(directory.resolve())
            return cls(name, Engine.load(directory, dtype, adapter=merged))

    @property
    def engine(self) -> Engine:
        """The model's parts. Raises RequestError if the model was unloaded."""
        if self._engine is None:
            raise RequestError(f"the model {self.name} was unloaded: load it again with from_pretrained")
        return self._engine

    @property
    def scheduler(self) -> Scheduler:
        """What serves the requests. Raises RequestError if the model was unloaded."""
        if self._scheduler is None:
            raise RequestError(f"the model {self.name} was unloaded: load it again with from_pretrained")
        return self._scheduler

    def unload(self) -> None:
        """Free the model's memory. Later use of the model or of its streams raises RequestError.

        A stream that has begun keeps the talker until it is read further, closed or dropped.
        """
        if self._engine is None:
            return
        worker = self._engine.worker
        self._engine.closed = True
        self.scheduler.wake()  # what is under way ends with an error
        self._scheduler = None
        self._engine = None
        worker.run(release_memory)

    def warm_up(self, batch_size: int = 1) -> None:
        """Compile all kernels now, so that the first request is as fast as all others.

        batch_size: the number of requests under way at a time.

        MLX compiles a kernel when it is first used: on a Mac some 40 in each process, which may take a second or more;
        on the CPU of Linux with g++, once per machine, in 20 to 50 s. Without a warm-up the first speech
        waits for them, and may stutter.
        """
        engine = self.engine
        engine.worker.run(engine.warm_up, batch_size)

    @property
    def talker(self) -> Talker:
        """The talker, with the code predictor below it. Use its arrays on the MLX thread (engine.worker.run)."""
        return self.engine.talker

    @property
    def network(self) -> Network:
        """The networks of model.safetensors. Use their arrays on the MLX thread (engine.worker.run)."""
        return self.engine.network

    @property
    def codec(self) -> Codec:
        """The codec."""
        return self.engine.codec

    @property
    def model_type(self) -> str:
        """ "custom_voice", "voice_design" or "base"."""
        return self.config.tts_model_type

    @property
    def speakers(self) -> list[str]:
        """Names of the preset voices; empty for models without."""
        return speakers(self.config)

    @property
    def default_speaker(self) -> str | None:
        """The preset voice used if none is named; None for models without preset voices."""
        return default_speaker(self.config)

    @property
    def languages(self) -> list[str]:
        """Names that `language` takes; "auto" leaves the choice to the model."""
        return languages(self.config)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self.codec.sample_rate

    def clone_voice(
        self,
        audio: Audio,
        text: str | None = None,
        trim: bool = False,
        tail: float = 0.0,
        max_seconds: float = MAX_SECONDS,
    ) -> VoiceClonePrompt:
        """Make a voice from a reference clip (Base models).

        audio: a path, a file object, or (array, sample rate), of any rate and number of channels.
        text: what the clip says, which lets the model continue it (in-context mode); None takes the timbre alone.
        trim: cut silence off both ends of the clip.
        tail: seconds of silence appended to the clip before it is encoded, so that a clip that ends inside a word does
        not leak its last sound into the speech. 0, the default, is what the official code does.
        max_seconds: a longer clip is an error.
        Raises RequestError for a model that cannot clone, a blank text and options out of range, AudioError for invalid
        audio, GenerationError.
        Source: Qwen3TTSModel.create_voice_clone_prompt.
        """
        check_cloning(self.config)
        check_reference(text, trim, tail, max_seconds)
        samples, rate = read_audio(audio, max_seconds)
        if trim:
            samples = trim_silence(samples, rate)
        warnings = check_clip(samples, rate, text)
        samples = resample(samples, rate, self.sample_rate)
        codes = None
        if text is not None:
            silence = np.zeros(round(tail * self.sample_rate), np.float32)
            codes = self.codec.encode(np.concatenate([samples, silence]), self.sample_rate)
        clip = ""
        if isinstance(audio, str | os.PathLike):
            clip = Path(audio).name
        return VoiceClonePrompt(
            speaker_embedding=self._embed_speaker(samples),
            ref_codes=codes,
            ref_text=text,
            provenance={
                "model": self.name,
                "clip": clip,
                "seconds": f"{len(samples) / self.sample_rate:.2f}",
            },
            warnings=warnings,
        )

    def design_voice(
        self,
        instruct: str,
        clone_with: "Qwen3TTS",
        text: str | None = None,
        language: str | None = None,
        seed: int | None = None,
    ) -> VoiceClonePrompt:
        """Make a voice from a description (VoiceDesign models), which Base models of one width then speak in.

        clone_with: a Base model. The other arguments are those of `design_reference`. To have one model in memory at a
        time, call `design_reference`, unload this model, load the other one, and call its `clone_reference`.
        Raises RequestError for models of other types, and what the two methods raise.
        """
        if not isinstance(clone_with, Qwen3TTS):
            raise invalid("clone_with", "a Qwen3TTS of a Base model", clone_with)
        check_cloning(clone_with.config)
        return clone_with.clone_reference(self.design_reference(instruct, text, language, seed))

    def design_reference(
        self, instruct: str, text: str | None = None, language: str | None = None, seed: int | None = None
    ) -> DesignedReference:
        """Speak the reference of a new voice (VoiceDesign models).

        instruct: a description of the voice. text: what the reference says; None takes two sentences in the language.
        language: None takes English for that. seed: the same seed gives the same voice; None draws one.
        Raises RequestError for another type of model and for invalid arguments, GenerationError if the speech does not
        end with its text.
        """
        check_design(self.config, instruct)
        if text is None:
            text = reference_text(language, self.config)
        speech = self.synthesize(text, instruct=instruct, language=language, seed=seed)
        return DesignedReference(speech, text, instruct, self.name)

    def clone_reference(self, reference: DesignedReference) -> VoiceClonePrompt:
        """Make a voice of a designed reference (Base models), in-context. Raises as `clone_voice`."""
        speech = reference.speech
        return reference.sign(self.clone_voice((speech.audio, speech.sample_rate), reference.text))

    def _embed_speaker(self, samples: np.ndarray) -> np.ndarray:
        """Return the speaker embedding, float32 [hidden], of audio [samples] at 24 kHz."""
        engine = self.engine
        if len(samples) < MIN_SAMPLES:
            raise AudioError(f"the clip is {len(samples) / self.sample_rate:.3f} s long; at least 0.1 s are needed")
        mel = mel_spectrogram(samples, engine.network.speaker_encoder.mel_dim)
        embedding = engine.worker.run(engine.embed_speaker, mel)
        if not np.isfinite(embedding).all():
            raise GenerationError("the speaker embedding is not finite: the checkpoint is damaged")
        return embedding

    @arguments_of(Request)
    def synthesize(self, request: Request) -> SynthesisResult:
        """Speak a text and return all of it. The arguments are the fields of Request.

        A runaway is generated once more if no seed was given, with a seed that follows from the first.
        Raises RequestError for invalid arguments and for what this model cannot do, GenerationError, and what the
        iterable that gives the text raises.
        Source: generate_custom_voice, generate_voice_design and generate_voice_clone of the official Qwen3TTSModel.
        """
        chunks: list[AudioChunk] = []
        attempt = 0
        for number, chunk in stream_attempts(self.scheduler, request, sizes_of_whole(request)):
            if number != attempt:
                chunks.clear()
                attempt = number
            chunks.append(chunk)
        return SynthesisResult.from_chunks(chunks)

    def run(self, request: Request) -> SynthesisResult:
        """Speak a request and return all of it, without a second attempt; see `synthesize`."""
        return SynthesisResult.from_chunks(list(stream_chunks(self.scheduler, request, sizes_of_whole(request))))

    @arguments_of(Request)
    def stream(self, request: Request) -> Generator[AudioChunk, None, None]:
        """Speak a text and yield the audio as it is generated. The arguments are the fields of Request.

        The chunks add up to what `synthesize` returns, except that a runaway is not generated once more. Closing the
        iterator ends the work.
        Raises RequestError at once for invalid arguments and for what this model cannot do. The iterator raises
        GenerationError and what the iterable that gives the text raises, after the audio so far.
        """
        return self.stream_request(request)

    def stream_request(self, request: Request) -> Generator[AudioChunk, None, None]:
        """Speak a request and yield the audio as it is generated; see `stream`."""
        return stream_chunks(self.scheduler, request)

    def synthesize_batch(self, requests: Iterable[Request], batch_size: int = BATCH_SIZE) -> list[SynthesisResult]:
        """Speak several requests side by side and return their results in order.

        Each result is the one that `synthesize` gives for the request alone. requests: in any mixture of voices, texts
        and options. batch_size: the number of requests under way at a time, 1 to 16.
        Raises RequestError before anything is made if a request in a list is invalid; the message names its index. If
        requests fail, BatchError has their errors, and the results of all others.
        """
        requests = [whole_request(request) for request in requests]
        listener = BatchListener(self.scheduler, requests, batch_size, (WHOLE_CHUNKS,), retries=True)
        return listener.results(len(requests))

    def stream_batch(
        self,
        requests: Iterable[Request],
        batch_size: int = BATCH_SIZE,
        on_error: Callable[[int, Exception], None] | None = None,
    ) -> Generator[tuple[int, AudioChunk], None, None]:
        """Speak several requests side by side and yield (index, chunk) as the audio is generated.

        requests: in any mixture; an iterator, which may be endless, is asked for the next one when a place is free.
        A text that is still being written is read on a thread of its own, and holds up no other request.
        batch_size: the number of requests under way at a time, 1 to 16. If fewer fit into `batch_memory`, a
        RuntimeWarning says so, and the others wait.
        on_error: called with the index and the error of a request that fails; without it BatchError is raised when all
        others have ended.
        Raises RequestError before anything is made if a request in a list is invalid, and when its turn comes if it is
        from an iterator; the message names the index.
        """
        listener = BatchListener(self.scheduler, requests, batch_size, on_error=on_error)
        return ((index, chunk) for index, _, chunk in listener.chunks())

    @property
    def batch_memory(self) -> int:
        """Bytes for the keys and values of all requests under way. The default is a quarter of what the device offers.

        A request that does not fit waits until others have ended; the first one is always served.
        """
        return self.scheduler.memory

    @batch_memory.setter
    def batch_memory(self, size: int) -> None:
        if not is_number(size, Integral) or size < 1:
            raise invalid("batch_memory", "a whole number of bytes above 0", size)
        self.scheduler.memory = int(size)

    def stream_attempts(self, request: Request) -> Iterator[tuple[int, AudioChunk]]:
        """Speak a request, and once more if it runs away and has no seed.

        Yields the number of the attempt, 0 or 1, and its next chunk; the chunks of attempt 0 are void once there is an
        attempt 1. Raises as `stream`.
        """
        return stream_attempts(self.scheduler, request)


def sizes_of_whole(request: Request) -> tuple[int]:
    """Return the size of the chunks of a request that is not streamed. Raises RequestError if it asks for a size."""
    if request.chunk_frames is not None:
        raise RequestError("chunk_frames has no effect on synthesize, which returns all of the audio; use stream")
    return (WHOLE_CHUNKS,)


def whole_request(request: Request) -> Request:
    """Return a request of `synthesize_batch`. Raises RequestError if it asks for a size of chunk."""
    if isinstance(request, Request):
        sizes_of_whole(request)
    return request


def release_memory() -> None:
    """Return freed memory to the system, after the work under way."""
    mx.synchronize()
    mx.clear_cache()
