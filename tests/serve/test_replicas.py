"""`mohole serve --replicas`: one real Ray Serve with two replicas, for all of these tests; and what is refused without one."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import exit_status
from tests.execute.tasks import happens, is_alive
from tests.serve.talking import BRIDGE, HOOKPOINT

from mohole.act import Clamp, Sources, Steered, make_plan
from mohole.cli.replicas import plan_replicas
from mohole.errors import ConfigError
from mohole.model import LanguageModel
from mohole.model.chat import answer_of, chat_tokens

LONG: dict[str, Any] = {"model": "demo", "prompt": "The", "max_tokens": 120, "seed": 4}
"""Over a hundred tokens before it ends."""


# --- what needs no Ray


def test_what_does_not_go_together_is_refused_by_name() -> None:
    for wrong, words in (
        ({"replicas": None, "ray": "auto"}, "--ray auto: goes with --replicas N"),
        ({"replicas": None, "gpus": 0.5}, "--replica-gpus 0.5: goes with --replicas N"),
        ({"replicas": None, "cpus": 2}, "--replica-cpus 2: goes with --replicas N"),
        ({"replicas": 2, "workers": 3}, "--workers 3: not with --replicas 2"),
        ({"replicas": 2, "log": Path("-")}, "--log -: replicas have no terminal"),
        ({"replicas": 2, "device": "cuda:1"}, "--device cuda:1: .*--device cuda$"),
        ({"replicas": 2, "ray": "auto", "can_write": True}, "--ray auto: what people write is one file"),
    ):
        with pytest.raises(ConfigError, match=f"^{words}"):
            plan_replicas(**wrong)  # type: ignore[arg-type]
    assert plan_replicas(None, workers=4) is None


def test_a_machines_cores_are_shared_and_a_gpu_goes_with_its_device() -> None:
    def planned(n: int, **more: Any) -> tuple[int, int, float, bool]:
        plan = plan_replicas(n, own=8, **more)
        assert plan is not None
        assert plan.n == n
        return plan.n, plan.cores.threads, plan.n_gpus, plan.everywhere

    assert planned(3) == (3, 2, 0, False)
    assert planned(16) == (16, 1, 0, False)
    assert planned(2, cpus=3) == (2, 3, 0, False)
    assert planned(2, device="cuda") == planned(2, engine="vllm") == (2, 4, 1, False)
    assert planned(2, device="cuda", gpus=0.5) == (2, 4, 0.5, False)
    assert planned(2, ray="auto") == (2, 1, 0, False), "this machine's cores say nothing of the cluster's"
    assert planned(2, ray="auto", host="0.0.0.0", is_local=False) == (2, 1, 0, True)


@pytest.mark.parametrize("module", ["ray", "ray.serve"])
def test_without_ray_serve_it_says_how_to_get_it(
    module: str, talking_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert exit_status(monkeypatch, "serve", talking_run, "--port", 0, "--replicas", 2) == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    said = capsys.readouterr().err
    assert said == "error: --replicas: ray.serve is not installed; pip install 'mohole[replicas]'\n"


# --- two replicas


@dataclass
class Running:
    """The command, and what it says."""

    process: subprocess.Popen[str]
    said: Path
    journal: Path
    address: str = ""
    pids: set[int] = field(default_factory=set)

    def counts(self) -> dict[int, dict[str, float]]:
        """By process, what /metrics counts: asked until each of two replicas has told."""
        found: dict[int, dict[str, float]] = {}

        def ask() -> bool:
            text = httpx.get(f"{self.address}/metrics", timeout=20).text
            samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
            (pid,) = (int(each.labels["pid"]) for each in samples if each.name == "mohole_process")
            found[pid] = {each.name + each.labels.get("how", ""): each.value for each in samples}
            return len(found) == 2

        assert happens(ask, 30, every=0)
        return found

    def total(self, name: str) -> float:
        return sum(counts[name] for counts in self.counts().values())

    def descendants(self) -> set[int]:
        """Every process of the command's session, which Ray's processes stay in."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int(stat.read_text().rpartition(") ")[2].split()[3]) == self.process.pid:
                    found.add(int(stat.parent.name))
        return found


