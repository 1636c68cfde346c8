"""A model's name to its directory: a path, a hub id or a built-in checkpoint."""

import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .demo import registry as demo
from .errors import CheckpointError, DownloadError, RequestError

CONFIG_FILES = ["config.json"]
FILES = [
    *CONFIG_FILES, "generation_config.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "model*.safetensors", "model.safetensors.index.json", "speech_tokenizer/config.json",
    "speech_tokenizer/model*.safetensors", "speech_tokenizer/model.safetensors.index.json",
]  # fmt: skip
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@contextmanager
def resolve(
    model: str | Path, progress: bool = False, files: list[str] = FILES, revision: str | None = None
) -> Iterator[Path]:
    """The directory that holds `model`: a directory, a hub id (fetched, or from the hub's cache), or "demo".

    progress: show the download on stderr. files: what to fetch. revision: a hub model's branch, tag or commit.
    Raises DownloadError, CheckpointError, and RequestError for a revision of what comes from no hub.
    """
    if not isinstance(model, str | os.PathLike):  # bytes would name a path, but no hub id
        raise RequestError(f"a model is named by a directory, a hub id or 'demo', not by {model!r}")
    path = os.path.expanduser(model)
    if revision is not None and (str(model) in demo.NAMES or os.path.exists(path)):
        raise RequestError(f"{model} comes from no hub and has no revisions; leave revision out")
    if revision is not None and not (isinstance(revision, str) and revision.strip()):
        raise RequestError("revision must be the name of a branch or tag, or a commit")
    if str(model) in demo.NAMES:
        with demo.checkpoint(str(model)) as directory:
            yield directory
    elif os.path.isdir(path):
        yield Path(path)
    elif os.path.exists(path):
        raise CheckpointError(f"{path} is a file; name the checkpoint's directory")
    elif HUB_ID.fullmatch(str(model)) and len(str(model)) < 100:
        yield _download(str(model), progress, files, revision)
    else:
        raise CheckpointError(f"{path!r} is no directory, and no hub id of the form owner/name either")


def _download(hub_id: str, progress: bool, files: list[str], revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from tqdm import tqdm

    class Bar(tqdm):
        """A bar that goes when it is done, and that is shown only where standard error is a terminal."""

        def __init__(self, *args, **kwargs) -> None:  # noqa: ANN002, ANN003
            kwargs.pop("name", None)  # an argument of huggingface_hub's own bar
            super().__init__(*args, **kwargs | {"disable": None if progress else True, "leave": False})

    other = "name a local directory, or --model demo"
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=files, tqdm_class=Bar))
    except GatedRepoError:
        why = f"{hub_id} asks for your consent on its page; give it, sign in with `hf auth login`, or {other}"
    except RepositoryNotFoundError:
        why = f"{hub_id} is neither a directory here nor a model on the hub; check the name, or {other}"
    except RevisionNotFoundError:
        why = f"{hub_id} has no revision {revision!r}; check its name, or leave it out"
    except LocalEntryNotFoundError:
        why = f"{hub_id} is not here yet and the hub cannot be reached; connect to the network, {other}"
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        why = f"cannot fetch {hub_id}: {textwrap.shorten(str(error), 200, placeholder=' ...')}; try later, or {other}"
    raise DownloadError(why)
