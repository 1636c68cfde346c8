"""Designed voices that are kept: a reference that a VoiceDesign model speaks, for a Base model to clone.

    description, reference text ─ VoiceDesign ─ DesignedReference ─ Base ─ VoiceClonePrompt, with its origin

A VoiceDesign model makes a new voice for each request; a clone of one of them stays the same.
"""

from dataclasses import dataclass, replace

from .capabilities import MODEL_KINDS, MODEL_NAMES, language_name
from .config.model import ModelConfig
from .errors import GenerationError, RequestError
from .result import SynthesisResult
from .voice import VoiceClonePrompt

# What is spoken if no text is given: some 10 s in which most sounds of the language occur.
REFERENCE_TEXTS = {
    "chinese": "今天早上天气很好，我沿着河边慢慢地走。路上遇到一位老朋友，我们一起喝了杯热茶，聊起了小时候的事情。",
    "english": "This morning I took the long way home, past the old bridge and the quiet market square. Nothing had "
    "changed, and yet every house seemed to tell me its own small story.",
    "french": "Ce matin, j'ai pris le chemin le plus long, par le vieux pont et la place du marché. Rien n'avait "
    "changé, et pourtant chaque maison semblait me raconter sa petite histoire.",
    "german": "Heute Morgen nahm ich den längeren Weg, über die alte Brücke und den stillen Marktplatz. Nichts hatte "
    "sich verändert, und doch schien mir jedes Haus seine kleine Geschichte zu erzählen.",
    "italian": "Questa mattina ho preso la strada più lunga, oltre il vecchio ponte e la piazza del mercato. Nulla era "
    "cambiato, eppure ogni casa sembrava raccontarmi la sua piccola storia.",
    "japanese": "今朝は少し遠回りをして、古い橋を渡り、静かな市場の広場を通って帰りました。何も変わっていないのに、"
    "どの家も小さな物語を聞かせてくれるようでした。",
    "korean": "오늘 아침에는 오래된 다리를 건너 조용한 시장 광장을 지나 먼 길로 돌아왔습니다. 변한 것은 없었지만, "
    "집집마다 작은 이야기를 들려주는 것 같았습니다.",
    "portuguese": "Esta manhã escolhi o caminho mais longo, pela ponte velha e pela praça do mercado. Nada tinha "
    "mudado, e mesmo assim cada casa parecia contar-me a sua pequena história.",
    "russian": "Сегодня утром я пошёл домой длинной дорогой, через старый мост и тихую рыночную площадь. Ничего не "
    "изменилось, и всё же каждый дом словно рассказывал мне свою маленькую историю.",
    "spanish": "Esta mañana tomé el camino más largo, por el puente viejo y la plaza del mercado. Nada había cambiado, "
    "y sin embargo cada casa parecía contarme su pequeña historia.",
}


@dataclass(frozen=True, eq=False)
class DesignedReference:
    """A clip that a VoiceDesign model has spoken, and how it came about."""

    speech: SynthesisResult
    text: str  # what it says
    instruct: str  # the description of the voice
    model: str  # the name of the VoiceDesign model

    def __post_init__(self) -> None:
        """Raise GenerationError for speech that did not end with its text: a clone would do the same."""
        if self.speech.finish_reason != "stop":
            raise GenerationError(
                f"the reference did not end with its text (seed {self.speech.seed}): take another seed", "seed"
            )

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self.speech.audio) / self.speech.sample_rate

    def sign(self, voice: VoiceClonePrompt) -> VoiceClonePrompt:
        """Return the voice that was cloned from this clip with its origin in its provenance."""
        origin = {"design_model": self.model, "instruct": self.instruct, "seed": str(self.speech.seed)}
        return replace(voice, provenance={**voice.provenance, **origin})


def check_design(config: ModelConfig, instruct: str) -> None:
    """Raise RequestError if a model cannot design a voice, or if there is no description of one."""
    if config.tts_model_type != "voice_design":
        kind = MODEL_KINDS[config.tts_model_type]
        raise RequestError(f"a {kind} model cannot design a voice; use {MODEL_NAMES['voice_design']}")
    if isinstance(instruct, str) and not instruct.strip():
        raise RequestError("the description of the voice is empty: describe it, as in 'a calm, deep male voice'")


def reference_text(language: str | None, config: ModelConfig) -> str:
    """Return what a reference in a language says by default; None and "auto" are English.

    Raises RequestError for a language that the model does not have, or that has no such text.
    """
    name = language_name(language, config).lower()
    if name == "auto":
        name = "english"
    text = REFERENCE_TEXTS.get(name)
    if text is None:
        raise RequestError(f"there is no reference text in {name}: give one of two or three sentences")
    return text
