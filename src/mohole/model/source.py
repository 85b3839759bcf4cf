"""Where a model's files are, and a checksum of them. No torch, no transformers: a job with nothing to do stays quick."""

import importlib.resources
import json
import re
from pathlib import Path

import xxhash
from huggingface_hub import snapshot_download

from mohole.errors import ModelError

_WANTED_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]  # of a repository: never pickles, never code
_HASHED = ("*.safetensors", "*.json", "*.model", "*.txt")
_HASH_BLOCK_BYTES = 1 << 24


def find_model(source: str, revision: str | None = None, allow_download: bool = False) -> tuple[str, Path]:
    """A model's display name and its folder: of "planted", of a folder, or of a hub id in the local cache.

    A folder wins over a hub id of the same name.

    Raises:
        ModelError: nothing there; names the next step.
    """
    if source == "planted":
        folder = Path(str(importlib.resources.files("mohole"))) / "planted" / "weights"
        if not folder.is_dir():
            raise ModelError(
                f"planted: this installation lacks {folder.name} of the built-in model; install mohole again"
            )
        return source, folder
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve().name, path
    if path.is_file():
        raise ModelError(f"{source}: a file; a model is the folder that holds it, with config.json beside the weights")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        raise ModelError(f"{source}: no such folder; give a model's folder, a hub id, or planted")
    try:
        found = snapshot_download(
            source, revision=revision, local_files_only=not allow_download, allow_patterns=_WANTED_FILES
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        if allow_download:
            raise ModelError(f"{source}: cannot be downloaded: {reason}; check the id and the network") from error
        at = f" at revision {revision}" if revision else ""
        raise ModelError(
            f"{source}: no such folder, and no such model in the local Hugging Face cache{at}; "
            "give a model's folder, or allow the download (model.allow_download = true)"
        ) from error
    return source, Path(found)


def stated_layers(folder: Path) -> int | None:
    """How many layers a model's config.json gives it; None if it gives none."""
    file = folder / "config.json"
    config = json.loads(file.read_bytes()) if file.is_file() else {}
    for facts in (config, config.get("text_config") or {}):
        for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
            if isinstance(facts.get(key), int):
                return int(facts[key])
    return None


def name_of(source: str) -> str:
    """As what a model is recorded: its hub id, or the name of its folder, wherever that stands. Looks at no file of it.

    >>> name_of("planted"), name_of("EleutherAI/pythia-70m"), name_of("/data/models/gpt2/")
    ('planted', 'EleutherAI/pythia-70m', 'gpt2')
    """
    path = Path(source).expanduser()
    is_id = source.count("/") <= 1 and not source.startswith((".", "/", "~"))
    return source if is_id and not path.is_dir() else path.resolve().name


def fingerprint(folder: Path) -> str:
    """xxh3-128 of the names and bytes of a model folder's weight, config and tokenizer files."""
    digest = xxhash.xxh3_128()
    for path in sorted(path for pattern in _HASHED for path in folder.glob(pattern)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
