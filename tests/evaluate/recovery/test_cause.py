"""An edit that is the cause of a label's predictions is told from one that is not, in a model whose cause is known."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mohole import config
from mohole.corpus import Corpus, Document, Span
from mohole.dictionary import LengthNorm, NormalisedAutoencoder, SparseAutoencoder
from mohole.evaluate.recovery.cause import edits, most_telling
from mohole.evaluate.recovery.effects import EDITS, Effects
from mohole.evaluate.recovery.measure import measure_recovery
from mohole.evaluate.recovery.results import Cause, LabelResult, Recovery
from mohole.evaluate.rows.choice import choose_rows
from mohole.metrics.evidence import evidence_nats, signature
from mohole.model import Edit, LanguageModel, Untouched
from mohole.store import Store

HOOKPOINT = "resid_post.0"
D = 32
CONCEPTS = tuple(f"animal/{name}" for name in ("fox", "dog", "cat", "owl", "cow", "bee")) + tuple(
    f"food/{name}" for name in ("tea", "pie", "jam", "fig")
)
LANGUAGES = ("en", "de")
LABEL = "animal/fox"


def test_predictions_that_are_the_text_itself_have_jeffreys_divergence_as_their_gap() -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(7), size=2)
    following, elsewhere = (random.choice(7, size=200_000, p=share) for share in shares)
    found = signature(following, elsewhere, 7)
    evidence = [float(evidence_nats(torch.from_numpy(np.log(share))[None], found)[0]) for share in shares]
    jeffreys = float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())
    assert jeffreys > 0.5
    assert evidence[0] - evidence[1] == pytest.approx(jeffreys, rel=0.03)


def test_the_signature_of_equal_sides_is_nothing_and_turns_its_sign_with_them() -> None:
    one, other = np.array([0, 0, 1, 2]), np.array([1, 1, 1, 3, 3])
    assert signature(one, one, 6).abs().max() == 0
    torch.testing.assert_close(signature(one, other, 6), -signature(other, one, 6))
    assert signature(one, other, 6)[4:].tolist() == [0.0, 0.0]  # never seen
    with pytest.raises(ValueError, match="0 tokens after the label"):
        signature(one[:0], other, 6)


def test_a_word_seen_once_says_little_and_one_seen_often_says_much() -> None:
    elsewhere = np.zeros(5000, dtype=np.int64)
    once, often = np.append(elsewhere, 1), np.append(elsewhere, np.ones(500, dtype=np.int64))
    assert 0 < signature(once, elsewhere, 2)[1] < 0.2 * signature(often, elsewhere, 2)[1]
    assert signature(often, elsewhere, 2)[1] > 5.0


def test_edits_of_a_dictionary_that_normalises_rows_are_exact(identity: SparseAutoencoder) -> None:
    dictionary = NormalisedAutoencoder(identity, LengthNorm())
    rows = torch.linspace(0.5, 20.0, 30)[:, None] * torch.randn(30, D, generator=torch.Generator().manual_seed(0))
    made = edits(dictionary, 3, 2.0, torch.zeros(D), seed=0)
    scale = rows.norm(dim=1) / D**0.5
    own = (rows[:, 3] / scale).clamp(min=0)
    moved = {name: change(rows) - rows for name, change in made.items()}
    torch.testing.assert_close(moved["up"][:, 3], scale * (2.0 - own), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved["zero"][:, 3], -rows[:, 3].clamp(min=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved["random"].norm(dim=1), (scale * (2.0 - own)).abs(), rtol=1e-4, atol=1e-4)
    assert made["zero"](torch.zeros(2, D)).abs().max() == 0


def test_effects_of_known_predictions() -> None:
    """Two words; the label makes the second likelier. `up` makes every prediction the label's, `zero` half undoes it at the
    label and touches nothing else, `random` does nothing, `ablate` turns predictions round everywhere."""
    plain, labelled = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    has_label = np.arange(40) % 2 == 1
    clean = torch.where(torch.from_numpy(has_label)[:, None], labelled, plain)
    logits = {
        "clean": clean,
        "up": labelled.expand(40, 2),
        "random": clean,
        "zero": torch.where(torch.from_numpy(has_label)[:, None], torch.zeros(1, 2), plain),
        "ablate": clean.flip(1),
    }
    effects = Effects(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    for part in (slice(0, 7), slice(7, 40)):
        some = {name: each[part] for name, each in logits.items()}
        effects.add(some, has_label[part], np.arange(40)[part] // 4, place="here")
    gap = effects.gap("the others", seed=0)
    found = effects.of_edits("the others", seed=0)
    assert gap.value == pytest.approx(2 * np.tanh(0.5))
    assert (gap.n, gap.n_documents, gap.masks.replaced) == (40, 10, "none")
    assert set(found) == set(EDITS)
    shares = {name: effect.share.value for name, effect in found.items()}
    assert shares == pytest.approx({"up": 1.0, "random": 0.0, "zero": 0.5, "ablate": 1.0})
    assert found["up"].specificity.value == pytest.approx(1.0)  # where the label is, nothing changes
    assert found["zero"].specificity.value == pytest.approx(1.0)
    assert found["ablate"].specificity.value == pytest.approx(0.5)
    assert found["random"].specificity.value is None
    assert "changes no prediction" in found["random"].specificity.undefined
    p = torch.softmax(plain[0].double(), 0)
    assert found["up"].kl.value == pytest.approx(float((p * (p / p.flip(0)).log()).sum()), rel=1e-6)
    assert found["up"].share.low == pytest.approx(1.0)
    assert "not BOS" in found["up"].share.masks.replaced


def test_a_label_that_changes_no_prediction_has_no_share() -> None:
    effects = Effects(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    has_label = np.arange(20) % 2 == 1
    effects.add({name: torch.zeros(20, 2) for name in ("clean", *EDITS)}, has_label, np.arange(20), place="here")
    share = effects.of_edits("the others", seed=0)["up"].share
    assert share.value is None
    assert "the gap is below" in share.undefined


def test_edits_are_exact(identity: SparseAutoencoder) -> None:
    rows = torch.randn(30, 32, generator=torch.Generator().manual_seed(2))
    mean = torch.linspace(-1, 1, 32)
    scaled = replace(
        identity, W_enc=identity.W_enc / 2, W_dec=identity.W_dec * 2
    )  # decoder rows that are no unit vectors
    changes = edits(scaled, 5, 3.0, mean, seed=0)
    up, zero, ablate, random = (changes[name](rows) for name in ("up", "zero", "ablate", "random"))
    others = torch.arange(32) != 5
    for changed in (up, zero, ablate):
        torch.testing.assert_close(changed[:, others], rows[:, others])
    codes = scaled.encode(rows).dense()[:, 5]
    torch.testing.assert_close(up[:, 5], rows[:, 5] + 2 * (3.0 - codes))
    torch.testing.assert_close(zero[:, 5], rows[:, 5].clamp_max(0.0))  # the other sign is another latent's
    torch.testing.assert_close(ablate[:, 5], mean[5].expand(30))
    torch.testing.assert_close((random - rows).norm(dim=1), (up - rows).norm(dim=1))
    again, other = (
        edits(scaled, 5, 3.0, mean, seed=0)["random"](rows),
        edits(scaled, 6, 3.0, mean, seed=0)["random"](rows),
    )
    assert torch.equal(again, random)
    assert not torch.allclose(random - rows, other - rows)


@pytest.fixture(scope="module")
def text(make_corpus: Callable[..., Corpus]) -> Corpus:
    """Each document is about one animal and one food, in one language."""
    random = np.random.default_rng(4)

    def document() -> Document:
        animal, food = random.choice(CONCEPTS[:6]), random.choice(CONCEPTS[6:])
        language = random.choice(LANGUAGES)
        pieces, spans, start = [], [], 0
        for _ in range(int(random.integers(8, 14))):
            concept = random.choice([animal, animal, food, "the"])
            pieces.append(f"{concept}.{language}" if "/" in concept else concept)
            if "/" in concept:
                end = start + len(pieces[-1])
                spans += [Span(start, end, concept), Span(start, end, f"word_language/{language}")]
            start += len(pieces[-1]) + 1
        return Document(" ".join(pieces), tuple(spans))

    return make_corpus([document() for _ in range(500)])


class LinearModel(LanguageModel):
    """A token's row is its concept's direction and its language's; the next token is of the concept whose direction the row has.
    Nothing reads the language's direction, and no token reads another."""

    special_ids = frozenset({0})
    bos_id = 0

    def __init__(self, text: Corpus, basis: np.ndarray) -> None:
        pieces = [piece.strip() for piece in text.pieces]
        self.name, self.n_layers, self.vocab_size = "linear", 1, len(pieces)
        self.rows, self._reads = torch.zeros(2, self.vocab_size, D)
        directions = torch.from_numpy(basis).float()
        for token, piece in enumerate(pieces):
            concept, _, language = piece.partition(".")
            if concept in CONCEPTS:
                self._reads[token] = 2.0 * directions[CONCEPTS.index(concept)]
                self.rows[token] = (
                    2.5 * directions[CONCEPTS.index(concept)] + 2.0 * directions[10 + LANGUAGES.index(language)]
                )

    def read(
        self, tokens: torch.Tensor, hookpoints: Sequence[str], some: Sequence[Edit] = (), *, trunk: object = None
    ) -> dict[str, torch.Tensor]:
        assert list(hookpoints) == [HOOKPOINT]
        assert trunk is None
        rows = self.rows[tokens]
        for edit in some:
            rows = edit.change(rows.clone(), 0)
        return {HOOKPOINT: rows}

    def untouched(self, tokens: torch.Tensor, *, reads: Sequence[str] = (), changes: Sequence[str] = ()) -> Untouched:
        assert list(changes) == [HOOKPOINT]
        rows = self.read(tokens, reads)
        return Untouched(self.unembed(rows[HOOKPOINT]), rows, None)

    def unembed(self, rows: torch.Tensor) -> torch.Tensor:
        return rows @ self._reads.T


