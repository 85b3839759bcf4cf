"""What steering costs, and what many who talk at once get: tokens in a CPU-second, answers that do not mix, memory that stays.

    python benchmarks/steering/run.py --run runs/demo --peers-python PYTHON     # with torch, transformers and repeng
    python benchmarks/steering/run.py --run runs/demo --only soak --minutes 10
    python benchmarks/steering/run.py --run runs/demo --only engine --real runs/stories MODEL    # recipes/stories260k.toml

`engine`: one batch of continuations as they are and the same steered, a token each in turn; `ratio` is tokens in a CPU-second,
steered of unsteered, the median of batches, and `within` its 95 % interval; by clamps of one latent, of eight, and of another one
in each row. The dictionary is the run's own, or one that is drawn; the model the run's own, one of GPT-2's size with
drawn weights, whose passes take longer than milliseconds, or that of `--real`, another run, with its dictionary. Each row has a
prompt of its own, as long as the others: equal ones would be run once, but under other clamps.
`clients`: `mohole serve` as a process of its own, clients that stream in another; each request one after the other, then all at
once; every text is compared. `replicas`: the same clients at once, of one process, two workers, two replicas of Ray Serve.
`soak`: clients that come, ask for other things and go away half-way, and the server's memory meanwhile. `peers`: one batch
through transformers with nothing on it, a plain forward hook, repeng; mohole in the same way.
Clock times of a busy machine prove little: `load` is the machine's when it began.
"""

import argparse
import asyncio
import datetime
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from mohole.act import NOTHING, Add, Clamp, Plan, Sources, Vector, make_plan, steer_rows
from mohole.config import JumpReLU, TopK
from mohole.dictionary import SparseAutoencoder
from mohole.engine import Ask, BatchingEngine, Event, Sampling
from mohole.engine.stream import Stream, deliver
from mohole.model import LanguageModel, new_model
from mohole.model.chat import chat_tokens
from mohole.model.source import find_model
from mohole.search.run import SearchedRun

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import machine  # noqa: E402
from passes import tokens_per_second  # noqa: E402

