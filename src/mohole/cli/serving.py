"""`mohole serve`: the web app and its HTTP APIs over finished runs; or a published folder as it will be seen."""

import gc
import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mohole.cli.replicas import plan_replicas, run_replicas
from mohole.cli.workers import run_forked
from mohole.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mohole.serve.door import Counts
    from mohole.serve.openai.settings import ChatSettings

TOKEN_VARIABLE = "MOHOLE_TOKEN"
KEYS_VARIABLE = "MOHOLE_API_KEYS"
_MOST_WAITING = 2048  # connections that nobody has taken yet
_ENDING_SECONDS = 4.0  # that answers have to be whole in, when the server is told to end


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
    replicas: Annotated[
        int | None,
        typer.Option(help="Ray actors that answer, each with the whole app; extra replicas.", min=1, max=4096),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Of a Ray cluster for them (auto: this machine's); else one of their own."
        ),
    ] = None,
    replica_cpus: Annotated[
        int | None, typer.Option(help="Of each, and threads of its model.", min=1, max=1024)
    ] = None,
    replica_gpus: Annotated[
        float | None, typer.Option(help="Of each; a part of 1 shares it. With --device cuda: 1.", min=0.0, max=64.0)
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat/--no-chat", help="Let the runs' models be talked to, at /v1 as at OpenAI's.")
    ] = True,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Keys that /v1 takes, one to a line; or the variable {KEYS_VARIABLE}, with commas. None: everybody may ask.",
        ),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="At /v1, of each key, else of each address; each worker counts its own.")
    ] = None,
    most_tokens: Annotated[int, typer.Option(min=1, help="Of an answer at /v1.")] = 4096,
    most_seconds: Annotated[float, typer.Option(min=1.0, help="That an answer at /v1 may take.")] = 300.0,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Answers that are written side by side.")] = 64,
    queue: Annotated[int, typer.Option(min=1, help="Answers that may wait for that.")] = 256,
    device: Annotated[str, typer.Option(help="Where models run, such as cuda.")] = "cpu",
    engine: Annotated[
        Literal["batching", "vllm"], typer.Option(help="What writes at /v1; vllm steers by directions alone.")
    ] = "batching",
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A line of JSON for each request at /v1; - is standard error."),
    ] = None,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="With what was asked and answered.")] = False,
) -> None:
    """Show runs in the browser: their features, searches, x-rays of texts. Also an HTTP API, at /api/v1, and at /v1 one that
    OpenAI's clients can talk to the runs' models through.

    A folder of `mohole publish` is shown as any static host would show it.
    """
    from mohole.cli.options import tell

    token, keys = _token(token_file), _keys(api_key_file)
    if log_prompts and log is None:
        raise ConfigError("--log-prompts: goes with --log FILE")
    is_local = _is_loopback(host)
    plan = plan_replicas(
        replicas,
        ray=ray,
        cpus=replica_cpus,
        gpus=replica_gpus,
        workers=workers,
        host=host,
        is_local=is_local,
        engine=engine,
        device=device,
        log=log,
        can_write=token is not None,
        ending_seconds=_ENDING_SECONDS,
    )
    if workers > 1 and not hasattr(os, "fork"):
        raise ConfigError(f"--workers {workers}: this system has no way to fork a process; leave it at 1")
    with _listen(host, port) as listening:  # first: it is quick, and the runs may be large
        from mohole.engine import Limits
        from mohole.serve.door import Counts
        from mohole.serve.guards import LOOPBACK
        from mohole.serve.openai.settings import ChatSettings

        settings = ChatSettings(
            api_keys=keys,
            requests_per_minute=requests_per_minute,
            most_tokens=most_tokens,
            most_seconds=most_seconds,
            device=device,
            engine=engine,
            limits=Limits(most_rows=batch, most_waiting=queue),
            log=log if log is None or str(log) == "-" else log.absolute(),
            log_prompts=log_prompts,
        )
        hosts = {*LOOPBACK, host} if is_local else None
        make, app, shown = _made(runs, token, model, hosts, settings if chat else None)
        address = f"[{host}]" if ":" in host else host
        port = listening.getsockname()[1]
        said = [f"http://{address}:{port} serves {shown}; Ctrl-C ends it"]
        if not is_local:
            said.append(
                "anyone who can reach this machine can read what is served"
                + ("" if token is None else "; writing takes the token")
                + ("; and may talk to its models" if chat and not keys else "")
            )
        if plan is not None:
            listening.close()  # Ray listens: only now it is known that the place is free
            run_replicas(replace(plan, port=port), make, end_chat, "\n".join(said))
            return
        tell("\n".join(said))
        gc.collect()
        gc.freeze()  # what is open stays open: nobody need look for garbage in it, and processes share its pages
        work = partial(_answer, app, listening, Counts(workers))
        if workers == 1:
            work(0)
        else:
            run_forked(workers, work)


