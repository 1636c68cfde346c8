"""The five released checkpoints: their names, and what those with preset voices have.

"1.7B-design" ─ full_name ─ "Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign"
"""

_FAMILY = "Qwen/Qwen3-TTS-12Hz-"
_SUFFIXES = ("0.6B-CustomVoice", "0.6B-Base", "1.7B-CustomVoice", "1.7B-VoiceDesign", "1.7B-Base")
HUB_IDS = tuple(_FAMILY + suffix for suffix in _SUFFIXES)

# What may be typed for a hub id, in any case: the shortest names first, then the ends of the hub ids.
SHORT_NAMES = {
    "0.6B": _FAMILY + "0.6B-CustomVoice",
    "0.6B-base": _FAMILY + "0.6B-Base",
    "1.7B": _FAMILY + "1.7B-CustomVoice",
    "1.7B-design": _FAMILY + "1.7B-VoiceDesign",
    "1.7B-base": _FAMILY + "1.7B-Base",
    "0.6B-CustomVoice": _FAMILY + "0.6B-CustomVoice",
    "1.7B-CustomVoice": _FAMILY + "1.7B-CustomVoice",
    "1.7B-VoiceDesign": _FAMILY + "1.7B-VoiceDesign",
}
_FOLDED = {short.casefold(): full for short, full in SHORT_NAMES.items()}

PRESET_MODELS = tuple(name for name in HUB_IDS if name.endswith("CustomVoice"))
# What these have, by their config.json; the names are written in any case.
VOICES = ("Vivian", "Serena", "Uncle_Fu", "Dylan", "Eric", "Ryan", "Aiden", "Ono_Anna", "Sohee")
LANGUAGES = (
    "auto", "Chinese", "English", "German", "Italian", "Portuguese", "Spanish", "Japanese", "Korean", "French",
    "Russian",
)  # fmt: skip


def full_name(model: str) -> str:
    """Return the hub id of a short name, and any other name as it is."""
    return _FOLDED.get(model.casefold(), model)
