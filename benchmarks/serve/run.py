"""What an answer of the HTTP API costs: with many readers, in CPU-time, and whether it grows with the number of features.

    python benchmarks/serve/run.py --run runs/demo                                  # a finished run
    python benchmarks/serve/run.py --folder FOLDER --made-up 10000 100000 1000000   # see made_up.py; made in FOLDER, and kept

The server is a process of its own, `mohole serve RUN`; the readers are tasks of one process on the same machine, each with one
connection, each asking for the features of random latents, all equally likely. `closed`: a reader asks again as soon as it is
answered, so that with n readers an answer takes n times as long as alone. `paced`: each waits so that all together ask `--rate`
times a second. Clock times of a busy machine prove nothing: CPU-time of the server for an answer is beside them, a measurement
waits until the machine's load is below `--quiet` (for ten minutes at most), and is repeated. The files are read once before, so
that disks are not what is measured. `whole`: requests that look at all features, the first time and then the next page or query
of the kind, one reader; then the same of a second server, which finds the indices that the first one has left (delete
`HOOKPOINT/indices` for a first one).
"""

import argparse
import asyncio
import datetime
import importlib.util
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mohole.catalogue import Catalogue

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import machine  # noqa: E402
from made_up import make_run  # noqa: E402

REPOSITORY = HERE.parent.parent


def main() -> None:
    arguments = _arguments()
    runs = [*arguments.run, *(_made_up(arguments.folder, n) for n in arguments.made_up)]
    options = f" --workers {arguments.workers}" * (arguments.workers > 1)
    which = "--run RUN" if arguments.run else "--folder FOLDER --made-up " + " ".join(map(str, arguments.made_up))
    result = {
        "date": datetime.date.today().isoformat(),
        "command": f"python benchmarks/serve/run.py {which}{options}",
        "machine": machine.machine(),
        "http": [name for name in ("httptools", "uvloop") if importlib.util.find_spec(name)] or ["h11", "asyncio"],
        "runs": [_served(run, arguments) for run in runs],
    }
    out = HERE / "results" / f"{result['date']}{arguments.suffix}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {out.relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", default=[], help="a finished run; repeatable")
    parser.add_argument("--made-up", type=int, nargs="*", default=[], help="features of runs to make")
    parser.add_argument("--folder", type=Path, help="where")
    parser.add_argument("--readers", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--requests", type=int, default=6400, help="of each measurement")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of each measurement; the median of each number is given"
    )
    parser.add_argument("--rate", type=float, default=200.0, help="of the paced readers, a second, all together")
    parser.add_argument("--quiet", type=float, default=1.0, help="load of the last minute to wait for")
    parser.add_argument(
        "--whole-alone", action="store_true", help="no readers, only the requests that look at all features"
    )
    parser.add_argument("--suffix", default="", help="of the result's name")
    return parser.parse_args()


def _made_up(folder: Path, n_latents: int) -> Path:
    run = folder / f"made-up-{n_latents}"
    return run if run.exists() else make_run(run, n_latents)


@dataclass(frozen=True)
class _Place:
    """A hookpoint that is served."""

    port: int
    path: str
    n_latents: int


