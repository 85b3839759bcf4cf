"""A good dictionary trips no guard; loaded with each mistake that has been made, it trips one. What is no number is no number."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mohole import config
from mohole.corpus import Corpus, Document
from mohole.dictionary import SparseAutoencoder, SparseCodes
from mohole.dictionary.codes import from_dense
from mohole.errors import HookpointError, NumericsError, StageError
from mohole.evaluate import evaluate, read_evaluation
from mohole.evaluate.guards.trials import probe
from mohole.evaluate.in_model.edits import together
from mohole.evaluate.in_model.passages import text_mask
from mohole.evaluate.in_model.splice import splice
from mohole.evaluate.results import Evaluation
from mohole.evaluate.rows.choice import choose_rows
from mohole.evaluate.standin import stand_in
from mohole.harvest.slice import documents_of
from mohole.model import LanguageModel
from mohole.store import Store, write_store

HOOKPOINT, D, N = "resid_post.0", 32, 96


@dataclass(frozen=True)
class Planted:
    """Rows that are sums of three of 96 directions, and a dictionary that knows them."""

    store: Store
    good: SparseAutoencoder


@pytest.fixture(scope="module")
def planted(world: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    random = np.random.default_rng(0)
    directions = random.normal(size=(2, N, D))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    rows = {}
    for layer in range(2):
        strengths = np.zeros((world.n_tokens, N))
        for k in range(2):
            strengths[np.arange(world.n_tokens), random.integers(N, size=world.n_tokens)] += 5.0 - k
        rows[f"resid_post.{layer}"] = (strengths @ directions[layer] + 3.0).astype(np.float32)
    place = tmp_path_factory.mktemp("planted") / "store"
    write_store(place, rows, documents_of(world), dtype="float32")
    own = torch.from_numpy(directions[0]).float()
    good = SparseAutoencoder(HOOKPOINT, config.TopK(k=2), own, torch.zeros(N), own, torch.full((D,), 3.0))
    return Planted(Store.open(place), good)


def tripped(planted: Planted, world: Corpus, dictionary: SparseAutoencoder) -> dict[str, str]:
    rows = choose_rows(world, planted.store, held_out=True, max_rows=100_000, seed=0)
    return {each.name: each.sentence for each in probe(planted.store, rows, stand_in(dictionary))}


def test_a_good_dictionary_trips_none(planted: Planted, world: Corpus) -> None:
    assert tripped(planted, world, planted.good) == {}


def test_the_wrong_layer_trips_and_the_right_one_is_named(planted: Planted, world: Corpus) -> None:
    found = tripped(planted, world, replace(planted.good, hookpoint="resid_post.1"))
    assert "rebuilds resid_post.0 better" in found["better_elsewhere"]
    assert "than resid_post.1" in found["better_elsewhere"]


def test_the_wrong_nonlinearity_trips_and_what_does_better_is_named(planted: Planted, world: Corpus) -> None:
    found = tripped(planted, world, replace(planted.good, nonlinearity=config.ReLU()))
    assert "With topk, k = 2, in place" in found["better_otherwise"]
    found = tripped(planted, world, replace(planted.good, nonlinearity=config.TopK(k=24)))
    assert "With topk, k = 2, in place of its nonlinearity (L0 24.0)" in found["better_otherwise"]


@pytest.mark.parametrize("times", [20.0, 0.05])
def test_the_wrong_scale_trips(planted: Planted, world: Corpus, times: float) -> None:
    """A dictionary of rows 20 times as long, or as short, with the scale of its training left out."""
    good, bias = planted.good, 0.5 * torch.ones(N)
    biased = replace(good, b_enc=-bias, nonlinearity=config.JumpReLU(), threshold=torch.full((N,), 2.6))
    scaled = replace(biased, b_enc=-bias * times, threshold=biased.threshold * times, b_dec=good.b_dec * times)
    found = tripped(planted, world, scaled)
    assert "better_scaled" in found
    best = float(found["better_scaled"].split("times ")[1].split()[0])
    assert times / 1.5 < best < times * 1.5


def test_outputs_on_another_scale_are_seen_in_the_whole_evaluation(
    model: LanguageModel, world: Corpus, harvested: Callable[[Corpus], Store], identity: SparseAutoencoder, folder: Path
) -> None:
    long = replace(identity, W_dec=20 * identity.W_dec)
    found = whole(folder, model, long, world, harvested(world))
    assert {"fvu_above_one", "biased"} <= {each.name for each in found.warnings}


def test_codes_that_depend_on_the_batch_trip(planted: Planted, world: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchTopK as it trains: the batch's largest pre-activations, however many fall to a row."""

    def by_batch(self: SparseAutoencoder, rows: Tensor) -> SparseCodes:
        pre = (rows - self.b_dec) @ self.W_enc.T
        least = pre.flatten().topk(2 * len(rows)).values[-1]
        return from_dense(torch.where(pre >= least, pre, 0.0))

    monkeypatch.setattr(SparseAutoencoder, "encode", by_batch)
    found = tripped(planted, world, planted.good)
    assert "other codes alone (L0 2.0) than in a batch" in found["codes_depend_on_batch"]


def whole(out: Path, model: LanguageModel, dictionary: SparseAutoencoder, corpus: Corpus, store: Store) -> Evaluation:
    evaluate(out, model, dictionary, corpus, store, config.Evaluate(max_documents=30, recovery=False), seed=0)
    return read_evaluation(out)