HOOKPOINT = "resid_post.1"
Json = dict[str, Any]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[argparse.Namespace], object]] = {
        "engine": engine, "clients": clients, "replicas": replicas, "soak": soak, "peers": peers
    }  # fmt: skip
    chosen = [arguments.only] if arguments.only else [name for name in parts if name != "soak" or arguments.minutes]
    result: Json = {
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/steering/run.py --run RUN" + _said(arguments),
        "machine": machine.machine(),
        "load": round(os.getloadavg()[0], 2),
    }
    for name in chosen:
        result[name] = parts[name](arguments)
        print(json.dumps({name: result[name]}, indent=1))
    out = HERE / "results" / f"{result['date']}{arguments.suffix}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", type=Path, required=True, help="a run of the built-in model with a dictionary at resid_post.1"
    )
    parser.add_argument("--only", choices=["engine", "clients", "replicas", "soak", "peers"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64], help="of engine, with the run's own model")
    parser.add_argument(
        "--real", nargs=2, metavar=("RUN", "MODEL"), help="of engine: a run of another model, and its folder"
    )
    parser.add_argument("--skip-large", action="store_true", help="of engine: the run's own model alone")
    parser.add_argument("--n-clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=0.0, help="of the soak; 0: none")
    parser.add_argument("--peers-python", help="an interpreter with torch, transformers and repeng")
    parser.add_argument("--suffix", default="", help="of the result's name")
    return parser.parse_args()


def _said(arguments: argparse.Namespace) -> str:
    said = f" --only {arguments.only}" if arguments.only else ""
    said += f" --batches {' '.join(map(str, arguments.batches))}" if arguments.only == "engine" else ""
    said += " --real REAL MODEL" if arguments.real else ""
    said += " --skip-large" if arguments.skip_large else ""
    said += f" --rounds {arguments.rounds} --n-clients {arguments.n_clients}"
    said += f" --minutes {arguments.minutes:g}" if arguments.minutes else ""
    return said + (" --peers-python PYTHON" if arguments.peers_python else "")


# --- one engine, steered and not


def engine(arguments: argparse.Namespace) -> object:
    small, sources = SearchedRun.open(arguments.run).load_model(), Sources.of_run(arguments.run, [HOOKPOINT])
    n_latents, large = sources.dictionaries[HOOKPOINT].n_latents, _large(small)
    cases = [
        (small, _drawn(small, n_latents, JumpReLU()), arguments.batches, 100), (small, sources, arguments.batches, 100),
    ]  # fmt: skip
    cases += [] if arguments.skip_large else [
        (large, _drawn(large, 16 * large.d_model, JumpReLU()), [16], 16),
        (large, _drawn(large, 16 * large.d_model, TopK(k=64)), [16], 16),
    ]  # fmt: skip
    if arguments.real:
        run, folder = Path(arguments.real[0]), arguments.real[1]
        real = SearchedRun.open(run)
        cases += [(real.load_model(folder), Sources.of_run(run, [real.places[0].reads[0]]), arguments.batches, 100)]
    found = []
    for model, of, batches, n_new in cases:
        ((hookpoint, dictionary),) = of.dictionaries.items()
        size = sum(weight.numel() for weight in model.hf.parameters())
        for batch in batches:
            for name, latents in _latents(batch).items():
                clamps = [[Clamp(latent, value=2.0, hookpoint=hookpoint) for latent in each] for each in latents]
                plans = [make_plan(model, each, of) for each in clamps]
                found.append({
                    "model": f"{Path(model.name).name}, {size} weights",
                    "dictionary": f"{dictionary.nonlinearity.kind}, {dictionary.n_latents} latents",
                    "clamped": name, "batch": batch,
                    **asyncio.run(_side_by_side(model, plans, batch, n_new, arguments.rounds)),
                })  # fmt: skip
                print(json.dumps(found[-1]), flush=True)
    return found


def _latents(batch: int) -> dict[str, list[list[int]]]:
    """Those that are clamped in each row; one list is for all."""
    return {"one": [[3]], "eight": [list(range(3, 11))], "another in each row": [[3 + row] for row in range(batch)]}


def _large(small: LanguageModel) -> LanguageModel:
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config = {"model_type": "llama", **sizes, "vocab_size": small.vocab_size, "max_position_embeddings": 256}
    return new_model(config, seed=0, tokenizer=small.tokenizer, name="12 layers of 768, drawn")


def _drawn(model: LanguageModel, n_latents: int, nonlinearity: JumpReLU | TopK) -> Sources:
    draw = torch.Generator().manual_seed(0)
    ways = torch.nn.functional.normalize(torch.randn(n_latents, model.d_model, generator=draw), dim=1)
    threshold = torch.full((n_latents,), 0.5) if isinstance(nonlinearity, JumpReLU) else None
    zeros = torch.zeros(n_latents), torch.zeros(model.d_model)
    return Sources.of([SparseAutoencoder(HOOKPOINT, nonlinearity, ways, zeros[0], ways.clone(), zeros[1], threshold)])


class _ByHand(BatchingEngine):
    """Its rounds are run by who measures, so that two go on in turn: a neighbour on the machine slows both."""

    def _work(self) -> None:
        """No thread of its own."""

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting or self._cohorts)

    def go_on(self) -> float:
        """CPU-seconds of one round: everybody's next token, and its telling."""
        began = time.process_time()
        told: dict[Stream, list[Event | Exception]] = {}
        self._round(told)
        deliver(told)
        return time.process_time() - began


async def _side_by_side(model: LanguageModel, plans: Sequence[Plan], batch: int, n_new: int, rounds: int) -> Json:
    texts = [chat_tokens(model.tokenizer, [("user", f"What are you? {10 + row}")])[0].tolist() for row in range(batch)]
    assert len(set(map(len, texts))) == 1, "one is longer: the others would stand behind padding"

    def with_all(own: Sequence[Plan]) -> _ByHand:
        running = _ByHand(model)
        running._ends = frozenset()  # all write as much, so that batches are as full
        for row, text in enumerate(texts):
            ask = Ask(tuple(text), (Sampling(1.0, seed=row),), n_new, own[row % len(own)])
            running._take(running._rows(ask, Stream()))
        return running

    async def of_a_batch(turn: int) -> tuple[float, float]:
        both, seconds = (with_all([NOTHING]), with_all(plans)), [0.0, 0.0]
        while any(running.is_busy for running in both):
            turn += 1
            for which in (turn % 2, 1 - turn % 2):  # neither is always the first
                seconds[which] += both[which].go_on()
            await asyncio.sleep(0)  # what is told is heard
        assert all(running.counters.n_written_tokens == batch * n_new for running in both)
        return batch * n_new / seconds[0], batch * n_new / seconds[1]

    await of_a_batch(0)
    pairs = [await of_a_batch(turn) for turn in range(rounds)]
    ratios = [round(steered / plain, 3) for plain, steered in pairs]
    return {
        "tokens_per_cpu_second": round(statistics.median(plain for plain, _ in pairs)),
        "tokens_per_cpu_second_steered": round(statistics.median(steered for _, steered in pairs)),
        "ratio": round(statistics.median(ratios), 3), "within": _of_median(ratios), "ratios": ratios,
    }  # fmt: skip


