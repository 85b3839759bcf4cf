"""What a shuffle costs beside what the disk can do, beside other executors, and beside other libraries.

    python benchmarks/shuffle/run.py                                    # 2 GB of 1 KB rows, under 512 MiB for all processes
    python benchmarks/shuffle/run.py --peers FOLDER --peers-python PYTHON

FOLDER holds scripts of other libraries (peer_ray.py, peer_duckdb.py, peer_datasets.py, common.py), PYTHON is an environment with
ray[data], duckdb and datasets; without them they are "not measured". Everything in one run, one after the other and again from
the start: rates are medians, ratios medians of the ratios of one round, so a machine that is busy for a while slows both sides.
The page cache forgets every file before it is read, and what the one before wrote or deleted is on the disk before the next one
begins; each round begins with another of ours. GB are 1e9 bytes of rows, without keys and tables.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import limits
import numpy as np
import stores

from mohole.store import Store
from mohole.store.uniformity import uniformity
from mohole.store.verify import tokens_in_order, verify

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import footprint  # noqa: E402
import machine  # noqa: E402

WIDTH = 512  # bfloat16: rows of 1 KiB
CAP_MIB = 512
MEMORY = "448MiB"
"""Of all workers; the rest of the cap is the driver's."""
SECONDS_FOR_ONE = 900.0
SETTLE_SECONDS = 3.0

OURS: dict[str, dict[str, str]] = {
    "two stages, process pool": {"kind": "random", "executor": "process", "source": "text"},
    "two stages, Ray Core": {"kind": "random", "executor": "ray", "source": "text"},
    "one stage, process pool": {"kind": "merge", "executor": "process", "source": "runs"},
    "loader alone": {"kind": "loader", "executor": "inline", "source": "runs"},
}
PEERS: dict[str, list[str]] = {
    "Ray Data random_shuffle": ["peer_ray.py"],
    "Ray Data random_shuffle, 512 MB store": ["peer_ray.py", "--store_mb", "512"],
    "DuckDB order by hash, 1200 MB": ["peer_duckdb.py", "--mem_mb", "1200"],
    "DuckDB order by hash, 512 MB": ["peer_duckdb.py", "--mem_mb", "512"],
    "datasets shuffle, reading only": ["peer_datasets.py"],
}


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        n_rows = round(arguments.gb * 2**30) // (2 * WIDTH)
        stores.harvested(scratch / "runs", n_rows, WIDTH)
        stores.in_text_order(scratch / "runs", scratch / "text", "2GiB")
        if arguments.peers:
            _peer(arguments, ["common.py", "--gb", str(arguments.gb)], scratch)
        rounds = [_round(scratch, n_rows, arguments, number) for number in range(arguments.rounds)]
        result = {
            "date": datetime.date.today().isoformat(),
            "command": f"python benchmarks/shuffle/run.py --gb {arguments.gb:g} --rounds {arguments.rounds}"
            + (
                f" --peers FOLDER --peers-python PYTHON --peer-rounds {arguments.peer_rounds}"
                if arguments.peers
                else ""
            ),
            "machine": machine.machine(),
            "load1": [each["load1"] for each in rounds],
            "gigabytes": n_rows * WIDTH * 2 / 1e9,
            **_summary(rounds),
            "uniformity": _uniformity(scratch, n_rows, arguments),
            "rounds": rounds,
        }
    out = HERE / "results" / f"{result['date']}{arguments.suffix}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _print(result)
    print(f"written to {out.relative_to(HERE.parent.parent)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", help="a folder on the disk to measure, with room for 7 times --gb")
    parser.add_argument("--peers", type=Path)
    parser.add_argument(
        "--peer-rounds", type=int, default=3, help="in how many of the first rounds peers run; they are slow"
    )
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--suffix", default="", help="of the result's name, for a second one of the same day")
    return parser.parse_args()


def _round(scratch: Path, n_rows: int, arguments: argparse.Namespace, number: int) -> dict[str, Any]:
    """Everything once."""
    found: dict[str, Any] = {"load1": round(os.getloadavg()[0], 1)}
    found["limits"] = limits.disk(scratch, min(n_rows * 2 * WIDTH, 1 << 30))
    names = [*OURS][number % len(OURS) :] + [*OURS][: number % len(OURS)]
    found["ours"] = {name: _ours(OURS[name], scratch, n_rows) for name in names}
    found["limits after"] = limits.disk(scratch, min(n_rows * 2 * WIDTH, 1 << 30))
    found["peers"] = {
        name: _peer(arguments, command, scratch)
        if arguments.peers and number < arguments.peer_rounds
        else "not measured"
        for name, command in PEERS.items()
    }
    return found


def _settle() -> None:
    """Write what is to be written: gigabytes of it, and of deleted files, cost whoever comes next up to a fifth of its rate."""
    os.sync()
    time.sleep(SETTLE_SECONDS)


def _ours(job: dict[str, str], scratch: Path, n_rows: int) -> dict[str, Any]:
    source, out = scratch / job["source"], scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    stores.evict(source)
    _settle()
    told = job | {"source": str(source), "out": str(out), "memory": MEMORY}
    printed, peak = footprint.watched([sys.executable, str(HERE / "shuffles.py"), json.dumps(told)], SECONDS_FOR_ONE)
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    n_bytes = found.pop("rows", n_rows) * 2 * WIDTH
    found |= {"gb_per_s": n_bytes / 1e9 / found["seconds"], "cpu_seconds_per_gb": found["cpu_seconds"] * 1e9 / n_bytes}
    found["peak_mib"] = peak
    if out.exists():
        certificate = verify(Store.open(out))
        found |= {"order_hash": certificate.order_hash, "verified": certificate.holds}
    return found


