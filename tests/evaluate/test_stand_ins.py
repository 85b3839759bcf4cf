"""Every kind of dictionary in the running model, alone and together: the rows written are those of its own definition."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mohole import config
from mohole.corpus import Corpus
from mohole.dictionary import (
    Crosscoder,
    CrossLayerTranscoder,
    Latents,
    LayerNorm,
    LengthNorm,
    NormalisedAutoencoder,
    RowNorm,
    SparseAutoencoder,
    SparseCodes,
    Transcoder,
)
from mohole.errors import HookpointError, StageError
from mohole.evaluate.in_model.ablations import ABLATIONS, Backdrop
from mohole.evaluate.in_model.edits import require_apart, together
from mohole.evaluate.in_model.passages import Passage, choose_windows, passages
from mohole.evaluate.in_model.splice import ablating, splice
from mohole.evaluate.rows.choice import choose_rows
from mohole.evaluate.rows.measure import measure_rows
from mohole.evaluate.standin import stand_in
from mohole.metrics import fvu
from mohole.model import Edit, LanguageModel
from mohole.store import Store

D, HEADS = 32, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def latents(n: int, d_in: int, d_out: int, seed: int = 0, k: int = 4) -> Latents:
    """Encoder biases are of the size of what is read, and differ: another layer's would choose other latents."""
    W_enc, b_enc = drawn(n, d_in, seed=seed), 3.0 * drawn(n, seed=seed + 2)
    return Latents(config.TopK(k=k), W_enc, b_enc, 0.3 * drawn(n, d_out, seed=seed + 1))


def sae(hookpoint: str, d: int = D, seed: int = 0) -> SparseAutoencoder:
    own = latents(40, d, d, seed)
    return SparseAutoencoder(hookpoint, own.nonlinearity, own.W_enc, own.b_enc, own.W_dec, 0.1 * drawn(d, seed=9))


def whole(hookpoint: str, d: int) -> SparseAutoencoder:
    """Rebuilds every row, bit for bit: each coordinate's positive and negative part is a latent."""
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return SparseAutoencoder(hookpoint, config.ReLU(), both, torch.zeros(2 * d), both, torch.zeros(d))


@pytest.fixture
def passage(model: LanguageModel, own_text: Corpus) -> Passage:
    windows = choose_windows(own_text, 20, 200, 0)
    return next(passages(model, own_text, windows, 4096))


def run(model: LanguageModel, passage: Passage, names: list[str], *dictionaries: object) -> dict[str, Tensor]:
    """Rows as they are with the dictionaries in place."""
    ready = [stand_in(dictionary, model) for dictionary in dictionaries]  # type: ignore[arg-type]
    clean = model.read(passage.tokens, [name for each in ready for name in each.needs_clean])
    return model.read(passage.tokens, names, together(ready, passage.is_text, clean))


def test_a_transcoder_writes_what_it_says_of_what_it_reads(model: LanguageModel, passage: Passage) -> None:
    for W_skip in (None, 0.2 * drawn(D, D, seed=5)):
        transcoder = Transcoder("mlp_in.0", "mlp_out.0", latents(40, D, D), 0.1 * drawn(D), W_skip)
        clean = model.read(passage.tokens, ["mlp_in.0", "mlp_out.0"])
        rows = run(model, passage, ["mlp_in.0", "mlp_out.0"], transcoder)
        read = clean["mlp_in.0"][passage.is_text]
        assert torch.equal(rows["mlp_in.0"], clean["mlp_in.0"])
        assert torch.equal(rows["mlp_out.0"][passage.is_text], transcoder.decode(transcoder.encode(read), read))
        assert torch.equal(rows["mlp_out.0"][~passage.is_text], clean["mlp_out.0"][~passage.is_text])


def test_a_crosscoder_reads_the_untouched_run_at_all_its_places(model: LanguageModel, passage: Passage) -> None:
    crosscoder = Crosscoder(("resid_post.0", "resid_post.1"), (D, D), latents(40, 2 * D, 2 * D), drawn(2 * D))
    clean = model.read(passage.tokens, list(crosscoder.hookpoints))
    rows = run(model, passage, list(crosscoder.hookpoints), crosscoder)
    wide = torch.cat([clean[name][passage.is_text] for name in crosscoder.hookpoints], 1)
    expected = crosscoder.decode(crosscoder.encode(wide))
    assert torch.equal(torch.cat([rows[name][passage.is_text] for name in crosscoder.hookpoints], 1), expected)