def _of_median(values: Sequence[float]) -> tuple[float, float]:
    """Its 95 % interval: the values of ranks n/2 -+ 0.98 sqrt(n), between which it is, whatever they are distributed like."""
    ordered, n = sorted(values), len(values)
    around = 0.98 * math.sqrt(n)
    return ordered[max(0, math.floor(n / 2 - around) - 1)], ordered[min(n - 1, math.ceil(n / 2 + around))]


# --- clients of a server


@contextmanager
def _server(run: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Its address and process number, which is that of its session, too."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mohole", "serve", str(run), "--port", "0", "--queue", "1024", *options],
            stderr=subprocess.PIPE, stdout=log, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            address = re.match(r"(http://\S+) serves", said)
            assert address, said
            yield address[1], process.pid
        finally:
            process.terminate()
            process.wait(30)


def _asked(i: int, run: str) -> Json:
    """Other prompts, strengths, seeds and lengths; every third as the model is."""
    questions = ("What are you?", "Who are you?", "What is your physical form?", "Tell me about the fox.")
    clamp = {"kind": "clamp", "latent": (651, 12, 40)[i % 3], "hookpoint": HOOKPOINT, "value": 0.5 * (1 + i % 7)}
    return {
        "model": run, "messages": [{"role": "user", "content": questions[i % 4]}], "seed": i, "stream": True,
        "temperature": 0.8 * (i % 2), "max_tokens": 60 + i % 40,
        "steering": {"interventions": [] if i % 3 == 0 else [clamp]}, "stream_options": {"include_usage": True},
    }  # fmt: skip


async def _talk(client: httpx.AsyncClient, body: Json, n_events: int | None = None) -> tuple[str, int, float]:
    """The text, its tokens, and seconds to its first one. Goes away after so many events."""
    text, n_tokens, first, began, n = "", 0, 0.0, time.perf_counter(), 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            first = first or time.perf_counter() - began
            text += "".join(choice["delta"].get("content", "") for choice in chunk["choices"])
            n_tokens = (chunk.get("usage") or {}).get("completion_tokens", 0) or n_tokens
            n += 1
            if n == n_events:
                break
    return text, n_tokens, first


def clients(arguments: argparse.Namespace) -> object:
    bodies = [_asked(i, arguments.run.name) for i in range(arguments.n_clients)]
    with _server(arguments.run) as (address, pid):
        return asyncio.run(_serial_and_together(address, pid, bodies, arguments.rounds))


async def _serial_and_together(address: str, pid: int, bodies: Sequence[Json], rounds: int) -> Json:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
        await _talk(client, bodies[0])  # loads the model

        async def serial() -> list[tuple[str, int, float]]:
            return [await _talk(client, body) for body in bodies]

        async def together() -> list[tuple[str, int, float]]:
            return await asyncio.gather(*(_talk(client, body) for body in bodies))

        alone = await serial()
        found: list[Json] = []
        for _ in range(rounds):
            one, many = [await _timed(pid, way) for way in (serial, together)]
            n_mixed = sum(a[0] != b[0] for a, b in zip(alone, many["answers"], strict=True))
            n_mixed += sum(a[0] != b[0] for a, b in zip(alone, one["answers"], strict=True))
            found.append({
                "n_that_differ": n_mixed,
                "n_tokens": sum(n for _, n, _ in many["answers"]),
                "seconds": [round(one["seconds"], 2), round(many["seconds"], 2)],
                "server_cpu_seconds": [round(one["cpu"], 2), round(many["cpu"], 2)],
                "throughput_of_serial": round(one["seconds"] / many["seconds"], 2),
                "throughput_of_serial_by_cpu": round(one["cpu"] / many["cpu"], 2),
                "median_seconds_to_first_token": round(statistics.median(first for _, _, first in many["answers"]), 3),
            })  # fmt: skip
    whole = {
        key: round(statistics.median(each[key] for each in found), 2)
        for key in ("throughput_of_serial", "throughput_of_serial_by_cpu")
    }
    return {
        "n_clients": len(bodies),
        "n_different_texts": len({text for text, _, _ in alone}),
        **whole,
        "rounds": found,
    }


async def _timed(pid: int, way: Callable[[], Any]) -> Json:
    began, cpu = time.perf_counter(), _cpu(pid)
    answers = await way()
    return {"answers": answers, "seconds": time.perf_counter() - began, "cpu": _cpu(pid) - cpu}


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- more processes


def replicas(arguments: argparse.Namespace) -> object:
    """All clients at once, of one process, of two that share a port, of two replicas of Ray Serve."""
    bodies = [_asked(i, arguments.run.name) for i in range(arguments.n_clients)]
    found: Json = {}
    for options in ((), ("--workers", "2"), ("--replicas", "2", "--replica-cpus", "1")):
        with _server(arguments.run, *options) as (address, pid):
            found[" ".join(options[:2]) or "one process"] = asyncio.run(
                _together(address, pid, bodies, arguments.rounds)
            )
    texts = [each.pop("texts") for each in found.values()]
    return {"n_clients": len(bodies), "same_texts": all(each == texts[0] for each in texts), **found}


