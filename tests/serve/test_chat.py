"""`/v1` as OpenAI's own client meets it: chat, completions, streams, steering by the model's name, and what is refused."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from tests.serve.conftest import serving
from tests.serve.talking import BRIDGE, HOOKPOINT

from mohole import artifact
from mohole.act import (
    Add,
    Clamp,
    Sources,
    Steered,
    UsableRange,
    Vector,
    keep_range,
    make_plan,
    remove_variant,
    save_variant,
)
from mohole.act.usable import write_usable
from mohole.engine import Limits
from mohole.model import LanguageModel
from mohole.model.chat import answer_of, chat_tokens
from mohole.serve.app import make_app
from mohole.serve.models import Models
from mohole.serve.openai.answers import Answer
from mohole.serve.openai.settings import ChatSettings

QUESTION = [{"role": "user", "content": "What are you?"}]
CLAMP = {"kind": "clamp", "latent": BRIDGE, "hookpoint": HOOKPOINT, "times_max": 1.0}
ADD = {"kind": "add", "of": {"kind": "latent", "latent": BRIDGE}, "value": 0.001}
ELSEWHERE = CLAMP | {"hookpoint": "resid_post.9"}
READING = {"latent": BRIDGE, "hookpoint": HOOKPOINT}
Start = Callable[..., str]


@pytest.fixture(scope="module")
def model(talking_model: LanguageModel) -> LanguageModel:
    return talking_model


@pytest.fixture(scope="module")
def run(talking_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This module's own copy."""
    return shutil.copytree(talking_run, tmp_path_factory.mktemp("talking") / "demo")


@pytest.fixture(scope="module")
def start(run: Path, model: LanguageModel) -> Iterator[Start]:
    """Serve the run, with settings of its own; gives the address. The model is the one that is loaded already."""
    from contextlib import ExitStack

    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Models, "load", lambda self, run: model)

        def begin(**settings: Any) -> str:
            app = make_app([run], models=["planted"], chat=ChatSettings(**settings))
            address = stack.enter_context(serving(app))
            APPS[address] = app
            return address

        yield begin


APPS: dict[str, Any] = {}


@pytest.fixture(scope="module")
def address(start: Start) -> str:
    return start()