def test_layers_of_a_cross_layer_transcoder_read_what_the_layers_before_have_written(
    model: LanguageModel, passage: Passage
) -> None:
    reads, writes = ("mlp_in.0", "mlp_in.1"), ("mlp_out.0", "mlp_out.1")
    layers = CrossLayerTranscoder(reads, writes, (latents(40, D, 2 * D), latents(40, D, D, seed=3)), drawn(2, D))
    clean = model.read(passage.tokens, list(reads))
    rows = run(model, passage, [*reads, *writes], layers)
    seen = torch.stack([rows[name][passage.is_text] for name in reads])
    assert torch.equal(seen[0], clean["mlp_in.0"][passage.is_text])
    assert not torch.allclose(seen[1], clean["mlp_in.1"][passage.is_text], atol=0.01)
    expected = layers.decode(layers.encode(seen))
    for name, output in zip(writes, expected, strict=True):
        torch.testing.assert_close(rows[name][passage.is_text], output, rtol=1e-5, atol=1e-5)
    (outputs, codes) = stand_in(layers, model).rebuild(dict(zip(reads, seen, strict=True)))
    assert codes.n_latents == 80
    assert codes.n_active.max() == 8
    dense = torch.cat([own.dense() for own in layers.encode(seen)], 1)
    assert torch.equal(codes.dense(), dense)
    assert torch.equal(torch.stack(list(outputs.values())), expected)


def test_a_latents_direction_is_what_one_unit_of_it_writes() -> None:
    """Also across layers: at the place of its own layer, after nothing at the layers before."""
    reads, writes = ("mlp_in.0", "mlp_in.1"), ("mlp_out.0", "mlp_out.1")
    layers = CrossLayerTranscoder(reads, writes, (latents(40, D, 2 * D), latents(30, D, D, seed=3)), drawn(2, D))
    ready = stand_in(layers)
    for latent in (0, 39, 40, 69):
        unit = torch.zeros(70)
        unit[latent] = 1.0
        codes = tuple(_codes_of(part) for part in unit.split([40, 30]))
        moved = (layers.decode(codes)[:, 0] - layers.b_dec).flatten()
        torch.testing.assert_close(ready.direction(latent), moved, rtol=1e-5, atol=1e-6)
        assert float(ready.direction_norms[latent]) == pytest.approx(float(moved.norm()), rel=1e-5)
    with pytest.raises(IndexError):
        ready.direction(70)


def _codes_of(row: Tensor) -> SparseCodes:
    active = row.nonzero()[:, 0]
    return SparseCodes(torch.tensor([0, len(active)]), active, row[active], len(row))


def test_many_at_once_each_see_what_is_written_upstream(model: LanguageModel, passage: Passage) -> None:
    first, last = sae("resid_post.0"), sae("resid_post.1", seed=4)
    reader, feeder = Transcoder("mlp_in.1", "mlp_out.1", latents(40, D, D), drawn(D)), sae("mlp_in.1", seed=7)
    rows = run(model, passage, ["resid_post.0", "mlp_in.1", "mlp_out.1", "resid_post.1"], reader, feeder, first)
    alone = run(model, passage, ["mlp_in.1"], first)["mlp_in.1"][passage.is_text]
    fed = feeder.decode(feeder.encode(alone))
    assert torch.equal(rows["mlp_in.1"][passage.is_text], fed)
    assert torch.equal(rows["mlp_out.1"][passage.is_text], reader.decode(reader.encode(fed)))
    final = run(model, passage, ["resid_post.1"], first, last)["resid_post.1"][passage.is_text]
    upstream = run(model, passage, ["resid_post.1"], first)["resid_post.1"][passage.is_text]
    assert torch.equal(final, last.decode(last.encode(upstream)))


def test_perfect_dictionaries_everywhere_change_no_bit_and_cost_nothing(
    model: LanguageModel, own_text: Corpus, passage: Passage
) -> None:
    widths = {
        "embed": D,
        "z.0": D,
        "z.1.2": D // HEADS,
        "attn_out.1": D,
        "mlp_in.1": D,
        "mlp_out.0": D,
        "resid_post.1": D,
    }
    ready = [whole(name, width) for name, width in widths.items()]
    edits = together([stand_in(each, model) for each in ready], passage.is_text, {})
    assert torch.equal(model.logits(passage.tokens, edits), model.logits(passage.tokens))
    measures = splice(model, ready, own_text, config.Evaluate(max_documents=20), seed=0)
    assert measures["excess_ce"].value == 0
    assert measures["kl"].value == 0
    for name in ("ce_recovered", "ce_recovered_zero", "ce_recovered_position_mean", "ce_recovered_resample"):
        assert measures[name].value == 1
        assert measures[name.replace("ce_", "kl_")].value == 1
    assert "at embed, z.0, z.1.2, attn_out.1" in measures["kl"].masks.replaced


