"""Trained voices: what turns a Base checkpoint into a CustomVoice one.

    {name: id} ─┬─ config.json: tts_model_type, spk_id, spk_is_dialect; no speaker encoder
    {name: voice [hidden]} ─ rows of talker.model.codec_embedding at the ids

Names are stored in lower case: the official package converts the name that it is asked for to lower case before it
looks it up in `spk_id`, so a stored name with capitals is never found. This package ignores case on both sides.
Source: finetuning/sft_12hz.py of the official repository.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..config.model import ModelConfig, TalkerConfig

CODEC_EMBEDDING = "talker.model.codec_embedding"
SPEAKER_ENCODER = "speaker_encoder."  # how the names of its tensors begin
FIRST_ID = 952  # above the codes: 3000 in the released vocabulary, as in the official script


def used_ids(config: TalkerConfig) -> set[int]:
    """Return the ids above the codes that have a meaning: control ids, languages, speakers."""
    control = {getattr(config, f.name) for f in fields(config) if f.name.startswith("codec_") and f.type is int}
    return control | set(config.codec_language_id.values()) | set(config.spk_id.values())


def free_ids(config: TalkerConfig) -> list[int]:
    """Return the ids that new speakers may take, from FIRST_ID upwards."""
    used = used_ids(config)
    return [id_ for id_ in range(config.num_codes + FIRST_ID, config.vocab_size) if id_ not in used]


def with_voices(table: mx.array, ids: Mapping[str, int], voices: Mapping[str, np.ndarray]) -> mx.array:
    """Return an embedding [vocab, hidden] with voices, float [hidden] by name, as the rows of their ids."""
    rows = mx.array(np.stack([voices[name] for name in ids])).astype(table.dtype)
    places = mx.array(list(ids.values()))
    table = mx.array(table)  # the caller's array stays as it is
    table[places] = rows
    return table


def custom_voice_config(config: ModelConfig, ids: Mapping[str, int]) -> ModelConfig:
    """Return the configuration of a Base model as that of a CustomVoice one with these speakers.

    Raises CheckpointError for ids outside the vocabulary.
    """
    talker = config.talker_config
    return replace(
        config,
        tts_model_type="custom_voice",
        speaker_encoder_config=None,
        talker_config=replace(
            talker,
            spk_id={**talker.spk_id, **ids},
            spk_is_dialect={**talker.spk_is_dialect, **dict.fromkeys(ids, False)},
        ),
    )


def custom_voice_json(data: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the config.json of a Base model as that of a CustomVoice one with these speakers."""
    talker = dict(data["talker_config"])
    talker["spk_id"] = {**talker["spk_id"], **ids}
    talker["spk_is_dialect"] = {**talker["spk_is_dialect"], **dict.fromkeys(ids, False)}
    kept = {name: value for name, value in data.items() if name != "speaker_encoder_config"}
    return {**kept, "tts_model_type": "custom_voice", "talker_config": talker}