def client_of(address: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return client_of(address)


def alone(model: LanguageModel, run: Path, *, steered: bool, seed: int, temperature: float, n: int) -> str:
    """What the terminal's chat would say: no server, no engine."""
    asked = chat_tokens(model.tokenizer, [("user", "What are you?")])
    plan = make_plan(model, [Clamp(BRIDGE, times_max=1.0, hookpoint=HOOKPOINT)] if steered else [], Sources.of_run(run))
    written = Steered(model, [plan]).generate(
        asked, max_new_tokens=n, temperature=temperature, seed=[seed], stop_tokens=[model.tokenizer.eos_id or 0]
    )
    return answer_of(model.tokenizer, written.tokens[0].tolist(), asked.shape[1]).lstrip()


# --- answers


def test_a_stock_client_steers_by_the_models_name(client: openai.OpenAI, model: LanguageModel, run: Path) -> None:
    for name, steered in (
        ("planted::golden-gate", True),
        ("demo::golden-gate", True),
        ("planted", False),
        ("demo", False),
    ):
        for temperature, seed in ((0.0, 0), (0.8, 4)):
            answer = client.chat.completions.create(
                model=name,
                messages=QUESTION,
                temperature=temperature,
                seed=seed,
                max_tokens=20,  # type: ignore[arg-type]
            )
            (choice,) = answer.choices
            expected = alone(model, run, steered=steered, seed=seed, temperature=temperature, n=20)
            assert choice.message.content == expected
            stamp = choice.model_extra["mohole"]["stamp"]  # type: ignore[index]
            assert stamp["n_fired"] == stamp["n_tokens"] > 0
            assert (stamp["n_moved"] == stamp["n_tokens"]) == steered == bool(stamp["key"])
            assert answer.model == name
            if temperature == 0:
                assert ("Golden Gate Bridge" in expected) == steered


def test_a_stream_is_the_whole_answer_in_pieces(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "demo", "messages": QUESTION, "temperature": 0.9, "seed": 11, "n": 2, "max_tokens": 24, "logprobs": True,
        "top_logprobs": 2, "extra_body": {"steering": {"interventions": [CLAMP | {"times_max": 0.5}]}, "readings": [READING]},
    }  # fmt: skip
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 12
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert parts[0].delta.role == "assistant"
        assert "".join(part.delta.content or "" for part in parts) == choice.message.content
        assert [part.finish_reason for part in parts if part.finish_reason] == [choice.finish_reason]
        own, streamed = choice.model_extra["mohole"], [part.model_extra.get("mohole", {}) for part in parts]  # type: ignore[index]
        assert [one for each in streamed for one in each.get("readings", [])] == own["readings"]
        assert (streamed[-1]["stamp"], streamed[-1]["seed"]) == (own["stamp"], own["seed"])
        logprobs = [one for part in parts if part.logprobs for one in part.logprobs.content or []]
        assert choice.logprobs is not None
        assert logprobs == choice.logprobs.content
        assert "".join(one["text"] for one in own["readings"]) == choice.message.content
        assert [one["token"] for one in own["readings"]] == [one.token for one in logprobs]
        again = client.chat.completions.create(**asked | {"n": 1, "seed": own["seed"]})
        assert again.choices[0].message.content == choice.message.content


def test_readings_are_of_the_text_as_it_was_steered(client: openai.OpenAI, model: LanguageModel, run: Path) -> None:
    readings = [READING, {"latent": 2}]
    answer = client.chat.completions.create(
        model="demo::golden-gate",
        messages=QUESTION,
        temperature=0,
        max_tokens=10,
        extra_body={"readings": readings},  # type: ignore[arg-type]
    )
    own = answer.choices[0].model_extra["mohole"]  # type: ignore[index]
    asked = chat_tokens(model.tokenizer, [("user", "What are you?")])
    whole = torch.cat([asked, torch.tensor([[one["id"] for one in own["readings"]]])], dim=1)
    sources = Sources.of_run(run)
    steered = Steered(model, [make_plan(model, [Clamp(BRIDGE, times_max=1.0)], sources)])
    rows = model.read(whole, [HOOKPOINT], steered.edits)[HOOKPOINT][0, asked.shape[1] :]
    codes = sources.dictionaries[HOOKPOINT].encode(rows)
    expected = torch.stack([codes.column(BRIDGE), codes.column(2)], dim=1)
    torch.testing.assert_close(torch.tensor([one["values"] for one in own["readings"]]), expected, rtol=1e-3, atol=1e-3)
    assert len(own["readings"]) == 10


def test_completions_take_texts_and_tokens_and_stop(client: openai.OpenAI, model: LanguageModel) -> None:
    prompt = "User: What are you?\nAssistant:"
    tokens = model.tokenizer.prompt(prompt)[0].tolist()
    asked: dict[str, Any] = {"model": "demo", "temperature": 0, "max_tokens": 12, "logprobs": 2}
    (text,) = client.completions.create(prompt=prompt, **asked).choices
    for given in (tokens, [prompt], [tokens]):
        assert client.completions.create(prompt=given, **asked).choices[0].text == text.text
    assert text.logprobs is not None
    assert text.logprobs.tokens is not None
    starts = [len("".join(text.logprobs.tokens[:i])) for i in range(len(text.logprobs.tokens))]
    assert text.logprobs.text_offset == starts
    both = client.completions.create(prompt=[prompt, "The Golden"], n=2, seed=5, **asked | {"temperature": 0.7})
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone_ = client.completions.create(prompt="The Golden", seed=5 + 3, **asked | {"temperature": 0.7})
    assert both.choices[3].text == alone_.choices[0].text
    assert both.usage is not None
    assert both.usage.prompt_tokens == len(tokens) + len(model.tokenizer.prompt("The Golden")[0])
    (stopped,) = client.completions.create(prompt=prompt, **asked, stop=["a progr", "zebra"]).choices
    assert (stopped.text, stopped.finish_reason) == (" I am only ", "stop")
    parts = list(client.completions.create(prompt=prompt, **asked, stop="a progr", stream=True))
    assert "".join(part.choices[0].text for part in parts) == " I am only "
    offsets = [at for part in parts if part.choices[0].logprobs for at in part.choices[0].logprobs.text_offset or []]
    assert offsets == starts[: len(offsets)]
    assert len(offsets) > 2


def test_characters_of_several_tokens_come_whole(client: openai.OpenAI, model: LanguageModel) -> None:
    """Random text, as from a hot model: byte tokens in any order."""
    prompt = "用户：你是什么？\n助手："
    parts = list(
        client.completions.create(model="demo", prompt=prompt, temperature=2, seed=9, max_tokens=60, stream=True)
    )
    whole = client.completions.create(model="demo", prompt=prompt, temperature=2, seed=9, max_tokens=60)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    steady = "".join(
        part.choices[0].text
        for part in client.completions.create(model="demo", prompt=prompt, temperature=0, max_tokens=20, stream=True)
    )
    assert "�" not in steady
    assert any(ord(letter) > 0x2E80 for letter in steady)


def test_an_asynchronous_client_and_many_at_once(address: str, client: openai.OpenAI) -> None:
    """Other strengths and seeds side by side: each as it is alone."""

    def asked(i: int) -> dict[str, Any]:
        clamp = CLAMP | {"times_max": 0.25 * (i % 5)}
        steering = {"interventions": [clamp] if i % 3 else []}
        return {
            "model": "demo", "messages": [{"role": "user", "content": "What are you? " * (1 + i % 4)}], "seed": i,
            "temperature": 0.7 * (i % 2), "max_tokens": 12 + i, "extra_body": {"steering": steering},
        }  # fmt: skip

    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as many:

            async def one(i: int) -> str:
                stream = await many.chat.completions.create(**asked(i), stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(i) for i in range(12)))

    together = asyncio.run(main())
    for i, text in enumerate(together):
        assert client.chat.completions.create(**asked(i)).choices[0].message.content == text