def test_a_head_is_ablated_alone(model: LanguageModel, own_text: Corpus, passage: Passage) -> None:
    """The baseline of a dictionary of one head is the model without that head, not without attention."""
    places = require_apart([stand_in(whole("z.1.2", D // HEADS), model)])
    for ablation in ABLATIONS:
        edits = ablating(Backdrop(model, places, [passage], 0), ablation, places, passage)
        clean, ablated = (model.read(passage.tokens, ["z.1"], given)["z.1"] for given in ([], edits))
        own = torch.zeros(D, dtype=torch.bool)
        own[16:24] = True
        assert torch.equal(ablated[..., ~own], clean[..., ~own]), ablation
        assert not torch.equal(ablated[..., own], clean[..., own])
    silent = SparseAutoencoder(
        "z.1.2", config.TopK(k=2), torch.zeros(16, 8), torch.zeros(16), drawn(16, 8), torch.zeros(8)
    )
    found = splice(model, [silent], own_text, config.Evaluate(max_documents=20), seed=0)
    assert found["ce_zero"].value == found["ce_replaced"].value


def test_only_the_head_that_matters_hurts(
    model: LanguageModel, own_text: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a projection that listens to head 1 of layer 0 alone, to take away any other head costs exactly nothing."""
    weight = model.hf.model.layers[0].self_attn.o_proj.weight
    deaf = torch.zeros_like(weight)
    deaf[:, 8:16] = 6 * weight.data[:, 8:16]
    monkeypatch.setattr(weight, "data", deaf)
    settings = config.Evaluate(max_documents=20)
    costs = []
    for head in range(HEADS):
        found = splice(model, [whole(f"z.0.{head}", D // HEADS)], own_text, settings, seed=0)
        costs.append((found["kl_zero"].value, found["ce_recovered_zero"].value))
    assert [cost for cost, _ in costs[:1] + costs[2:]] == [0, 0, 0]
    assert [value for _, value in costs[:1] + costs[2:]] == [None, None, None]
    assert costs[1][0] > 0.01
    assert splice(model, [whole("z.0", D)], own_text, settings, seed=0)["kl_zero"].value == costs[1][0]


def test_rows_of_every_kind_are_measured_at_what_is_written(
    model: LanguageModel, own_text: Corpus, harvested_at: Callable[..., Store]
) -> None:
    store = harvested_at(own_text, ("mlp_in.0", "mlp_out.0", "mlp_in.1", "mlp_out.1"))
    rows = choose_rows(own_text, store, held_out=True, max_rows=10_000, seed=0)
    stored = {name: torch.from_numpy(store.take(name, rows.tokens)) for name in store.hookpoints}
    transcoder = Transcoder("mlp_in.0", "mlp_out.0", latents(40, D, D), 0.1 * drawn(D))
    quality = measure_rows(store, rows, stand_in(transcoder, model), seed=0)
    found = {measure.name: measure.value for measure in quality.measures}
    output = transcoder.decode(transcoder.encode(stored["mlp_in.0"]))
    assert found["fvu"] == pytest.approx(float(fvu(stored["mlp_out.0"], output)))
    assert found["l0"] == 4
    layers = CrossLayerTranscoder(
        ("mlp_in.0", "mlp_in.1"), ("mlp_out.0", "mlp_out.1"), (latents(40, D, 2 * D), latents(40, D, D)), drawn(2, D)
    )
    quality = measure_rows(store, rows, stand_in(layers, model), seed=0)
    found = {measure.name: measure.value for measure in quality.measures}
    outputs = layers.decode(layers.encode(torch.stack([stored["mlp_in.0"], stored["mlp_in.1"]])))
    targets = [stored["mlp_out.0"], stored["mlp_out.1"]]
    assert found["fvu"] == pytest.approx(float(fvu(torch.cat(targets, 1), torch.cat(list(outputs), 1))))
    for name, target, own in zip(layers.writes, targets, outputs, strict=True):
        assert found[f"fvu/{name}"] == pytest.approx(float(fvu(target, own)))
    assert found["l0"] == 8


@pytest.mark.parametrize("row_norm", [LayerNorm(), LengthNorm()])
def test_rows_in_their_own_units_are_written_and_measured_in_the_models(
    row_norm: RowNorm, model: LanguageModel, own_text: Corpus, passage: Passage, harvested_at: Callable[..., Store]
) -> None:
    dictionary = NormalisedAutoencoder(sae("resid_post.0"), row_norm)
    clean = model.read(passage.tokens, ["resid_post.0"])["resid_post.0"]
    rows = run(model, passage, ["resid_post.0"], dictionary)["resid_post.0"]
    assert torch.equal(rows[passage.is_text], dictionary.reconstruct(clean[passage.is_text]))
    assert torch.equal(rows[~passage.is_text], clean[~passage.is_text])
    store = harvested_at(own_text, ("resid_post.0",))
    chosen = choose_rows(own_text, store, held_out=True, max_rows=10_000, seed=0)
    stored = torch.from_numpy(store.take("resid_post.0", chosen.tokens))
    quality = measure_rows(store, chosen, stand_in(dictionary, model), seed=0)
    found = {measure.name: measure.value for measure in quality.measures}
    output, codes = dictionary.reconstruct(stored), dictionary.encode(stored).dense()
    assert found["fvu"] == pytest.approx(float(fvu(stored, output)))
    assert found["mse"] == pytest.approx(float((stored - output).square().sum(1).mean()))
    assert found["l1"] == pytest.approx(float(codes.abs().sum(1).mean()))
    scale = dictionary.units_of(stored).scale
    assert scale.std() > 0.1 * scale.mean()  # else this test could not see it left out
    by_length = (codes.abs() * dictionary.own.W_dec.norm(dim=1) * scale).sum(1).mean()
    assert found["l1_by_length"] == pytest.approx(float(by_length))


def test_places_that_clash_or_do_not_fit_are_named(model: LanguageModel) -> None:
    ready = {
        name: stand_in(whole(name, width), model) for name, width in (("z.1", D), ("z.1.2", 8), ("resid_post.1", D))
    }
    for names in (["resid_post.1", "resid_post.1"], ["z.1", "z.1.2"], ["z.1.2", "resid_post.1", "z.1"]):
        with pytest.raises(StageError, match="two dictionaries write there"):
            require_apart([ready[name] for name in names])
    with pytest.raises(StageError, match="no dictionary is given"):
        require_apart([])
    with pytest.raises(HookpointError, match=r"z\.1\.2: rows of tiny are 8 wide there, the dictionary's 32"):
        stand_in(whole("z.1.2", D), model)
    with pytest.raises(HookpointError, match=r"resid_post\.7: tiny has 2 layers"):
        stand_in(whole("resid_post.7", D), model)


def test_a_dictionary_in_another_dtype_is_the_same_in_float32_and_one_on_no_device_is_refused(
    model: LanguageModel, passage: Passage
) -> None:
    good = sae("resid_post.0")
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    for dtype in (torch.float64, torch.bfloat16):
        other = replace(good, **{name: getattr(good, name).to(dtype) for name in names})
        same = replace(good, **{name: getattr(good, name).to(dtype).float() for name in names})
        found, expected = (run(model, passage, ["resid_post.0"], each)["resid_post.0"] for each in (other, same))
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    with pytest.raises(StageError, match="its tensors are on cpu, meta"):
        stand_in(replace(good, W_dec=good.W_dec.to("meta")), model)


def test_the_mean_of_a_place_is_that_of_enough_documents_and_resampled_rows_are_of_another_document(
    model: LanguageModel, own_text: Corpus
) -> None:
    windows = choose_windows(own_text, 28, 10_000, 0)
    read = list(passages(model, own_text, windows, 64))
    backdrop = Backdrop(model, ["resid_post.0", "mlp_out.1"], read, 0)
    rows, places, tokens, documents = {"resid_post.0": [], "mlp_out.1": []}, [], [], []
    for passage in read:
        for name, found in model.read(passage.tokens, list(rows)).items():
            rows[name].append(found[passage.is_text])
        places.append(passage.positions)
        tokens.append(passage.replaced_tokens)
        documents.append(passage.replaced_documents)
    place, token, document = np.concatenate(places), np.concatenate(tokens), np.concatenate(documents)
    clean = {name: torch.cat(parts) for name, parts in rows.items()}
    assert np.array_equal(own_text.document_of(token), document)
    means = torch.cat([backdrop.rows("position_mean", "mlp_out.1", passage) for passage in read])
    common = 0
    for at in np.unique(place):
        here = place == at
        is_enough = len(np.unique(document[here])) >= 16
        common += is_enough
        expected = clean["mlp_out.1"][torch.from_numpy(here)] if is_enough else clean["mlp_out.1"]
        torch.testing.assert_close(means[here][0], expected.double().mean(0).float(), rtol=1e-4, atol=1e-5)
    assert 3 < common < len(np.unique(place))
    sources = []
    for name, own in clean.items():
        put = torch.cat([backdrop.rows("resample", name, passage) for passage in read])
        distance = torch.cdist(put.double(), own.double())
        # The first tokens of documents are the same row, so that the nearest may as well be of the row's own document.
        distance[torch.from_numpy(document[:, None] == document[None])] = torch.inf
        assert distance.min(1).values.max() < 1e-5, "each is a row of another document"
        sources.append(distance.argmin(1).numpy())
    same = document[sources[0]] == document[sources[1]]
    assert (
        same.mean() > 0.95
    )  # one token for all hookpoints; a few rows are equal, as is the first token of many documents
    counts = np.bincount(sources[1], minlength=len(document))
    assert (counts > 0).mean() > 0.4  # 1 - 1/e of the pool, less ties


def test_resampled_rows_do_not_depend_on_the_batch(model: LanguageModel, own_text: Corpus) -> None:
    windows = choose_windows(own_text, 30, 10_000, 0)
    found = []
    for batch_tokens in (1, 4096):
        read = list(passages(model, own_text, windows, batch_tokens))
        backdrop = Backdrop(model, ["resid_post.0"], read, 3)
        rows = torch.cat([backdrop.rows("resample", "resid_post.0", passage) for passage in read])
        tokens = np.concatenate([passage.replaced_tokens for passage in read])
        found.append(rows[torch.from_numpy(np.argsort(tokens))])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_what_stands_at_positions_that_are_not_replaced_is_never_looked_at(
    model: LanguageModel, own_text: Corpus
) -> None:
    """BOS and padding hold a million or a NaN where rows are read: no dictionary and no baseline meets them."""
    windows = choose_windows(own_text, 30, 10_000, 0)
    read = list(passages(model, own_text, windows, 4096))
    places = ["resid_post.0"]
    ready = stand_in(sae("resid_post.0"), model)
    clean = Backdrop(model, places, read, 0)
    untouched = LanguageModel.read
    for poison in (1e6, float("nan")):

        def poisoned(
            self: LanguageModel, tokens: Tensor, hookpoints: list[str], poison: float = poison
        ) -> dict[str, Tensor]:
            own = next(passage for passage in read if passage.tokens is tokens)
            rows = untouched(self, tokens, hookpoints)
            for found in rows.values():
                found[~own.is_text] = poison
            return rows

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LanguageModel, "read", poisoned)
            dirty = Backdrop(model, places, read, 0)
        for ablation in ABLATIONS:
            for passage in read:
                assert torch.equal(
                    dirty.rows(ablation, "resid_post.0", passage), clean.rows(ablation, "resid_post.0", passage)
                )
        (edit,) = together([ready], read[0].is_text, {})
        rows = model.read(read[0].tokens, places)["resid_post.0"]
        spoiled = torch.where(read[0].is_text[..., None], rows, poison)
        changed, expected = edit.change(spoiled.clone(), 0), edit.change(rows.clone(), 0)
        assert torch.equal(changed[read[0].is_text], expected[read[0].is_text])


def test_one_document_leaves_resampling_undefined(model: LanguageModel, own_text: Corpus) -> None:
    found = splice(model, [sae("resid_post.0")], own_text, config.Evaluate(max_documents=1), seed=0)
    for name in ("ce_resample", "ce_recovered_resample", "kl_resample", "kl_recovered_resample"):
        assert found[name].value is None
        assert "of one document" in found[name].undefined
    assert found["ce_mean"].value is not None
    assert found["ce_mean"].low is None


def test_edits_outside_the_stand_ins_stay_theirs(model: LanguageModel, passage: Passage) -> None:
    """A splice is edits like any other, and goes together with them."""
    ready = stand_in(sae("resid_post.0"), model)
    add = Edit("resid_post.1", lambda rows, _: rows + 1.0)
    both = model.read(passage.tokens, ["resid_post.1"], [*together([ready], passage.is_text, {}), add])["resid_post.1"]
    alone = model.read(passage.tokens, ["resid_post.1"], together([ready], passage.is_text, {}))["resid_post.1"]
    assert torch.equal(both, alone + 1.0)
