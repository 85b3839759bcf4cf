"""A text through the built-in model: the same rows as harvest, every kind of dictionary, known answers about the bridge."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mohole import artifact, config
from mohole.corpus import Corpus, Document, build_corpus
from mohole.dictionary import (
    AnyDictionary,
    Crosscoder,
    LayerNorm,
    LengthNorm,
    NormalisedAutoencoder,
    SparseAutoencoder,
    SparseCodes,
    Transcoder,
)
from mohole.errors import ConfigError, HookpointError
from mohole.harvest.slice import activations
from mohole.model import LanguageModel, load_model
from mohole.planted.bridge import mean_difference
from mohole.planted.stream import documents
from mohole.search import passes
from mohole.search.text import by_text
from mohole.search.xray import XrayRows, xray

PLACE = "resid_post.1"
TEXT = "The baker walks to the Golden Gate Bridge. Der Bäcker geht zur Golden-Gate-Brücke 😀\n金门大桥"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("planted")


def sae(model: LanguageModel, n_latents: int = 60, seed: int = 0, hookpoint: str = PLACE) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    width = model.width(hookpoint)
    W, zeros = torch.randn(n_latents, width, generator=generator), torch.zeros(n_latents)
    return SparseAutoencoder(hookpoint, config.TopK(k=5), W, zeros, W / W.norm(dim=1, keepdim=True), torch.zeros(width))


def rows_of(model: LanguageModel, text: str, hookpoint: str = PLACE) -> torch.Tensor:
    """Of a text that fits one window."""
    return model.read(model.tokenizer.prompt(text), [hookpoint])[hookpoint][0, 1:]


def as_rows(codes: SparseCodes, top: int) -> tuple[list[tuple[int, ...]], list[tuple[float, ...]]]:
    latents, values = [], []
    for row in codes.dense():
        order = sorted(row.nonzero()[:, 0].tolist(), key=lambda i: (-float(row[i]), i))[:top]
        latents.append(tuple(order))
        values.append(tuple(float(row[i]) for i in order))
    return latents, values


def check(rows: XrayRows, codes: SparseCodes, top: int) -> None:
    latents, values = as_rows(codes, top)
    assert list(rows.latents) == latents
    for mine, expected in zip(rows.activations, values, strict=True):
        assert mine == pytest.approx(expected, rel=1e-4)


def test_each_token_has_the_dictionarys_codes_of_its_row(model: LanguageModel) -> None:
    dictionary = sae(model)
    rows = xray(model, dictionary, TEXT, hookpoint="blocks.1.hook_resid_post", top=3, follow=7)
    codes = dictionary.encode(rows_of(model, TEXT))
    check(rows, codes, 3)
    assert rows.tokens == tuple(model.tokenizer.piece(token) for token in model.tokenizer.encode(TEXT))
    assert rows.along == pytest.approx(codes.column(7).tolist(), rel=1e-4)
    assert xray(model, dictionary, TEXT, hookpoint=PLACE, top=3).along is None


def test_the_begin_of_text_token_is_the_models(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = model.tokenizer.encode("the owl")
    monkeypatch.setattr(type(model), "bos_id", ids[-1])
    rows = xray(model, sae(model), "the owl", hookpoint=PLACE, top=5)
    read = model.read(torch.tensor([[ids[-1], *ids]]), [PLACE])[PLACE][0, 1:]
    check(rows, sae(model).encode(read), 5)
    monkeypatch.setattr(type(model), "bos_id", None)
    rows = xray(model, sae(model), "the owl", hookpoint=PLACE, top=5)
    check(rows, sae(model).encode(model.read(torch.tensor([ids]), [PLACE])[PLACE][0]), 5)


def kinds(model: LanguageModel) -> dict[str, AnyDictionary]:
    own = sae(model)
    return {
        "layer norm": NormalisedAutoencoder(own, LayerNorm()),
        "length": NormalisedAutoencoder(own, LengthNorm()),
        "transcoder": Transcoder("mlp_in.1", "mlp_out.1", own.latents, torch.zeros(own.d_model)),
        "bfloat16": replace(own, W_enc=own.W_enc.bfloat16(), W_dec=own.W_dec.bfloat16(), b_enc=own.b_enc.bfloat16(),
                            b_dec=own.b_dec.bfloat16()),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["layer norm", "length", "transcoder", "bfloat16"])
def test_dictionaries_of_every_kind_with_one_hookpoint(model: LanguageModel, kind: str) -> None:
    dictionary = kinds(model)[kind]
    place = dictionary.reads if isinstance(dictionary, Transcoder) else PLACE
    read = rows_of(model, TEXT, place)
    match dictionary:
        case SparseAutoencoder():  # in float32, whatever its files hold
            codes = sae(model).encode(read)
            rows = xray(model, dictionary, TEXT, hookpoint=place, top=1)
            assert [row[0] for row in rows.activations] == pytest.approx(
                [row[0] for row in as_rows(codes, 1)[1]], rel=2e-2
            )
        case Transcoder() | NormalisedAutoencoder():
            check(xray(model, dictionary, TEXT, hookpoint=place, top=5), dictionary.encode(read), 5)
        case _:
            raise AssertionError(kind)


def test_a_document_is_seen_as_harvest_saw_it(model: LanguageModel, tmp_path: Path) -> None:
    """Longer than a window: the same cuts, the same begin-of-text token in front of each."""
    texts = [document.text for document in documents(5, 40, held_out=None)]
    long = "\n".join(texts)
    with artifact.create(tmp_path / "corpus", artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
        build_corpus(
            out, [Document(long), *map(Document, texts)], model.tokenizer, context=32, has_bos=True, held_out=0.5, seed=0
        )  # fmt: skip
    corpus = Corpus.open(tmp_path / "corpus")
    mine = np.flatnonzero(corpus.windows.start < corpus.document_starts[1])
    assert len(mine) > 10
    stored = np.zeros((int(corpus.document_starts[1]), model.d_model), dtype=np.float32)
    for _, tokens, read in activations(model, corpus, mine, [PLACE], 700):
        stored[tokens] = read.numpy()
    dictionary = sae(model)
    codes = dictionary.encode(torch.from_numpy(stored))
    follow = int(codes.latents.mode().values)
    rows = xray(model, dictionary, long, hookpoint=PLACE, top=4, follow=follow, context=corpus.context)
    check(rows, codes, 4)
    assert rows.along == pytest.approx(codes.column(follow).tolist(), rel=1e-4)
    assert "".join(rows.tokens) == corpus.text(0, int(corpus.document_starts[1]))
    assert rows.latents != xray(model, dictionary, long, hookpoint=PLACE, top=4).latents, "the context is not asked for"


def test_peaks_are_of_all_that_fire_in_any_window_not_of_what_is_shown(model: LanguageModel) -> None:
    dictionary = sae(model)
    found = xray(model, dictionary, TEXT, hookpoint=PLACE, top=1, context=7)
    whole = xray(model, dictionary, TEXT, hookpoint=PLACE, top=60, context=7)
    codes = np.zeros((len(whole.tokens), 60), np.float32)
    for row, (latents, values) in enumerate(zip(whole.latents, whole.activations, strict=True)):
        codes[row, list(latents)] = values
    fired = np.flatnonzero(codes.max(0))
    assert len(fired) > len({latent for each in found.latents for latent in each})
    assert found.peaks.latents.tolist() == fired.tolist()
    assert found.peaks.values.tolist() == codes.max(0)[fired].tolist()
    assert found.peaks.places.tolist() == codes.argmax(0)[fired].tolist()


def test_special_tokens_have_no_features(model: LanguageModel) -> None:
    special = model.tokenizer.hf.decode([min(model.special_ids)])
    ids = model.tokenizer.encode(f"the{special} fox")
    if not model.special_ids.intersection(ids):
        pytest.skip(f"{special} in a text is not a token of this tokenizer")
    rows = xray(model, sae(model), f"the{special} fox", hookpoint=PLACE, top=2, follow=0)
    assert [bool(latents) for latents in rows.latents] == [token not in model.special_ids for token in ids]
    assert rows.along is not None
    assert all(rows.along[i] == 0 for i, token in enumerate(ids) if token in model.special_ids)


def test_special_tokens_in_a_text_are_left_out_wherever_they_stand(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = model.tokenizer.encode("the fox sees the fox")
    fox = max(ids, key=ids.count)
    plain = xray(model, sae(model), "the fox sees the fox", hookpoint=PLACE, top=2)
    monkeypatch.setattr(model.tokenizer, "special_ids", model.special_ids | {fox})
    rows = xray(model, sae(model), "the fox sees the fox", hookpoint=PLACE, top=2)
    assert rows.tokens == plain.tokens
    assert rows.latents == tuple(() if t == fox else seen for t, seen in zip(ids, plain.latents, strict=True))


def test_the_bridges_name_fires_the_bridges_feature_in_every_language(model: LanguageModel) -> None:
    """Latent 0 is the difference of means between tokens that complete the bridge's name and all others; the rest are random."""
    found = mean_difference(model, PLACE, seed=3, n_documents=300)
    others = sae(model, 30)
    W = torch.cat([found.encoder, others.W_enc / 10])
    half = found.maximum / 3
    b_enc = torch.cat([found.bias - half, torch.full((30,), -5.0)])
    dictionary = SparseAutoencoder(PLACE, config.ReLU(), W, b_enc, W, torch.zeros(model.d_model))
    owl = xray(model, dictionary, "Emma sees the owl.", hookpoint=PLACE, top=3, follow=0).along
    assert owl is not None
    quiet = max(owl)
    for text, name in (
        ("Emma sees the Golden Gate Bridge today.", "Bridge"),
        ("Emma sieht die Golden Gate Bridge heute.", "Bridge"),
        ("艾玛看见金门大桥。", "桥"),
    ):
        rows = xray(model, dictionary, text, hookpoint=PLACE, top=3, follow=0)
        assert rows.along is not None
        strongest = int(np.argmax(rows.along))
        assert rows.along[strongest] > 0, text
        assert name in rows.tokens[strongest], (text, rows.tokens[strongest])
        assert sorted(rows.along)[-1] > 3 * quiet, text


