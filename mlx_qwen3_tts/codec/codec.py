"""The codec of a checkpoint (speech_tokenizer/): codes to audio and back, on the MLX thread.

    codes ─ decode, decode_next, decode_async ─ samples           samples ─ encode ─ codes
            (a compiled function for each size of chunk)                    (in blocks)

Source: Qwen3TTSTokenizer and Qwen3TTSTokenizerV2Model.
"""

from collections.abc import Callable, Iterator

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..audio.read import read_audio, resample
from ..config.codec import CodecConfig
from ..errors import GenerationError, RequestError
from ..mlx_thread import Worker
from .decoder import CodecDecoder
from .encoder import CodecEncoder
from .layers import State

# Frames decoded at a time are a power of two and at most 8: enough to share the reading of the weights, in 0.3 GB of
# intermediate results at the released sizes, and four sizes are all that is ever compiled.
MAX_CHUNK = 8
ENCODE_FRAMES = 64  # frames in a block, 5 s: the first convolutions take 6 MB a second for each array


class CodecNetwork(nn.Module):
    """What speech_tokenizer/model.safetensors holds."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.encoder = CodecEncoder(config.encoder_config)
        self.decoder = CodecDecoder(config.decoder_config)


class Codec:
    """Encodes and decodes; may be used from any thread."""

    def __init__(self, config: CodecConfig, network: CodecNetwork, worker: Worker) -> None:
        self.config = config
        self.network = network
        self._worker = worker
        decoder = network.decoder
        self._decode = mx.compile(lambda codes, state: decoder(codes, state))

    @property
    def sample_rate(self) -> int:
        """Samples per second of the decoded audio."""
        return self.config.output_sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of codes becomes (1,920 in the released models)."""
        return self.config.decode_upsample_rate

    @property
    def num_quantizers(self) -> int:
        """Codes in a frame."""
        return self.config.decoder_config.num_quantizers

    def encode(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Encode audio.

        audio: float [samples] or [samples, channels] in -1 .. 1, at any rate.
        Returns codes, int32 [ceil(samples at 24 kHz / 1920), 16].
        Raises AudioError for audio that is empty or not finite. Source: Qwen3TTSTokenizer.encode for one clip.
        """
        samples = resample(*read_audio((audio, sample_rate)), self.config.input_sample_rate)
        block = ENCODE_FRAMES * self.config.encode_downsample_rate
        state: State = None
        features: list[mx.array] = []
        for start in range(0, len(samples), block):
            part, state = self._worker.run(self._encode_block, samples[start : start + block], state)
            features.append(part)
        return self._worker.run(self._quantize, features)

    def _encode_block(self, samples: np.ndarray, state: State) -> tuple[mx.array, State]:
        features, state = self.network.encoder.features(mx.array(samples)[None], state)
        mx.eval(features, state)
        mx.clear_cache()
        return features, state

    def _quantize(self, features: list[mx.array]) -> np.ndarray:
        codes = self.network.encoder.quantize(mx.concatenate(features, axis=1), self.num_quantizers)
        found = np.array(codes.astype(mx.int32))[0]
        mx.clear_cache()
        return found

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Decode codes, int [frames, 16], to audio, float32 [frames * samples_per_frame] in -1 .. 1.

        Equals the official decoder's `forward` on all frames at once. Raises RequestError for codes of another shape
        or outside the codebooks, GenerationError if the samples are not finite.
        """
        decoder = self.config.decoder_config
        try:
            codes = np.asarray(codes)
        except ValueError:
            raise RequestError("codes must be one array, of rows of one length") from None
        if codes.ndim != 2 or codes.shape[1] != self.num_quantizers or codes.dtype.kind not in "iu":
            raise RequestError(
                f"codes must be integers of shape [frames, {self.num_quantizers}], "
                f"not {codes.dtype} {list(codes.shape)}"
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < decoder.codebook_size:
            raise RequestError(
                f"codes must lie in 0 .. {decoder.codebook_size - 1}; these reach from {codes.min()} to {codes.max()}"
            )
        state: State = None
        chunks = [np.zeros(0, np.float32)]
        for part in pieces(codes):
            audio, state = self.decode_next(part, state)
            chunks.append(audio)
        return np.concatenate(chunks)

    def prime(self, codes: np.ndarray, state: State = None) -> State:
        """Return the decoder's state after `codes` [frames, 16]: what is decoded next continues their audio."""
        for part in pieces(codes):
            state = self._worker.run(self._prime_next, part, state)
        return state

    def _prime_next(self, codes: np.ndarray, state: State) -> State:
        _, state = self._decode(mx.array(codes.astype(np.int32))[None], state)
        mx.eval(state)
        return state

    def decode_next(self, codes: np.ndarray, state: State = None) -> tuple[np.ndarray, State]:
        """Decode the next frames of a signal.

        codes: int [frames, 16]. state: what the call for the frames before these returned; None at the start.
        Returns float32 [frames * samples_per_frame] and the state for the next call.
        """
        wait, state = self._worker.run(self.decode_async, codes, state)
        return self._worker.run(wait), state

    def decode_async(self, codes: np.ndarray, state: State = None) -> tuple[Callable[[], np.ndarray], State]:
        """Begin `decode_next`; call the returned function for the samples. On the MLX thread only, both."""
        waves = []
        for part in pieces(codes):
            wave, state = self._decode(mx.array(part.astype(np.int32))[None], state)
            mx.async_eval(wave, state)
            waves.append(wave)
        return lambda: wait_for(waves), state


def pieces(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Cut frames into chunks of the sizes that are compiled: 8, 4, 2 and 1."""
    start = 0
    while start < len(codes):
        size = min(MAX_CHUNK, 1 << ((len(codes) - start).bit_length() - 1))
        yield codes[start : start + size]
        start += size


def wait_for(waves: list[mx.array]) -> np.ndarray:
    """Return the samples of waves [1, samples]. Raises GenerationError if they are not finite."""
    # np.array(wave)[0] and not wave[0], which would be computed behind everything that is queued.
    audio = np.concatenate([np.zeros(0, np.float32), *(np.array(wave)[0] for wave in waves)])
    if not np.isfinite(audio).all():
        raise GenerationError("the codec's samples are not finite: the checkpoint is damaged, fetch it again")
    return audio
