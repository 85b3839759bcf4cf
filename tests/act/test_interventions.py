"""Interventions: what their JSON may say, and what each does to rows in a model, by hand."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.act.test_clamp import CATALOGUE
from tests.act.tiny import D_MODEL, HOOKPOINT, N_LATENTS, prompt, random_sae, tiny_model
from torch import Tensor

from mohole.act import (
    Ablate,
    Add,
    Cap,
    Clamp,
    Direction,
    Intervention,
    Latent,
    Named,
    Orthogonalise,
    Scale,
    Sources,
    Swap,
    Vector,
    When,
    Where,
    as_json,
    check,
    make_plan,
    parse_interventions,
    steer,
)
from mohole.config import JumpReLU
from mohole.dictionary import Crosscoder, CrossLayerTranscoder, Latents, LayerNorm, NormalisedAutoencoder, Transcoder
from mohole.errors import ConfigError, HookpointError, MoholeError, StageError

DRAW = torch.Generator().manual_seed(8)
V, W = torch.randn(D_MODEL, generator=DRAW) * 3, torch.randn(D_MODEL, generator=DRAW)
A, B = Vector(tuple(V.tolist()), HOOKPOINT), Vector(tuple(W.tolist()), HOOKPOINT)
UNIT, OTHER = V / V.norm(), W / W.norm()
SOURCES = Sources.of([random_sae()], [CATALOGUE], [Direction(HOOKPOINT, V, "v")])

ALL: list[Intervention] = [
    Clamp(3, times_max=2.0, where=Where("response", 1, 5), when=When(A, 0.5, bias=1.0)),
    Scale(3, 0.5, hookpoint=HOOKPOINT),
    Ablate(4, where=Where(classes=("word", "number"))),
    Add(Named("v"), value=-2.0),
    Add(Latent(5), times_max=1.0, when=When(Latent(2), 3.0, units="times_max")),
    Add(A, times_norm=0.1, where=Where(tokens=(4, 5), bos=True)),
    Cap(Latent(5), low=0.0, high=1.0, units="times_max"),
    Orthogonalise(A, at="stream"),
    Swap(A, B, where=Where("prompt", -3)),
]


def test_what_is_written_as_json_is_read_back() -> None:
    text = json.dumps(as_json(ALL))
    assert parse_interventions(json.loads(text)) == tuple(ALL)
    assert as_json([Clamp(7, times_max=8.0)]) == [{"kind": "clamp", "latent": 7, "times_max": 8.0}]


VECTOR = {"kind": "vector", "values": [1.0], "hookpoint": "a"}


def clamp(**more: Any) -> list[dict[str, Any]]:
    return [{"kind": "clamp", "latent": 3, "value": 1.0} | more]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("x", "interventions: 'x'"),
        ([{"latent": 3}], "interventions.0: has no kind; one of clamp, scale"),
        ([{"kind": "clmp", "latent": 3}], "did you mean 'clamp'"),
        (clamp(latnt=3), "interventions.0.latnt: no such key; did you mean latent"),
        ([{"kind": "clamp", "value": 1.0}], "interventions.0.latent: needed"),
        (clamp(latent="3"), "interventions.0.latent: '3'"),
        (clamp(latent=True), "interventions.0.latent: True"),
        (clamp(value=math.nan), "interventions.0.value: nan: input should be a finite"),
        (clamp(value=math.inf), "finite"),
        (clamp(value="1"), "interventions.0.value: '1'"),
        (clamp(times_max=1.0), "exactly one of times_max and value"),
        (clamp(where={"prt": "all"}), "interventions.0.where.prt: no such key; did you mean part"),
        (clamp(where={"part": "answer"}), "'prompt' or 'response'"),
        (clamp(where={"start": -2}), "counts from the end of the prompt"),
        (clamp(where={"start": 10**30}), "beyond every text"),
        (clamp(where={"tokens": [10**30]}), "beyond every text"),
        (clamp(where={"start": 3, "stop": 3}), r"no position is in \[3, 3\)"),
        (clamp(where={"part": "prompt", "start": -3, "stop": 0}), r"no position is in \[-3, 0\)"),
        (clamp(where={"classes": ["verb"]}), "interventions.0.where.classes.0: 'verb'"),
        (clamp(when={"of": {"kind": "latent", "latent": 1}}), "interventions.0.when.above: needed"),
        (clamp(when={"of": VECTOR, "above": 1, "units": "times_max"}), "in units of a latent"),
        ([{"kind": "add", "of": {"kind": "vector", "values": [], "hookpoint": "a"}, "value": 1}], "finite numbers, not all 0"),
        ([{"kind": "add", "of": {"kind": "vector", "values": [math.inf], "hookpoint": "a"}, "value": 1}], "finite"),
        ([{"kind": "add", "of": {"kind": "vektor"}, "value": 1}], "interventions.0.of.kind: 'vektor' is no kind"),
        ([{"kind": "add", "of": {"kind": "latent", "latent": 1, "layer": 3}, "value": 1}], "0.of.layer: no such key"),
        ([{"kind": "cap", "of": {"kind": "latent", "latent": 1}}], "give low, high, or both"),
        ([{"kind": "cap", "of": {"kind": "latent", "latent": 1}, "low": 2, "high": 1}], "low 2.0 is above high 1.0"),
        ([{"kind": "swap", "a": {"kind": "latent", "latent": 1}, "b": {"kind": "named", "name": "v"}}], "two of a kind"),
        ([{"kind": "swap", "a": {"kind": "latent", "latent": 1}, "b": {"kind": "latent", "latent": 1}}], "the same"),
        ([{"kind": "clamp"}] * 5, "and 2 more"),
    ],
)  # fmt: skip
def test_json_that_cannot_be_meant_names_what_is_wrong(raw: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_interventions(raw)


def rows_at(interventions: list[Intervention], tokens: Tensor, sources: Sources = SOURCES) -> tuple[Tensor, Tensor]:
    """(before, after) in the model, of all tokens but begin-of-text; and the check agrees that it is exact."""
    steered = steer(tiny_model(), interventions, sources=sources)
    assert max(found.row_error for found in check(steered, tokens)) < 2e-6
    before, after = (tiny_model().read(tokens, [HOOKPOINT], edits)[HOOKPOINT][:, 1:] for edits in ((), steered.edits))
    return before.flatten(0, 1), after.flatten(0, 1)


def tokens(batch: int = 4, length: int = 11) -> Tensor:
    return torch.cat([torch.full((batch, 1), 1), prompt(batch=batch, length=length)], dim=1)


def code(rows: Tensor, latent: int) -> Tensor:
    return random_sae().encode(rows).column(latent)[:, None]


ROW = random_sae().W_dec


@pytest.mark.parametrize(
    ("each", "movement"),
    [
        (Clamp(5, times_max=2.0), lambda x: (10.0 - code(x, 5)) * ROW[5]),
        (Scale(5, -0.5), lambda x: -1.5 * code(x, 5) * ROW[5]),
        (Ablate(5), lambda x: -code(x, 5) * ROW[5]),
        (Add(Latent(5), value=3.0), lambda x: 3.0 * ROW[5]),
        (Add(Latent(5), times_max=-1.0), lambda x: -5.0 * ROW[5]),
        (Add(Latent(5), times_norm=0.5), lambda x: 0.5 * x.norm(dim=1, keepdim=True) * ROW[5]),
        (Add(Named("v"), value=0.5), lambda x: 0.5 * V),
        (Add(A, times_norm=0.2), lambda x: 0.2 * x.norm(dim=1, keepdim=True) * UNIT),
        (Cap(Latent(5), high=0.5), lambda x: (code(x, 5).clamp(max=0.5) - code(x, 5)) * ROW[5]),
        (Cap(Latent(5), low=0.2, high=0.3, units="times_max"), lambda x: (code(x, 5).clamp(1.0, 1.5) - code(x, 5)) * ROW[5]),
        (Cap(A, low=-1.0, high=1.0), lambda x: ((x @ UNIT).clamp(-1, 1) - x @ UNIT)[:, None] * UNIT),
        (Orthogonalise(A), lambda x: -(x @ UNIT)[:, None] * UNIT),
        (Swap(Latent(5), Latent(6)), lambda x: (code(x, 6) - code(x, 5)) * (ROW[5] - ROW[6])),
        (Clamp(5, value=9.0, when=When(Latent(6), 0.5)), lambda x: (code(x, 6) > 0.5) * (9.0 - code(x, 5)) * ROW[5]),
        (
            Clamp(6, value=9.0, when=When(Latent(5), 2.0, units="times_max")),
            lambda x: (code(x, 5) > 10.0) * (9.0 - code(x, 6)) * ROW[6],
        ),
        (Add(A, value=1.0, when=When(B, above=0.0, bias=0.5)), lambda x: ((x @ W + 0.5) > 0)[:, None] * V),
    ],
)  # fmt: skip
def test_each_moves_rows_as_its_formula_says(each: Intervention, movement: Any) -> None:
    before, after = rows_at([each], tokens())
    expected = movement(before).expand_as(before)
    assert expected.norm() > 1
    torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=2e-4)


def test_swapped_directions_have_each_others_shares_and_twice_is_nothing() -> None:
    before, after = rows_at([Swap(A, B)], tokens())
    both = torch.stack([UNIT, OTHER], dim=1)
    shares = [torch.linalg.lstsq(both.double(), rows.double().T).solution for rows in (before, after)]
    torch.testing.assert_close(shares[1], shares[0].flip(0), rtol=1e-4, atol=1e-4)
    rest = [rows.double() - (both.double() @ share).T for rows, share in zip((before, after), shares, strict=True)]
    torch.testing.assert_close(rest[1], rest[0], rtol=1e-4, atol=1e-4)
    _, back = rows_at([Swap(A, B), Swap(A, B)], tokens())
    torch.testing.assert_close(back, before, rtol=1e-4, atol=1e-4)


def test_the_order_is_that_of_the_list_and_latents_side_by_side_act_together() -> None:
    _, added_last = rows_at([Orthogonalise(A), Add(A, value=1.0)], tokens())
    _, added_first = rows_at([Add(A, value=1.0), Orthogonalise(A)], tokens())
    assert float((added_first @ UNIT).abs().max()) < 1e-4
    torch.testing.assert_close(added_last @ UNIT, V.norm().expand(len(added_last)), rtol=1e-4, atol=1e-4)
    before, together = rows_at([Clamp(5, value=9.0), Clamp(6, value=8.0)], tokens())
    by = (9.0 - code(before, 5)) * ROW[5] + (8.0 - code(before, 6)) * ROW[6]
    torch.testing.assert_close(together - before, by, rtol=1e-4, atol=2e-4)
    _, apart = rows_at([Clamp(5, value=9.0), Add(A, value=1.0), Clamp(6, value=8.0)], tokens())
    assert not torch.allclose(apart - V, together, atol=1e-2)  # the second reads what the first made


def test_nothing_of_a_direction_is_left_in_a_stream_that_is_freed_of_it() -> None:
    steered = steer(tiny_model(), [Orthogonalise(A, at="stream")])
    rows = tiny_model().read(tokens(), ["resid_post.0", "resid_pre.2", "resid_post.2"], steered.edits)
    assert max(float((each @ UNIT).abs().max()) for each in rows.values()) < 1e-4


def latents(n: int, d_in: int, d_out: int, seed: int = 0) -> Latents:
    draw = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(n, d_in, generator=draw), dim=1)
    return Latents(
        JumpReLU(), unit, torch.zeros(n), torch.randn(n, d_out, generator=draw), threshold=torch.full((n,), 0.1)
    )


def test_a_transcoder_is_read_in_one_place_and_written_in_another() -> None:
    own, at = latents(20, D_MODEL, D_MODEL), ["mlp_in.1", "mlp_out.1"]
    steered = steer(tiny_model(), Transcoder(*at, own, torch.zeros(D_MODEL)), [Clamp(4, value=3.0)])
    before, after = (tiny_model().read(tokens(), at, edits) for edits in ((), steered.edits))
    f = own.encode(before["mlp_in.1"].flatten(0, 1)).column(4).view(4, 12, 1)
    assert 0 < float((f > 0).float().mean()) < 1
    expected = (3.0 - f) * own.W_dec[4]
    torch.testing.assert_close((after[at[1]] - before[at[1]])[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-4)
    assert torch.equal(after[at[0]], before[at[0]])
    (found,) = (each for each in check(steered, tokens()) if each.hookpoint == at[1])
    assert found.row_error < 2e-6
    assert found.reads_back is None
    generated = steered.generate(tokens(), max_new_tokens=4)
    assert torch.equal(generated.tokens, steered.generate(tokens(), max_new_tokens=4, use_cache=False).tokens)


def test_what_is_read_later_is_what_it_was_when_it_ran() -> None:
    """Whatever the model has written into that memory since, as Falcon does."""
    dictionary = Transcoder("mlp_in.1", "mlp_out.1", latents(20, D_MODEL, D_MODEL), torch.zeros(D_MODEL))
    rows, moved = torch.randn(4, 12, D_MODEL, generator=torch.Generator().manual_seed(0)), []
    for writes in (False, True):
        read, act = steer(tiny_model(), dictionary, [Scale(4, 3.0)]).of_pass(tiny_model().given(tokens()))
        given = read.change(rows.clone(), 0)
        if writes:
            given.zero_()
        moved.append(act.change(rows.clone(), 0))
    assert not torch.equal(moved[0], rows)
    assert torch.equal(*moved)


def test_a_transcoder_of_another_model_is_refused() -> None:
    """Where it writes it is as wide as this model; where it reads it is not."""
    for width in (D_MODEL // 2, 2 * D_MODEL):
        dictionary = Transcoder("mlp_in.1", "mlp_out.1", latents(20, width, D_MODEL), torch.zeros(D_MODEL))
        with pytest.raises(ConfigError, match=f"mlp_in.1: .* reads {width} numbers, where tiny has rows of {D_MODEL}"):
            steer(tiny_model(), dictionary, [Clamp(4, value=3.0)])


def test_a_crosscoder_reads_all_its_places_and_acts_at_the_last() -> None:
    places = ("resid_post.2", "resid_post.0")  # the first of them runs last
    own = latents(20, 2 * D_MODEL, 2 * D_MODEL)
    crosscoder = Crosscoder(places, (D_MODEL, D_MODEL), own, torch.zeros(2 * D_MODEL))
    steered = steer(tiny_model(), crosscoder, [Clamp(4, value=3.0)])
    before, after = (tiny_model().read(tokens(), places, edits) for edits in ((), steered.edits))
    f = crosscoder.encode(torch.cat([before[name] for name in places], dim=-1).flatten(0, 1)).column(4).view(4, 12, 1)
    expected = (3.0 - f) * own.W_dec[4, :D_MODEL]
    torch.testing.assert_close((after[places[0]] - before[places[0]])[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-4)
    assert torch.equal(after[places[1]], before[places[1]])


def test_a_cross_layer_latent_is_written_in_its_layer_and_all_behind() -> None:
    reads, writes = ("mlp_in.0", "mlp_in.1", "mlp_in.2"), ("mlp_out.0", "mlp_out.1", "mlp_out.2")
    layers = tuple(latents(10, D_MODEL, (3 - number) * D_MODEL, seed=number) for number in range(3))
    dictionary = CrossLayerTranscoder(reads, writes, layers, torch.zeros(3, D_MODEL))
    plan = make_plan(tiny_model(), [Clamp(14, value=2.0)], Sources.of([dictionary]))  # latent 4 of layer 1
    assert list(plan.stages) == ["mlp_out.1", "mlp_out.2"]
    steered = steer(tiny_model(), dictionary, [Clamp(14, value=2.0)])
    before, after = (tiny_model().read(tokens(), [*reads, *writes], edits) for edits in ((), steered.edits))
    f = layers[1].encode(before["mlp_in.1"].flatten(0, 1)).column(4).view(4, 12, 1)
    expected = (2.0 - f) * layers[1].W_dec[4, :D_MODEL]
    torch.testing.assert_close((after["mlp_out.1"] - before["mlp_out.1"])[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-4)
    assert torch.equal(after["mlp_out.0"], before["mlp_out.0"])
    assert max(found.row_error for found in check(steered, tokens())) < 2e-6


def test_rows_with_a_scale_of_their_own_move_by_it() -> None:
    dictionary = NormalisedAutoencoder(random_sae(), LayerNorm())
    for each in (Scale(5, 2.0), Add(Latent(5), value=0.7), Swap(Latent(5), Latent(6)), Cap(Latent(5), high=0.1)):
        steered = steer(tiny_model(), dictionary, [each])
        before, after = (
            tiny_model().read(tokens(), [HOOKPOINT], e)[HOOKPOINT][:, 1:].flatten(0, 1) for e in ((), steered.edits)
        )
        f, g = (dictionary.encode(before).column(latent)[:, None] for latent in (5, 6))
        own = {
            "scale": f * ROW[5], "add": 0.7 * ROW[5], "swap": (g - f) * (ROW[5] - ROW[6]), "cap": (f.clamp(max=0.1) - f) * ROW[5],
        }[each.kind]  # fmt: skip
        torch.testing.assert_close(after - before, own * dictionary.scale_of(before), rtol=1e-4, atol=1e-4)


def test_a_direction_between_two_places_is_read_where_it_has_run_already() -> None:
    early = Vector(A.values, "resid_post.0")
    steered = steer(tiny_model(), [Add(A, value=5.0, when=When(early, above=0.0))])
    before, after = (tiny_model().read(tokens(), ["resid_post.0", HOOKPOINT], e) for e in ((), steered.edits))
    held = (before["resid_post.0"] @ V > 0)[..., None]
    assert 0 < float(held[:, 1:].float().mean()) < 1
    moved = after[HOOKPOINT] - before[HOOKPOINT]
    torch.testing.assert_close(moved[:, 1:], (held * 5.0 * V)[:, 1:], rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("each", "error", "words"),
    [
        (Clamp(N_LATENTS, value=1.0), ConfigError, "latents 0 to 39"),
        (Clamp(-1, times_max=1.0), ConfigError, "latents 0 to 39"),
        (Clamp(0, times_max=1.0), StageError, "never active"),
        (Clamp(3, value=1.0, hookpoint="resid_post.9"), ConfigError, "no dictionary given"),
        (Clamp(3, value=1.0, hookpoint="nonsense"), ConfigError, "nonsense: no dictionary given"),
        (Clamp(3, value=1e39), ConfigError, "beyond float32"),
        (Add(Named("w"), value=1.0), ConfigError, "direction w: not given; there are v; --direction FILE"),
        (Add(Named("v", "resid_post.0"), value=1.0), ConfigError, f"it is at {HOOKPOINT}"),
        (Add(Vector((1.0, 2.0), HOOKPOINT), value=1.0), ConfigError, "2 numbers, where tiny has rows of 32"),
        (Add(Vector(A.values, "resid_post.7"), value=1.0), HookpointError, "3 layers"),
        (Add(Vector(A.values, "residual"), value=1.0), HookpointError, "no such hookpoint"),
        (Add(Vector(A.values, "resid_post.0"), value=1.0, when=When(A, 0.0)), HookpointError, "has run by then"),
        (Swap(A, Vector(tuple((2 * V).tolist()), HOOKPOINT)), ConfigError, "parallel"),
        (Swap(A, Vector(B.values, "resid_post.0")), ConfigError, "different hookpoints"),
    ],
)
def test_what_cannot_be_done_to_this_model_is_refused(each: Intervention, error: type[MoholeError], words: str) -> None:
    with pytest.raises(error, match=words):
        make_plan(tiny_model(), [each], SOURCES)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_strength_that_is_no_number_is_refused_in_python_too(wrong: float) -> None:
    for make in (
        lambda: Clamp(3, value=wrong), lambda: Clamp(3, times_max=wrong), lambda: Scale(3, wrong), lambda: Add(A, value=wrong),
        lambda: Cap(A, high=wrong), lambda: When(A, wrong), lambda: Vector((wrong,), HOOKPOINT),
        lambda: Direction(HOOKPOINT, torch.tensor([wrong]), "v"),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            make()


def test_what_is_no_list_of_interventions_is_refused() -> None:
    with pytest.raises(ConfigError, match="SparseAutoencoder is no intervention"):
        steer(tiny_model(), random_sae())
    with pytest.raises(ConfigError, match="not both"):
        steer(tiny_model(), random_sae(), [], sources=SOURCES)


def test_equal_keys_are_equal_deeds() -> None:
    def key(*interventions: Intervention, sources: Sources = SOURCES) -> str:
        return make_plan(tiny_model(), interventions, sources).key

    plain = random_sae()
    other = Sources.of([random_sae(seed=9)], [CATALOGUE])
    elsewhere = Sources.of([replace(plain, b_dec=plain.b_dec + 1)], [CATALOGUE])  # what its rows are counted from
    keys = [
        key(Clamp(5, value=1.0)), key(Clamp(5, value=1.5)), key(Clamp(6, value=1.0)), key(Clamp(5, times_max=1.0)),
        key(Clamp(5, value=1.0, where=Where("response"))), key(Clamp(5, value=1.0), sources=other), key(Add(A, value=1.0)),
        key(Clamp(5, value=1.0), Clamp(6, value=1.0)), key(Clamp(5, value=1.0), sources=elsewhere),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key(Clamp(5, value=1.0)) == keys[0]
    assert key() == ""
