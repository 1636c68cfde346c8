"""A converted checkpoint to the hub, with a model card.

Conversion ─ card ─ README.md in the directory ─ create_repo, upload_folder
"""

from ..errors import ConversionError
from ..hub import HUB_ID
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

Weights of Qwen3-TTS{source}, converted to [MLX](https://github.com/ml-explore/mlx) with mlx_qwen3_tts.

Recipe: {recipe}. Size: {before:.2f} GB before, {after:.2f} GB after.

| part | stored | before | after |
|---|---|---|---|
{rows}

```sh
mlx-qwen3-tts say "Hello." --model {repo} -o hello.wav
```

Licence: Apache-2.0, as the original's.
"""


def check_repo(repo: str) -> None:
    """Raise ConversionError where `repo` is no hub id, or nobody is signed in: before the work, not after."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not HUB_ID.fullmatch(repo):
        raise ConversionError(f"{repo!r} is no hub id of the form owner/name")
    try:
        HfApi().whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError) as error:
        why = " ".join(str(error).split())[:120]
        raise ConversionError(f"the hub does not know you ({why}): sign in with `hf auth login`") from None


def card(done: Conversion, model: str, repo: str) -> str:
    """The text of README.md. model: what was converted; a local directory is not named."""
    hub = HUB_ID.fullmatch(model) is not None
    rows = (f"| {p.name} | {p.stored} | {p.before / 1e6:.1f} MB | {p.after / 1e6:.1f} MB |" for p in done.parts)
    return CARD.format(
        base=f"base_model: {model}\n" if hub else "",
        name=repo.split("/")[1],
        source=f", from [{model}](https://huggingface.co/{model})" if hub else "",
        recipe=f"{done.recipe.name} ({done.recipe.about})" if done.recipe else "none, the weights are not quantized",
        before=done.before / 1e9,
        after=done.after / 1e9,
        rows="\n".join(rows),
        repo=repo,
    )


def upload(done: Conversion, model: str, repo: str) -> str:
    """Write the card and push the directory; returns the repository's address. Raises ConversionError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    (done.path / "README.md").write_text(card(done, model, repo), encoding="utf-8")
    try:
        api = HfApi()
        address = api.create_repo(repo, repo_type="model", exist_ok=True)
        api.upload_folder(folder_path=done.path, repo_id=repo, repo_type="model", commit_message="Add MLX weights")
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise ConversionError(f"{repo} was not uploaded ({why}); {done.path} is complete and stays") from None
    return str(address)
