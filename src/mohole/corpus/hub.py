"""Texts out of a Hugging Face dataset, streamed: from this machine, or from the hub where that is allowed. Needs `datasets`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mohole import artifact
from mohole.config import DatasetCorpus
from mohole.corpus.files import unreadable
from mohole.corpus.records import check_field, checked
from mohole.errors import CorpusError, MoholeError


def read_dataset(settings: DatasetCorpus) -> Iterator[str]:
    """The texts of a dataset's split, in order, a few rows in memory at a time.

    Raises:
        CorpusError: no such dataset, subset, split or field, or it is not on this machine and may not be fetched.
    """
    with _answers(settings) as datasets:
        rows = _open(datasets, settings)
        for number, row in enumerate(rows, start=1):
            where = f"{settings.name}: row {number} of {settings.split}"
            check_field(row, settings.field, where)
            text = checked(row[settings.field], settings.field, where)
            if text is not None:
                yield text


def dataset_identity(settings: DatasetCorpus) -> Any:
    """What changes when the dataset does: checksums of a local one's files, else the commit that a revision means."""
    place = Path(settings.name)
    if place.is_file():
        return artifact.file_digest(place)
    if place.is_dir():
        names = sorted(file.relative_to(place) for file in place.rglob("*") if file.is_file())
        shown = [name for name in names if not any(part.startswith(".") for part in name.parts[:-1])]
        return [(name.as_posix(), artifact.file_digest(place / name)) for name in shown]
    return {"name": settings.name, "commit": _commit(settings)}


@cache
def _commit(settings: DatasetCorpus) -> str:
    """The commit a revision means, asked for once in a process, so that what is read is what was recorded."""
    if settings.revision and re.fullmatch("[0-9a-f]{40}", settings.revision):
        return settings.revision
    with _answers(settings) as datasets:
        if settings.allow_download:
            from huggingface_hub import HfApi

            return str(HfApi().dataset_info(settings.name, revision=settings.revision).sha)
        return str(datasets.load_dataset_builder(settings.name, settings.subset, revision=settings.revision).hash)


def _open(datasets: Any, settings: DatasetCorpus) -> Any:
    """The rows of the split, only the wanted field of each where the fields are known beforehand."""
    place = Path(settings.name)
    if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
        rows = _saved(datasets, settings)
    else:
        _refuse_to_fetch(place, settings)
        rows = datasets.load_dataset(**_arguments(settings), split=settings.split, streaming=True)
    if rows.column_names is None:
        return rows
    check_field(rows.column_names, settings.field, settings.name)
    return rows.select_columns([settings.field])


def _saved(datasets: Any, settings: DatasetCorpus) -> Any:
    """A folder written by `save_to_disk`: memory-mapped."""
    saved = datasets.load_from_disk(settings.name)
    if not isinstance(saved, dict):
        return saved
    if settings.split not in saved:
        raise CorpusError(f"{settings.name}: no split {settings.split!r}; corpus.split is one of {', '.join(saved)}")
    return saved[settings.split]


def _arguments(settings: DatasetCorpus) -> dict[str, Any]:
    place = Path(settings.name)
    if place.is_file():
        return {"path": str(place.parent), "data_files": place.name}
    if place.is_dir():
        return {"path": str(place), "name": settings.subset}
    revision = _commit(settings) if settings.allow_download else settings.revision
    return {"path": settings.name, "name": settings.subset, "revision": revision}


def _refuse_to_fetch(folder: Path, settings: DatasetCorpus) -> None:
    """The card of a local folder may name files on the web, which `datasets` would ask for even when it is offline."""
    from huggingface_hub import DatasetCard

    card, plain = folder / "README.md", folder / ".huggingface.yaml"
    configs = str(DatasetCard.load(card).data.to_dict().get("configs")) if card.is_file() else ""
    configs += plain.read_text(encoding="utf-8") if plain.is_file() else ""
    remote = re.search(r"[\w+.-]+://[^'\"\s,]*", configs)
    if remote and not settings.allow_download:
        raise CorpusError(
            f"{settings.name}: its card names {remote[0]}; allow the download (corpus.allow_download = true)"
        )


@contextmanager
def _answers(settings: DatasetCorpus) -> Iterator[Any]:
    """The package `datasets`, kept off the network unless it is allowed, its errors as ours."""
    try:
        import datasets
        import datasets.config as of_datasets
        import huggingface_hub.constants as of_hub
    except ImportError:
        raise CorpusError(f"{settings.name}: needs the package datasets; pip install 'mohole[datasets]'") from None
    datasets.disable_progress_bars()
    # Both packages read HF_HUB_OFFLINE when they are imported, which may have been long ago.
    before = of_hub.HF_HUB_OFFLINE, of_datasets.HF_HUB_OFFLINE
    if not settings.allow_download:
        of_hub.HF_HUB_OFFLINE = of_datasets.HF_HUB_OFFLINE = True
    try:
        yield datasets
    except MoholeError:
        raise
    except Exception as error:  # theirs are of many kinds: network, Arrow, file systems, their own
        raise _explained(settings, error) from error
    finally:
        of_hub.HF_HUB_OFFLINE, of_datasets.HF_HUB_OFFLINE = before


def _explained(settings: DatasetCorpus, error: Exception) -> CorpusError:
    is_elsewhere = not Path(settings.name).exists() and not settings.allow_download
    if is_elsewhere and isinstance(error, OSError):
        return CorpusError(
            f"{settings.name}: no such folder, and no such dataset in the local Hugging Face cache; "
            "give a dataset's folder, or allow the download (corpus.allow_download = true)"
        )
    if isinstance(error, ValueError):
        reason = " ".join(str(error).split())[:300].rstrip(".")
        return CorpusError(f"{settings.name}: {reason}; check corpus.subset and corpus.split")
    return unreadable(settings.name, error)