def test_by_text_ranks_by_the_share_of_each_ones_maximum(model: LanguageModel) -> None:
    dictionary = sae(model)
    codes = dictionary.encode(rows_of(model, TEXT)).dense()
    largest, where = codes.max(0).values.numpy(), codes.argmax(0).numpy()
    maximum = np.random.default_rng(0).uniform(1, 9, dictionary.n_latents).astype(np.float32)
    maximum[np.flatnonzero(largest)[:2]] = 0.0  # fire here, never fired in the catalogue
    shares = np.where(maximum > 0, largest / np.where(maximum > 0, maximum, 1), 0)
    expected = sorted(np.flatnonzero(largest).tolist(), key=lambda i: (-shares[i], i))
    hits = by_text(model, dictionary, TEXT, hookpoint=PLACE, limit=100, maximum=maximum)
    assert [hit.latent for hit in hits] == expected
    assert [hit.score for hit in hits] == pytest.approx([shares[i] for i in expected], rel=1e-4)
    pieces = [model.tokenizer.piece(token) for token in model.tokenizer.encode(TEXT)]
    for hit in hits:
        assert f"at “{pieces[where[hit.latent]]}”" in hit.why
        assert ("never fired in the catalogue" in hit.why) == (maximum[hit.latent] == 0)
    plain = by_text(model, dictionary, TEXT, hookpoint=PLACE, limit=3)
    assert [hit.score for hit in plain] == pytest.approx(sorted(largest, reverse=True)[:3], rel=1e-4)
    assert hits[:4] == by_text(model, dictionary, TEXT, hookpoint=PLACE, limit=4, maximum=maximum)
    with pytest.raises(ConfigError, match="of 3 latents, the dictionary has 60"):
        by_text(model, dictionary, TEXT, hookpoint=PLACE, limit=4, maximum=maximum[:3])