@pytest.fixture(scope="module")
def running(talking_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed; pip install 'mohole[replicas]'")
    folder = tmp_path_factory.mktemp("replicas")
    said, journal = folder / "said", folder / "journal"
    run = shutil.copytree(talking_run, folder / "demo")
    options = ["--model", "planted", "--port", "0", "--replicas", "2", "--log", str(journal)]
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mohole", "serve", str(run), *options],
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=os.environ | {"MOHOLE_TOKEN": "known"},
        )
    found = Running(process, said, journal)  # type: ignore[arg-type]
    try:
        assert happens(lambda: " serves " in said.read_text() or process.poll() is not None, 120)
        address = re.match(r"(http://127\.0\.0\.1:\d+) serves demo; Ctrl-C ends it\n", said.read_text())
        assert address, said.read_text()
        found.address = address[1]
        found.pids = set(found.counts())
        yield found
    finally:
        for pid in found.descendants():  # nothing, where all is well
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0, timeout=60)


def asked(i: int) -> dict[str, Any]:
    """Sixteen different ones: prompts, strengths, temperatures and seeds."""
    clamp = {"kind": "clamp", "latent": BRIDGE, "hookpoint": HOOKPOINT, "times_max": 0.25 * (i % 5)}
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": "What are you? " * (1 + i % 3)}],
        "seed": i,
        "temperature": 0.7 * (i % 2),
        "max_tokens": 10 + i % 3,
        "extra_body": {"steering": {"interventions": [clamp] if i % 3 else []}},
    }


def alone(model: LanguageModel, sources: Sources, i: int) -> str:
    """What is written for one of them where there is no server, no engine and nobody else."""
    body = asked(i)
    prompt = chat_tokens(model.tokenizer, [("user", body["messages"][0]["content"])])
    clamps = [Clamp(BRIDGE, times_max=0.25 * (i % 5), hookpoint=HOOKPOINT)] if i % 3 else []
    written = Steered(model, [make_plan(model, clamps, sources)]).generate(
        prompt,
        max_new_tokens=body["max_tokens"],
        temperature=body["temperature"],
        seed=[i],
        stop_tokens=[model.tokenizer.eos_id or 0],
    )
    return answer_of(model.tokenizer, written.tokens[0].tolist(), prompt.shape[1]).lstrip()


def test_sixty_four_streams_are_batched_in_both_replicas_and_none_has_anothers_words(
    running: Running, talking_model: LanguageModel, talking_run: Path
) -> None:
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0) as many:

            async def one(i: int) -> str:
                stream = await many.chat.completions.create(**asked(i % 16), stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(i) for i in range(64)))

    together = asyncio.run(main())
    sources = Sources.of_run(talking_run)
    expected = [alone(talking_model, sources, i) for i in range(16)]
    assert len(set(expected)) > 6
    assert together == expected * 4
    counts = running.counts()
    shares = [each["mohole_asked_total"] for each in counts.values()]
    assert sum(shares) == 64
    assert min(shares) > 4, "who has fewer in hand takes the next; one of them may still be loading the model"
    rows, passes = running.total("mohole_rows_run_total"), running.total("mohole_passes_total")
    assert rows / passes > 5, "one after the other, a pass would have one row"


def test_whoever_is_asked_says_the_same(running: Running, client: openai.OpenAI) -> None:
    before = running.counts()
    for temperature in (0.0, 0.9):
        same: dict[str, Any] = {"model": "demo::golden-gate", "prompt": "The", "max_tokens": 8, "seed": 3}
        answers = [client.completions.create(**same, temperature=temperature).choices[0] for _ in range(8)]
        assert len({answer.text for answer in answers}) == 1
        assert len({json.dumps((answer.model_extra or {})["mohole"]["stamp"]) for answer in answers}) == 1
    now = running.counts()
    assert all(now[pid]["mohole_asked_total"] > before[pid]["mohole_asked_total"] for pid in now), "one answered all"


def test_a_stream_comes_in_pieces_and_who_goes_away_frees_the_row(running: Running) -> None:
    with httpx.stream("POST", f"{running.address}/v1/completions", json=LONG | {"stream": True}, timeout=60) as stream:
        pieces = list(stream.iter_raw())
    assert pieces[-1].endswith(b"data: [DONE]\n\n")
    assert len(pieces) > 20
    with httpx.stream("POST", f"{running.address}/v1/completions", json=LONG | {"stream": True}, timeout=60) as stream:
        next(stream.iter_raw())
    assert happens(lambda: running.total("mohole_ended_totalcancelled") == 1, 20)
    assert "cancelled" in [json.loads(line)["how"] for line in running.journal.read_text().splitlines()]


