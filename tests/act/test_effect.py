"""The effect of taking a latent away around one token: known answers at the last layer, causality, windows, honest counts."""

import math

import pytest
import torch
from tests.act.tiny import D_MODEL, N_LATENTS, VOCAB, constant_sae, random_sae, tiny_model

from mohole import artifact
from mohole.act import AblationEffect, ablation_effect, effect
from mohole.config import TopK
from mohole.corpus import Corpus, Document, build_corpus
from mohole.dictionary import Latents, SparseAutoencoder, Transcoder
from mohole.errors import ConfigError, HookpointError, NumericsError, StageError

LAST = "resid_post.2"
CONTEXT = 9
TEXTS = (" ".join(f"w{(7 * i * i + 3 * i) % 60}" for i in range(20)), "w1 w2 </s> w3 w4 w5")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A document of three windows of 8, 8 and 4 tokens behind a begin-of-text token; one with a special token in it."""
    path = tmp_path_factory.mktemp("effect") / "corpus"
    with artifact.create(path, artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
        documents = (Document(text) for text in TEXTS)
        build_corpus(out, documents, tiny_model().tokenizer, context=CONTEXT, has_bos=True, held_out=0.5, seed=0)
    return Corpus.open(path)


def at_last(value: float = 2.0) -> SparseAutoencoder:
    """Latent 0 reads `value` at every row of the stream that leaves the last layer; latent 1 never fires."""
    sae = constant_sae(value)
    return SparseAutoencoder(LAST, sae.nonlinearity, sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)


def stream(corpus: Corpus, start: int, end: int) -> torch.Tensor:
    """Rows leaving the last layer, begin-of-text token in front."""
    ids = torch.tensor([[1, *corpus.tokens[start:end].tolist()]])
    return tiny_model().read(ids, [LAST])[LAST][0]


def test_at_the_last_layer_it_is_what_the_unembedding_says(corpus: Corpus) -> None:
    """x - 2 d through norm and unembedding, by hand; the token in front of the window is left as it is."""
    model, sae = tiny_model(), at_last(2.0)
    found = ablation_effect(model, sae, corpus, 0, 11, top=VOCAB)
    assert (found.start, found.end, found.document, found.n_removed) == (8, 16, 0, 8)
    assert found.activations == pytest.approx([2.0] * 8)
    rows = stream(corpus, 8, 16)
    moved = rows - 2.0 * sae.W_dec[0]
    clean, without = (model.unembed(each).log_softmax(1) for each in (rows, moved))
    targets = torch.from_numpy(corpus.tokens[8:16].copy()).long()
    place = torch.arange(1, 8)
    assert found.loss[0] is None, "a begin-of-text token foretells nothing that counts"
    assert found.loss[1:] == pytest.approx((-clean[place, targets[1:]]).tolist(), rel=1e-4)
    assert found.loss_change[1:] == pytest.approx((clean - without)[place, targets[1:]].tolist(), rel=1e-3, abs=1e-5)
    logits = model.unembed(rows[4]) - model.unembed(moved[4])
    there = sorted(set(corpus.tokens.tolist()))
    assert 10 < len(there) < VOCAB
    logits = logits[there] - logits[there].mean()
    said = {each.token: each for each in (*found.promoted, *found.suppressed)}
    assert set(said) == {corpus.pieces[i] for i in there}, "every entry of the corpus, and no other"
    assert [said[corpus.pieces[i]].logit for i in there] == pytest.approx(logits.tolist(), rel=1e-3, abs=1e-4)
    odds = clean[4].exp()[there].tolist()
    assert [said[corpus.pieces[i]].probability for i in there] == pytest.approx(odds, rel=1e-3)
    promoted = [each.logit for each in found.promoted]
    assert promoted == sorted(promoted, reverse=True)
    assert all(each > 0 for each in promoted)
    suppressed = [each.logit for each in found.suppressed]
    assert suppressed == sorted(suppressed)
    assert all(each < 0 for each in suppressed)


def test_the_loss_of_the_next_token_is_what_its_probabilities_say(corpus: Corpus) -> None:
    found = ablation_effect(tiny_model(), constant_sae(3.0), corpus, 0, 10, top=VOCAB)
    (following,) = (
        each for each in (*found.promoted, *found.suppressed) if each.token == corpus.pieces[corpus.tokens[11]]
    )
    change = found.loss_change[11 - found.start]
    assert change == pytest.approx(math.log(following.probability / following.probability_without), rel=1e-3, abs=1e-5)
    assert change != 0


def test_a_latent_that_never_fires_has_no_effect(corpus: Corpus) -> None:
    found = ablation_effect(tiny_model(), constant_sae(2.0), corpus, 1, 11)
    assert set(found.loss_change) == set(found.loss_change_random) == {None, 0.0}
    assert (found.promoted, found.suppressed) == ((), ())


def fires_late(corpus: Corpus) -> tuple[SparseAutoencoder, int, int]:
    """A dictionary, a latent and a token of the second window before which the latent is silent there."""
    sae = random_sae(k=2)
    for latent in range(N_LATENTS):
        found = ablation_effect(tiny_model(), sae, corpus, latent, 15)
        fires = [i for i, value in enumerate(found.activations) if value > 0]
        if fires and 2 <= fires[0] < 6:
            return sae, latent, found.start + fires[0]
    raise AssertionError("no latent fires late")


def test_nothing_before_the_first_firing_changes_and_something_behind_it_does(corpus: Corpus) -> None:
    sae, latent, token = fires_late(corpus)
    found = ablation_effect(tiny_model(), sae, corpus, latent, token)
    place = token - found.start
    for changes in (found.loss_change, found.loss_change_random):
        assert set(changes[: place + 1]) <= {None, 0.0}
        assert max(abs(change or 0) for change in changes[place + 1 :]) > 1e-4
    assert found.loss_change != found.loss_change_random


def test_what_lies_further_behind_changes_nothing_before_it(corpus: Corpus) -> None:
    sae, latent, token = fires_late(corpus)
    whole, short = (ablation_effect(tiny_model(), sae, corpus, latent, token, after=n) for n in (64, 1))
    assert short.end == token + 2
    n = len(short.tokens)
    assert short.loss_change[1:] == pytest.approx(whole.loss_change[1:n], rel=1e-4, abs=1e-6)
    assert [each.token for each in short.promoted] == [each.token for each in whole.promoted]


def test_a_special_token_is_left_alone_and_has_no_effect(corpus: Corpus) -> None:
    sae = constant_sae(2.0)
    found = ablation_effect(tiny_model(), sae, corpus, 0, 23)
    assert (found.document, found.start, found.tokens[2].strip()) == (1, 20, "</s>")
    assert found.activations == pytest.approx([2, 2, 0, 2, 2, 2])
    assert [value is None for value in found.loss] == [True, False, True, True, False, False]
    assert found.n_removed == 5
    with pytest.raises(StageError, match=r"token 22: .*special"):
        ablation_effect(tiny_model(), sae, corpus, 0, 22)


def test_an_edit_that_did_not_fire_for_every_row_is_an_error(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    real = effect.replacing

    def all_but_the_last(hookpoint, is_text, change):
        fewer = is_text.clone()
        fewer[0, -1] = False
        return real(hookpoint, fewer, change)

    monkeypatch.setattr(effect, "replacing", all_but_the_last)
    with pytest.raises(StageError, match="fired for 7 rows of 8"):
        ablation_effect(tiny_model(), constant_sae(2.0), corpus, 0, 11)


def test_what_cannot_be_asked_is_said_by_name(corpus: Corpus) -> None:
    model, sae = tiny_model(), constant_sae(2.0)
    for latent in (-1, N_LATENTS):
        with pytest.raises(ConfigError, match=f"latent {latent}: .*0 to {N_LATENTS - 1}"):
            ablation_effect(model, sae, corpus, latent, 3)
    for token in (-1, corpus.n_tokens):
        with pytest.raises(ConfigError, match=f"token {token}: the corpus has {corpus.n_tokens}"):
            ablation_effect(model, sae, corpus, 0, token)
    narrow = torch.eye(D_MODEL - 1)
    other = SparseAutoencoder(LAST, TopK(k=1), narrow, narrow[0], narrow, narrow[0])
    with pytest.raises(HookpointError, match="wide there"):
        ablation_effect(model, other, corpus, 0, 3)
    latents = Latents(sae.nonlinearity, sae.W_enc, sae.b_enc, sae.W_dec)
    with pytest.raises(ConfigError, match="write where they read"):
        ablation_effect(model, Transcoder("mlp_in.1", "mlp_out.1", latents, sae.b_dec), corpus, 0, 3)


def test_a_prediction_that_is_no_number_is_an_error(corpus: Corpus) -> None:
    """A direction so long that the unembedding overflows."""
    huge = at_last(2.0)
    wild = SparseAutoencoder(
        LAST, huge.nonlinearity, huge.W_enc, huge.b_enc, huge.W_dec * torch.finfo().max, huge.b_dec
    )
    with pytest.raises(NumericsError):
        ablation_effect(tiny_model(), wild, corpus, 0, 3)


def test_it_is_the_same_each_time(corpus: Corpus) -> None:
    sae = random_sae()
    one, other = (ablation_effect(tiny_model(), sae, corpus, 5, 3) for _ in range(2))
    assert isinstance(one, AblationEffect)
    assert one == other
