"""Where a run's time series goes besides its JSONL file: programs that draw it while it grows. Only where asked for.

Only this file imports their packages. What goes there is no part of an artifact: it holds times, and may be thrown away.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, assert_never, runtime_checkable

from mohole.errors import ConfigError

SinkKind = Literal["tensorboard"]


@runtime_checkable
class Sink(Protocol):
    """Takes numbers by name, step by step. A step may come again: a killed training goes back to its last checkpoint."""

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Numbers of a step; None is left out."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


def open_sink(kind: SinkKind, folder: Path) -> Sink:
    """A sink that writes into `folder`.

    Raises:
        ConfigError: its package is not there.
    """
    match kind:
        case "tensorboard":
            return TensorBoard(folder)
        case _:
            assert_never(kind)


class TensorBoard:
    """Event files for `tensorboard --logdir FOLDER`."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError:
            raise ConfigError(
                "machine.watch: tensorboard is not installed; pip install 'mohole[tensorboard]', or leave it out"
            ) from None
        self._writer = Writer(str(folder))

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """One point for each number."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left, and end its thread."""
        self._writer.close()