def test_guards_pages_and_what_is_written_are_those_of_one_server(running: Running) -> None:
    address = running.address
    assert httpx.get(f"{address}/health").json() == {"status": "ok", "runs": ["demo"], "chat": True}
    assert httpx.get(f"{address}/v1/models", headers={"Host": "evil.example"}).status_code == 400
    large = {"model": "demo", "prompt": "x" * (1 << 19)}
    assert httpx.post(f"{address}/v1/completions", json=large).json()["error"]["code"] == "body_too_large"
    refused = httpx.post(f"{address}/v1/completions", json={"model": "nothing", "prompt": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    feature = f"{address}/api/v1/runs/demo/{HOOKPOINT}/features/{BRIDGE}"
    for text in ("one", "two"):  # in a file that both replicas have open
        said = httpx.put(f"{feature}/label", json={"text": text}, headers={"Authorization": "Bearer known"})
        assert said.status_code == 200
        assert {httpx.get(feature).json()["label"]["text"] for _ in range(12)} == {text}
    assert httpx.delete(f"{feature}/label", headers={"Authorization": "Bearer known"}).status_code == 200


def test_of_a_replica_that_dies_streams_break_and_others_answer_until_it_is_there_again(
    running: Running, client: openai.OpenAI
) -> None:
    four: dict[str, Any] = LONG | {"n": 4}
    whole = [choice.text for choice in client.completions.create(**four).choices]
    victim, other = running.counts()

    async def main() -> tuple[list[bytes | Exception], list[httpx.Response]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=running.address, timeout=60, limits=limits) as many:

            async def at_once(n: int = LONG["max_tokens"]) -> httpx.Response:
                return await many.post("/v1/completions", json=four | {"max_tokens": n})

            async def rest(stream: httpx.Response) -> bytes:
                return b"".join([piece async for piece in stream.aiter_raw()])

            async def stream() -> httpx.Response:
                asked = many.build_request("POST", "/v1/completions", json=four | {"stream": True})
                return await many.send(asked, stream=True)  # with the first event: until then there is no status

            await asyncio.gather(*(at_once(1) for _ in range(8)))  # both have loaded the model
            os.kill(other, signal.SIGSTOP)  # so that what begins is the victim's, and is not done when it dies
            try:
                # Each gets eight of sixteen, in any order: that all of one kind go to one replica is one chance in 6,000. Of four
                # and six it was one in twenty.
                others = [asyncio.ensure_future(at_once()) for _ in range(8)]
                streams = [asyncio.ensure_future(stream()) for _ in range(8)]
                await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED)
                os.kill(victim, signal.SIGKILL)
            finally:
                os.kill(other, signal.SIGCONT)
            begun = [each for each in await asyncio.gather(*streams) if each.is_success]
            read = await asyncio.gather(*map(rest, begun), return_exceptions=True)
            return read, await asyncio.gather(*others)  # type: ignore[return-value]

    streams, others = asyncio.run(main())
    broken = [each for each in streams if isinstance(each, Exception)]
    assert 1 <= len(broken) < len(streams)
    assert all(isinstance(each, httpx.RemoteProtocolError) for each in broken), broken
    assert all(each.endswith(b"data: [DONE]\n\n") for each in streams if isinstance(each, bytes)), (
        "a part was called whole"
    )
    assert {each.status_code for each in others} == {200, 500}
    assert all([choice["text"] for choice in each.json()["choices"]] == whole for each in others if each.is_success)
    for _ in range(6):
        assert client.completions.create(**LONG | {"max_tokens": 4}).choices[0].text
    assert happens(lambda: "2 of 2 replicas answer\n" in running.said.read_text(), 60)
    assert "1 of 2 replicas answer" in running.said.read_text()
    assert victim not in running.counts()


def test_told_to_end_it_says_so_to_who_is_answered_and_leaves_nothing(running: Running) -> None:
    """Ctrl-C, which the terminal gives to every process of its foreground."""
    started = running.descendants()
    assert len(started) > 5
    with httpx.stream("POST", f"{running.address}/v1/completions", json=LONG | {"stream": True}, timeout=60) as stream:
        pieces = stream.iter_raw()
        next(pieces)
        os.killpg(running.process.pid, signal.SIGINT)
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n"), "who is being answered is waited for"
    assert running.process.wait(30) == 0
    assert happens(lambda: not any(map(is_alive, started)), 10)
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.address)
    assert re.sub(r"^\d of 2 replicas answer.*\n", "", running.said.read_text(), flags=re.M).count("\n") == 1
