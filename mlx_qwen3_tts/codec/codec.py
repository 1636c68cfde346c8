"""The 12.5 Hz codec: 16 codes a frame, 80 ms a frame, 24 kHz mono. See decoder.py and encoder.py."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..audio.read import read_audio, resample
from ..config.codec import CodecConfig
from ..errors import GenerationError, RequestError
from ..turn import TURN
from .decoder import CodecDecoder
from .encoder import CodecEncoder
from .layers import State

DECODE_CHUNK = 24  # frames decoded at a time: bounds memory however long the codes; the cut changes nothing


class Codec(nn.Module):
    """The codec of a checkpoint (speech_tokenizer/)."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CodecEncoder(config.encoder_config)
        self.decoder = decoder = CodecDecoder(config.decoder_config)
        self._decode = mx.compile(lambda codes, state: decoder(codes, state))  # once for each size of chunk in use

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
        """Audio to codes: float [samples] in -1 .. 1 at any rate -> int32 [ceil(samples at 24 kHz / 1920), 16].

        Raises AudioError for audio that is empty or not finite. Source: Qwen3TTSTokenizer.encode for one clip.
        """
        audio = resample(*read_audio((audio, sample_rate)), self.config.input_sample_rate)
        with TURN:
            codes = self.encoder(mx.array(audio)[None], self.num_quantizers)
            return np.array(codes[0], dtype=np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes to audio: int [frames, 16] -> float32 [frames * samples_per_frame], in -1 .. 1.

        Equals the official decoder's `forward` on all frames at once. Raises RequestError for codes of another shape
        or outside the codebooks, GenerationError where the weights give no numbers.
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
        return self._decode_all(codes)[0]

    def prime(self, codes: np.ndarray) -> State:
        """The state of the decoder after `codes` [frames, 16]: what is decoded next continues their audio."""
        return self._decode_all(codes)[1]

    def _decode_all(self, codes: np.ndarray) -> tuple[np.ndarray, State]:
        """A signal from its start, in a turn for each chunk."""
        state, chunks = None, [np.zeros(0, np.float32)]
        for start in range(0, len(codes), DECODE_CHUNK):
            audio, state = self.decode_next(codes[start : start + DECODE_CHUNK], state)
            chunks.append(audio)
        return np.concatenate(chunks), state

    def decode_next(self, codes: np.ndarray, state: State = None) -> tuple[np.ndarray, State]:
        """Decode the next frames of a signal: int [frames, 16] and the state after those before (None at the start).

        Returns float32 [frames * samples_per_frame] and the state for the next call. No frames, no samples.
        """
        audio, state = self.queue_next(codes, state)
        return audio(), state

    def queue_next(self, codes: np.ndarray, state: State = None) -> tuple[Callable[[], np.ndarray], State]:
        """The same, but its work is only begun; the function that it returns waits for the samples."""
        if not len(codes):
            return lambda: np.zeros(0, np.float32), state
        waves = []
        with TURN:
            for start in range(0, len(codes), DECODE_CHUNK):
                part = mx.array(codes[start : start + DECODE_CHUNK].astype(np.int32))[None]
                wave, state = self._decode(part, state)
                mx.async_eval(wave, state)
                waves.append(wave)
        return lambda: _wait(waves), state


def _wait(waves: list[mx.array]) -> np.ndarray:
    with TURN:
        audio = np.concatenate([np.array(wave[0]) for wave in waves])
    if not np.isfinite(audio).all():
        raise GenerationError("the codec's samples are not finite: the checkpoint is damaged, fetch it again")
    return audio
