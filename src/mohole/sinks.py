"""Where a run's time series goes besides its JSONL file: programs that draw it while it grows. Only where asked for.

Only this file imports their packages. What goes there is no part of an artifact: it holds times, and may be thrown away.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, assert_never, runtime_checkable

from mohole.errors import ConfigError

SinkKind = Literal["tensorboard", "wandb"]


@runtime_checkable
class Sink(Protocol):
    """Takes numbers by name, step by step. A step may come again: a killed training goes back to its last checkpoint."""

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Numbers of a step; None is left out."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


def open_sink(kind: SinkKind, folder: Path, *, config: Mapping[str, Any] | None = None, goes_on: bool = False) -> Sink:
    """A sink that writes into `folder`.

    Args:
        config: how what is recorded is made, for sinks that show it.
        goes_on: with what a killed training has left; else what comes is the record of another one.

    Raises:
        ConfigError: its package is not there.
    """
    match kind:
        case "tensorboard":
            return TensorBoard(folder)
        case "wandb":
            return WeightsAndBiases(folder, config or {}, goes_on=goes_on)
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


class WeightsAndBiases:
    """A run of Weights & Biases, kept in its folder for `wandb sync`. It goes elsewhere only where the user's WANDB_MODE says so.

    Project, entity, name and the like are the user's own, from WANDB_PROJECT and its kin.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, goes_on: bool) -> None:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        if mode != "online":  # it would report its own errors over the network, whatever becomes of the run
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError:
            raise ConfigError(
                "machine.watch: wandb is not installed; pip install 'mohole[wandb]', or leave it out"
            ) from None
        folder.mkdir(parents=True, exist_ok=True)
        # What is recorded is the training, not the machine, its programs or what else is printed.
        settings = wandb.Settings(
            console="off",
            silent=mode != "online",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_save_requirements=False,
        )
        try:
            self._run = wandb.init(
                dir=str(folder),
                id=_run_id(folder, goes_on=goes_on),
                project=os.environ.get("WANDB_PROJECT", "mohole"),
                group=os.environ.get("WANDB_RUN_GROUP", folder.absolute().parent.parent.name),
                name=os.environ.get("WANDB_NAME", folder.name),
                config=dict(config),
                mode=mode,
                resume="allow"
                if mode == "online"
                else None,  # else there is nobody to ask: the id alone joins the parts
                reinit="create_new",  # a run that a notebook has open stays as it is
                settings=settings,
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"machine.watch: wandb, with WANDB_MODE={mode}: {error}; WANDB_MODE=offline keeps the run here"
            ) from None

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """One row. Of a step that has been there before W&B keeps the first, which is the same."""
        self._run.log({name: value for name, value in values.items() if value is not None}, step=step)

    def close(self) -> None:
        """Write what is left, and end its process's part in it."""
        self._run.finish()


def _run_id(folder: Path, *, goes_on: bool) -> str:
    """The one that the killed training had, or a new one: the same recipe made again is another run."""
    file = folder / "run-id"
    if not goes_on or not file.is_file():
        file.write_text(secrets.token_hex(4), encoding="ascii")
    return file.read_text(encoding="ascii")