@pytest.fixture(scope="module")
def linear(text: Corpus, planted_rows) -> LinearModel:
    return LinearModel(text, planted_rows.basis)


@pytest.fixture(scope="module")
def store(text: Corpus, linear: LinearModel, make_store: Callable[..., Store]) -> Store:
    return make_store(text, linear.rows[torch.tensor(text.tokens)].numpy())


@pytest.fixture(scope="module")
def causal(true_dictionary: SparseAutoencoder) -> SparseAutoencoder:
    return replace(true_dictionary, b_enc=torch.full((D,), -1e-3), b_dec=torch.zeros(D))


def recover(model: LinearModel, dictionary: SparseAutoencoder, text: Corpus, store: Store, **settings: int) -> Recovery:
    rows = choose_rows(text, store, held_out=True, max_rows=10_000, seed=0)
    given = config.Evaluate(selection_rows=10_000, **settings)
    return measure_recovery(store, rows, dictionary, text, given, seed=0, model=model)


def cause_of(recovery: Recovery, label: str) -> Cause:
    found = recovery.label(label)
    assert found is not None
    assert found.cause is not None
    assert found.cause.latent == found.latent.candidate
    return found.cause


@pytest.fixture(scope="module")
def recovery(linear: LinearModel, causal: SparseAutoencoder, text: Corpus, store: Store) -> Recovery:
    return recover(linear, causal, text, store, causal_labels=99, causal_tokens=800)


