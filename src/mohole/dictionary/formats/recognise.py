"""Whose files are these? The closed list of the formats that are read, most particular first."""

from pathlib import Path
from types import ModuleType

from mohole.dictionary.files import FACTS_FILE
from mohole.dictionary.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    llama_scope,
    saelens,
    single_files,
    sparsify,
)
from mohole.errors import ArtifactError

READ: tuple[ModuleType, ...] = (
    saelens, sparsify, dictionary_learning, circuit_tracer, gemma_scope, llama_scope, single_files
)  # fmt: skip
"""Each has NAME, is_here(path) and read(path)."""
_SHOWN = 6


def recognise(path: Path) -> ModuleType:
    """The format whose files are at `path`.

    Raises:
        ArtifactError: none that mohole reads; where folders below hold some, they are named.
    """
    for candidate in READ:
        if candidate.is_here(path):
            return candidate
    below = _below(path) if path.is_dir() else []
    if below:
        shown = ", ".join(below[:_SHOWN]) + (f" and {len(below) - _SHOWN} more" if len(below) > _SHOWN else "")
        raise ArtifactError(f"{path}: no dictionary itself; name one of what it holds: {shown}")
    known = ", ".join(candidate.NAME for candidate in READ)
    raise ArtifactError(
        f"{path}: no dictionary that mohole reads ({known}, or its own); name the folder with the weights"
    )


def _below(path: Path) -> list[str]:
    """Folders with a dictionary, two levels down, mohole's among them, or files that may be one each."""
    folders = [folder for pattern in ("*", "*/*") for folder in sorted(path.glob(pattern)) if folder.is_dir()]
    found = [str(folder.relative_to(path)) for folder in folders if any(kind.is_here(folder) for kind in READ)]
    if not found:  # mohole's own: of a run that is named, say
        own = sorted(file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/{FACTS_FILE}"))
        found = [str(folder.relative_to(path)) for folder in own]
    return found or [file.name for file in sorted([*path.glob("*.pt"), *path.glob("*.safetensors")])]
