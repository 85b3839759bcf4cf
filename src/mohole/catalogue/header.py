"""The header: one entry of fixed size for each latent, so that a feature is found by its number and a column read by itself."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from mohole.catalogue.layout import AGAIN, HEADER, HEADER_FILE, PAGE_BYTES, PAGES_FILE
from mohole.errors import ArtifactError


def write_header(folder: Path, entries: NDArray[Any]) -> None:
    """Write the header and the checksums of its pages."""
    data = entries.tobytes()
    with (folder / HEADER_FILE).open("wb") as file:
        file.write(data)
    pages = [xxhash.xxh3_64_intdigest(data[at : at + PAGE_BYTES]) for at in range(0, len(data), PAGE_BYTES)]
    (folder / PAGES_FILE).write_bytes(np.asarray(pages, dtype="<u8").tobytes())


class Header:
    """A header, mapped. A page is compared with its checksum before anything on it is believed."""

    def __init__(self, folder: Path, n_latents: int) -> None:
        """Raises:
        ArtifactError: missing, or of another length than so many latents have.
        """
        self.path = folder / HEADER_FILE
        n_bytes = self.path.stat().st_size if self.path.is_file() else -1
        if n_bytes != n_latents * HEADER.itemsize:
            there = "missing" if n_bytes < 0 else f"{n_bytes} bytes"
            raise ArtifactError(
                f"{self.path}: {there}; {n_latents} latents take {n_latents * HEADER.itemsize}; {AGAIN}"
            )
        self._bytes: NDArray[np.uint8] = (
            np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r")) if n_bytes else np.zeros(0, dtype=np.uint8)
        )
        self._pages = np.frombuffer((folder / PAGES_FILE).read_bytes(), dtype="<u8")
        self._checked: set[int] = set()
        if len(self._pages) != -(-n_bytes // PAGE_BYTES):
            raise ArtifactError(f"{folder / PAGES_FILE}: {len(self._pages)} checksums; {AGAIN}")

    def entry(self, latent: int) -> np.void:
        """One latent's entry.

        Raises:
            ArtifactError: its bytes are not those that were written.
        """
        first = latent * HEADER.itemsize
        for page in range(first // PAGE_BYTES, (first + HEADER.itemsize - 1) // PAGE_BYTES + 1):
            self._check(page)
        entry: np.void = self._bytes[first : first + HEADER.itemsize].view(HEADER)[0]
        return entry

    def column(self, name: str) -> NDArray[Any]:
        """One column of all latents, copied.

        Raises:
            ArtifactError: as `entry`.
        """
        return np.ascontiguousarray(self._entries[name])

    @cached_property
    def _entries(self) -> NDArray[Any]:
        for page in range(len(self._pages)):
            self._check(page)
        return self._bytes.view(HEADER)

    def _check(self, page: int) -> None:
        if page in self._checked:
            return
        found = xxhash.xxh3_64_intdigest(self._bytes[page * PAGE_BYTES : (page + 1) * PAGE_BYTES].data)
        if found != int(self._pages[page]):
            raise ArtifactError(
                f"{self.path}: bytes {page * PAGE_BYTES} to {(page + 1) * PAGE_BYTES} have changed; {AGAIN}"
            )
        self._checked.add(page)
