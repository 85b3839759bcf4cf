"""The engine over vLLM, against a stand-in for vLLM and its plug-in: how requests are put, what is refused, what is proved."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.act.test_interventions import SOURCES, A, B
from tests.act.test_rows import BOS, plan
from tests.act.tiny import HOOKPOINT, N_LATENTS, tiny_model, tiny_tokenizer

from mohole.act import (
    NOTHING,
    Ablate,
    Add,
    Cap,
    Clamp,
    Intervention,
    Latent,
    Orthogonalise,
    Scale,
    Swap,
    Vector,
    When,
    Where,
    make_plan,
)  # fmt: skip
from mohole.engine import Ask, Ended, Engine, EngineError, Event, Limits, Sampling, Written
from mohole.engine.vllm import VllmEngine
from mohole.engine.vllm_plan import worker_steering
from mohole.errors import ConfigError, ModelError, StageError

PROMPT = (BOS, 10, 11, 12)
WRITTEN = [20, 21, 22, 23, 24, 25]


@dataclass
class FakeLLM:
    """Writes WRITTEN, and counts rows for those who had that registered, as the plug-in does; `n_lost` of them not."""

    n_lost: int = 0
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    params: list[Any] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    n_generated: int = 0
    _captured: dict[str, tuple[str, int]] = field(default_factory=dict)

    async def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncIterator[Any]:
        self.prompts.append(prompt)
        self.params.append(sampling_params)
        for n in range(1, sampling_params.max_tokens + 1):
            await asyncio.sleep(0)
            self.n_generated += 1
            if request_id in self._captured:
                point, _ = self._captured[request_id]
                self._captured[request_id] = point, len(prompt["prompt_token_ids"]) + n - 1
            logprobs = [
                {token: SimpleNamespace(logprob=-1.0), 5: SimpleNamespace(logprob=-0.5)} for token in WRITTEN[:n]
            ]
            yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=WRITTEN[:n], logprobs=logprobs)])

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        self.calls.append((method, args))
        if method == "register_capture":
            self._captured[args[0]] = args[1][0], 0
        if method == "collect_request":
            point, n = self._captured.pop(args[0])
            return [{point: torch.zeros(n - self.n_lost, 4)}]
        return [None]

    async def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    def shutdown(self) -> None:
        self.calls.append(("shutdown", ()))


def engine_of(llm: FakeLLM, *ends: int) -> VllmEngine:
    return VllmEngine(llm, tiny_tokenizer(), frozenset(ends), SimpleNamespace, dict)


def answered(engine: Engine, ask: Ask) -> list[Event]:
    async def main() -> list[Event]:
        return [event async for event in engine.answer(ask)]

    return asyncio.run(main())


ASK = Ask(PROMPT, (Sampling(0.7, 0.9, seed=(1 << 63) + 4),), 6, plan(Add(A, value=2.0)))


def test_a_request_is_put_whole_and_its_rows_are_counted() -> None:
    llm = FakeLLM()
    assert isinstance(engine_of(llm), Engine)
    *written, end = answered(engine_of(llm), replace(ASK, n_top=1))
    assert [each.token for each in written if isinstance(each, Written)] == WRITTEN
    assert written[0].likelihood is not None  # type: ignore[union-attr]
    assert (written[0].likelihood.logprob, written[0].likelihood.top) == (-1.0, ((5, -0.5),))  # type: ignore[union-attr]
    assert isinstance(end, Ended)
    assert (end.reason, end.n_written) == ("length", 6)
    assert (end.stamp.n_tokens, end.stamp.n_fired, end.stamp.n_moved) == (3 + 5, 3 + 5, 3 + 5)
    methods = [method for method, _ in llm.calls]
    assert methods == ["register_steering", "register_capture", "collect_request", "unregister_steering"]
    request, specs, skipped, n_prompt, generated = llm.calls[0][1]
    assert (skipped, n_prompt, generated) == ([0], 4, True)
    assert [(spec["op"], spec["point"], spec["layer"], spec["coeff"]) for spec in specs] == [
        ("additive", "resid_post", 1, 2.0)
    ]
    assert llm.prompts == [{"prompt_token_ids": list(PROMPT), "cache_salt": request}]
    params = llm.params[0]
    assert (params.temperature, params.top_p, params.seed, params.max_tokens) == (0.7, 0.9, 4, 6)


def test_without_interventions_nothing_is_registered_and_the_cache_is_everybodys() -> None:
    llm = FakeLLM()
    end = answered(engine_of(llm), Ask(PROMPT, (Sampling(), Sampling()), 2))[-1]
    assert isinstance(end, Ended)
    assert end.stamp.key == ""
    assert llm.calls == []
    assert llm.prompts == [{"prompt_token_ids": list(PROMPT)}] * 2


@pytest.mark.parametrize("n_lost", [1, 9])
def test_rows_that_are_missing_are_an_error_and_no_steered_text(n_lost: int) -> None:
    async def main() -> None:
        async for event in engine_of(FakeLLM(n_lost)).answer(ASK):
            pytest.fail(f"told before the rows were counted: {event}")

    with pytest.raises(StageError, match=f"at work at {9 - n_lost} of 9 tokens, so the text is not steered"):
        asyncio.run(main())


def test_what_needs_no_proof_is_told_as_it_is_written() -> None:
    async def main() -> None:
        events = engine_of(llm).answer(replace(ASK, plan=NOTHING))
        await anext(events)
        assert llm.n_generated < len(WRITTEN)
        await events.aclose()

    llm = FakeLLM()
    asyncio.run(main())


def test_stop_strings_and_ends_end_it() -> None:
    llm = FakeLLM()
    *written, end = answered(engine_of(llm), replace(ASK, stop=("w19 w20",)))
    assert isinstance(end, Ended)
    assert "".join(each.text for each in written if isinstance(each, Written)) == " w17 w18 "
    assert (end.reason, len(llm.aborted)) == ("stop", 1)
    end = answered(engine_of(FakeLLM(), 22), replace(ASK, max_new_tokens=3))[-1]
    assert isinstance(end, Ended)
    assert (end.reason, end.n_written) == ("stop", 3)


def test_who_leaves_is_taken_off_the_workers_and_an_end_is_said() -> None:
    llm = FakeLLM()
    engine = engine_of(llm)

    async def main() -> None:
        reading = asyncio.create_task(anext(engine.answer(ASK)))
        while not llm.n_generated:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert llm.n_generated < len(WRITTEN)
        assert [method for method, _ in llm.calls][-2:] == ["collect_request", "unregister_steering"]
        assert engine.counters.n_running == 0
        engine.end(0.0)
        with pytest.raises(EngineError, match="ending"):
            await anext(engine.answer(ASK))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("interventions", "expected"),
    [
        ([Add(A, times_norm=0.2)], [("norm_scaled_add", 0.2)]),
        ([Orthogonalise(A)], [("orthogonal", 0.0)]),
        ([Add(Latent(3, HOOKPOINT), value=1.5)], [("additive", 1.5)]),
        ([Cap(A, high=1.0)], [("projection_cap", None)]),
        ([Add(A, value=1.0), Add(B, value=-1.0)], [("additive", 1.0), ("additive", -1.0)]),
    ],
)
def test_what_the_plug_in_can_say(interventions: list[Intervention], expected: list[tuple[str, float | None]]) -> None:
    found = worker_steering(plan(*interventions), 4, 1)
    assert found is not None
    assert [(spec["op"], spec.get("coeff")) for spec in found.specs] == expected


@pytest.mark.parametrize(
    ("intervention", "words"),
    [
        (Clamp(3, value=1.0), "clamp of a latent must know its activation"),
        (Scale(3, 2.0), "scale of a latent"),
        (Ablate(3), "ablate of a latent"),
        (Cap(Latent(3), high=1.0), "cap of a latent"),
        (Swap(A, B), "swap moves rows along another direction"),
        (Add(A, value=1.0, when=When(A, 0.5)), "condition"),
        (Add(A, value=1.0, where=Where(classes=("word",))), "certain tokens"),
        (Add(A, value=1.0, where=Where("response", 2)), "a window is counted in the prompt"),
        (Orthogonalise(A, at="stream"), "only resid_post.L"),
    ],
)
def test_what_it_cannot_say_is_refused_by_name(intervention: Intervention, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        answered(engine_of(FakeLLM()), replace(ASK, plan=plan(intervention)))


@pytest.mark.parametrize(
    ("where", "skipped", "generated"),
    [
        (Where(), (0,), True), (Where(bos=True), (), True), (Where("prompt"), (0,), False),
        (Where("response"), (0, 1, 2, 3), True), (Where("prompt", -2), (0, 1), False),
        (Where("prompt", 0, 1), (0, 2, 3), False), (Where("prompt", -2, -1), (0, 1, 3), False),
    ],
)  # fmt: skip
def test_where_is_said_by_positions(where: Where, skipped: tuple[int, ...], generated: bool) -> None:
    found = worker_steering(plan(Add(A, value=1.0, where=where)), 4, 1)
    assert found is not None
    assert (found.skipped, found.generated) == (skipped, generated)


def test_two_choices_of_tokens_and_readings_are_refused() -> None:
    both = plan(Add(A, value=1.0), Add(B, value=1.0, where=Where("prompt")))
    with pytest.raises(ConfigError, match="one choice of tokens"):
        answered(engine_of(FakeLLM()), replace(ASK, plan=both))
    from mohole.act import read_latent

    reading = read_latent(tiny_model(), Latent(3), SOURCES)
    with pytest.raises(ConfigError, match="readings"):
        answered(engine_of(FakeLLM()), replace(ASK, readings=(reading,)))


def test_without_vllm_it_says_how_to_get_it() -> None:
    with pytest.raises(ModelError, match=r"pip install 'mohole\[vllm\]'"):
        VllmEngine.open("nowhere", tiny_tokenizer(), frozenset(), Limits())


def test_a_plan_of_a_vector_needs_no_dictionary() -> None:
    own = make_plan(tiny_model(), [Add(Vector((1.0,) * 32, "resid_post.0"), value=1.0)], SOURCES)
    found = worker_steering(own, 4, 0)
    assert found is not None
    assert (found.point, found.skipped) == ("resid_post.0", ())
    assert N_LATENTS > 4
