"""Qwen3TTS: the model that users hold. Text in, speech out, whole or in chunks.

Request ─ check ─ PromptBuilder ─ stream_chunks ─ AudioChunk, AudioChunk, ... ─ SynthesisResult
"""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import NoReturn

import mlx.core as mx
import numpy as np

from .audio.mel import mel_spectrogram
from .audio.read import Audio, read_audio, resample, trim_silence
from .checkpoint.load import Checkpoint, load_directory
from .demo import registry as demo
from .errors import AudioError, GenerationError, RequestError
from .generation import prompt
from .generation.frames import FrameFunctions, PrefixCache
from .generation.prompt import PromptBuilder, Request
from .generation.runaway import retry_seed
from .generation.sampling import DEFAULTS, Sampling
from .generation.stream import stream_chunks
from .generation.timer import Clock
from .hub import resolve
from .result import AudioChunk, SynthesisResult
from .text.feed import kept
from .turn import TURN
from .voice import MAX_SECONDS, VoiceClonePrompt, check_clip

CHUNK_FRAMES = (1, 1, 2, 4, 8)  # frames in the first chunks of a stream, the last number for all that follow

WEIGHTY = ("network", "codec", "talker", "_functions", "_prefixes", "_prompts")  # what `unload` lets go

MIN_SAMPLES = 2400  # of a reference clip: the speaker encoder's convolutions reflect at its ends


