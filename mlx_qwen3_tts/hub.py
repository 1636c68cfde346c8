"""Resolve a model name (built-in, path, short name or hub id) to a directory."""

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .demo import registry as demo
from .errors import CheckpointError, DownloadError, RequestError
from .released import HUB_IDS, SHORT_NAMES, full_name
from .suggest import nearest, suggest

CONFIG_FILES = ("config.json",)
FILES = (
    *CONFIG_FILES,
    "generation_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "model*.safetensors",
    "model.safetensors.index.json",
    "speech_tokenizer/config.json",
    "speech_tokenizer/model*.safetensors",
    "speech_tokenizer/model.safetensors.index.json",
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MAX_HUB_ID = 96  # characters, by the hub's own rule
OWNER = "Qwen/"  # of the released checkpoints
OTHER_MODEL = "name a local directory, or 'demo'"


@contextmanager
def resolve(
    model: str | Path, progress: bool = False, files: Sequence[str] = FILES, revision: str | None = None
) -> Iterator[Path]:
    """Yield the directory of `model`: a directory, a hub id (downloaded, or from the hub's cache), or "demo".

    A short name of a released checkpoint (released.py) stands for its hub id, unless a directory has that name.

    progress: show the download on stderr. files: patterns of the files to download. revision: a branch, tag or commit
    of a hub model.
    Raises DownloadError, CheckpointError, and RequestError for a revision of a model that is not on the hub.
    """
    if not isinstance(model, str | os.PathLike):  # bytes could be a path, but not a hub id
        raise RequestError(f"model must be a directory, a hub id or 'demo', not {model!r}")
    name = hub_name(model)
    path = os.path.expanduser(model)
    is_local = name in demo.NAMES or os.path.exists(path)
    if revision is not None:
        _check_revision(name, revision, is_local)
    if name in demo.NAMES:
        with demo.checkpoint(name) as directory:
            yield directory
    elif os.path.isdir(path):
        yield Path(path)
    elif is_local:
        raise CheckpointError(f"{path} is a file; name the checkpoint's directory")
    elif HUB_ID.fullmatch(name) and len(name) <= MAX_HUB_ID:
        yield _download(name, progress, files, revision)
    else:
        raise CheckpointError(_unknown(f"{path!r} is neither a directory nor a hub id of the form owner/name", name))


def hub_name(model: str | Path) -> str:
    """Return the hub id of a released checkpoint's short name, and any other name or directory as it is."""
    name = str(model)
    if os.path.exists(os.path.expanduser(model)):
        return name
    return full_name(name)


def _unknown(message: str, name: str) -> str:
    """Return the message for a model that does not exist, with the nearest one that does."""
    known = (*SHORT_NAMES, *HUB_IDS, "demo")
    if nearest(name, known) is None:
        return message
    return suggest(message, name, known, f"the short names are {', '.join(list(SHORT_NAMES)[:5])}, demo")


def _check_revision(name: str, revision: str, is_local: bool) -> None:
    if is_local:
        raise RequestError(f"{name} is not a model of the hub and has no revisions; leave revision out", "revision")
    if not isinstance(revision, str) or not revision.strip():
        message = f"revision must be the name of a branch or tag, or a commit, not {revision!r}"
        raise RequestError(message, "revision")


def _download(hub_id: str, progress: bool, files: Sequence[str], revision: str | None) -> Path:
    # These take a moment to import, and most models are local.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from tqdm.asyncio import tqdm_asyncio

    class Bar(tqdm_asyncio):
        """A bar that disappears when it is done, shown only on a terminal."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # an argument of huggingface_hub's own bar
            options["leave"] = False
            options["disable"] = None  # tqdm looks whether it writes to a terminal
            if not progress:
                options["disable"] = True
            super().__init__(*args, **options)

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(files), tqdm_class=Bar))
    except GatedRepoError:
        message = f"{hub_id} requires your consent on its page; give it, log in with `hf auth login`, or {OTHER_MODEL}"
    except RepositoryNotFoundError:
        message = f"{hub_id} is neither a local directory nor a model on the hub"
        message = suggest(message, hub_id, HUB_IDS, f"check the name, or {OTHER_MODEL}")
    except RevisionNotFoundError:
        message = f"{hub_id} has no revision {revision!r}; check its name, or leave it out"
    except LocalEntryNotFoundError:
        message = f"{hub_id} was not downloaded yet and the hub cannot be reached"
        if hub_id.startswith(OWNER) and hub_id not in HUB_IDS:
            message = suggest(message, hub_id, HUB_IDS, f"check the name, connect to the network, {OTHER_MODEL}")
        else:
            message = f"{message}; connect to the network, {OTHER_MODEL}"
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        message = f"cannot download {hub_id}: {reason}; try later, or {OTHER_MODEL}"
    raise DownloadError(message)
