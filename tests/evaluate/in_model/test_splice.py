"""What the splice measures is what running the model by hand measures; masks and batches are as stated."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from mohole import config
from mohole.corpus import Corpus, Document
from mohole.dictionary import SparseAutoencoder
from mohole.errors import HookpointError, NumericsError
from mohole.evaluate.in_model.ablations import LEAST_DOCUMENTS, Backdrop
from mohole.evaluate.in_model.edits import replacing
from mohole.evaluate.in_model.passages import choose_windows, passages, text_mask
from mohole.evaluate.in_model.splice import splice as in_model
from mohole.metrics import Measure
from mohole.model import LanguageModel

HOOKPOINT = "resid_post.0"
D = 32
SETTINGS = config.Evaluate()


@pytest.fixture(scope="module")
def mean(own_text: Corpus, model: LanguageModel) -> torch.Tensor:
    """Of every row that is replaced, by hand: windows of two tokens or more of held-out documents."""
    rows = []
    for start, length in zip(own_text.windows.start, own_text.windows.length, strict=True):
        if length > 1 and own_text.held_out[own_text.document_of(np.array([start]))[0]]:
            ids = torch.tensor([[0, *own_text.tokens[start : start + length].tolist()]])
            rows.append(model.read(ids, [HOOKPOINT])[HOOKPOINT][0, 1:])
    return torch.cat(rows).double().mean(0).float()


@pytest.fixture(scope="module")
def lossy(identity: SparseAutoencoder) -> SparseAutoencoder:
    """Keeps the six largest of 64 parts of a row."""
    return SparseAutoencoder(
        HOOKPOINT, config.TopK(k=6), identity.W_enc, identity.b_enc, identity.W_dec, identity.b_dec
    )


def splice(model: LanguageModel, dictionary: SparseAutoencoder, corpus: Corpus, **settings: int) -> dict[str, Measure]:
    return in_model(model, [dictionary], corpus, config.Evaluate(**settings), seed=0)


def by_hand(
    model: LanguageModel, corpus: Corpus, change: Callable[[torch.Tensor], torch.Tensor] | None
) -> tuple[list[float], list[torch.Tensor]]:
    """Losses and log-probabilities of every held-out pair: one window at a time, no padding, transformers' own hook."""
    losses, distributions = [], []

    def hook(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[0, 1:] = change(output[0, 1:])  # all but BOS
        return changed

    layer = model.hf.model.layers[0]
    handle = layer.register_forward_hook(hook) if change else None
    for start, length in zip(corpus.windows.start, corpus.windows.length, strict=True):
        if corpus.held_out[corpus.document_of(np.array([start]))[0]]:
            ids = torch.tensor([[0, *corpus.tokens[start : start + length].tolist()]])
            with torch.no_grad():
                log_p = model.hf(input_ids=ids).logits[0].log_softmax(-1)
            for position in range(1, length):
                losses.append(float(-log_p[position, ids[0, position + 1]]))
                distributions.append(log_p[position])
    if handle:
        handle.remove()
    return losses, distributions


def test_every_number_agrees_with_running_the_model_by_hand(
    model: LanguageModel, lossy: SparseAutoencoder, own_text: Corpus, mean: torch.Tensor
) -> None:
    measures = splice(model, lossy, own_text)
    clean, log_p = by_hand(model, own_text, None)
    replaced, log_q = by_hand(model, own_text, lambda rows: lossy.decode(lossy.encode(rows)))
    by_mean, _ = by_hand(model, own_text, lambda rows: mean.expand_as(rows))
    by_zero, _ = by_hand(model, own_text, torch.zeros_like)
    assert measures["ce_clean"].n == len(clean)
    expected = {
        "ce_clean": np.mean(clean),
        "ce_replaced": np.mean(replaced),
        "ce_mean": np.mean(by_mean),
        "ce_zero": np.mean(by_zero),
        "excess_ce": np.mean(replaced) - np.mean(clean),
        "ce_recovered": (np.mean(by_mean) - np.mean(replaced)) / (np.mean(by_mean) - np.mean(clean)),
        "ce_recovered_zero": (np.mean(by_zero) - np.mean(replaced)) / (np.mean(by_zero) - np.mean(clean)),
        "kl": np.mean([float((p.exp() * (p - q)).sum()) for p, q in zip(log_p, log_q, strict=True)]),
    }
    for name, value in expected.items():
        assert measures[name].value == pytest.approx(value, rel=1e-4), name
    assert expected["excess_ce"] > 0.05  # the test would say little if nothing were lost
    assert expected["ce_mean"] > expected["ce_clean"] + 0.5


def test_a_perfect_dictionary_costs_nothing(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus, mean: torch.Tensor
) -> None:
    measures = splice(model, identity, own_text)
    assert measures["excess_ce"].value == pytest.approx(0.0, abs=1e-7)
    assert measures["kl"].value == pytest.approx(0.0, abs=1e-7)
    assert measures["ce_recovered"].value == pytest.approx(1.0, abs=1e-6)


def test_a_dictionary_that_says_the_mean_or_zero_recovers_nothing_of_it(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus, mean: torch.Tensor
) -> None:
    silent = torch.zeros(2 * D, D)
    for centre, name in ((mean, "ce_recovered"), (torch.zeros(D), "ce_recovered_zero")):
        dictionary = SparseAutoencoder(HOOKPOINT, config.TopK(k=2), silent, torch.zeros(2 * D), identity.W_dec, centre)
        assert splice(model, dictionary, own_text)[name].value == pytest.approx(0.0, abs=1e-6)


def test_batches_and_padding_change_nothing(
    model: LanguageModel,
    lossy: SparseAutoencoder,
    own_text: Corpus,
    mean: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = splice(model, lossy, own_text)
    small = splice(model, lossy, own_text, batch_tokens=1)
    window_tokens = Corpus.window_tokens

    def poisoned(self: Corpus, windows: np.ndarray, bos_id: int | None) -> np.ndarray:
        batch = window_tokens(self, windows, bos_id)
        for row, length in zip(batch, self.windows.length[windows], strict=True):
            row[1 + length :] = 7
        return batch

    monkeypatch.setattr(Corpus, "window_tokens", poisoned)
    with_other_padding = splice(model, lossy, own_text)
    for name, measure in whole.items():
        assert small[name].value == pytest.approx(measure.value, rel=1e-5, abs=1e-7), name
        if measure.low is not None:
            assert small[name].low == pytest.approx(measure.low, rel=1e-4, abs=1e-6), name
        assert with_other_padding[name].value == pytest.approx(measure.value, rel=1e-5, abs=1e-7), name


def test_only_text_is_replaced(model: LanguageModel) -> None:
    tokens = torch.tensor([[0, 5, 6, 0, 7], [0, 8, 0, 0, 0]])  # 0 is BOS, special, and what fills up the right
    is_text = text_mask(tokens, np.array([4, 1]), 1, frozenset({0}))
    assert is_text.tolist() == [[False, True, True, False, True], [False, True, False, False, False]]
    clean = model.read(tokens, [HOOKPOINT])[HOOKPOINT]
    edited = model.read(tokens, [HOOKPOINT], [replacing(HOOKPOINT, is_text, torch.zeros_like)])[HOOKPOINT]
    assert torch.equal(edited[~is_text], clean[~is_text])
    assert not edited[is_text].any()


def test_windows_are_of_held_out_documents_up_to_the_limits(own_text: Corpus) -> None:
    every = choose_windows(own_text, 10_000, 10_000, 0)
    document = own_text.document_of(own_text.windows.start[every])
    assert own_text.held_out[document].all()
    assert own_text.windows.length[every].sum() == np.diff(own_text.document_starts)[own_text.held_out].sum()
    few = choose_windows(own_text, 5, 10_000, 0)
    assert len(np.unique(own_text.document_of(own_text.windows.start[few]))) == 5
    assert np.isin(few, every).all()
    short = choose_windows(own_text, 10_000, 50, 0)
    assert 20 < own_text.windows.length[short].sum() <= 50


def test_an_ablation_that_does_no_harm_leaves_recovered_undefined(
    model: LanguageModel,
    identity: SparseAutoencoder,
    own_text: Corpus,
    mean: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = model.hf.lm_head.weight
    monkeypatch.setattr(head, "data", torch.zeros_like(head))  # every token equally likely, whatever the activation
    measures = splice(model, identity, own_text)
    assert measures["ce_clean"].value == pytest.approx(np.log(len(model.tokenizer)), rel=1e-6)
    assert measures["ce_recovered"].value is None
    assert measures["ce_recovered"].low is None
    assert "no harm" in measures["ce_recovered"].undefined


def test_a_hookpoint_the_model_lacks_and_a_nan_are_named(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus, mean: torch.Tensor
) -> None:
    parts = (identity.nonlinearity, identity.W_enc, identity.b_enc, identity.W_dec)
    with pytest.raises(HookpointError, match=r"resid_post\.9"):
        splice(model, SparseAutoencoder("resid_post.9", *parts, identity.b_dec), own_text)
    with pytest.raises(NumericsError, match=r"resid_post\.0"):
        splice(model, SparseAutoencoder(HOOKPOINT, *parts, torch.full((D,), torch.nan)), own_text)


@pytest.fixture
def bigrams(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The tiny model as a table: log p(next | token) [token, next], from its rows' one coordinate through the final norm."""
    n_tokens = model.vocab_size
    log_p = (
        torch.randn(n_tokens, n_tokens, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        .mul(2)
        .log_softmax(1)
    )
    for name, parameter in model.hf.named_parameters():
        if "embed_tokens" in name:
            monkeypatch.setattr(parameter, "data", torch.eye(n_tokens, D) * 5)
        elif "lm_head" in name:
            table = torch.zeros(n_tokens, D)
            table[:, :n_tokens] = log_p.T.float() / D**0.5
            monkeypatch.setattr(parameter, "data", table)
        elif "o_proj" in name or "down_proj" in name:
            monkeypatch.setattr(parameter, "data", torch.zeros_like(parameter))
        elif name.endswith("model.norm.weight"):
            monkeypatch.setattr(parameter, "data", torch.ones_like(parameter))
    return np.asarray(log_p.numpy())


def test_a_model_of_bigrams_costs_what_its_table_says(
    model: LanguageModel, bigrams: np.ndarray, identity: SparseAutoencoder, own_text: Corpus
) -> None:
    """Per pair, so that a target one place off would be seen; the mean row's and zero's predictions in closed form."""
    pairs, sources = [], []
    for start, length in zip(own_text.windows.start, own_text.windows.length, strict=True):
        if length > 1 and own_text.held_out[own_text.document_of(np.array([start]))[0]]:
            tokens = own_text.tokens[start : start + length]
            pairs += list(pairwise(tokens))
            sources += tokens.tolist()
    source, target = np.array(pairs).T
    share = np.bincount(sources, minlength=len(bigrams)) / len(sources)
    logits = share @ bigrams / np.linalg.norm(share)  # the mean of one-hot rows, at the length that the norm gives it
    by_mean = logits - np.log(np.exp(logits).sum())
    clean = -bigrams[source, target]
    p = np.exp(bigrams[source])
    expected = {
        "ce_clean": clean.mean(),
        "ce_zero": np.log(len(bigrams)),
        "ce_mean": -by_mean[target].mean(),
        "kl_zero": (p * (bigrams[source] + np.log(len(bigrams)))).sum(1).mean(),
        "kl_mean": (p * (bigrams[source] - by_mean)).sum(1).mean(),
    }
    found = splice(model, identity, own_text)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-4), name
    shifted = -bigrams[source[:-1], target[1:]].mean()
    assert abs(shifted - expected["ce_clean"]) > 0.05  # an error by one would be seen


def test_a_vocabulary_without_bos_is_measured_from_the_first_token(
    model: LanguageModel, make_corpus: Callable[..., Corpus], lossy: SparseAutoencoder
) -> None:
    pieces = [model.tokenizer.piece(token).strip() for token in range(1, len(model.tokenizer))]
    random = np.random.default_rng(0)
    texts = [Document(" ".join(random.choice(pieces, size=12))) for _ in range(40)]
    corpus = make_corpus(texts, has_bos=False)
    losses = []
    for start, length in zip(corpus.windows.start, corpus.windows.length, strict=True):
        if corpus.held_out[corpus.document_of(np.array([start]))[0]]:
            ids = torch.from_numpy(corpus.tokens[start : start + length].astype(np.int64))[None]
            log_p = model.logits(ids)[0].log_softmax(-1)
            losses += (-log_p[torch.arange(length - 1), ids[0, 1:]]).tolist()
    found = splice(model, lossy, corpus)
    assert found["ce_clean"].n == len(losses)
    assert found["ce_clean"].value == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["excess_ce"].value != 0


def test_dropped_is_the_share_of_tokens_that_stand_alone_in_their_window(
    model: LanguageModel, lossy: SparseAutoencoder, own_text: Corpus
) -> None:
    document = own_text.document_of(own_text.windows.start)
    lengths = own_text.windows.length[own_text.held_out[document]]
    alone = int((lengths == 1).sum())
    assert 0 < alone < lengths.sum() / 2  # as a share that is kept, or below zero, it would be another number
    dropped = splice(model, lossy, own_text)["dropped"]
    assert dropped.value == pytest.approx(alone / lengths.sum())
    assert dropped.n == lengths.sum()


def test_a_place_has_a_mean_of_its_own_by_documents_not_by_rows(
    model: LanguageModel, make_corpus: Callable[..., Corpus]
) -> None:
    """Windows of one document are no evidence of what a place says: many rows of few documents leave the mean of all."""
    pieces = [model.tokenizer.piece(token).strip() for token in range(1, len(model.tokenizer))]
    random = np.random.default_rng(5)

    def at_places(n_documents: int, n_words: int) -> tuple[torch.Tensor, torch.Tensor]:
        texts = [Document(" ".join(random.choice(pieces, size=n_words))) for _ in range(n_documents)]
        corpus = make_corpus(texts, context=6)
        found = list(passages(model, corpus, np.arange(len(corpus.windows)), 4096))
        backdrop = Backdrop(model, [HOOKPOINT], found, 0)
        return tuple(
            torch.cat([backdrop.rows(name, HOOKPOINT, each) for each in found]) for name in ("position_mean", "mean")
        )

    few, mean_of_few = at_places(LEAST_DOCUMENTS - 1, 60)
    assert len(few) > 5 * LEAST_DOCUMENTS * 5  # rows at each place, far more than would be enough of documents
    assert torch.equal(few, mean_of_few)
    enough, mean_of_enough = at_places(LEAST_DOCUMENTS, 5)
    assert not torch.allclose(enough, mean_of_enough, atol=1e-3)
