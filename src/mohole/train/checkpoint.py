"""Checkpoints of a training: written whole in the background, the last two kept, read back to go on to the same bits."""

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mohole.artifact import file_digest
from mohole.errors import ArtifactError
from mohole.tensors import open_tensors, write_tensors

FOLDER = "checkpoints"
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
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        name = f"{step:010d}"
        facts = json.dumps({"numbers": numbers, "digest": file_digest(draft), "format": 1})
        draft.rename(self._folder / f"{name}.safetensors")
        (self._folder / "draft.json").write_text(facts, encoding="ascii")
        (self._folder / "draft.json").rename(self._folder / f"{name}.json")  # it counts from here on
        for old in sorted(self._folder.glob("0*.json"))[:-_KEPT]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def last(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that is whole, or None. One that is damaged is passed over for the one before.

        Raises:
            ArtifactError: there are some, and none is whole.
        """
        found = sorted(self._folder.glob("0*.json"), reverse=True)
        for facts_file in found:
            weights = facts_file.with_suffix(".safetensors")
            try:
                facts = json.loads(facts_file.read_text(encoding="ascii"))
                if facts["format"] == 1 and file_digest(weights) == facts["digest"]:
                    tensors = {name: torch.from_numpy(array.copy()) for name, array in open_tensors(weights).items()}
                    return tensors, facts["numbers"]
            except (OSError, ValueError, KeyError, TypeError):
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
