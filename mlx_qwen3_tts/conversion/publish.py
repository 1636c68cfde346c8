"""Upload of a converted checkpoint to the Hugging Face Hub, with a model card.

Conversion ─ card ─ README.md in the directory ─ create_repo, upload_folder
"""

from ..errors import ConversionError
from ..hub import HUB_ID, hub_name
from .convert import Conversion

CARD = """---
license: apache-2.0
library_name: mlx
pipeline_tag: text-to-speech
tags:
- mlx
- text-to-speech
- qwen3-tts
{base}---

# {name}

Qwen3-TTS{source} converted to [MLX](https://github.com/ml-explore/mlx) with mlx_qwen3_tts.

Recipe: {recipe}. Size: {before:.2f} GB before, {after:.2f} GB after.

| part | stored | before | after |
|---|---|---|---|
{rows}

```sh
mlx-qwen3-tts say "Hello." --model {repo} -o hello.wav
```

License: Apache-2.0, like the original.
"""


def check_repo(repo: str) -> None:
    """Raise ConversionError if `repo` is not a hub id, or no user is logged in; call it before the conversion."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not HUB_ID.fullmatch(repo):
        raise ConversionError(f"{repo!r} is not a hub id of the form owner/name")
    try:
        HfApi().whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError) as error:
        reason = _one_line(error)
        raise ConversionError(f"not logged in to the Hugging Face Hub ({reason}): run `hf auth login`") from None


def card(conversion: Conversion, model: str, repo: str) -> str:
    """Return the text of README.md. model: the source, which is not named if it is a local directory."""
    base = source = ""
    model = hub_name(model)
    if HUB_ID.fullmatch(model):
        base = f"base_model: {model}\n"
        source = f" ([{model}](https://huggingface.co/{model}))"
    recipe = "none, the weights are not quantized"
    if conversion.recipe is not None:
        recipe = f"{conversion.recipe.name} ({conversion.recipe.description})"
    rows = (
        f"| {part.name} | {part.stored} | {part.before / 1e6:.1f} MB | {part.after / 1e6:.1f} MB |"
        for part in conversion.parts
    )
    return CARD.format(
        base=base,
        name=repo.split("/")[1],
        source=source,
        recipe=recipe,
        before=conversion.before / 1e9,
        after=conversion.after / 1e9,
        rows="\n".join(rows),
        repo=repo,
    )


def upload(conversion: Conversion, model: str, repo: str) -> str:
    """Write the card, upload the directory, and return the repository's URL. Raises ConversionError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    directory = conversion.path
    try:
        (directory / "README.md").write_text(card(conversion, model, repo), encoding="utf-8")
        api = HfApi()
        url = api.create_repo(repo, repo_type="model", exist_ok=True)
        api.upload_folder(folder_path=directory, repo_id=repo, repo_type="model", commit_message="Add MLX weights")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConversionError(
            f"{repo} was not uploaded ({_one_line(error)}); the converted model is complete in {directory}"
        ) from None
    return str(url)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