def test_no_active_latents_are_dead_latents_and_the_numbers_are_those_of_the_bias(
    model: LanguageModel, world: Corpus, harvested: Callable[[Corpus], Store], identity: SparseAutoencoder, folder: Path
) -> None:
    silent = replace(identity, W_enc=torch.zeros_like(identity.W_enc), b_enc=torch.full((2 * D,), -1.0))
    found = whole(folder, model, replace(silent, nonlinearity=config.ReLU()), world, harvested(world))
    assert found.measures["l0"].value == 0
    assert found.measures["dead"].value == 2 * D
    assert found.measures["ce_recovered_zero"].value == 0
    assert found.measures["relative_bias"].value is None
    assert {"dead", "fvu_above_one"} <= {each.name for each in found.warnings}


def test_constant_rows_have_no_variance_to_explain(
    model: LanguageModel,
    world: Corpus,
    identity: SparseAutoencoder,
    harvested: Callable[[Corpus], Store],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that makes the same row of every token: embeddings alike, and nothing added."""
    for name, parameter in model.hf.named_parameters():
        if "embed_tokens" in name:
            monkeypatch.setattr(parameter, "data", torch.ones_like(parameter))
        elif "o_proj" in name or "down_proj" in name:
            monkeypatch.setattr(parameter, "data", torch.zeros_like(parameter))
    found = whole(folder, model, identity, world, harvested(world))
    assert found.measures["fvu"].value is None
    assert found.measures["fvu_trimmed"].value is None
    assert found.measures["ce_recovered"].value is None
    assert {"fvu_undefined", "recovered_undefined"} <= {each.name for each in found.warnings}


def test_a_store_of_another_model_is_refused(
    model: LanguageModel, world: Corpus, planted: Planted, folder: Path
) -> None:
    with pytest.raises(StageError, match=r"resid_post\.0: rows of .* are not what tiny makes of this corpus"):
        whole(folder, model, planted.good, world, planted.store)
    assert not list(folder.iterdir())
    both = torch.eye(16)
    small = SparseAutoencoder(HOOKPOINT, config.ReLU(), both, torch.zeros(16), both, torch.zeros(16))
    with pytest.raises(HookpointError, match=r"rows of tiny are 32 wide there, the dictionary's 16"):
        whole(folder, model, small, world, planted.store)
    with pytest.raises(HookpointError, match=r"attn_out\.0: not in .*; it has resid_post\.0"):
        whole(folder, model, replace(planted.good, hookpoint="attn_out.0"), world, planted.store)


def test_infinite_numbers_in_a_dictionary_are_warned_about_and_measure_nothing(
    model: LanguageModel, world: Corpus, harvested: Callable[[Corpus], Store], identity: SparseAutoencoder, folder: Path
) -> None:
    bad = replace(identity, b_dec=torch.full((D,), torch.inf))
    found = whole(folder, model, bad, world, harvested(world))
    assert [measure.value for measure in found.measures.values()] == [1.0]  # all rows are rebuilt as infinity
    assert [warning.name for warning in found.warnings] == ["not_finite"]
    assert "resid_post.0: reconstruction" in found.warnings[0].sentence
    with pytest.raises(NumericsError, match=r"resid_post\.0: the edit returned a NaN or an infinity"):
        splice(model, [bad], world, config.Evaluate(max_documents=5), seed=0)


def test_texts_without_a_pair_are_refused_and_one_pair_is_enough(
    model: LanguageModel, make_corpus: Callable[..., Corpus], identity: SparseAutoencoder
) -> None:
    """Every document one token: nothing can be scored. One of two tokens: one pair, and no interval."""
    single = make_corpus([Document(word) for word in ("the", "a", "of") * 20])
    with pytest.raises(StageError, match="no two tokens in a row"):
        splice(model, [identity], single, config.Evaluate(), seed=0)
    texts = [Document("the a")] + [Document(word) for word in ("the", "a", "of") * 20]
    for corpus in (make_corpus([Document("the a of"), *texts[1:]]), make_corpus(texts)):
        corpus.held_out[:] = True
        found = splice(model, [identity], corpus, config.Evaluate(), seed=0)
        assert found["ce_clean"].n in (1, 2)
        assert found["ce_clean"].low is None
        assert found["dropped"].value > 0.5
        assert found["ce_recovered_resample"].value is None


def test_a_batch_of_padding_alone_is_not_replaced(model: LanguageModel, identity: SparseAutoencoder) -> None:
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    mask = text_mask(tokens, np.array([0, 0]), 1, frozenset({0}))
    assert not mask.any()
    silent = replace(identity, b_dec=torch.full((D,), torch.nan))
    edits = together([stand_in(silent, model)], mask, {})
    assert torch.equal(model.logits(tokens, edits), model.logits(tokens))


def test_no_text_at_all_is_refused(model: LanguageModel, own_text: Corpus, identity: SparseAutoencoder) -> None:
    kept = own_text.held_out.copy()
    try:
        own_text.held_out[:] = False
        with pytest.raises(StageError, match="no two tokens in a row"):
            splice(model, [identity], own_text, config.Evaluate(), seed=0)
    finally:
        own_text.held_out[:] = kept
