"""A request becomes the ids that the talker starts from. The only file that distinguishes the modes.

    [instruct] ─ role ─ language tags, [speaker], bos ─ [reference] text   (each position: text + codec embedding)
      user turn  3 ids  tts_pad ... tts_bos + codec ids

Two layouts of the text: `non_streaming_mode` puts all of it before the first frame; otherwise its first token comes
with the start of speech and one more is added to each frame's embedding, then tts_eos, then tts_pad. In the second
the text may come piece by piece while the model speaks: if it runs dry, the speech waits.
A cloned voice puts its speaker embedding in the speaker's place and, in in-context mode, its reference text and codes
before the text, as if the model had just spoken them.
Source: Qwen3TTSForConditionalGeneration.generate and generate_icl_prompt; the _build_* methods of Qwen3TTSModel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..capabilities import default_speaker, language_name, speaker_name
from ..config.model import ModelConfig
from ..errors import RequestError
from ..models.talker import NO_CODE, Talker
from ..request import Request
from ..text.feed import TextFeed, check_pieces
from ..text.incremental import encode_live
from ..text.tokenizer import TextTokenizer
from ..voice import VoiceClonePrompt


class ClonedSpeaker(NamedTuple):
    """The embedding of a cloned voice, and the position of the prompt that it takes."""

    embedding: np.ndarray  # float32 [hidden]
    position: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the talker starts from, as ids, and the text that it is fed with the frames.

    Each position has a text id and, on the codec side, a row of codes: nothing (NO_CODE throughout), one id in
    codebook 0, or a whole frame of a reference clip. A cloned voice's embedding stands at one position instead.
    """

    text: np.ndarray  # int32 [positions]
    codes: np.ndarray  # int32 [positions, 16]
    feed: TextFeed  # gives the id that is added to each frame's embedding
    prefix: int  # number of positions that do not depend on the text: voice, language, instruction
    speaker: ClonedSpeaker | None = None

    def __len__(self) -> int:
        return len(self.text)

    @property
    def prefix_key(self) -> bytes:
        """The prefix as bytes: two prompts with the same key begin with the same embeddings."""
        parts = [self.text[: self.prefix].tobytes(), self.codes[: self.prefix].tobytes()]
        if self.speaker is not None:
            parts.append(self.speaker.embedding.tobytes())
        return b"|".join(parts)


def embed(talker: Talker, prompt: Prompt, start: int, stop: int) -> mx.array:
    """Return the embeddings of the positions start .. stop - 1 of a prompt, [1, positions, hidden]."""
    text = talker.embed_text(mx.array(prompt.text[None, start:stop]))
    codec = talker.embed_frames(mx.array(prompt.codes[None, start:stop]))
    speaker = prompt.speaker
    if speaker is not None and start <= speaker.position < stop:
        is_speaker = mx.arange(start, stop)[:, None] == speaker.position
        codec = mx.where(is_speaker, mx.array(speaker.embedding).astype(talker.dtype), codec)
    return text + codec