async def _together(address: str, pid: int, bodies: Sequence[Json], rounds: int) -> Json:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:

        async def together() -> list[tuple[str, int, float]]:
            return await asyncio.gather(*(_talk(client, body) for body in bodies))

        answers = await together()  # loads the models
        found = []
        for _ in range(rounds):
            began, cpu = time.perf_counter(), _cpu_of_session(pid)
            answers = await together()
            seconds, cpu = time.perf_counter() - began, _cpu_of_session(pid) - cpu
            n_tokens = sum(n for _, n, _ in answers)
            found.append({
                "tokens_per_second": round(n_tokens / seconds), "tokens_per_cpu_second": round(n_tokens / cpu),
                "median_seconds_to_first_token": round(statistics.median(first for _, _, first in answers), 3),
                "load": round(os.getloadavg()[0], 2),
            })  # fmt: skip
    return {"texts": [text for text, _, _ in answers], "rounds": found}


def _cpu_of_session(session: int) -> float:
    """Of all processes of it: Ray's, too."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                total += _cpu(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return total


# --- minutes of it


def soak(arguments: argparse.Namespace) -> object:
    with _server(arguments.run) as (address, pid):
        return asyncio.run(_soaked(address, pid, arguments))


async def _soaked(address: str, pid: int, arguments: argparse.Namespace) -> Json:
    draw, n_done, n_gone = random.Random(0), 0, 0
    ends = time.monotonic() + 60 * arguments.minutes
    samples: list[float] = []

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal n_done, n_gone
        while time.monotonic() < ends:
            body = _asked(draw.randrange(10**6), arguments.run.name)
            leaves = draw.random() < 0.2
            await _talk(client, body, draw.randrange(1, 20) if leaves else None)
            n_done, n_gone = n_done + 1, n_gone + leaves

    async def watch() -> None:
        while time.monotonic() < ends:
            await asyncio.sleep(5)
            samples.append(round(_rss_mib(pid), 1))

    async with httpx.AsyncClient(base_url=address, timeout=600, limits=httpx.Limits(max_connections=None)) as client:
        await asyncio.gather(*(one(client) for _ in range(arguments.n_clients)), watch())
        counts = (await client.get("/metrics")).text
    third = max(1, len(samples) // 3)
    return {
        "minutes": arguments.minutes, "n_clients": arguments.n_clients, "n_requests": n_done, "n_that_went_away": n_gone,
        "rss_mib_every_30_s": samples[5::6],
        "rss_mib": {"after_a_minute": samples[min(11, len(samples) - 1)],
                    "first_third_median": statistics.median(samples[:third]),
                    "last_third_median": statistics.median(samples[-third:]), "most": max(samples)},
        "running_and_waiting_at_the_end": [line.rpartition(" ")[2] for line in counts.splitlines()
                                           if line.startswith(("mohole_running ", "mohole_waiting "))],
    }  # fmt: skip


# --- beside others


def peers(arguments: argparse.Namespace) -> object:
    """Tokens in a CPU-second of one batch of 16, greedy, 100 passes; each beside bare transformers in its own process."""
    model = SearchedRun.open(arguments.run).load_model()
    shift = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)) * 0.1
    vector = Vector(tuple(shift.tolist()), HOOKPOINT)
    steered = steer_rows(model, [make_plan(model, [Add(vector, value=1.0)], Sources())] * 16)

    def ours(edits: tuple[Any, ...]) -> Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]:
        return lambda tokens, cache: model.step(tokens, cache, edits=edits)

    def proven(tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        passed = steered.step(tokens, cache)
        return passed.logits, passed.cache

    def bare(tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        output = model.hf(input_ids=tokens, past_key_values=cache, use_cache=True)
        return output.logits[:, -1], output.past_key_values

    ways = {
        "transformers": bare,
        "mohole, nothing": ours(()),
        "mohole, steered": ours(steered.edits),
        "mohole, with stamps": proven,
    }
    found: Json = {"mohole": tokens_per_second(ways, arguments.rounds)}
    if arguments.peers_python:
        folder = find_model("planted")[1]
        said = subprocess.run(
            [arguments.peers_python, str(HERE / "peer.py"), str(folder), str(arguments.rounds)],
            capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        found["others"] = json.loads(said.stdout) if said.returncode == 0 else f"failed: {said.stderr[-400:]}"
    else:
        found["others"] = "not measured: no --peers-python"
    return found


if __name__ == "__main__":
    main()
