"""Folders of an export: filled beside their place, put there when whole. A killed one leaves no table that ends early."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mohole.artifact import lock, mend_swap, swap, sync
from mohole.errors import ArtifactError


@contextmanager
def whole_folder(path: Path, ours: Sequence[str]) -> Iterator[Path]:
    """Give a hidden folder to fill; when the block ends well, it is at `path`, in place of an earlier export.

    Args:
        ours: patterns (as of `Path.match`) of the files that such an export writes.

    Raises:
        ArtifactError: `path` holds something else, or another process is at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.partial"
    with lock(path):
        mend_swap(path)
        _refuse_to_take_away(path, ours)
        shutil.rmtree(draft, ignore_errors=True)  # left by one that was killed
        draft.mkdir()
        try:
            yield draft
            for file in draft.rglob("*"):
                sync(file)
            swap(draft, path)
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)  # a failed write does not say where
            raise


def _refuse_to_take_away(path: Path, ours: Sequence[str]) -> None:
    if path.is_symlink() or path.is_file():
        raise ArtifactError(f"{path}: no folder of an export, so it is left alone; name another folder")
    for file in (file.relative_to(path) for file in path.rglob("*") if not file.is_dir()):
        if not any(file.match(pattern) for pattern in ours):
            raise ArtifactError(f"{path}: holds {file}, which no export writes and is left alone; name another folder")