class Qwen3TTS:
    """A loaded Qwen3-TTS checkpoint.

    It may be used from any thread, whichever loaded it; requests of several threads take turns, chunk by chunk.
    """

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        self.name = name
        self.config, self.generation_config, self.network, self.codec, tokenizer = checkpoint
        self.talker = self.network.talker
        self._functions, self._prefixes = FrameFunctions(self.talker), PrefixCache()
        self._prompts = PromptBuilder(self.config, self.talker, tokenizer)

    @classmethod
    def from_pretrained(
        cls, model: str | Path, dtype: str | None = None, progress: bool = False, revision: str | None = None
    ) -> "Qwen3TTS":
        """Load a checkpoint.

        model: a directory, a hub id (downloaded once), or "demo", the built-in checkpoint that says times and numbers.
        dtype: "float32", "bfloat16" or "float16"; None takes the checkpoint's own on a GPU and float32 on the CPU.
        progress: show downloads on stderr.
        revision: a branch, a tag or a commit of a hub model; None takes its main branch.
        Raises CheckpointError for one that is damaged or not implemented, DownloadError, and RequestError for an
        unknown dtype and a revision of a model that comes from no hub.
        """
        with resolve(model, progress, revision=revision) as directory:
            named = str(model) in demo.NAMES or not os.path.isdir(os.path.expanduser(model))
            name = str(model if named else directory.resolve())
            with TURN:
                return cls(name, load_directory(directory, dtype))

    def unload(self) -> None:
        """Free the model's memory. Whatever is asked of it afterwards, also of its streams, raises RequestError.

        A stream that has begun keeps the talker until it is asked for more, closed or dropped.
        """
        with TURN:
            for part in WEIGHTY:
                self.__dict__.pop(part, None)
            mx.synchronize()
            mx.clear_cache()

    def __getattr__(self, name: str) -> NoReturn:
        if name in WEIGHTY:
            raise RequestError(f"the model {self.name} was unloaded: load it again with from_pretrained")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def model_type(self) -> str:
        """ "custom_voice", "voice_design" or "base"."""
        return self.config.tts_model_type

    @property
    def speakers(self) -> list[str]:
        """Names of the preset voices; empty for models without."""
        return prompt.speakers(self.config)

    @property
    def default_speaker(self) -> str | None:
        """The preset voice that speaks where none is named."""
        return prompt.default_speaker(self.config)

    @property
    def languages(self) -> list[str]:
        """Names that `language` takes; "auto" leaves the choice to the model."""
        return prompt.languages(self.config)

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
        tail: seconds of silence put behind the clip before it is encoded, so that a clip that ends inside a word does
        not leak its last sound into the speech. 0, the default, is what the official code does.
        max_seconds: a longer clip is refused.
        Raises RequestError for a model that cannot clone, a blank text and options out of range, AudioError for audio
        that cannot be used, GenerationError.
        Source: Qwen3TTSModel.create_voice_clone_prompt.
        """
        prompt.check_cloning(self.config)
        prompt.check_reference(text, trim, tail, max_seconds)
        samples, rate = read_audio(audio, max_seconds)
        if trim:
            samples = trim_silence(samples, rate)
        warnings = check_clip(samples, rate, text)
        samples = resample(samples, rate, self.sample_rate)
        codes = None
        if text is not None:
            silence = np.zeros(round(tail * self.sample_rate), np.float32)
            codes = self.codec.encode(np.concatenate([samples, silence]), self.sample_rate)
        return VoiceClonePrompt(
            speaker_embedding=self._embed_speaker(samples),
            ref_codes=codes,
            ref_text=text,
            provenance={
                "model": self.name,
                "clip": Path(audio).name if isinstance(audio, str | os.PathLike) else "",
                "seconds": f"{len(samples) / self.sample_rate:.2f}",
            },
            warnings=warnings,
        )

    def _embed_speaker(self, samples: np.ndarray) -> np.ndarray:
        """Audio [samples] at 24 kHz -> speaker embedding, float32 [hidden]."""
        encoder, config = self.network.speaker_encoder, self.config.speaker_encoder_config
        if len(samples) < MIN_SAMPLES:
            raise AudioError(f"the clip is {len(samples) / self.sample_rate:.3f} s long; at least 0.1 s are needed")
        mel = mel_spectrogram(samples, config.mel_dim)
        with TURN:
            embedding = encoder(mx.array(mel)[None].astype(encoder.fc.weight.dtype))
            found = np.array(embedding[0].astype(mx.float32))
        if not np.isfinite(found).all():
            raise GenerationError("the speaker encoder's numbers are not finite: the checkpoint is damaged")
        return found

    def synthesize(
        self,
        text: str | Iterable[str],
        voice: str | VoiceClonePrompt | None = None,
        language: str | None = None,
        instruct: str | None = None,
        seed: int | None = None,
        sampling: Sampling = DEFAULTS,
        max_frames: int | None = None,
        non_streaming_mode: bool | None = None,
        frames_per_token: float | None = None,
        stop_runaway: bool = True,
    ) -> SynthesisResult:
        """Speak `text` and return all of it.

        text: a string, or an iterator of strings that may still be written while the speech has begun: a language
        model's output, say. It is asked for more, on this thread, where the speech has caught up with it.
        voice: a preset voice of a CustomVoice model, in any case; None takes `default_speaker`. For a Base model what
        `clone_voice` returned, or VoiceClonePrompt.load.
        language: one of `languages`, in any case; None is "auto".
        instruct: how to speak (CustomVoice 1.7B), or a description of the voice (VoiceDesign, where it is required).
        seed: the same seed gives the same audio on the same machine; None draws one, which the result names.
        sampling: see Sampling.
        max_frames: at most that many frames of 80 ms; None takes the checkpoint's limit, and the text's frame budget.
        non_streaming_mode: True puts the whole text before the first frame, False feeds one text token a frame; None
        takes True for a string and False for an iterator.
        frames_per_token: of the frame budget, 250 frames and so many more for each token of the text; None takes 12.
        stop_runaway: end speech that goes on in silence or in a cycle after its text (see runaway.py). Where no seed
        was given, it is made once more with a seed that follows from the first. False: as the official code, without
        guard, budget and second attempt.
        Raises RequestError where this model cannot do what is asked, GenerationError, and what the iterator raises.
        Source: generate_custom_voice, generate_voice_design and generate_voice_clone of the official Qwen3TTSModel.
        """
        request = Request(
            text, voice, language, instruct, seed, sampling, max_frames, non_streaming_mode, frames_per_token,
            stop_runaway,
        )  # fmt: skip
        prompt.check(request, self.config)
        pieces: list[str] = []  # of a text that comes but once
        result = self._synthesize(request if isinstance(text, str) else replace(request, text=kept(text, pieces)))
        if result.finish_reason == "runaway" and seed is None:
            text = text if isinstance(text, str) else pieces
            result = self._synthesize(replace(request, text=text, seed=retry_seed(result.seed)))
        return result

    def _synthesize(self, request: Request) -> SynthesisResult:
        return SynthesisResult.from_chunks(list(self._stream(request, (8,))))

    def stream(
        self,
        text: str | Iterable[str],
        voice: str | VoiceClonePrompt | None = None,
        language: str | None = None,
        instruct: str | None = None,
        seed: int | None = None,
        sampling: Sampling = DEFAULTS,
        max_frames: int | None = None,
        non_streaming_mode: bool | None = None,
        frames_per_token: float | None = None,
        stop_runaway: bool = True,
        chunk_frames: Sequence[int] = CHUNK_FRAMES,
    ) -> Iterator[AudioChunk]:
        """Speak `text` and yield the audio as it is made; the chunks add up to what `synthesize` returns.

        chunk_frames: frames in each chunk, the last number for all further ones; a chunk is shorter where the text of
        its next frame is not there yet, and comes later and longer after a pause of over a second (see runaway.py).
        The cut changes nothing in the audio. The rest as in `synthesize`, but that nothing is made a second time.
        Raises RequestError at once, before the first chunk is asked for, and what a text iterator raises after the
        audio so far. Closing the iterator ends the work.
        """
        numbers = chunk_frames if isinstance(chunk_frames, Sequence) else ()
        if not numbers or not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in numbers):
            raise RequestError(f"chunk_frames must be whole numbers above 0, not {chunk_frames!r}")
        request = Request(
            text, voice, language, instruct, seed, sampling, max_frames, non_streaming_mode, frames_per_token,
            stop_runaway,
        )  # fmt: skip
        return self._stream(request, chunk_frames)

    def _stream(self, request: Request, chunk_frames: Sequence[int]) -> Iterator[AudioChunk]:
        """Check the request and build its prompt now, then return the generator that does the work."""
        prompt.check(request, self.config)
        sampling = request.sampling.resolve(self.generation_config)
        seed = secrets.randbits(32) if request.seed is None else int(request.seed)
        clock = Clock()
        # A text that is still being written is waited for in the generator, not here.
        start = None
        if isinstance(request.text, str):
            with TURN:
                start = self._prompts.build(request)
        else:
            request = replace(request, text=TURN.outside(request.text))
        clock.lap("prefill")
        return stream_chunks(self, request, start, sampling, seed, chunk_frames, clock)
