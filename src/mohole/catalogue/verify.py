"""Compare every byte of a catalogue with the checksums that were written beside it."""

from pathlib import Path

import xxhash

from mohole import artifact
from mohole.catalogue.header import Header
from mohole.catalogue.layout import FACTS_FILE, INDEX, codes_file, features_file
from mohole.errors import ArtifactError
from mohole.record import read_json
from mohole.storage import open_storage
from mohole.store.latent_index import EntryIds, LatentIndex

_AT_ONCE = 1 << 22


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
    index = LatentIndex(open_storage(path).folder(INDEX), EntryIds(facts["n_latents"], facts["n_corpus_tokens"]))
    found = index.check()
    expected = sum(part["n_entries"] for part in facts["codes"])
    if found != expected:
        raise ArtifactError(f"{path / INDEX}: {found} entries, {expected} were written; make the catalogue again")


def _compare(file: Path, n_bytes: int, digest: str) -> None:
    there = file.stat().st_size if file.is_file() else -1
    if there != n_bytes:
        raise ArtifactError(
            f"{file}: {'missing' if there < 0 else f'{there} bytes'}, {n_bytes} expected; make the catalogue again"
        )
    found = xxhash.xxh3_128()
    with file.open("rb") as opened:
        while part := opened.read(_AT_ONCE):
            found.update(part)
    if found.hexdigest() != digest:
        raise ArtifactError(f"{file}: checksum is wrong, its bytes have changed; make the catalogue again")