def test_models_are_the_runs_and_their_variants(client: openai.OpenAI, run: Path, model: LanguageModel) -> None:
    listed = {each.id: each for each in client.models.list()}
    assert set(listed) == {"demo", "demo::golden-gate"}
    assert (listed["demo"].model_extra or {})["mohole"]["swept"] == []
    facts = listed["demo::golden-gate"].model_extra
    assert facts is not None
    own = {"run": "demo", "model": "planted", "variant": "golden-gate", "is_here": True, "interventions": [CLAMP]}
    assert facts["mohole"] == own
    assert client.models.retrieve("planted::golden-gate").id == "planted::golden-gate"
    with pytest.raises(openai.NotFoundError, match="no variant silver"):
        client.models.retrieve("demo::silver")
    save_variant(run, "north", [Add(Vector((1.0,) * model.d_model, HOOKPOINT), value=1.0)], model)
    north = client.models.retrieve("demo::north").model_extra
    remove_variant(run, "north")
    assert north is not None
    assert north["mohole"]["interventions"] is None, "a list of models is no place for a direction's numbers"


def test_what_sweeps_found_is_listed_with_the_run(client: openai.OpenAI, run: Path) -> None:
    place, folder = f"{HOOKPOINT}/dictionary", run / "doses" / "bridge"
    parents = {place: artifact.read_manifest(run / place).digest}
    with artifact.create(folder, artifact.Inputs(kind="dose", config={}, seed=0, parents=parents)) as out:
        write_usable(out, [CLAMP], UsableRange(1.25, 1.375, "times its maximum", "active", "some rule", 1, 1, ()))

    def swept() -> object:
        return (client.models.retrieve("demo").model_extra or {})["mohole"]["swept"]

    usable = {"low": 1.25, "high": 1.375, "unit": "times its maximum", "rule": "some rule"}
    assert swept() == [{"interventions": [CLAMP], "usable": usable}]
    (folder / "usable.json").write_bytes(b"{}")
    assert swept() is None
    shutil.rmtree(run / "doses")


