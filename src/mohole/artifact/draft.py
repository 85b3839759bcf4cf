"""Drafts: what a killed process leaves of an artifact, with a mark of what it was to be and what in it is worth keeping."""

from dataclasses import asdict
from pathlib import Path

from mohole.artifact.manifest import Inputs, first_difference
from mohole.artifact.seal import sealed, unsealed
from mohole.errors import ArtifactError

DRAFT_OF = "draft-of"
"""In an unfinished artifact that can be gone on with: its inputs, and which files in it are worth keeping."""


def leave_mark(draft: Path, inputs: Inputs, worth: tuple[str, ...]) -> None:
    """Say in the draft what it is of, and which files in it (patterns of `Path.glob`) cost work."""
    (draft / DRAFT_OF).write_bytes(sealed({"inputs": asdict(inputs), "worth": list(worth)}))


def is_draft_of(draft: Path, inputs: Inputs) -> bool:
    """Was it begun with these inputs, to be gone on with?"""
    mark = draft / DRAFT_OF
    if not mark.is_file():
        return False
    data, digest = mark.read_bytes(), inputs.digest()
    marked = _marked(data)
    return data == digest.encode() if marked is None else marked[0].digest() == digest  # an old mark is that alone


def _marked(data: bytes) -> tuple[Inputs, tuple[str, ...]] | None:
    """What a mark says the draft is made from, and which files of it are worth keeping. None: damaged, or an old one."""
    try:
        raw = unsealed(data)
        return None if raw is None else (Inputs(**raw["inputs"]), tuple(raw["worth"]))
    except (KeyError, TypeError):  # of a later version, perhaps
        return None


def refuse_to_lose(draft: Path, inputs: Inputs | None = None) -> None:
    """What a killed process has left may have cost a week: only the user takes it away. `inputs` None: to be opened again.

    Of a draft whose mark cannot be read, everything is worth keeping; one without a mark was never to be gone on with.

    Raises:
        ArtifactError: something in it is worth keeping; what it was begun with, and what to do.
    """
    mark = draft / DRAFT_OF
    if not mark.is_file():
        return
    marked = _marked(mark.read_bytes())
    there, worth = marked or (None, ("**/*",))
    if not any(file.is_file() and file != mark for pattern in worth for file in draft.glob(pattern)):
        return
    if there is None:
        what = f"not finished, and its {DRAFT_OF} is damaged or of another version; --replace"
    elif inputs is None:
        what = "begun and not finished; give the settings that it was begun with"
    else:
        what = f"begun with other settings and not finished ({first_difference(there, inputs)}); give those to go on, --replace"
    raise ArtifactError(f"{draft}: {what} or delete it to start over")