def test_the_direction_that_makes_the_label_moves_what_the_label_makes(recovery: Recovery) -> None:
    cause = cause_of(recovery, LABEL)
    assert cause.latent == 0
    assert cause.maximum == pytest.approx(2.5, abs=2e-3)
    assert cause.gap.value is not None
    assert cause.gap.value > 1.0
    up, random, zero, ablate = (cause.edits[name] for name in ("up", "random", "zero", "ablate"))
    assert up.share.value > 0.5
    assert zero.share.value > 0.7
    assert ablate.share.value > 0.6
    assert abs(random.share.value) < 0.15
    assert up.specificity.value > 0.5
    assert zero.specificity.value > 0.99
    assert ablate.specificity.value > 0.8


def test_a_latent_that_detects_as_well_and_writes_elsewhere_is_no_cause(
    linear: LinearModel, causal: SparseAutoencoder, recovery: Recovery, text: Corpus, store: Store
) -> None:
    """The same encoder, so the same detector to the last bit; its decoder's directions are those that no word reads."""
    idle = torch.linalg.svd(linear._reads)[2][-1]
    bystander = replace(causal, W_dec=idle.expand(D, D).contiguous())
    other = recover(linear, bystander, text, store, causal_labels=99, causal_tokens=800)
    assert other.label(LABEL).latent == recovery.label(LABEL).latent
    cause = cause_of(other, LABEL)
    assert cause.gap == cause_of(recovery, LABEL).gap
    for name in ("up", "zero", "ablate"):
        assert cause.edits[name].share.value == pytest.approx(0.0, abs=1e-4)