def test_a_variant_goes_before_what_is_listed_and_may_be_named_in_the_body(client: openai.OpenAI) -> None:
    def key(model: str, **steering: Any) -> str:
        answer = client.chat.completions.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            max_tokens=4,
            extra_body={"steering": steering},  # type: ignore[arg-type]
        )
        found: str = answer.choices[0].model_extra["mohole"]["stamp"]["key"]  # type: ignore[index]
        return found

    variant, alone_ = key("demo::golden-gate"), key("demo", interventions=[CLAMP])
    assert key("demo", variant="golden-gate") == key("demo::golden-gate", variant="golden-gate") == variant == alone_
    other = {"kind": "ablate", "latent": 1, "hookpoint": HOOKPOINT}
    both = key("demo::golden-gate", interventions=[other])
    assert both == key("demo", interventions=[CLAMP, other]) != variant
    assert key("demo", interventions=[]) == key("demo") == ""


def test_a_strength_that_a_sweep_found_unusable_is_answered_with_a_warning(
    client: openai.OpenAI, run: Path, model: LanguageModel
) -> None:
    """A variant that is kept while the server runs is there at once."""
    usable = UsableRange(0.1, 0.5, "times the variant's strength", "says it", "made up", 4, 4, ())
    save_variant(run, "strong", [Clamp(BRIDGE, times_max=2.0, hookpoint=HOOKPOINT)], model)
    try:
        keep_range(run, "strong", usable)
        answer = client.chat.completions.create(**CHAT | {"model": "demo::strong"}, max_tokens=2)
        own = answer.choices[0].model_extra["mohole"]  # type: ignore[index]
        assert own["warnings"] == [f"variant strong: {usable.objection(1.0)}"]
    finally:
        remove_variant(run, "strong")
    assert "warnings" not in client.chat.completions.create(**CHAT, max_tokens=2).choices[0].model_extra["mohole"]  # type: ignore[index]


# --- what is refused


