"""Compare every byte of a catalogue with the checksums that were written beside it."""

from pathlib import Path

import xxhash

from mohole import artifact
from mohole.catalogue.header import Header
from mohole.catalogue.layout import AGAIN, FACTS_FILE, HEADER, HEADER_FILE, INDEX, codes_file, features_file
from mohole.errors import ArtifactError, DamageError
from mohole.record import read_json
from mohole.storage import open_storage
from mohole.store.latent_index import EntryIds, LatentIndex

_AT_ONCE = 1 << 22


def check_sizes(path: Path) -> None:
    """Is every file there that the manifest leaves out, as long as it was written? A look at each, no byte is read.

    Raises:
        ArtifactError: one is missing or of another length, and which.
    """
    facts = read_json(path / FACTS_FILE, "codes", "features", "n_latents")
    step = f"delete {path} and make it again"
    for name_of, files in ((codes_file, facts["codes"]), (features_file, facts["features"])):
        for number, file in enumerate(files):
            _check_size(path / name_of(number), file["n_bytes"], step)
    _check_size(path / HEADER_FILE, facts["n_latents"] * HEADER.itemsize, step)
    try:
        _index(path).check_sizes()
    except DamageError as error:  # it would name a store's command, and the index of a catalogue is none by itself
        raise ArtifactError(f"{path / INDEX / error.name}: not what was written; {step}") from None


def verify_bytes(path: Path) -> None:
    """Raises:
    ArtifactError: something is missing or damaged, and what.
    """
    artifact.open_artifact(path, kind="catalogue")
    facts = read_json(path / FACTS_FILE, "codes", "features", "n_latents", "n_corpus_tokens")
    for name_of, files in ((codes_file, facts["codes"]), (features_file, facts["features"])):
        for number, file in enumerate(files):
            _compare(path / name_of(number), file["n_bytes"], file["digest"])
    Header(path, facts["n_latents"]).column("count")
    found = _index(path).check()
    expected = sum(part["n_entries"] for part in facts["codes"])
    if found != expected:
        raise ArtifactError(f"{path / INDEX}: {found} entries, {expected} were written; {AGAIN}")


def _index(path: Path) -> LatentIndex:
    facts = read_json(path / FACTS_FILE, "n_latents", "n_corpus_tokens")
    return LatentIndex(open_storage(path).folder(INDEX), EntryIds(facts["n_latents"], facts["n_corpus_tokens"]))


def _check_size(file: Path, n_bytes: int, step: str) -> None:
    there = file.stat().st_size if file.is_file() else -1
    if there != n_bytes:
        raise ArtifactError(f"{file}: {'missing' if there < 0 else f'{there} bytes'}, {n_bytes} expected; {step}")


def _compare(file: Path, n_bytes: int, digest: str) -> None:
    _check_size(file, n_bytes, AGAIN)
    found = xxhash.xxh3_128()
    with file.open("rb") as opened:
        while part := opened.read(_AT_ONCE):
            found.update(part)
    if found.hexdigest() != digest:
        raise ArtifactError(f"{file}: checksum is wrong, its bytes have changed; {AGAIN}")
