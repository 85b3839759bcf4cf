"""Continuations that share a batch: each is what it is alone, whoever joins, leaves, fails or is cancelled beside it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from tests.act.test_interventions import SOURCES, A
from tests.act.test_rows import BOS, plan, several, texts
from tests.act.tiny import HOOKPOINT, leave_taps_out, random_sae, tiny_model, tiny_tokenizer

from mohole.act import NOTHING, Add, Clamp, Latent, Plan, Stamp, Where, read_latent, steer_rows, steering
from mohole.engine import Ask, BatchingEngine, Ended, Engine, EngineError, Event, Limits, Sampling, Written
from mohole.engine.batching import end_tokens
from mohole.engine.cohort import Cohort, Outcome
from mohole.engine.row import Row
from mohole.errors import ConfigError, NumericsError, StageError
from mohole.keys import Use, uniform
from mohole.model import LanguageModel, new_model


@dataclass(frozen=True)
class Text:
    """One continuation, as it came."""

    tokens: tuple[int, ...]
    text: str
    end: Ended


async def collected(engine: Engine, ask: Ask) -> list[Text]:
    events: list[Event] = [event async for event in engine.answer(ask)]
    found = []
    for row in range(len(ask.samplings)):
        own = [event for event in events if event.row == row]
        end = own.pop()
        assert isinstance(end, Ended)
        written = [event for event in own if isinstance(event, Written)]
        assert len(written) == len(own)
        found.append(Text(tuple(event.token for event in written), "".join(event.text for event in written), end))
    return found


def run(
    work: Callable[[BatchingEngine], Awaitable[object]], model: LanguageModel | None = None, **options: object
) -> BatchingEngine:
    async def main() -> BatchingEngine:
        engine = BatchingEngine(model or tiny_model(), **options)  # type: ignore[arg-type]
        try:
            await asyncio.wait_for(work(engine), 60)
        finally:
            engine.close()
        return engine

    return asyncio.run(main())


def alone(ask: Ask, model: LanguageModel) -> list[tuple[tuple[int, ...], Stamp]]:
    """The law, slowly: without a cache or a batch, one token after the other from the whole text."""
    found = []
    for way in ask.samplings:
        steered, written = steer_rows(model, [ask.plan]), []
        for step in range(ask.max_new_tokens):
            whole = torch.tensor([[*ask.prompt, *written]])
            logits = steered.logits(whole, n_prompt=[len(ask.prompt)])[0, -1].double().numpy()
            written.append(one_token(logits, way, step))
            if written[-1] in end_tokens(model):
                break
        text = [token for token in written if token not in end_tokens(model)]
        stamp = (
            steer_rows(model, [ask.plan])
            .generate(
                torch.tensor([[*ask.prompt]]), max_new_tokens=len(written), temperature=way.temperature, seed=[way.seed]
            )
            .stamps[0]
            if way.top_p == 1
            else None
        )
        found.append((tuple(text), stamp))
    return found


def one_token(logits: np.ndarray, way: Sampling, step: int) -> int:
    if way.temperature == 0:
        return int(logits.argmax())
    shares = np.exp((logits - logits.max()) / way.temperature)
    shares /= shares.sum()
    kept, total = set(), 0.0
    for token in sorted(range(len(shares)), key=lambda token: (-shares[token], token)):
        kept.add(token)
        total += shares[token]
        if total >= way.top_p:
            break
    shares = np.array([share if token in kept else 0.0 for token, share in enumerate(shares)])
    number = uniform(way.seed, Use.GENERATION, np.zeros(1, dtype=np.int64), step)[0] * shares.sum()
    return int(np.searchsorted(shares.cumsum(), number, side="right"))


def asks() -> list[Ask]:
    """Of other lengths, plans, ways of sampling; two are of one prompt, one has three continuations."""
    ways = [
        Sampling(0.0), Sampling(0.9, seed=3), Sampling(1.3, 0.6, 4), Sampling(0.7, 0.9, 2**64 - 1), Sampling(0.0),
        Sampling(1.0, seed=5), Sampling(0.5, 0.3, 1),
    ]  # fmt: skip
    plans = [each or NOTHING for each in several()]
    found = [
        Ask(tuple(text.tolist()), (way,), n, own)
        for text, way, own, n in zip(texts(), ways, plans, [14, 3, 9, 11, 1, 20, 6], strict=True)
    ]
    again = replace(found[0], samplings=(Sampling(0.9, seed=1), Sampling(0.9, seed=2), Sampling(0.9, seed=1)))
    return [*found, again]


@pytest.mark.parametrize("seed", [0, 1])
def test_whoever_joins_and_leaves_each_is_what_it_is_alone(seed: int, no_shape_checks: None) -> None:
    """Each begins when a certain number of tokens has been told, so between any two; others are cancelled on the way."""
    draw = np.random.default_rng(seed)
    listed = [asks()[i] for i in draw.permutation(8)] * 2
    starts = sorted(int(n) for n in draw.integers(0, 60, len(listed)))
    n_told = 0

    async def one(engine: BatchingEngine, ask: Ask, start: int) -> list[Text]:
        nonlocal n_told
        while n_told < start:
            await asyncio.sleep(0)
            n_told += 0 if engine.counters.n_running else 1
        found = await collected(engine, ask)
        n_told += sum(len(each.tokens) for each in found)
        return found

    async def given_up(engine: BatchingEngine, ask: Ask, n: int) -> None:
        events = engine.answer(ask)
        for _ in range(n):
            await anext(events)
        await events.aclose()

    results: list[list[Text]] = []

    async def work(engine: BatchingEngine) -> None:
        quitters = [given_up(engine, replace(asks()[0], max_new_tokens=30), n) for n in (1, 3, 6)]
        *found, _, _, _ = await asyncio.gather(
            *(one(engine, ask, start) for ask, start in zip(listed, starts, strict=True)), *quitters
        )
        results.extend(found)  # type: ignore[arg-type]

    engine = run(work, limits=Limits(most_rows=9, prefill_tokens=40))
    for ask, texts_ in zip(listed, results, strict=True):
        for each, (tokens, stamp) in zip(texts_, expected(ask), strict=True):
            assert each.tokens == tokens
            assert each.end.stamp == (stamp or each.end.stamp)
            assert each.end.stamp.n_fired == each.end.stamp.n_tokens > 0
    counts = engine.counters
    assert counts.n_cancelled == 3
    assert counts.n_stopped + counts.n_at_length == 20
    assert counts.n_rows_run > 2 * counts.n_passes  # they did share passes
    assert (counts.n_running, counts.n_waiting, counts.n_failed, counts.n_rescued) == (0, 0, 0, 0)


@cache
def expected(ask: Ask) -> list[tuple[tuple[int, ...], Stamp]]:
    return alone(ask, tiny_model())


def test_a_model_whose_caches_cannot_be_joined_goes_on_in_several_batches(no_shape_checks: None) -> None:
    """Windows of four tokens: what is cached is cut, and no two texts are cut alike."""
    config = {
        "model_type": "mistral", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": 96, "max_position_embeddings": 64, "sliding_window": 4, "initializer_range": 0.3,
    }  # fmt: skip
    model = new_model(config, seed=1, tokenizer=tiny_tokenizer(), name="windows")
    listed = [replace(ask, plan=NOTHING) for ask in asks()[:4]]

    async def work(engine: BatchingEngine) -> None:
        first = engine.answer(listed[0])
        await anext(first)
        rest = await asyncio.gather(*(collected(engine, ask) for ask in listed))
        for ask, found in zip(listed, rest, strict=True):
            assert found[0].tokens == alone(ask, model)[0][0]
        await first.aclose()

    run(work, model)


def test_readings_are_of_each_token_at_its_own_row_as_it_was_left(no_shape_checks: None) -> None:
    model, prompt = tiny_model(), tuple(texts()[0].tolist())
    latents = (5, 7, 9)
    readings = tuple(read_latent(model, Latent(latent, HOOKPOINT), SOURCES) for latent in latents)
    for own in (NOTHING, plan(Clamp(5, value=9.0), Add(A, value=1.0))):
        ask = Ask(prompt, (Sampling(0.0), Sampling(0.9, seed=2)), 8, own, readings=readings)

        async def work(engine: BatchingEngine, ask: Ask = ask, own: Plan = own) -> None:
            events = [event async for event in engine.answer(ask)]
            for row in (0, 1):
                written = [event for event in events if isinstance(event, Written) and event.row == row]
                whole = torch.tensor([[*prompt, *(each.token for each in written)]])
                steered = steer_rows(model, [own])
                rows = model.read(whole, [HOOKPOINT], steered.edits, n_prompt=[len(prompt)])[HOOKPOINT][0]
                codes = SOURCES.dictionaries[HOOKPOINT].encode(rows.float())
                exact = torch.stack([codes.column(latent) for latent in latents], dim=1)[len(prompt) :]
                assert exact.abs().sum() > 0
                torch.testing.assert_close(torch.tensor([each.values for each in written]), exact, rtol=1e-3, atol=1e-3)
                (end,) = (event for event in events if isinstance(event, Ended) and event.row == row)
                assert (
                    end.stamp.n_tokens == whole.shape[1] - 1
                )  # the last token was run, too; begin-of-text is not counted

        run(work)


def test_equal_prompts_that_begin_together_have_their_own_readings_and_no_pass_is_longer_than_it_may_be(
    monkeypatch: pytest.MonkeyPatch, no_shape_checks: None
) -> None:
    """Who is being answered waits as long as the prompts of those who come run: most of 40 positions at once."""
    begin, begun, held = Cohort.begin, [], threading.Lock()
    prompt = tuple(texts()[0].tolist())
    read = [read_latent(tiny_model(), Latent(latent, HOOKPOINT), SOURCES) for latent in (5, 7, 9)]
    listed = [Ask(prompt, (Sampling(0.0),), 4, readings=tuple(own)) for own in (read[:1], read[1:], read[:0], read[:1])]

    def watched(model: LanguageModel, rows: Sequence[Row]) -> tuple[Cohort, Outcome]:
        begun.append([len(row.ask.prompt) for row in rows])
        return begin(model, rows)

    async def values(engine: BatchingEngine, ask: Ask) -> list[tuple[float, ...] | None]:
        return [event.values async for event in engine.answer(ask) if isinstance(event, Written)]

    async def work(engine: BatchingEngine) -> None:
        apart = [await values(engine, ask) for ask in listed]
        begun.clear()
        with held:
            asking = [asyncio.create_task(values(engine, ask)) for ask in (*listed, *listed)]
            await asyncio.sleep(0.05)  # the first one is at its pass, and the others wait
        for own, other in zip(await asyncio.gather(*asking), apart * 2, strict=True):
            assert own == [each if each is None else pytest.approx(each) for each in other]

    monkeypatch.setattr(Cohort, "begin", watched)
    run(work, limits=Limits(prefill_tokens=40), alone=held)
    assert max(map(len, begun)) > 1
    assert max(len(lengths) * max(lengths) for lengths in begun) <= 40


def test_likelihoods_are_the_models_own_under_the_interventions(no_shape_checks: None) -> None:
    model, prompt, own = tiny_model(), tuple(texts()[2].tolist()), plan(Clamp(5, value=30.0))

    async def work(engine: BatchingEngine) -> None:
        ask = Ask(prompt, (Sampling(0.7, 0.5, 3),), 6, own, n_top=3)
        _, written = await asyncio.gather(collected(engine, asks()[0]), listed(engine, ask))
        whole = torch.tensor([[*prompt, *(each.token for each in written)]])
        logprobs = steer_rows(model, [own]).logits(whole, n_prompt=[len(prompt)])[0].log_softmax(-1)[len(prompt) - 1 :]
        for place, each in enumerate(written):
            assert each.likelihood is not None
            assert each.likelihood.logprob == pytest.approx(float(logprobs[place, each.token]), abs=1e-4)
            values, ids = logprobs[place].topk(3)
            assert [token for token, _ in each.likelihood.top] == ids.tolist()
            assert [value for _, value in each.likelihood.top] == pytest.approx(values.tolist(), abs=1e-4)

    async def listed(engine: BatchingEngine, ask: Ask) -> list[Written]:
        return [event async for event in engine.answer(ask) if isinstance(event, Written)]

    run(work)


def test_an_intervention_that_is_too_strong_fails_alone(no_shape_checks: None) -> None:
    """At once where it acts at the prompt; in the middle of everybody's texts where it acts at what is written."""
    quiet = [replace(ask, max_new_tokens=14) for ask in asks()[:4]]
    first = replace(asks()[4], plan=plan(Add(A, value=3e38)), max_new_tokens=5)
    later = replace(asks()[4], plan=plan(Add(A, value=3e38, where=Where("response", 4))), max_new_tokens=9)

    async def work(engine: BatchingEngine) -> None:
        *found, one, other = await asyncio.gather(
            *(collected(engine, ask) for ask in quiet), collected(engine, first), collected(engine, later),
            return_exceptions=True,
        )  # fmt: skip
        assert isinstance(one, NumericsError)
        assert isinstance(other, NumericsError)
        for ask, texts_ in zip(quiet, found, strict=True):
            assert isinstance(texts_, list)
            ((tokens, stamp),) = expected(ask)
            assert texts_[0].tokens == tokens
            assert texts_[0].end.stamp == (stamp or texts_[0].end.stamp)

    counts = run(work).counters
    assert counts.n_failed == 2
    assert counts.n_rescued >= 2
    assert counts.n_waiting == counts.n_running == 0