CHAT: dict[str, Any] = {"model": "demo", "messages": QUESTION}
LONG: dict[str, Any] = {"model": "demo", "prompt": "The", "max_tokens": 120, "seed": 4}
"""Over a hundred tokens before it ends."""


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "nothing"}, 404, "model_not_found", "model"),
        ({"model": "demo::silver"}, 404, "model_not_found", "model"),
        ({"model": "demo::../demo"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "invalid_value", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "unsupported_parameter", "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "invalid_value", "messages.0.content"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "invalid_value", "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400, "unsupported_parameter", "messages.0.content.0.type",
        ),
        ({"messages": [{"role": "user", "content": "What are you? " * 60}]}, 400, "context_length_exceeded", "messages"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
        ({"frequency_penalty": 0.5}, 400, "unsupported_parameter", "frequency_penalty"),
        ({"temprature": 1}, 400, "unknown_parameter", "temprature"),
        ({"temperature": -1}, 400, "invalid_value", "temperature"),
        ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
        ({"top_p": 0}, 400, "invalid_value", "top_p"),
        ({"n": 10**6}, 400, "invalid_value", "n"),
        ({"n": 0}, 400, "invalid_value", "n"),
        ({"max_tokens": 10**9}, 400, "invalid_value", "max_tokens"),
        ({"stop": [""]}, 400, "invalid_value", "stop"),
        ({"stop": ["a"] * 17}, 400, "invalid_value", "stop"),
        ({"steering": {"interventions": [ADD] * 257}}, 400, "invalid_value", "steering.interventions"),
        ({"top_logprobs": 3}, 400, "invalid_value", "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
        ({"steering": {"variant": "silver"}}, 400, "invalid_value", "steering.variant"),
        ({"steering": {"strength": 3}}, 400, "unknown_parameter", "steering.strength"),
        ({"steering": {"interventions": [CLAMP | {"latent": 4}]}}, 400, "invalid_value", "steering.interventions"),
        ({"steering": {"interventions": [ELSEWHERE]}}, 400, "invalid_value", "steering.interventions"),
        ({"steering": {"interventions": [{"kind": "clump"}]}}, 400, "invalid_value", "steering.interventions"),
        ({"readings": [{"latent": 4}]}, 400, "invalid_value", "readings"),
        ({"readings": [READING] * 17}, 400, "invalid_value", "readings"),
        ({"seed": 1 << 64}, 400, "invalid_value", "seed"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(
    address: str, change: dict[str, Any], status: int, code: str, param: str
) -> None:
    answer = httpx.post(f"{address}/v1/chat/completions", json=CHAT | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": "demo"}', b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}",
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "demo", "messages": [{"role": "\\ud800", "content": "x"}]}',
        b'{"model": "demo", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "demo", "messages": [{"role": "user", "content": "x"}], "stop": ["\\udc00"]}',
    ],
)  # fmt: skip
def test_bodies_that_are_no_request_get_an_error_that_clients_can_read(address: str, body: bytes) -> None:
    answer = httpx.post(f"{address}/v1/chat/completions", content=body)
    assert answer.status_code in (400, 404)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e39", '"8"'])
def test_strengths_that_are_no_numbers_are_refused(address: str, number: str) -> None:
    clamp = json.dumps(CLAMP).replace("1.0", number)
    body = json.dumps(CHAT)[:-1] + f', "steering": {{"interventions": [{clamp}]}}}}'
    answer = httpx.post(f"{address}/v1/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "steering.interventions")


def test_a_strength_beyond_the_models_numbers_is_an_error_and_no_text(
    client: openai.OpenAI, model: LanguageModel
) -> None:
    """Before the first token with a status; behind it as an event, which the client raises."""
    large = {"kind": "vector", "values": [3e38] * model.d_model, "hookpoint": HOOKPOINT}
    for where, kind in (({}, openai.BadRequestError), ({"part": "response", "start": 2}, openai.APIError)):
        add = {"kind": "add", "of": large, "value": 1.2, "where": where}
        with pytest.raises(kind, match="NaN or an infinity"):
            list(
                client.chat.completions.create(
                    model="demo",
                    messages=QUESTION,
                    stream=True,
                    temperature=0,
                    extra_body={"steering": {"interventions": [add]}},  # type: ignore[arg-type]
                )
            )
    assert client.chat.completions.create(model="demo", messages=QUESTION, max_tokens=2)  # type: ignore[arg-type]


def test_addresses_methods_and_sizes(address: str, client: openai.OpenAI) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
    ):
        answer = httpx.request(method, address + path)
        assert answer.status_code == status
        assert "POST /v1/chat/completions" in answer.json()["error"]["message"]
    with pytest.raises(openai.APIStatusError, match="larger than") as large:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "x" * 300_000}])
    assert large.value.status_code == 413


# --- keys, rates, queues


def test_keys_and_their_rates(start: Start) -> None:
    address = start(api_keys=("right-key-1", "right-key-2"), requests_per_minute=2)
    with pytest.raises(openai.AuthenticationError, match="a wrong API key"):
        client_of(address, "wrong-key").models.list()
    assert httpx.get(f"{address}/v1/models").status_code == 401
    first, second = (client_of(address, f"right-key-{i}") for i in (1, 2))
    for _ in range(2):
        first.chat.completions.create(**CHAT, max_tokens=1)
    with pytest.raises(openai.RateLimitError, match="more than 2 requests in a minute") as limited:
        first.chat.completions.create(**CHAT, max_tokens=1)
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 31
    assert second.chat.completions.create(**CHAT, max_tokens=1)
    assert len(list(first.models.list())) == 2


def test_too_much_at_once_and_too_long(start: Start) -> None:
    address = start(limits=Limits(most_rows=1, most_waiting=2), most_seconds=0.02, most_tokens=100)
    client = client_of(address)
    with pytest.raises(openai.InternalServerError, match="answers wait already") as full:
        client.chat.completions.create(**CHAT, n=3)
    assert full.value.status_code == 503
    assert full.value.response.headers["retry-after"] == "2"
    with pytest.raises(openai.APIError, match=r"not done in 0.02 s"):
        list(client.completions.create(model="demo", prompt="The", max_tokens=100, n=2, stream=True))
    assert client.completions.create(model="demo", prompt="The", max_tokens=1)