def _made(
    runs: list[Path], token: str | None, models: list[str], hosts: set[str] | None, chat: "ChatSettings | None"
) -> "tuple[Callable[[], FastAPI], FastAPI, str]":
    """(what makes the app, in whatever process; the app; what it shows), over runs or one published folder."""
    from mohole.serve.app import make_app
    from mohole.serve.published import make_published_app, the_one_published

    make: Callable[[], FastAPI]
    if folder := the_one_published(runs):
        make = partial(make_published_app, folder.absolute(), hosts=hosts)
        return make, make(), f"{folder}, as a static host would"
    make = partial(
        make_app,
        [run.absolute() for run in runs],
        token,
        models=[str(Path(each).absolute()) if Path(each).exists() else each for each in models],
        hosts=hosts,
        chat=chat,
    )
    app = make()
    app.state.served.close()  # a database is opened by each process for itself
    return make, app, ", ".join(app.state.served.runs)


def _answer(app: "FastAPI", listening: socket.socket, counts: "Counts", own: int) -> None:
    """Until somebody ends it. `own`: which of the processes this is."""
    import uvicorn

    from mohole.serve.connections import Patient
    from mohole.serve.door import Door

    class Server(uvicorn.Server):
        """Takes connections as its door lets them in, and tells those who are being answered that it ends, before it does."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup([])  # listens nowhere
            self.servers = [Door(listening, counts, own, self._protocol)]  # type: ignore[list-item]  # of which it is to close

        def _protocol(self) -> Patient:
            return Patient(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            end_chat(app, _ENDING_SECONDS)
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(_ENDING_SECONDS) + 1,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # the way to end it, so no failure: it raises them again afterwards
        signal.signal(number, _ended)
    Server(config).run()


def end_chat(app: "FastAPI", seconds: float) -> None:
    """No more is answered at /v1, and nothing is written for longer than that."""
    if getattr(app.state, "chat", None) is not None:
        app.state.chat.end(seconds)


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


def _keys(file: Path | None) -> tuple[str, ...]:
    """Of the file, or of the environment.

    Raises:
        ConfigError: a file without any, or one that no header can hold.
    """
    if file is None:
        listed, where = os.environ.get(KEYS_VARIABLE, "").split(","), KEYS_VARIABLE
    else:
        listed, where = file.read_bytes().decode("utf-8", "replace").splitlines(), f"--api-key-file {file}"
    keys = tuple(key for key in (each.strip() for each in listed) if key and not key.startswith("#"))
    if file is not None and not keys:
        raise ConfigError(f"{where}: no key in it; one to a line, as `openssl rand -hex 24` gives")
    for key in keys:
        if not key.isascii() or not key.isprintable() or " " in key or len(key) < 8:
            raise ConfigError(f"{where}: a key is one word of at least 8 plain letters and digits")
    return keys


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens: whoever reads the address may ask at once.

    Raises:
        ConfigError: the place is taken, or no place of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}; 127.0.0.1 is this machine alone") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_MOST_WAITING)
    except OSError as error:
        found.close()
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}; --port 0 takes a free one") from None
    return found
