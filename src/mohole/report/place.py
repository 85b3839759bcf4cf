"""Where pictures may be put: beside what they are of, never into an artifact, which holds what its manifest lists."""

from collections.abc import Sequence
from pathlib import Path

from mohole import artifact
from mohole.errors import ConfigError
from mohole.train.loop import RECORD_FILE


def place_of_plots(path: Path) -> Path:
    """Where the plots of this path go: beside a record, but never into an artifact or its draft, which hold what they list."""
    folder = path if path.is_dir() else path.parent
    while (folder / artifact.MANIFEST).is_file() or folder.name.startswith(".") or (folder / RECORD_FILE).is_file():
        folder = folder.parent
    return folder / "training.html"


def check_place(out: Path, option: str, suffixes: Sequence[str]) -> None:
    """May a picture be written there? A page that is there already is replaced, so nothing else may have its name.

    Args:
        option: what gives `out`, for errors.

    Raises:
        ConfigError: the name ends otherwise, or the place is in an artifact or in the draft of one.
    """
    if out.suffix.lower() not in suffixes:
        raise ConfigError(f"{option} {out}: plots are written as {' or '.join(sorted({*suffixes} - {'.htm'}))}")
    if out.is_dir():
        raise ConfigError(f"{option} {out}: a folder; name a file")
    for folder in out.resolve().parents:
        is_draft = folder.name.startswith(".") and folder.name.endswith(".partial")
        if is_draft or (folder / artifact.MANIFEST).is_file():
            raise ConfigError(
                f"{option} {out}: inside {folder}, an artifact, which a page would damage; name a file elsewhere"
            )