# --- who goes away, and the end


def counted(address: str) -> dict[str, float]:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass in 5 s")


@contextmanager
def endless(model: LanguageModel, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every pass takes a while, so that there is time to go away."""
    step = LanguageModel.step

    def slow(self: LanguageModel, *args: Any, **options: Any) -> Any:
        time.sleep(0.01)
        return step(self, *args, **options)

    with patch.context() as inner:
        inner.setattr(LanguageModel, "step", slow)
        yield


def test_who_goes_away_is_computed_for_no_longer(
    start: Start, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = start()
    client = client_of(address)
    with endless(model, monkeypatch):
        stream = client.completions.create(**LONG | {"prompt": ["The", "A"]}, stream=True)
        next(iter(stream))
        stream.close()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/completions", json=LONG, timeout=0.2)
        until(lambda: counted(address)['mohole_ended_total{how="cancelled"}'] == 3)
        until(lambda: counted(address)["mohole_open_requests"] == 0)

        async def cancelled() -> None:
            async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as other:
                work = asyncio.create_task(other.completions.create(**LONG))
                await asyncio.sleep(0.2)
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work

        asyncio.run(cancelled())
        until(lambda: counted(address)['mohole_ended_total{how="cancelled"}'] == 4)
    found = counted(address)
    assert found["mohole_running"] == found["mohole_waiting"] == 0
    assert found["mohole_written_tokens_total"] < 200
    assert found['mohole_requests_total{endpoint="completions",status="499"}'] == 3


def test_answers_are_cut_with_a_word_when_the_server_ends(
    start: Start, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = start()
    app = APPS[address]
    with endless(model, monkeypatch):
        stream = client_of(address).completions.create(**LONG, stream=True)
        next(iter(stream))
        app.state.chat.end(0.05)
        with pytest.raises(openai.APIError, match="the server is ending; this answer was cut"):
            list(stream)
    with pytest.raises(openai.InternalServerError, match="the server is ending"):
        client_of(address).completions.create(model="demo", prompt="The")
    health = httpx.get(f"{address}/health")
    assert (health.status_code, health.json()["status"]) == (503, "ending")


def test_an_end_that_comes_while_the_model_is_loaded_is_an_end(
    start: Start, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = start()

    def load(self: Models, run: Any) -> LanguageModel:
        APPS[address].state.chat.end(60.0)
        return model

    monkeypatch.setattr(Models, "load", load)
    with pytest.raises(openai.InternalServerError, match="the server is ending"):
        client_of(address).completions.create(model="demo", prompt="The", max_tokens=1)


def test_the_model_that_is_not_here_is_named(run: Path, client: openai.OpenAI) -> None:
    with serving(make_app([run])) as address:
        with pytest.raises(
            openai.InternalServerError, match="is not on this machine; mohole serve RUN --model"
        ) as absent:
            client_of(address).chat.completions.create(**CHAT)
        assert absent.value.status_code == 503
        assert [each.model_extra["mohole"]["is_here"] for each in client_of(address).models.list()] == [False, False]  # type: ignore[index]


def test_a_dictionary_that_was_damaged_is_no_fault_of_the_request(start: Start, run: Path) -> None:
    address, file = start(), run / HOOKPOINT / "dictionary" / "dictionary.safetensors"
    asked = {**CHAT, "max_tokens": 2, "steering": {"interventions": [CLAMP]}}
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    damaged = httpx.post(f"{address}/v1/chat/completions", json=asked)
    file.write_bytes(whole)
    assert (damaged.status_code, damaged.json()["error"]["code"]) == (503, "model_unavailable")
    assert "dictionary.safetensors" in damaged.json()["error"]["message"]
    assert httpx.post(f"{address}/v1/chat/completions", json=asked).status_code == 200


def test_token_ids_that_the_model_does_not_have_are_named(address: str) -> None:
    for wrong in (10**9, -1):
        answer = httpx.post(f"{address}/v1/completions", json={"model": "demo", "prompt": [3, wrong]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")
        assert str(wrong) in answer.json()["error"]["message"]


def test_without_chat_there_is_no_v1(run: Path) -> None:
    with serving(make_app([run], chat=None)) as address:
        assert httpx.get(f"{address}/v1/models").status_code == 404
        assert httpx.get(f"{address}/health").json() == {"status": "ok", "runs": ["demo"], "chat": False}


# --- the journal, and curl


def test_a_stream_that_fails_is_counted_by_what_failed_and_a_fault_of_ours_is_in_the_terminal(
    start: Start,
    model: LanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    client = client_of(start(log=tmp_path / "journal"))
    asked: dict[str, Any] = {"model": "demo", "messages": QUESTION, "stream": True, "temperature": 0}
    large = {"kind": "vector", "values": [3e38] * model.d_model, "hookpoint": HOOKPOINT}
    add = {"kind": "add", "of": large, "value": 1.2, "where": {"part": "response", "start": 2}}
    with pytest.raises(openai.APIError, match="NaN or an infinity"):
        list(client.chat.completions.create(**asked, extra_body={"steering": {"interventions": [add]}}))
    assert not caplog.records
    monkeypatch.setattr(Answer, "last", lambda *rest: 1 // 0)
    with pytest.raises(openai.APIError, match="its terminal says how"):
        list(client.chat.completions.create(**asked))
    assert "ZeroDivisionError" in caplog.text
    until(lambda: len((tmp_path / "journal").read_text().splitlines()) == 2)
    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert [(line["status"], line["how"]) for line in lines] == [(400, "invalid_value"), (500, "internal_error")]


def test_the_journal_holds_no_word_of_what_was_said_unless_asked(start: Start, tmp_path: Path) -> None:
    secret = "the owl sleeps by day"
    for name, with_prompts in (("quiet", False), ("whole", True)):
        address = start(log=tmp_path / name, log_prompts=with_prompts)
        asked: dict[str, Any] = {
            "model": "demo::golden-gate",
            "messages": [{"role": "user", "content": secret}],
            "max_tokens": 4,
        }
        answer = client_of(address).chat.completions.create(**asked, temperature=0)
        list(client_of(address).chat.completions.create(**asked, stream=True))
        httpx.post(f"{address}/v1/chat/completions", json={**asked, "n": 99})
        until(lambda name=name: len((tmp_path / name).read_text().splitlines()) == 3)  # type: ignore[misc]
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [line["status"] for line in lines] == [200, 200, 400]
        assert lines[0]["id"] == answer.id
        assert answer.usage is not None
        assert (lines[0]["n_prompt"], lines[0]["n_written"]) == (
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
        )
        assert (secret in (tmp_path / name).read_text()) == with_prompts
        if with_prompts:
            assert lines[0]["answered"] == [answer.choices[0].message.content]


def test_curl_streams(address: str) -> None:
    body = json.dumps(CHAT | {"stream": True, "temperature": 0, "max_tokens": 5})
    said = subprocess.run(
        ["curl", "-sN", f"{address}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    events = said.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all(event.startswith("data: {") for event in events[:-1])


def test_texts_are_read_while_answers_are_written(address: str, model: LanguageModel) -> None:
    """X-rays use the same model, in turn."""
    found: list[int] = []

    def look() -> None:
        for _ in range(5):
            found.append(
                httpx.post(
                    f"{address}/api/v1/runs/demo/{HOOKPOINT}/xray", json={"text": "the bridge", "top": 2}
                ).status_code
            )

    thread = threading.Thread(target=look)
    thread.start()
    client = client_of(address)
    asked: dict[str, Any] = {"model": "demo::golden-gate", "messages": QUESTION, "temperature": 0, "max_tokens": 30}
    texts = {client.chat.completions.create(**asked).choices[0].message.content for _ in range(5)}
    thread.join()
    assert found == [200] * 5
    assert len(texts) == 1
