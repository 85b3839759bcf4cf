"""`mohole serve`: the web app and its HTTP API over finished runs; or a published folder as it will be seen."""

import gc
import ipaddress
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mohole.cli.workers import run_forked
from mohole.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

TOKEN_VARIABLE = "MOHOLE_TOKEN"


def serve(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs, or one published folder.")
    ],
    port: Annotated[int, typer.Option(help="Where to listen; 0: any free port.", min=0, max=65535)] = 8765,
    host: Annotated[
        str, typer.Option(help="Whose requests to take: those of this machine alone, unless told.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Holds the token that lets its bearer write; or the variable {TOKEN_VARIABLE}."
        ),
    ] = None,
    model: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL", help="A folder or hub id of a run's model, where it is not found by name; repeatable."
        ),
    ] = [],  # noqa: B006
    workers: Annotated[
        int, typer.Option(help="Processes that answer; each loads the model for itself.", min=1, max=256)
    ] = 1,
) -> None:
    """Show runs in the browser: their features, searches, x-rays of texts. Also an HTTP API, at /api/v1.

    A folder of `mohole publish` is shown as any static host would show it.
    """
    from mohole.cli.options import tell

    token = _token(token_file)
    is_local = _is_loopback(host)
    listening = _listen(host, port, workers)  # first: it is quick, and the runs may be large
    try:
        from mohole.serve.app import make_app
        from mohole.serve.guards import LOOPBACK
        from mohole.serve.published import make_published_app, the_one_published

        hosts = {*LOOPBACK, host} if is_local else None
        if folder := the_one_published(runs):
            app, shown = make_published_app(folder, hosts=hosts), f"{folder}, as a static host would"
        else:
            app = make_app(runs, token, models=model, hosts=hosts)
            shown = ", ".join(app.state.served.runs)
            app.state.served.close()  # a database is opened by each process for itself
        address = f"[{host}]" if ":" in host else host
        tell(f"http://{address}:{listening[0].getsockname()[1]} serves {shown}; Ctrl-C ends it")
        if not is_local:
            tell(
                "anyone who can reach this machine can read what is served"
                + ("" if token is None else "; writing takes the token")
            )
        gc.collect()
        gc.freeze()  # what is open stays open: nobody need look for garbage in it, and processes share its pages
        if workers == 1:
            _answer(app, listening[0])
        else:
            run_forked(listening, partial(_answer, app))
    finally:
        for each in listening:
            each.close()


def _answer(app: "FastAPI", listening: socket.socket) -> None:
    """Until somebody ends it."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # the way to end it, so no failure: it raises them again afterwards
        signal.signal(number, _ended)
    uvicorn.Server(config).run(sockets=[listening])


def _ended(signum: int, frame: object) -> None:
    """The server has stopped already."""


def _token(file: Path | None) -> str | None:
    """Of the file, or of the environment.

    Raises:
        ConfigError: an empty one, or one that no header can hold.
    """
    if file is None:
        token, where = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    else:
        token, where = file.read_bytes().decode("utf-8", "replace").strip(), f"--token-file {file}"
    if token is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{where}: no token in it; one word of plain letters and digits, as `openssl rand -hex 16` gives"
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int, n: int) -> list[socket.socket]:
    """n sockets at one address, listening: whoever reads the address may ask at once.

    Raises:
        ConfigError: the place is taken, or no place of this machine; or this machine has no way to share one.
    """
    if n > 1 and not (hasattr(os, "fork") and hasattr(socket, "SO_REUSEPORT")):
        raise ConfigError(f"--workers {n}: this system cannot share a port between processes; leave it at 1")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        first = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}; 127.0.0.1 is this machine alone") from None
    found = [first]
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(address)  # alone at first: a port that another server shares is taken, too
        if n > 1:
            address = first.getsockname()
            first.close()
            found = [socket.socket(family, kind, protocol) for _ in range(n)]
            for each in found:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                each.bind(address)
        for each in found:
            each.listen(512)
    except OSError as error:
        for each in found:
            each.close()
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}; --port 0 takes a free one") from None
    return found
