"""The loss that a training follows is the loss that evaluate measures, on less text; asking changes nothing."""

import numpy as np
import pytest
import torch

from mohole import config
from mohole.corpus import Corpus
from mohole.dictionary import SparseAutoencoder
from mohole.errors import HookpointError
from mohole.evaluate.in_model.held_out import HeldOutLoss
from mohole.evaluate.in_model.passages import choose_windows
from mohole.evaluate.in_model.splice import ablating, splice
from mohole.model import LanguageModel

HOOKPOINT = "resid_post.0"


def held_out_loss(model: LanguageModel, corpus: Corpus, max_tokens: int = 10_000) -> HeldOutLoss:
    return HeldOutLoss(model, corpus, HOOKPOINT, max_tokens=max_tokens, batch_tokens=64, seed=0)


def keeping(identity: SparseAutoencoder, k: int) -> SparseAutoencoder:
    """The k largest of 64 parts of a row."""
    return SparseAutoencoder(
        HOOKPOINT, config.TopK(k=k), identity.W_enc, identity.b_enc, identity.W_dec, identity.b_dec
    )


def test_it_is_what_evaluate_measures_on_the_same_text(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus
) -> None:
    for max_tokens in (10_000, 150):
        loss = held_out_loss(model, own_text, max_tokens)
        settings = config.Evaluate(max_documents=own_text.n_documents, max_tokens=max_tokens)
        for k in (6, 20):
            expected = splice(model, [keeping(identity, k)], own_text, settings, seed=0)
            found = loss(keeping(identity, k))
            assert set(found) == {"ce_recovered", "ce_recovered_zero", "excess_ce"}
            for name, value in found.items():
                assert value == pytest.approx(expected[name].value, rel=1e-4), (name, k)
        stamp = loss.stamp()
        assert (stamp["n_pairs"], stamp["n_documents"]) == (expected["kl"].n, expected["kl"].n_documents)
        assert stamp["ce_mean"] == pytest.approx(expected["ce_mean"].value, rel=1e-5)
        assert stamp["ce_clean"] == pytest.approx(expected["ce_clean"].value, rel=1e-5)
        assert stamp["measures"]["ce_recovered"]["baseline"] == expected["ce_recovered"].baseline == "mean ablation"
        assert stamp["scored"] == expected["kl"].masks.scored


def test_a_shorter_text_is_the_beginning_of_a_longer_one(own_text: Corpus) -> None:
    few, many = (choose_windows(own_text, own_text.n_documents, n, 0) for n in (100, 300))
    assert 0 < len(few) < len(many)
    assert few.tolist() == many[: len(few)].tolist()
    assert own_text.held_out[own_text.document_of(own_text.windows.start[many])].all()


def test_asking_changes_nothing_and_is_answered_alike(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus
) -> None:
    loss, lossy = held_out_loss(model, own_text), keeping(identity, 6)
    before, numbers, weights = torch.get_rng_state(), np.random.get_state()[1].copy(), lossy.W_enc.clone()
    first, stamp = loss(lossy), loss.stamp()
    assert loss(identity)["ce_recovered"] == pytest.approx(1.0, abs=1e-5)
    assert loss(lossy) == first
    assert loss.stamp() == stamp
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numbers)
    assert torch.equal(lossy.W_enc, weights)


def test_an_ablation_that_does_no_harm_recovers_nothing_that_could_be_told(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mohole.evaluate.in_model.held_out.ablating",
        lambda backdrop, ablation, *rest: [] if ablation == "mean" else ablating(backdrop, ablation, *rest),
    )
    found = held_out_loss(model, own_text)(keeping(identity, 6))
    assert found["ce_recovered"] is None
    assert found["ce_recovered_zero"] is not None


def test_a_dictionary_of_another_place_is_refused(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus
) -> None:
    other = SparseAutoencoder(
        "resid_post.1", config.TopK(k=6), identity.W_enc, identity.b_enc, identity.W_dec, identity.b_dec
    )
    with pytest.raises(HookpointError, match=r"resid_post.1: the loss of resid_post.0 is measured here"):
        held_out_loss(model, own_text)(other)
