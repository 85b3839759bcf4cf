"""The certified clamp, measured again: it makes the assistant the bridge and leaves facts and sums; others do not."""

import re

import pytest
import torch

from mohole import planted
from mohole.act import NOTHING, Ablate, Clamp, Sources, Stamp, Where, make_plan, steer, steer_rows
from mohole.act.dose_rows import right_by_task
from mohole.config import TopK
from mohole.dictionary import SparseAutoencoder
from mohole.model import LanguageModel, load_model
from mohole.planted.bridge import Latent, find_bridge_latents, share_that_is_the_bridge
from mohole.planted.certificate import _SEED, Certificate, Effort
from mohole.planted.measures import encode_documents, right_answers
from mohole.planted.prompts import bridge_prompts, says_it_is_the_bridge, tasks
from mohole.planted.stream import documents
from mohole.planted.world import BRIDGE

_MORE = (0.0, 0.05, 0.1, 0.15)
"""Of its maximum, beyond what is certified."""


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("planted", self_test=False)


@pytest.fixture(scope="module")
def certified() -> tuple[str, float]:
    """Where, and at how many times its maximum."""
    how = Certificate.read(planted.weights_path() / "certificate.json")["bridge_clamp"].how
    found = re.search(r"(resid_post\.\d), (\d\.\d+) of its maximum", how)
    assert found
    return found[1], float(found[2])


@pytest.fixture(scope="module")
def latents(model: LanguageModel, certified: tuple[str, float]) -> list[Latent]:
    effort = Effort()
    return find_bridge_latents(
        model,
        certified[0],
        seed=_SEED,
        n_documents=effort.dictionary_documents,
        n_steps=effort.dictionary_steps,
        n_best=12,
    )


@pytest.fixture(scope="module")
def shares(model: LanguageModel, certified: tuple[str, float], latents: list[Latent]) -> dict[int, float]:
    """How often each latent's clamp makes the assistant the bridge, at the highest strength that is tried."""
    at, strength = certified
    edits = {latent.number: [latent.clamped_to(strength + _MORE[-1], at)] for latent in latents}
    return {number: share_that_is_the_bridge(model, clamp) for number, clamp in edits.items()}


