"""Tasks that the tests of executors run in other processes, and ways to look at those."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mohole.errors import ConfigError
from mohole.execute import worker_number


def add_line(path: Path) -> None:
    """A line with this process's id, so that the lines of a file are the times its task was run."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def commit_or_die(path: Path, chance: float, seed: int) -> None:
    """Write `path` whole, and be killed on the way with a chance that does not depend on who runs it, or when."""
    attempts = path.with_suffix(".attempts")
    add_line(attempts)
    dice = random.Random(f"{seed} {path.name} {len(lines(attempts))}")
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text("half")
    if dice.random() < chance:
        time.sleep(dice.random() * 0.02)
        die()
    draft.rename(path)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_always(path: Path) -> None:
    add_line(path)
    die()


def linger_first(path: Path, seconds: float) -> None:
    """Slow where it is run first, at once where it is run again. Says when it was made to stop."""
    add_line(path)
    if len(lines(path)) > 1:
        return
    try:
        nap(seconds)
    except BaseException:
        path.with_suffix(".stopped").touch()
        raise


def wait_and_clean(path: Path) -> None:
    try:
        path.write_text(str(os.getpid()))
        nap(60)
    finally:
        path.unlink(missing_ok=True)  # it may be stopped before it wrote anything


def nap(seconds: float) -> None:
    """Sleep in short pieces: one that can be interrupted between two lines of Python, like most work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)


def fail(message: str) -> None:
    raise ConfigError(message)


def open_missing(path: Path) -> None:
    path.open()


def divide(by: int) -> None:
    _ = 1 // by


class UnsendableError(OSError):
    """An error that cannot be rebuilt from its arguments; huggingface_hub has such."""

    def __init__(self, message: str, *, response: int) -> None:
        super().__init__(message)
        self.response = response


def raise_unsendable() -> None:
    raise UnsendableError("no answer from the server", response=500)


def write_environment(path: Path, names: list[str]) -> None:
    path.write_text("\n".join(os.environ.get(name, "") for name in names))


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; its first thread is a zombie already while others still end."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def happens(condition: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every)
    return False


def write_number_when_both_are_here(folder: Path, i: int) -> None:
    """Two workers wait for each other, then each writes its number."""
    (folder / f"{i}.here").touch()
    while not (folder / f"{1 - i}.here").exists():
        time.sleep(0.01)
    (folder / str(i)).write_text(str(worker_number()))


def app_that_says_its_process(folder: Path) -> Callable[..., Any]:
    """An ASGI app, and where it is to say that it was told to end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

    app.folder = folder  # type: ignore[attr-defined]
    return app


def end_app(app: Any, seconds: float) -> None:
    (app.folder / str(os.getpid())).write_text(str(seconds))
