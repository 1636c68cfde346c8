"""What Home Assistant is told of a server: voices, and the codes of their languages.

voices (voices.py) ─ models ─ languages ─► Info
"""

from wyoming.info import Attribution, Info, TtsProgram, TtsVoice

from .. import __version__
from ..capabilities import languages
from .service import Service

CODES = {
    "chinese": "zh", "english": "en", "french": "fr", "german": "de", "italian": "it", "japanese": "ja",
    "korean": "ko", "portuguese": "pt", "russian": "ru", "spanish": "es",
}  # fmt: skip
LANGUAGES = {code: name for name, code in CODES.items()}


async def describe(service: Service) -> Info:
    """Return what the server can speak with. Voices that need a description are left out: no event has one."""
    listed = await service.workers.fast(service.voices.list)
    by_name = {served.name: served for served in service.models.all}
    origin = Attribution("Qwen", "https://github.com/QwenLM/Qwen3-TTS")
    voices = []
    for entry in listed["voices"]:
        able = [by_name[name] for name in entry["models"]]
        names = dict.fromkeys(name for served in able for name in languages(served.config) if name != "auto")
        codes = [CODES.get(name, name) for name in names]
        if able:
            voices.append(TtsVoice(entry["name"], origin, True, entry["name"], None, codes))
    return Info(tts=[TtsProgram("mlx-qwen3-tts", origin, True, "Qwen3-TTS", __version__, voices, True)])