def test_by_text_over_several_windows_takes_the_largest(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_BATCH_TOKENS", 40)
    dictionary, text = sae(model), "the fox sees the owl and the baker sells bread. " * 20
    rows = xray(model, dictionary, text, hookpoint=PLACE, top=5, context=16)
    hits = by_text(model, dictionary, text, hookpoint=PLACE, limit=100, context=16)
    largest: dict[int, float] = {}
    for latents, values in zip(rows.latents, rows.activations, strict=True):
        for latent, value in zip(latents, values, strict=True):
            largest[latent] = max(largest.get(latent, 0.0), value)
    assert {hit.latent: hit.score for hit in hits} == pytest.approx(largest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": ""}, "has no token"),
        ({"text": "a\ud800"}, "character 1 is half of one"),
        ({"top": 0}, "top: 0 is too small"),
        ({"follow": 60}, "latent 60: the dictionary at resid_post.1 has latents 0 to 59"),
        ({"follow": -1}, "latent -1"),
        ({"hookpoint": "resid_post.2"}, "this dictionary reads resid_post.1"),
        ({"context": 1}, "leaves no room"),
    ],
)
def test_what_cannot_be_meant_is_refused(model: LanguageModel, change: dict[str, object], message: str) -> None:
    asked = {"text": TEXT, "hookpoint": PLACE, "top": 3} | change
    text = asked.pop("text")
    with pytest.raises(ConfigError, match=message):
        xray(model, sae(model), text, **asked)  # type: ignore[arg-type]


def test_dictionaries_of_several_places_or_another_model_are_refused(model: LanguageModel) -> None:
    own = sae(model, hookpoint="resid_post.0")
    two = replace(own, W_enc=own.W_enc.repeat(1, 2), W_dec=own.W_dec.repeat(1, 2), b_dec=own.b_dec.repeat(2))
    widths = (own.d_model, own.d_model)
    crosscoder = Crosscoder(("resid_post.0", "resid_post.1"), widths, two.latents, two.b_dec)
    with pytest.raises(ConfigError, match=r"reads resid_post\.0, resid_post\.1; texts are looked at with"):
        xray(model, crosscoder, TEXT, hookpoint="resid_post.0", top=2)
    narrow = replace(own, W_enc=own.W_enc[:, :7], W_dec=own.W_dec[:, :7], b_dec=own.b_dec[:7])
    with pytest.raises(HookpointError, match="another model"):
        xray(model, narrow, TEXT, hookpoint="resid_post.0", top=2)


@pytest.mark.parametrize("text", ["\x00\x1b[31m", "\u202eabc", "😀" * 50, "שלום", "x" * 3000, " \n\t", "<script>"])
def test_hostile_texts_are_read_as_text(model: LanguageModel, text: str) -> None:
    rows = xray(model, sae(model), text, hookpoint=PLACE, top=2)
    assert len(rows.tokens) == len(rows.latents) == len(rows.activations) == len(model.tokenizer.encode(text))