class PromptBuilder:
    """Builds prompts for one checkpoint."""

    def __init__(self, config: ModelConfig, tokenizer: TextTokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer

    def assistant_ids(self, text: str) -> list[int]:
        """Return the ids of "assistant", a newline and the text.

        They are encoded as one string, since a newline at the start of the text joins the one before it.
        """
        return self.tokenizer.encode(f"assistant\n{text}")

    def instruct_ids(self, instruct: str) -> list[int]:
        """Return the ids of `<|im_start|>user\n{instruct}<|im_end|>\n`."""
        middle = self.tokenizer.encode(f"user\n{instruct}")
        newline = self.tokenizer.encode("\n")
        return [self.config.im_start_token_id, *middle, self.config.im_end_token_id, *newline]

    def language_id(self, language: str | None, speaker: str | None) -> int | None:
        """Return the id of the language tag, None for auto.

        speaker: the preset voice. One with a dialect turns Chinese and auto into that dialect.
        """
        config = self.config.talker_config
        name = language_name(language, self.config)
        if speaker is not None and name.lower() in ("chinese", "auto"):
            dialect = config.spk_is_dialect[speaker]
            if isinstance(dialect, str):
                name = dialect
        if name == "auto":
            return None
        return config.codec_language_id[name]

    def build(self, request: Request) -> Prompt:
        """Build the prompt of a request that `check_request` has passed.

        Waits for as much of a live text as the prompt holds. Raises RequestError if it is longer than the model's
        context, and for pieces of a live text that are not text.
        """
        config = self.config
        voice = default_speaker(config) if request.voice is None else request.voice
        cloned = voice if isinstance(voice, VoiceClonePrompt) else None
        preset = speaker_name(voice, config) if isinstance(voice, str) else None
        instruct = self.instruct_ids(request.instruct) if request.instruct else []
        transcript, reference_frames = self._reference(cloned)
        feed = self._feed(request)
        if isinstance(request.text, str):
            feed.require_all()
        feed.require(2)
        role = [config.im_start_token_id, *feed.take(2)]  # a newline at the start of the text reaches into it
        feed.prepend(transcript)

        layout = _Layout(config.talker_config.num_code_groups)
        layout.add_text(instruct + role)
        tags = self._tags(self.language_id(request.language, preset), cloned, preset)
        pads = [config.tts_pad_token_id] * (len(tags) - 1)
        layout.add([*pads, config.tts_bos_token_id], tags)
        speaker = None
        if cloned is not None:
            position = len(layout.text) - 2  # codec_pad stands behind it
            speaker = ClonedSpeaker(np.asarray(cloned.speaker_embedding, np.float32), position)
        opening = [[config.talker_config.codec_bos_id], *reference_frames]
        prefix = len(layout.text) + self._add_text(layout, feed, opening, len(transcript), is_text_first(request))
        feed.begin_speech()
        prompt = Prompt(*layout.arrays(), feed, prefix, speaker)
        self._check_length(prompt)
        return prompt

    def _reference(self, voice: VoiceClonePrompt | None) -> tuple[list[int], list[list[int]]]:
        """Return the transcript's ids and the frames of an in-context clone; both are empty otherwise."""
        if voice is None or voice.ref_codes is None or voice.ref_text is None:
            return [], []
        self._check_positions("the reference clip", len(voice.ref_codes), "voice")
        return self.assistant_ids(voice.ref_text)[2:], voice.ref_codes.tolist()

    def _add_text(
        self, layout: "_Layout", feed: TextFeed, opening: list[list[int]], transcript: int, text_first: bool
    ) -> int:
        """Append the text and what the codec side starts from: bos and, for in-context clones, the reference's frames.

        transcript: the number of ids at the start of the text that belong to the voice. Returns the number of new
        positions that do not depend on the text.
        """
        if text_first:
            text = feed.take_rest()
            layout.add(text, [[self.config.talker_config.codec_pad_id]] * len(text))
            layout.add([self.config.tts_pad_token_id] * len(opening), opening)
            return transcript
        feed.require(len(opening))
        layout.add(feed.take(len(opening)), opening)
        return min(transcript, len(opening) - 1)

    def _feed(self, request: Request) -> TextFeed:
        """Return the ids of "assistant", a newline and the text, as far as they are known."""
        pieces = [request.text] if isinstance(request.text, str) else request.text
        if request.non_streaming_mode:
            pieces = ["".join(check_pieces(pieces))]
        batches = encode_live(self.tokenizer, "assistant\n", check_pieces(pieces))
        return TextFeed(batches, self.config.tts_eos_token_id, self.config.tts_pad_token_id)

    def _tags(self, language_id: int | None, cloned: VoiceClonePrompt | None, preset: str | None) -> list[list[int]]:
        """Return the language tags, the speaker's id and codec_pad; a cloned voice has an empty place instead."""
        config = self.config.talker_config
        if language_id is None:
            ids = [config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id]
        else:
            ids = [config.codec_think_id, config.codec_think_bos_id, language_id, config.codec_think_eos_id]
        tags = [[id_] for id_ in ids]
        if cloned is not None:
            tags.append([])
        elif preset is not None:
            tags.append([config.spk_id[preset]])
        return [*tags, [config.codec_pad_id]]

    def _check_length(self, prompt: Prompt) -> None:
        """Raise RequestError unless the prompt and the known rest of its text fit into the context."""
        self._check_positions("the text", len(prompt) + prompt.feed.known, "text")

    def _check_positions(self, subject: str, positions: int, about: str) -> None:
        context = self.config.talker_config.max_position_embeddings
        if positions >= context:
            message = f"{subject} takes {positions} of the model's {context} positions; split it into parts"
            raise RequestError(message, about=about)


def is_text_first(request: Request) -> bool:
    """Return whether the whole text stands before the first frame."""
    if request.non_streaming_mode is None:
        return isinstance(request.text, str)
    return request.non_streaming_mode


class _Layout:
    """Positions of a prompt, appended from left to right."""

    def __init__(self, num_code_groups: int) -> None:
        self.text: list[int] = []
        self._codes: list[list[int]] = []
        self._groups = num_code_groups

    def add_text(self, text: list[int]) -> None:
        """Append positions without a codec side."""
        self.add(text, [[]] * len(text))

    def add(self, text: list[int], codes: list[list[int]]) -> None:
        """Append positions; a row of codes may be shorter than a frame."""
        self.text += text
        self._codes += [row + [NO_CODE] * (self._groups - len(row)) for row in codes]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return text [positions] and codes [positions, 16], int32."""
        return np.array(self.text, np.int32), np.array(self._codes, np.int32).reshape(-1, self._groups)
