"""What an answer of the HTTP API costs: latencies with many readers, CPU-time of an answer, pages at a million latents.

    python benchmarks/serve/run.py --run runs/demo          # more runs may be named: of 10 thousand and of a million latents

The server is a process of its own, `mohole serve RUN`; the readers are tasks of one process on the same machine, each with one
connection, each asking for the features of random latents. `closed`: a reader asks again as soon as it is answered, so that with
n readers an answer takes n times as long as alone. `paced`: each waits so that all together ask `--rate` times a second. Clock
times of a busy machine prove nothing; CPU-time of the server for an answer is beside them. `pages` has no server: sorting and
filtering made-up columns, the first time and from then on.
"""

import argparse
import asyncio
import datetime
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from mohole.catalogue import Catalogue
from mohole.interpret import Label, Labels
from mohole.serve.columns import Columns
from mohole.serve.queries import FeaturesAsk

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import machine  # noqa: E402

REPOSITORY = HERE.parent.parent


def main() -> None:
    arguments = _arguments()
    result = {
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/serve/run.py --run RUN",
        "machine": machine.machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "features": [each for run in arguments.run for each in _served(run, arguments)],
        "pages": [_pages(n) for n in arguments.latents],
    }
    out = HERE / "results" / f"{result['date']}{arguments.suffix}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for part in ("features", "pages"):
        for each in cast("list[dict[str, object]]", result[part]):
            print("  ".join(f"{name} {value}" for name, value in each.items()))
    print(f"written to {out.relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", default=[], help="a finished run; repeatable")
    parser.add_argument("--readers", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--requests", type=int, default=6400, help="of each measurement")
    parser.add_argument("--rate", type=float, default=200.0, help="of the paced readers, a second, all together")
    parser.add_argument("--latents", type=int, nargs="*", default=[10_000, 1_000_000], help="of the made-up columns")
    parser.add_argument("--suffix", default="", help="of the result's name")
    return parser.parse_args()


@dataclass(frozen=True)
class _Place:
    """A hookpoint that is served."""

    port: int
    path: str
    n_latents: int


def _served(run: Path, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One reader, many, and many that take their time."""
    hookpoint = max((path.parent for path in run.glob("*/catalogue")), key=lambda path: path.name)
    n_latents = Catalogue.open(hookpoint / "catalogue").n_latents
    with tempfile.TemporaryFile() as said:
        workers = ["--workers", str(arguments.workers)]
        command = [sys.executable, "-m", "mohole", "serve", str(run), "--port", "0", *workers]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=said, text=True)
        try:
            assert server.stderr is not None
            port = re.search(r":(\d+) serves (\S+);", server.stderr.readline())
            assert port, "the server did not start"
            place = _Place(int(port[1]), f"/api/v1/runs/{port[2]}/{hookpoint.name}/features/", n_latents)
            asyncio.run(_read(place, 4, 400, None))  # caches of the disk and of the processor
            ways = ((1, None), (arguments.readers, None), (arguments.readers, arguments.rate))
            return [_measured(server.pid, place, n, rate, arguments.requests) for n, rate in ways]
        finally:
            server.terminate()
            server.communicate()


def _measured(pid: int, place: _Place, n_readers: int, rate: float | None, n_requests: int) -> dict[str, object]:
    n_requests = n_requests if n_readers > 1 else n_requests // 4
    before, began = _cpu_seconds(pid), time.perf_counter()
    seconds = np.array(asyncio.run(_read(place, n_readers, n_requests, rate))) * 1e3
    wall = time.perf_counter() - began
    return {
        "latents": place.n_latents,
        "readers": n_readers,
        "way": "closed" if rate is None else f"paced, {rate:g} a second",
        "answers": len(seconds),
        "rate": round(len(seconds) / wall),
        "p50_ms": round(float(np.percentile(seconds, 50)), 2),
        "p99_ms": round(float(np.percentile(seconds, 99)), 2),
        "server_cpu_ms": round((_cpu_seconds(pid) - before) / len(seconds) * 1e3, 3),
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
            f"GET {place.path}{draw.randrange(place.n_latents)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
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


def _pages(n: int) -> dict[str, object]:
    """Milliseconds of CPU of a page of made-up columns: when asked for the first time, and the next page of the same."""
    draw = np.random.default_rng(0)
    counts = draw.geometric(1e-3, n).astype(np.int64) - 1
    maximum = draw.gamma(2, 2, n).astype(np.float32)
    facts = {"n_latents": n, "counts": counts, "density": counts / 10_000_000, "maximum": maximum}
    words = ["bridge", "fox", "bread", "river", "number", "code", "fog", "tower", "garden", "winter"]
    labels = [
        Label(
            i,
            f"“{words[i % 10]}” or “{words[i * 7 // 10 % 10]}{i}”",
            "word",
            i % 100 / 100,
            1.0,
            1.0,
            9,
            99,
            "good",
            0.0,
        )
        for i in range(n)
    ]
    columns = Columns(cast(Catalogue, SimpleNamespace(**facts)), cast(Labels, labels))
    asks: dict[str, dict[str, Any]] = {
        "latent": {},
        "density": {"sort": "density", "descending": True},
        "f1": {"sort": "f1", "descending": True, "which": "all"},
        "label": {"sort": "label"},
        "density_again_filtered": {"sort": "density", "descending": True, "least_f1": 0.8},
        "words": {"q": "tower"},
        "other_words": {"q": "fog3", "sort": "density"},
    }
    found: dict[str, object] = {"latents": n}
    for name, ask in asks.items():
        found[f"{name}_first_ms"] = _milliseconds(columns, FeaturesAsk(**ask))
        found[f"{name}_next_ms"] = _milliseconds(columns, FeaturesAsk(**ask, offset=50))
    return found


def _milliseconds(columns: Columns, ask: FeaturesAsk) -> float:
    began = time.process_time()
    columns.select(ask, {}, 0)[ask.offset : ask.offset + ask.limit].tolist()
    return round((time.process_time() - began) * 1e3, 3)


if __name__ == "__main__":
    main()