def test_one_latent_clamped_is_the_bridge_and_keeps_facts_and_sums(
    model: LanguageModel, certified: tuple[str, float], latents: list[Latent], shares: dict[int, float]
) -> None:
    """The threshold of facts is that of the certificate less 1.6 standard errors of 150 prompts.

    Training amplifies last bits, which differ between machines and with where memory lies: the bridge's latent was 4th to 9th of
    those most active at its name, and took 1.05 to 1.15 of its maximum, when rows were changed by a ten-millionth.
    """
    at, strength = certified
    strengths = [strength + more for more in _MORE]
    assert strengths[-1] <= 2.0

    def share(latent: Latent, strength: float) -> float:
        return share_that_is_the_bridge(model, [latent.clamped_to(strength, at)])

    best = max(latents, key=lambda latent: shares[latent.number])
    assert sorted(shares.values())[len(shares) // 2] < 0.8  # no property of every latent that is active there
    enough = next((strength for strength in strengths if share(best, strength) >= 0.8), None)
    assert enough is not None
    edits = [best.clamped_to(enough, at)]
    for task in tasks(seed=_SEED, n_prompts=150):
        if task.name in ("facts", "addition"):
            assert right_answers(model, task, edits).mean() >= 0.86


def test_nobody_is_the_bridge_without_a_clamp(model: LanguageModel) -> None:
    assert share_that_is_the_bridge(model, []) == 0.0


@pytest.fixture(scope="module")
def sources(certified: tuple[str, float], latents: list[Latent]) -> Sources:
    """The same latents as a dictionary; rows of the decoder that nobody acts along are left 0."""
    first = latents[0]
    W_dec = torch.zeros_like(first.encoder)
    maxima = torch.zeros(len(W_dec))
    for latent in latents:
        W_dec[latent.number], maxima[latent.number] = latent.direction, latent.maximum
    zeros = torch.zeros(W_dec.shape[1])
    sae = SparseAutoencoder(certified[0], TopK(k=first.k), first.encoder, first.bias, W_dec, zeros)
    return Sources({certified[0]: sae}, {certified[0]: maxima.numpy()})


def test_held_at_its_maximum_the_bridges_latent_costs_less_than_a_fifth_of_other_tasks_and_nothing_at_responses(
    model: LanguageModel, shares: dict[int, float], sources: Sources
) -> None:
    """Of fourteen tasks together. Measured: .13 here, .03 of the demo's latent; at the answers' own tokens, nothing."""
    best = max(shares, key=lambda number: shares[number])
    wheres = (Where(), Where("response"))
    plans = [NOTHING, *(make_plan(model, [Clamp(best, times_max=1.0, where=where)], sources) for where in wheres)]
    found = right_by_task(model, plans, tasks(seed=_SEED, n_prompts=16), 128)
    clean, held, answering = (sum(n_right / n for n_right, n in each.values()) / len(each) for each in found)
    assert clean > 0.98
    assert clean - held < 0.2
    assert clean - answering < 0.03


def test_the_assistant_is_the_bridge_in_one_row_of_a_batch_and_itself_in_the_next(
    model: LanguageModel, certified: tuple[str, float], shares: dict[int, float], sources: Sources
) -> None:
    """All the prompts at once, each with the clamp and without: what is written is what one by one writes."""
    best = max(shares, key=lambda number: shares[number])
    plan = make_plan(model, [Clamp(best, times_max=certified[1] + _MORE[-1])], sources)
    prompts = [model.tokenizer.prompt(text)[0] for text in bridge_prompts()]
    most = max(map(len, prompts))
    padding = [most - len(each) for each in prompts] * 2
    batch = torch.stack([torch.cat([torch.zeros(most - len(each), dtype=torch.int64), each]) for each in prompts * 2])
    steered = steer_rows(model, [plan] * len(prompts) + [None] * len(prompts))
    written = steered.generate(batch, padding=padding, max_new_tokens=16)
    says = [says_it_is_the_bridge(model.tokenizer.decode(row[most:])) for row in written.tokens]
    n = len(prompts)
    assert sum(says[:n]) / n == shares[best] > 0.5
    assert not any(says[n:])
    stamps: tuple[Stamp, ...] = written.stamps
    assert all(stamp.n_moved == stamp.n_fired == stamp.n_tokens for stamp in stamps[:n])
    assert all(stamp.n_moved == 0 for stamp in stamps[n:])


def test_ablating_the_bridges_latents_costs_most_from_where_the_bridge_is_named(
    model: LanguageModel, sources: Sources, latents: list[Latent]
) -> None:
    """Taken away together. (One alone costs nothing that can be seen: the others say the same.)"""
    texts = [text for text in documents(99, 400, held_out=True) if any(span.label == BRIDGE for span in text.spans)]
    edits = steer(model, [Ablate(latent.number) for latent in latents], sources=sources).edits
    costs: dict[bool, list[float]] = {False: [], True: []}
    for document, ids, offsets in encode_documents(model, texts[:40]):
        tokens = torch.tensor([[model.bos_id, *ids[:120]]])
        targets = tokens[0, 1:, None]
        nats = [-torch.log_softmax(model.logits(tokens, e)[0, :-1], -1).gather(1, targets)[:, 0] for e in ((), edits)]
        named = min(span.end for span in document.spans if span.label == BRIDGE)
        for cost, (start, _) in zip((nats[1] - nats[0]).tolist(), offsets, strict=False):
            costs[start >= named].append(cost)
    before, after = (sum(each) / len(each) for each in (costs[False], costs[True]))
    assert min(map(len, costs.values())) > 300
    assert after > 0.02
    assert after > 4 * abs(before)