def test_what_the_model_makes_no_use_of_has_no_share(recovery: Recovery) -> None:
    """Languages are detected perfectly, and no prediction depends on them."""
    result = recovery.label("word_language/de")
    assert result is not None
    assert result.latent.f1 > 0.99
    cause = cause_of(recovery, "word_language/de")
    assert abs(cause.gap.value) < 0.05
    assert cause.edits["up"].share.value is None
    assert cause.edits["up"].kl.value == pytest.approx(0.0, abs=1e-6)


def test_numbers_are_those_of_the_model_run_by_hand(
    recovery: Recovery, linear: LinearModel, causal: SparseAutoencoder, text: Corpus, store: Store
) -> None:
    """With a budget that takes in every window, all of them are read. Every document is one window."""
    whole = recover(linear, causal, text, store, causal_labels=1, causal_tokens=10**6)
    (label,) = (result.label for result in whole.labels if result.cause)
    cause, family = cause_of(whole, label), label.partition("/")[0]
    ids = torch.tensor(text.tokens)
    is_label, is_family = np.zeros((2, text.n_tokens), dtype=bool)
    is_label[text.truth(label)] = True
    for name in text.labels:
        if name.startswith(f"{family}/"):
            is_family[text.truth(name)] = True
    following: dict[bool, list[int]] = {True: [], False: []}
    places: dict[bool, list[int]] = {True: [], False: []}
    for document, (start, end) in enumerate(pairwise(text.document_starts.tolist())):
        here = bool(is_label[start:end].any())
        marked = np.flatnonzero((is_label if here else is_family)[start:end])
        if len(marked):
            stretch = range(start + int(marked[0]), end - 1)
            if text.held_out[document]:
                places[here] += stretch
            else:
                following[here] += ids[start + int(marked[0]) + 1 : end].tolist()
    assert cause.gap.n == len(places[True]) + len(places[False])
    shares = {
        side: np.bincount(tokens, minlength=linear.vocab_size) / len(tokens) for side, tokens in following.items()
    }
    least = 1 / min(len(tokens) for tokens in following.values())
    expected = torch.from_numpy(np.log((shares[True] + least) / (shares[False] + least)))

    def evidence(rows: torch.Tensor) -> float:
        return float((torch.softmax(linear.unembed(rows), -1).double() @ expected).mean())

    clean = {side: linear.rows[ids[torch.tensor(some)]] for side, some in places.items()}
    direction = causal.W_dec[cause.latent]
    moved = clean[False] + (cause.maximum - causal.encode(clean[False]).column(cause.latent))[:, None] * direction
    gained = evidence(moved) - evidence(clean[False])
    gap = evidence(clean[True]) - evidence(clean[False])
    assert cause.gap.value == pytest.approx(gap, rel=1e-4)
    assert cause.edits["up"].moved.value == pytest.approx(gained, rel=1e-4)
    assert cause.edits["up"].share.value == pytest.approx(gained / gap, rel=1e-4)


def test_causes_do_not_depend_on_batches(
    linear: LinearModel, causal: SparseAutoencoder, text: Corpus, store: Store
) -> None:
    big, small = (
        recover(linear, causal, text, store, causal_labels=2, causal_tokens=600, batch_tokens=tokens)
        for tokens in (4096, 40)
    )
    tried = [result.label for result in big.labels if result.cause]
    assert len(tried) == 2
    for label in tried:
        one, two = cause_of(big, label), cause_of(small, label)
        assert one.gap.n == two.gap.n
        for edit in EDITS:
            assert two.edits[edit].moved.value == pytest.approx(one.edits[edit].moved.value, abs=1e-6)


def test_families_take_turns_and_words_come_first() -> None:
    def label(name: str, f1: float) -> LabelResult:
        made = LabelResult.__new__(LabelResult)
        score = type("Score", (), {"f1_selection": f1})()
        for key, value in {"label": name, "family": name.partition("/")[0], "latent": score}.items():
            object.__setattr__(made, key, value)
        return made

    found = [label("a/x", 0.5), label("a/y", 0.9), label("b/x", 0.2), label("c/x", 0.95), label("a/z", 0.7)]
    assert [each.label for each in most_telling(found, ("a", "b"))] == ["a/y", "b/x", "c/x", "a/z", "a/x"]