def test_a_text_that_was_not_steered_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_taps_out(monkeypatch)

    async def work(engine: BatchingEngine) -> None:
        with pytest.raises(Exception, match="fired"):
            await collected(engine, replace(asks()[0], plan=plan(Clamp(5, value=1.0))))

    run(work)


def test_stamps_that_do_not_add_up_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a pass had been left out."""
    from mohole.engine.row import Row

    ran = Row.ran

    def forgetful(self: Row, stamp: Stamp, values: object) -> list[Event]:
        return ran(self, replace(stamp, n_fired=stamp.n_fired - (len(self.chosen) == 1)), values)  # type: ignore[arg-type]

    monkeypatch.setattr(Row, "ran", forgetful)

    async def work(engine: BatchingEngine) -> None:
        with pytest.raises(StageError, match="at work at 12 of 13 tokens"):
            await collected(engine, replace(asks()[0], max_new_tokens=5, stop=()))

    run(work)


def test_a_full_queue_a_late_answer_and_an_end_are_said() -> None:
    long = replace(asks()[0], max_new_tokens=40)

    async def work(engine: BatchingEngine) -> None:
        with pytest.raises(EngineError) as full:
            await collected(engine, replace(long, samplings=(Sampling(0.0),) * 4))
        assert full.value.reason == "full"
        with pytest.raises(EngineError) as late:
            await collected(engine, replace(long, most_seconds=0.0))
        assert late.value.reason == "late"
        first = engine.answer(long)
        await anext(first)
        waiting = asyncio.gather(collected(engine, long), return_exceptions=True)
        await asyncio.sleep(0.01)
        engine.end(0.0)
        with pytest.raises(EngineError, match="this answer was cut"):
            async for _ in first:
                pass
        assert [error.reason for error in await waiting] == ["ending"]  # type: ignore[union-attr]
        with pytest.raises(EngineError, match="the server is ending"):
            await collected(engine, long)

    run(work, limits=Limits(most_rows=1, most_waiting=3))


def test_who_runs_may_finish_when_the_engine_ends() -> None:
    async def work(engine: BatchingEngine) -> None:
        first = engine.answer(asks()[5])
        await anext(first)
        engine.end(60.0)
        assert isinstance([event async for event in first][-1], Ended)
        with pytest.raises(EngineError):
            await collected(engine, asks()[5])

    run(work)


def test_a_fault_of_the_engine_reaches_those_who_wait_and_not_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(engine: BatchingEngine) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("mohole.engine.batching.chosen", lambda rows, logits: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await collected(engine, asks()[0])
        assert (await collected(engine, asks()[0]))[0].tokens

    run(work)
    assert "a round of the engine failed" in caplog.text


def test_a_fault_that_nobody_foresaw_fails_the_row_that_brought_it_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At its first token and in the middle. A row that is told nothing would wait for good."""
    right = steering.mask

    def faulty(where: Where, *rest: object) -> object:
        return 1 / 0 if where.tokens == (7,) else right(where, *rest)  # type: ignore[arg-type]

    async def work(engine: BatchingEngine) -> None:
        quiet = replace(asks()[0], max_new_tokens=14)
        bad = replace(asks()[4], plan=plan(Add(A, value=1.0, where=Where(tokens=(7,)))))
        found = await asyncio.gather(*(collected(engine, ask) for ask in (quiet, bad, quiet)), return_exceptions=True)
        assert isinstance(found[1], ZeroDivisionError)
        ((tokens, _),) = expected(quiet)
        for texts_ in (found[0], found[2]):
            assert isinstance(texts_, list)
            assert texts_[0].tokens == tokens

    monkeypatch.setattr(steering, "mask", faulty)
    counts = run(work).counters
    assert (counts.n_failed, counts.n_waiting, counts.n_running) == (1, 0, 0)
    assert "a row of the engine failed" in caplog.text


def test_rows_that_were_in_no_batch_yet_hear_of_a_fault_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(engine: BatchingEngine) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_count", lambda rows, n_prompt=0: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(collected(engine, asks()[0]), 10)
        assert (await collected(engine, asks()[0]))[0].tokens

    run(work)


@pytest.mark.parametrize(
    "ask",
    [
        Ask((), (Sampling(),), 1), Ask((BOS,), (), 1), Ask((BOS,), (Sampling(),), 0), Ask((BOS, 96), (Sampling(),), 1),
        Ask((BOS, -1), (Sampling(),), 1), Ask((BOS,) * 60, (Sampling(),), 5),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(ask: Ask) -> None:
    async def work(engine: BatchingEngine) -> None:
        with pytest.raises(ConfigError):
            await collected(engine, ask)

    run(work)


def test_the_stand_in_dictionary_is_the_one_that_plans_are_of() -> None:
    assert random_sae().hookpoint == HOOKPOINT
    assert isinstance(BatchingEngine, type)
