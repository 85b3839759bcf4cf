"""A corpus at a URL: copied there for workers on other machines, and back into a folder that goes with the process."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from mohole import artifact
from mohole.errors import ArtifactError
from mohole.storage import Storage, open_storage

CORPUS_FILES = ("corpus.json", "corpus.safetensors")
_BLOCK_BYTES = 16 << 20


def put_corpus(folder: Path, place: Storage) -> None:
    """Copy the corpus artifact in `folder`, its manifest last; nothing where the same one is there already.

    Raises:
        ArtifactError: the place cannot be written.
    """
    data = (folder / artifact.MANIFEST).read_bytes()
    if place.exists(artifact.MANIFEST) and place.read(artifact.MANIFEST) == data:
        return
    for name, (n_bytes, _) in artifact.read_manifest(folder).files.items():
        with place.writer(name, n_bytes) as writer, (folder / name).open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                writer.write(block)
    place.put(artifact.MANIFEST, data)


@lru_cache(maxsize=4)
def local_copy(url: str) -> Path:
    """A folder of this process with the files of the corpus at a URL. It is taken away when the process ends.

    Raises:
        ArtifactError: no finished corpus there.
    """
    place = open_storage(url)
    data = place.read(artifact.MANIFEST)
    folder = Path(tempfile.mkdtemp(prefix="mohole-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, (n_bytes, _) in artifact.parse_manifest(data, url).files.items():
        if name not in CORPUS_FILES:  # whoever wrote that manifest does not say where we write
            raise ArtifactError(f"{url}: its manifest names {name!r}, which is no file of a corpus")
        with (folder / name).open("wb") as file:
            for start in range(0, n_bytes, _BLOCK_BYTES):
                block = bytearray(min(_BLOCK_BYTES, n_bytes - start))
                place.read_into(name, start, block)
                file.write(block)
    (folder / artifact.MANIFEST).write_bytes(data)
    return folder