def _peer(arguments: argparse.Namespace, command: list[str], scratch: Path) -> Any:
    """What a peer's script says; where it failed, why."""
    _settle()
    script = [arguments.peers_python, str(arguments.peers.resolve() / command[0]), "--dir", str(scratch / "peers")]
    try:
        printed, peak = footprint.watched([*script, "--out", str(scratch / "peer_out"), *command[1:]], SECONDS_FOR_ONE)
    except RuntimeError as error:
        shutil.rmtree(scratch / "peer_out", ignore_errors=True)
        lines = str(error).strip().splitlines()
        return f"failed: {next((line for line in reversed(lines) if 'Error' in line), lines[-1])[:300]}"
    last = printed.strip().splitlines()[-1]
    return json.loads(last) | {"peak_mib": peak} if last.startswith("{") else last


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and the ratios that are aimed at."""

    def rate(each: dict[str, Any], name: str) -> float | None:
        found = (each["ours"] | each["peers"])[name]
        return found["gb_per_s"] if isinstance(found, dict) else None

    def median(values: list[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return round(statistics.median(there), 4) if there else None

    def over(each: dict[str, Any], name: str, other: str) -> float | None:
        one, two = rate(each, name), rate(each, other)
        return one / two if one and two else None

    pool, ray, one, load = OURS
    mixed = [(each["limits"]["mixed"] + each["limits after"]["mixed"]) / 2 for each in rounds]
    passes = [each["ours"][name]["passes"] for each in rounds for name in OURS if "passes" in each["ours"][name]]
    wrong = [
        abs(compared["planned"][field] / compared["measured"][field] - 1)
        for found in passes
        for compared in found.values()
        for field in compared["planned"]
    ]
    hashes = {each["ours"][name].get("order_hash") for each in rounds for name in OURS} - {None}
    return {
        "limits_gb_per_s": {
            name: median([(each["limits"][name] + each["limits after"][name]) / 2 for each in rounds])
            for name in ("write", "read", "mixed")
        },
        "gb_per_s": {name: median([rate(each, name) for each in rounds]) for name in (*OURS, *PEERS)},
        "cpu_seconds_per_gb": {
            name: median([each["ours"][name]["cpu_seconds_per_gb"] for each in rounds]) for name in OURS
        },
        "peak_mib": {
            name: {
                kind: max(each["ours"][name]["peak_mib"][kind] for each in rounds) for kind in ("pss", "rss", "servers")
            }
            for name in OURS
        },
        "ratios": {
            "two stages / (mixed / 4)": median([rate(e, pool) / (m / 4) for e, m in zip(rounds, mixed, strict=True)]),
            "one stage / (mixed / 2)": median([rate(e, one) / (m / 2) for e, m in zip(rounds, mixed, strict=True)]),
            "loader / read": median([rate(e, load) / e["limits"]["read"] for e in rounds]),
            "Ray Core / process pool": median([over(each, ray, pool) for each in rounds]),
        }
        | {f"two stages / {name}": median([over(each, pool, name) for each in rounds]) for name in PEERS},
        "planned_and_measured_differ_at_most": round(max(wrong), 5),
        "all_variants_the_same_order": len(hashes) == 1,
        "all_verified": all(each["ours"][name].get("verified", True) for each in rounds for name in OURS),
    }


def _uniformity(scratch: Path, n_rows: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the battery says of our order, and of the order that Ray Data gives to as many rows in blocks of equal size."""
    store = Store.open(scratch / "runs")
    tokens = tokens_in_order(store)[: store.facts.n_training]  # held-out rows stand behind them, by design
    found: dict[str, Any] = {"ours": _verdict(tokens, None, store.documents.of(tokens)), "Ray Data": "not measured"}
    if arguments.peers:
        order = scratch / "order.npy"
        command = [arguments.peers_python, str(HERE / "ray_order.py"), str(order), str(n_rows), "16"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            said = json.loads(done.stdout.strip().splitlines()[-1])
            found["Ray Data"] = {"version": said["version"]} | _verdict(
                np.load(order), np.asarray(said["starts"]), None
            )
    return found


def _verdict(tokens: np.ndarray, starts: np.ndarray | None, documents: np.ndarray | None) -> dict[str, Any]:
    cuts = np.linspace(0, len(tokens), 17).astype(np.int64)[:-1]
    battery = uniformity(
        tokens,
        documents=documents,
        shard_starts=cuts if starts is None else starts,
        source_starts=np.sort(tokens)[cuts],
    )
    suspicious = battery.suspicious()
    return {
        "rows": len(tokens),
        "findings": len(battery.findings),
        "verdict": "not uniform" if suspicious else "no objection",
        "suspicious": {finding.name: f"z {finding.z:.1f}, p {finding.p_value:.1e}" for finding in suspicious},
    }


def _print(result: dict[str, Any]) -> None:
    print(f"{result['gigabytes']:.2f} GB, load {result['load1']}")
    for part in ("limits_gb_per_s", "gb_per_s", "cpu_seconds_per_gb", "peak_mib", "ratios"):
        print(part)
        for name, value in result[part].items():
            print(f"    {name:45} {value}")
    for name in ("planned_and_measured_differ_at_most", "all_variants_the_same_order", "all_verified"):
        print(f"{name:49} {result[name]}")
    for name, found in result["uniformity"].items():
        print(f"uniformity of {name:35} {found if isinstance(found, str) else found['verdict']}")


if __name__ == "__main__":
    main()