def _served(run: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Opening; one reader, many, and many that take their time; requests that look at everything."""
    hookpoint = max((path.parent for path in run.glob("*/catalogue")), key=lambda path: path.name)
    n_latents = Catalogue.open(hookpoint / "catalogue").n_latents
    for file in (*run.glob("corpus/*"), *hookpoint.glob("labels/*"), *hookpoint.glob("catalogue/features/*")):
        file.read_bytes()
    found: dict[str, object] = {"latents": n_latents, "workers": arguments.workers}
    with _server(run, hookpoint.name, n_latents, arguments.workers) as (pid, place):
        found["until_it_serves_cpu_seconds"] = round(_cpu_seconds(pid), 2)
        found["until_it_serves_resident_mib"] = _resident_mib(pid)
        if not arguments.whole_alone:
            asyncio.run(_read(place, 4, 400, None))  # caches of the processor, and what is made with the first answer
            ways = ((1, None), (arguments.readers, None), (arguments.readers, arguments.rate))
            found["features"] = [_repeated(pid, place, n, rate, arguments) for n, rate in ways]
            found["resident_mib"] = _resident_mib(pid)
        if arguments.workers == 1:
            found["indices_there"] = (hookpoint / "indices").is_dir()
            found["whole"] = {name: _whole(pid, place, name) for name in _WHOLE}
            found["resident_mib_after_all"], found["own_mib_after_all"] = (
                _resident_mib(pid),
                _resident_mib(pid, "RssAnon"),
            )
    if arguments.workers == 1:
        with _server(run, hookpoint.name, n_latents, 1) as (pid, place):
            found["whole_of_next_server"] = {name: _whole(pid, place, name) for name in _WHOLE}
            found["next_server_resident_mib_after_all"] = _resident_mib(pid)
            found["next_server_own_mib_after_all"] = _resident_mib(pid, "RssAnon")
    print(json.dumps(found), flush=True)
    return found


@contextmanager
def _server(run: Path, hookpoint: str, n_latents: int, workers: int) -> Iterator[tuple[int, _Place]]:
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "mohole", "serve", str(run), "--port", "0", "--workers", str(workers)]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=said, text=True)
        try:
            assert server.stderr is not None
            port = re.search(r":(\d+) serves (\S+);", server.stderr.readline())
            assert port, "the server did not start"
            yield server.pid, _Place(int(port[1]), f"/api/v1/runs/{port[2]}/{hookpoint}/", n_latents)
        finally:
            server.terminate()
            server.communicate()


def _repeated(
    pid: int, place: _Place, n_readers: int, rate: float | None, arguments: argparse.Namespace
) -> dict[str, object]:
    """The median of each number, and the load before each."""
    several = []
    for _ in range(arguments.repeats):
        began = time.monotonic()
        while os.getloadavg()[0] > arguments.quiet and time.monotonic() - began < 600:
            time.sleep(2)
        load = round(os.getloadavg()[0], 2)
        several.append(_measured(pid, place, n_readers, rate, arguments.requests) | {"load": load})
    medians = {name: statistics.median(each[name] for each in several) for name in several[0]}
    way = "closed" if rate is None else f"paced, {rate:g} a second"
    return {"readers": n_readers, "way": way} | medians | {"p99_ms_each": [each["p99_ms"] for each in several]}


def _measured(pid: int, place: _Place, n_readers: int, rate: float | None, n_requests: int) -> dict[str, float]:
    n_requests = n_requests if n_readers > 1 else n_requests // 4
    before, began, own = _cpu_seconds(pid), time.perf_counter(), time.process_time()
    seconds = np.array(asyncio.run(_read(place, n_readers, n_requests, rate))) * 1e3
    wall = time.perf_counter() - began
    return {
        "answers": len(seconds),
        "rate": round(len(seconds) / wall),
        "p50_ms": round(float(np.percentile(seconds, 50)), 2),
        "p99_ms": round(float(np.percentile(seconds, 99)), 2),
        "server_cpu_ms": round((_cpu_seconds(pid) - before) / len(seconds) * 1e3, 3),
        "readers_cpu_ms": round((time.process_time() - own) / len(seconds) * 1e3, 3),
    }


async def _read(place: _Place, n_readers: int, n_requests: int, rate: float | None) -> list[float]:
    """Seconds of each answer."""
    pause = None if rate is None else n_readers / rate
    found = await asyncio.gather(
        *(_reader(place, random.Random(reader), n_requests // n_readers, pause) for reader in range(n_readers))
    )
    return [seconds for each in found for seconds in each]


async def _reader(place: _Place, draw: random.Random, n: int, pause: float | None) -> list[float]:
    """By hand: a client library takes longer over an answer than the server."""
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", place.port)
    found = []
    for _ in range(n):
        if pause is not None:
            await asyncio.sleep(draw.uniform(0, 2 * pause))
        began = time.perf_counter()
        outgoing.write(
            f"GET {place.path}features/{draw.randrange(place.n_latents)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
        head = await incoming.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert size, head
        await incoming.readexactly(int(size[1]))
        found.append(time.perf_counter() - began)
    outgoing.close()
    return found


def _cpu_seconds(pid: int) -> float:
    """Of a process and of those that it has forked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(_cpu_seconds, map(int, children)))


def _resident_mib(pid: int, which: str = "VmRSS") -> int:
    """Of the process alone; pages of mapped files count, which others share. RssAnon: without those."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{which}:")))


PLACES = "?" + "&".join(f"latent={prefix}{{0}}" for prefix in ("", 1, 2, 3, 4, 5, 6, 9, 11, 99))
_WHOLE = {
    "table by latent": ("features", "features?offset=50"),
    "table by density": ("features?sort=density&descending=1", "features?sort=density&descending=1&offset=50"),
    "table by label": ("features?sort=label", "features?sort=label&offset=50"),
    "table, F1 from 0.8, by density": (
        "features?sort=density&descending=1&least_f1=0.8",
        "features?sort=density&descending=1&least_f1=0.8&offset=50",
    ),
    "table, labels with a part": ("features?q=ton", "features?q=gel"),
    "search by statistics": (
        "search?by=statistics&sort=maximum&least_f1=0.9",
        "search?by=statistics&sort=f1&most_density=0.001",
    ),
    "search by token": ("search?by=token&q=ri", "search?by=token&q=mu"),
    "search by label": ("search?q=names+baton", "search?q=code+gelmu"),
    "map": ("map", "map"),
    "a tile of the map": ("map/tiles/0/0/0", "map/tiles/2/1/2"),
    "places of ten features": ("map/places" + PLACES.format(0), "map/places" + PLACES.format(7)),
    "map's points": ("map/points", "map/points"),
}
"""Two of each kind: the first makes what the next ones use; where that takes long, in a file that the next server opens."""


def _whole(pid: int, place: _Place, name: str) -> dict[str, float]:
    """CPU-milliseconds of the server, to a hundredth of a second, and milliseconds of the clock."""
    found: dict[str, float] = {}
    for which, path in zip(("first", "next"), _WHOLE[name], strict=True):
        before, began = _cpu_seconds(pid), time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{place.port}{place.path}{path}") as answer:
            n_bytes = len(answer.read())
        found[f"{which}_ms"] = round((time.perf_counter() - began) * 1e3, 1)
        found[f"{which}_cpu_ms"] = round((_cpu_seconds(pid) - before) * 1e3)
    return found | {"bytes": n_bytes}


if __name__ == "__main__":
    main()
