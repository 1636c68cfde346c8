"""Names: the nearest known one in errors, short names of the released checkpoints, and the recipe bfloat16."""

import json
from pathlib import Path

import mlx.core as mx
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from mlx_qwen3_tts import CheckpointError, ConversionError, DownloadError, Qwen3TTS, RequestError, convert
from mlx_qwen3_tts.capabilities import language_name, speaker_name
from mlx_qwen3_tts.conversion.convert import Conversion
from mlx_qwen3_tts.conversion.publish import card
from mlx_qwen3_tts.conversion.recipes import find
from mlx_qwen3_tts.hub import hub_name, resolve
from mlx_qwen3_tts.released import HUB_IDS, LANGUAGES, SHORT_NAMES, VOICES
from mlx_qwen3_tts.suggest import nearest, unknown
from tests.support import checkpoints, released

FAMILY = "Qwen/Qwen3-TTS-12Hz-"


def test_nearest():
    assert nearest("rian", ["Vivian", "Ryan"]) == "Ryan"
    assert nearest("RYAN ", ["Vivian", "Ryan"]) == "Ryan"
    assert nearest("xyz", ["Vivian", "Ryan"]) is None
    assert unknown("voice", "Rian", ["Ryan"], "this model has: Ryan") == (
        "unknown voice 'Rian': did you mean Ryan? This model has: Ryan"
    )
    assert unknown("voice", "xyz", ["Ryan"], "this model has: Ryan") == "unknown voice 'xyz'; this model has: Ryan"


def test_voices_and_languages(demo):
    with pytest.raises(RequestError, match=r"^unknown voice 'adda': did you mean ada\? This model has: ada, ben"):
        speaker_name("adda", demo.config)
    with pytest.raises(RequestError, match=r"^unknown language 'englich': did you mean english\? This model"):
        language_name("englich", demo.config)


def test_recipes():
    with pytest.raises(ConversionError, match=r"^unknown recipe 'mixed4': did you mean mixed-4\? Choose from"):
        find("mixed4", None, None)


def test_the_released_names_are_the_released_ones():
    assert {full.removeprefix(FAMILY) for full in HUB_IDS} == set(released.MODELS)
    assert set(SHORT_NAMES.values()) == set(HUB_IDS)
    assert {voice.lower() for voice in VOICES} == set(released.SPEAKERS)
    spoken = {name for name in released.LANGUAGES if "dialect" not in name}
    assert {language.lower() for language in LANGUAGES} == {"auto", *spoken}


@pytest.mark.parametrize(
    "short, suffix",
    [
        ("0.6B", "0.6B-CustomVoice"),
        ("1.7b", "1.7B-CustomVoice"),
        ("0.6B-base", "0.6B-Base"),
        ("1.7B-Base", "1.7B-Base"),
        ("1.7B-design", "1.7B-VoiceDesign"),
        ("1.7B-VoiceDesign", "1.7B-VoiceDesign"),
    ],
)
def test_short_names_are_downloaded_under_their_full_names(monkeypatch, tmp_path, short, suffix):
    asked = []

    def download(hub_id, **options):
        asked.append(hub_id)
        return tmp_path

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with resolve(short) as directory:
        assert directory == tmp_path
    assert asked == [FAMILY + suffix]
    assert card_source(short) == FAMILY + suffix


def card_source(model: str) -> str:
    """Return the base model that a model card names."""
    text = card(Conversion(Path("x"), None, 1, 1, []), model, "me/x")
    return next(line for line in text.splitlines() if line.startswith("base_model: ")).removeprefix("base_model: ")


def test_a_voice_names_the_full_model(monkeypatch, tmp_path):
    directory = checkpoints.write(tmp_path / "checkpoint", "projected")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: directory)
    assert Qwen3TTS.from_pretrained("0.6b").name == FAMILY + "0.6B-CustomVoice"


def test_a_directory_comes_before_a_short_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.6B").mkdir()
    with resolve("0.6B") as directory:
        assert str(directory) == "0.6B"
    assert hub_name("0.6B") == "0.6B"


def test_unknown_models(monkeypatch):
    with pytest.raises(CheckpointError, match=r"neither .*: did you mean 1.7B-design\? The short names"):
        resolve("1.7B-desing").__enter__()
    with pytest.raises(CheckpointError, match=r"owner/name$"):
        resolve("./qqqqqqqq").__enter__()

    def missing(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr("huggingface_hub.snapshot_download", missing)
    with pytest.raises(DownloadError, match=rf"did you mean {FAMILY}1.7B-VoiceDesign\? Check the name"):
        resolve("Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesing").__enter__()


def test_recipe_bfloat16(tmp_path):
    source = checkpoints.write(tmp_path / "source", "projected")
    conversion = convert(source, tmp_path / "out", recipe="bfloat16")
    assert conversion.recipe is None
    assert conversion.after < conversion.before
    assert "quantization" not in json.loads((tmp_path / "out" / "config.json").read_text())
    weights = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert {array.dtype for array in weights.values()} == {mx.bfloat16}
    named = convert(source, tmp_path / "same", dtype="bfloat16")
    assert named.after == conversion.after


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dtype": "float32"}, "recipe='bfloat16' and dtype='float32' exclude each other"),
        ({"group_size": 64}, "group_size has no effect with recipe='bfloat16'"),
        ({"scales": "plain"}, "scales has no effect"),
        ({"bits": 4}, "recipe and bits exclude each other"),
    ],
)
def test_recipe_bfloat16_excludes(tmp_path, options, message):
    with pytest.raises(ConversionError, match=message):
        convert("demo", tmp_path / "out", recipe="bfloat16", **options)


def test_recipe_list(run_cli):
    code, out, _ = run_cli("convert", "--recipe", "list")
    assert code == 0
    assert "bfloat16: all weights as bfloat16, nothing is quantized" in out


def test_one_number_of_chunk_frames(demo):
    sizes = [len(chunk.codes) for chunk in demo.stream("Hello", seed=1, max_frames=4, chunk_frames=1)]
    assert sizes == [1, 1, 1, 1]
