"""Checkpoints of a training: written whole in the background, the last two kept, read back to go on to the same bits.

One is a safetensors file and a sealed JSON file: the numbers of the state, the tensors' checksum, and the version of mohole. A
dictionary learned half by one version and half by another may be what neither of them gives undisturbed, and its manifest would
name the later one alone: so a checkpoint of another version is refused by name, and the one that wrote it can go on.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mohole.artifact import file_digest, sealed, sync, unsealed
from mohole.errors import ArtifactError
from mohole.tensors import open_tensors, write_tensors
from mohole.version import __version__

FOLDER = "checkpoints"
_FORMAT = 2
_KEPT = 2


class Checkpoints:
    """The checkpoints in a folder. One is written at a time, while training goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mohole-checkpoint")
        self._writing: Future[None] | None = None

    def write(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take a copy of a state and write it in the background; waits for the one before.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        copies = {name: tensor.to("cpu", copy=True).numpy() for name, tensor in tensors.items()}
        self._writing = self._thread.submit(self._write, step, copies, numbers)

    def wait(self) -> None:
        """Until the last one is on the disk. Raises: OSError: it could not be written."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, step: int, tensors: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
        self._folder.mkdir(exist_ok=True)
        draft = self._folder / "draft.safetensors"
        write_tensors(draft, tensors)
        sync(draft)
        name = f"{step:010d}"
        facts = {"format": _FORMAT, "code": __version__, "numbers": numbers, "tensors": file_digest(draft)}
        draft.rename(self._folder / f"{name}.safetensors")
        (self._folder / "draft.json").write_bytes(sealed(facts))
        sync(self._folder / "draft.json")
        (self._folder / "draft.json").rename(self._folder / f"{name}.json")  # it counts from here on
        sync(self._folder)
        for old in sorted(self._folder.glob("0*.json"))[:-_KEPT]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def last(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that is whole, or None. One that is damaged is passed over for the one before.

        Raises:
            ArtifactError: there are some, and none is whole; or the newest is of another version of mohole.
        """
        found = sorted(self._folder.glob("0*.json"), reverse=True)
        for file in found:
            weights = file.with_suffix(".safetensors")
            try:
                facts = unsealed(file.read_bytes())
                if facts is None:
                    continue
                _check_version(file, facts)
                if file_digest(weights) == facts["tensors"]:
                    tensors = {name: torch.from_numpy(array.copy()) for name, array in open_tensors(weights).items()}
                    return tensors, facts["numbers"]
            except OSError:
                continue
        if found:
            raise ArtifactError(
                f"{self._folder}: {len(found)} checkpoints, all damaged or of another version; delete it to start over"
            )
        return None

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def clear(self) -> None:
        """Take all of them away: the training is done."""
        self.close()
        for file in self._folder.glob("*"):
            file.unlink()
        if self._folder.is_dir():
            self._folder.rmdir()


def _check_version(file: Path, facts: dict[str, Any]) -> None:
    version, here = (facts.get("code"), facts.get("format")), (__version__, _FORMAT)
    if version != here:
        raise ArtifactError(
            f"{file}: written by mohole {version[0]} (checkpoint format {version[1]}), and this is {here[0]} (format {here[1]}); "
            f"go on with that version, or delete {file.parent} to start over"
        )
