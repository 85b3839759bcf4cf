"""Rows of one batch under other interventions: each is what it would be alone. Where, what caches know, what stamps say."""

from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from tests.act.test_interventions import SOURCES, A, tokens
from tests.act.tiny import HOOKPOINT, N_LATENTS, leave_taps_out, random_sae, tiny_model
from tests.model.conftest import _tiny
from torch import Tensor

from mohole.act import (
    Add,
    Clamp,
    Intervention,
    Latent,
    Orthogonalise,
    Plan,
    Scale,
    Sources,
    Vector,
    When,
    Where,
    make_plan,
    steer,
    steer_rows,
)  # fmt: skip
from mohole.act.steering import Steered
from mohole.config import ReLU
from mohole.dictionary import SparseAutoencoder
from mohole.errors import ConfigError, HookpointError, ModelError, NumericsError, StageError
from mohole.model import Edit, LanguageModel, PassTokens, load_model
from mohole.planted.prompts import bridge_prompts

BOS = 1


def plan(*interventions: Intervention) -> Plan:
    return make_plan(tiny_model(), interventions, SOURCES)


def several() -> list[Plan | None]:
    """Rows that share a latent, an intervention, a hookpoint, or nothing; one of two groups, one of none."""
    shared = plan(Clamp(5, value=30.0))
    return [
        shared, None, plan(Clamp(5, value=-20.0), Clamp(9, value=12.0)), plan(Add(A, value=2.0), Orthogonalise(A)),
        plan(Clamp(7, value=25.0, where=Where("response"))), shared, plan(Scale(5, 6.0, when=When(Latent(6), 0.1))),
    ]  # fmt: skip


def texts() -> list[Tensor]:
    """Of several lengths, each with its begin-of-text token."""
    lengths = [9, 3, 12, 5, 7, 2, 10]
    draw = torch.Generator().manual_seed(2)
    return [torch.cat([torch.tensor([BOS]), torch.randint(3, 96, (n,), generator=draw)]) for n in lengths]


def side_by_side(each: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    most = max(map(len, each))
    padding = [most - len(text) for text in each]
    filled = [torch.cat([torch.full((n,), 17), text]) for n, text in zip(padding, each, strict=True)]
    return torch.stack(filled), padding


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_each_row_of_a_batch_is_what_it_is_alone(temperature: float, use_cache: bool) -> None:
    model, plans, alone = tiny_model(), several(), texts()
    batch, padding = side_by_side(alone)
    seeds = [7, 8, 9, 10, 11, 12, 13]
    options = {"max_new_tokens": 14, "temperature": temperature, "use_cache": use_cache}
    together = steer_rows(model, plans).generate(batch, padding=padding, seed=seeds, **options)
    changed = 0
    for row, (each, text, seed) in enumerate(zip(plans, alone, seeds, strict=True)):
        one = steer_rows(model, [each]).generate(text[None], seed=[seed], **options)
        assert torch.equal(together.tokens[row, padding[row] :], one.tokens[0])
        assert together.stamps[row] == one.stamps[0]
        plain = model.generate(text[None], seed=[seed], **options)
        assert torch.equal(plain, one.tokens) or each is not None
        changed += not torch.equal(plain, one.tokens)
    assert changed >= 4  # or it would be the same for want of steering


def test_a_row_without_interventions_keeps_its_bits_beside_rows_that_have_some() -> None:
    model, batch = tiny_model(), tokens(batch=3)
    steered = steer_rows(model, [plan(Clamp(5, value=30.0)), None, plan(Add(A, times_norm=0.5))])
    assert torch.equal(
        model.read(batch, [HOOKPOINT], steered.edits)[HOOKPOINT][1], model.read(batch, [HOOKPOINT])[HOOKPOINT][1]
    )


def test_what_is_infinite_at_anothers_row_or_outside_of_its_window_is_not_felt_there() -> None:
    """A factor that another row asked for, times an activation that only this row has, is beyond float32; times 0 it is NaN."""
    steered = steer_rows(tiny_model(), [plan(Scale(5, by=3e38)), None])
    rows = torch.randn(2, 6, tiny_model().d_model, generator=torch.Generator().manual_seed(0)) * 1e3
    (bank,) = steered.banks[HOOKPOINT]
    for n_held in ([0, 6], [0, 0]):  # at tokens of the row that has no such term, and at none
        held = torch.arange(6) < torch.tensor(n_held)[:, None]
        moved, has_moved = bank.act(rows, {}, dict.fromkeys(bank.wheres, held))
        assert torch.equal(moved, rows)
        assert not has_moved.any()
    with pytest.raises(NumericsError, match=f"{HOOKPOINT}: the edit returned a NaN or an infinity"):
        bank.act(rows, {}, None)


def test_what_is_too_large_for_the_models_own_type_is_refused() -> None:
    """65,520 is a number in float32, in which rows are moved, and infinity in float16."""
    model = load_model("planted", dtype="float16")
    first = Vector((1.0, *[0.0] * (model.d_model - 1)), HOOKPOINT)
    for strength, is_refused in ((6e4, False), (7e4, True)):
        steered = steer(model, [Add(first, value=strength)])
        with pytest.raises(NumericsError, match=HOOKPOINT) if is_refused else nullcontext():
            steered.logits(torch.tensor([[1, 2, 3]]))


def test_a_row_that_is_no_number_beside_steered_ones_is_handed_on_whatever_the_models_type() -> None:
    """Somebody else's edit made it, or the model: the interventions move another one."""

    def spoiled(rows: Tensor, _: int) -> Tensor:
        return torch.where(torch.arange(3)[:, None] == 1, torch.inf, rows)

    for dtype in ("float32", "float16"):
        model = load_model("planted", dtype=dtype)
        first = Vector((1.0, *[0.0] * (model.d_model - 1)), HOOKPOINT)
        steered = steer(model, [Add(first, value=1.0, where=Where(tokens=(3,)))])
        edits = (Edit(HOOKPOINT, spoiled, is_checked=True), *steered.edits)
        rows = model.read(torch.tensor([[4, 5, 3]]), [HOOKPOINT], edits)[HOOKPOINT]
        assert rows.isfinite().all(dim=-1).tolist() == [[True, False, True]]


def test_stamps_count_for_each_row_what_was_run_and_what_was_moved() -> None:
    batch, padding = side_by_side([torch.tensor([BOS, 5, 6, 7]), torch.tensor([5, 6]), torch.tensor([BOS, 5, 6])])
    plans = [plan(Clamp(5, value=30.0)), plan(Clamp(5, value=30.0, where=Where("response"))), None]
    stamps = steer_rows(tiny_model(), plans).generate(batch, padding=padding, max_new_tokens=5).stamps
    assert [stamp.n_tokens for stamp in stamps] == [3 + 4, 2 + 4, 2 + 4]
    assert [stamp.n_fired for stamp in stamps] == [7, 6, 6]
    assert [stamp.n_moved for stamp in stamps] == [7, 4, 0]
    assert [bool(stamp.key) for stamp in stamps] == [True, True, False]


def test_a_batch_of_another_number_of_rows_is_refused() -> None:
    with pytest.raises(StageError, match="plans for 2 rows, and the batch has 3"):
        steer_rows(tiny_model(), [None, plan(Clamp(5, value=1.0))]).logits(tokens(batch=3))
    with pytest.raises(ConfigError, match="no row to steer"):
        steer_rows(tiny_model(), [])


# --- where


def moved(where: Where, batch: Tensor, n_prompt: list[int]) -> list[list[int]]:
    """Positions of each text whose row an addition moves."""
    model = tiny_model()
    steered = steer(model, [Add(A, value=1.0, where=where)])
    before, after = (model.read(batch, [HOOKPOINT], e, n_prompt=n_prompt)[HOOKPOINT] for e in ((), steered.edits))
    has_moved = ((after - before).norm(dim=-1) > 1e-3).tolist()
    return [[i for i, each in enumerate(row) if each] for row in has_moved]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), [[1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]]),
        (Where(bos=True), [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]]),
        (Where("prompt"), [[1, 2, 3], [0, 1, 2, 3, 4]]),
        (Where("response"), [[4, 5, 6, 7], [5, 6, 7]]),
        (Where(start=2), [[3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7]]),
        (Where(start=2, stop=4), [[3, 4], [2, 3]]),
        (Where("prompt", -2), [[2, 3], [3, 4]]),
        (Where("prompt", -2, -1), [[2], [3]]),
        (Where("prompt", 0, -1), [[1, 2], [0, 1, 2, 3]]),
        (Where("response", 1, 3), [[5, 6], [6, 7]]),
        (Where(tokens=(40, 2)), [[2, 7], [4, 7]]),
        (Where(classes=("special",)), [[7], [7]]),
        (Where(classes=("word",), stop=2), [[1, 2], [0, 1]]),
        (Where("prompt", tokens=(40,), bos=True), [[0, 2], [4]]),
    ],
)
def test_where_says_which_tokens(where: Where, expected: list[list[int]]) -> None:
    batch = torch.tensor([[BOS, 30, 40, 31, 32, 33, 34, 2], [30, 31, 32, 33, 40, 34, 35, 2]])
    assert moved(where, batch, [4, 5]) == expected


@pytest.mark.parametrize("where", [Where("response", 2), Where("prompt", -2), Where(start=8), Where(classes=("word",))])
def test_where_means_the_same_step_by_step_and_in_one_pass(where: Where) -> None:
    """The text that was written under it is the likeliest under it: at every token, with its prompt's length known."""
    steered = steer(tiny_model(), random_sae(), [Clamp(5, value=60.0, where=where)])
    batch = tokens(batch=2, length=6)
    written = steered.generate(batch, max_new_tokens=12)
    logits = steered.logits(written.tokens, n_prompt=[7, 7])
    assert torch.equal(logits[:, 6:-1].argmax(-1), written.tokens[:, 7:])


# --- inside a `with`


def test_inside_the_with_the_models_own_methods_are_steered_and_behind_it_they_are_not() -> None:
    model, batch = tiny_model(), tokens()
    plain, steered = model.generate(batch, max_new_tokens=8), steer(model, random_sae(), [Clamp(5, value=60.0)])
    with steered:
        inside = model.generate(batch, max_new_tokens=8)
        logits = steered.logits(batch)  # once, not on top of what stands already
        assert torch.equal(logits, model.logits(batch))
        assert steered.generate(batch, max_new_tokens=8).n_fired == 4 * (11 + 7)
        with pytest.raises(ModelError, match="it is steered, so no pass of it is untouched"):
            model.untouched(batch)
    assert torch.equal(inside, steered.generate(batch, max_new_tokens=8).tokens)
    assert torch.equal(logits, steered.logits(batch))
    assert torch.equal(model.generate(batch, max_new_tokens=8), plain)
    with pytest.raises(RuntimeError, match="broken"), steered:
        raise RuntimeError("broken")
    assert torch.equal(model.generate(batch, max_new_tokens=8), plain)


# --- caches


def test_a_cache_goes_on_under_the_interventions_it_was_made_under_and_no_others() -> None:
    model, batch = tiny_model(), tokens(batch=2)
    one = steer_rows(model, [plan(Clamp(5, value=30.0)), None])
    same = steer_rows(model, [plan(Clamp(5, value=30.0)), None])
    _, cache = model.step(batch, edits=one.edits)
    with pytest.raises(ModelError, match=r"row 0 was made under other edits .* no edits"):
        model.step(batch[:, :1], cache)
    with pytest.raises(ModelError, match="row 0 was made under"):
        model.step(batch[:, :1], cache, edits=steer_rows(model, [plan(Clamp(5, value=31.0)), None]).edits)
    with pytest.raises(ModelError, match="row 1 was made under no edits"):
        model.step(batch[:, :1], cache, edits=steer_rows(model, [plan(Clamp(5, value=30.0))]).edits)
    logits, longer = model.step(batch[:, 3:5], cache, edits=same.edits)
    whole = one.logits(torch.cat([batch, batch[:, 3:5]], dim=1), n_prompt=[12, 12])
    torch.testing.assert_close(logits, whole[:, -1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="it has gone on since"):
        model.step(batch[:, :1], cache, edits=same.edits)
    row, _ = model.step(batch[1:, :1], longer.select([1]))  # the row without interventions goes on without any
    whole = model.logits(torch.cat([batch, batch[:, 3:5], batch[:, :1]], dim=1)[1:])
    torch.testing.assert_close(row, whole[:, -1], rtol=1e-4, atol=1e-4)


def test_a_cache_knows_its_edits_where_they_are_plain_ones_or_stand() -> None:
    model, batch = tiny_model(), tokens(batch=1)
    edit, other = (Edit(HOOKPOINT, lambda rows, first: rows), Edit(HOOKPOINT, lambda rows, first: rows * 1.0))
    _, cache = model.step(batch, edits=[edit])
    with pytest.raises(ModelError, match="made under other edits"):
        model.step(batch[:, :1], cache, edits=[other])
    _, cache = model.step(batch[:, :1], cache, edits=[edit])
    with steer(model, random_sae(), [Clamp(5, value=1.0)]):
        with pytest.raises(ModelError, match="made under other edits"):
            model.step(batch[:, :1], cache, edits=[edit])
        _, inside = model.step(batch)
        model.step(batch[:, :1], inside)
    with pytest.raises(ModelError, match="made under other edits"):
        model.step(batch[:, :1], inside)


def test_the_same_tokens_as_prompt_and_as_response_are_other_caches_where_that_matters() -> None:
    """A prefix that was a response in one turn and is a prompt in the next was not run under the same."""
    batch, given = tokens(batch=1), tiny_model().given

    def keys(*interventions: Intervention) -> list[tuple[str, ...]]:
        return [steer_rows(tiny_model(), [plan(*interventions)]).keys(given(batch, n_prompt=[n])) for n in (4, 9)]

    assert len(set(keys(Clamp(5, value=1.0, where=Where("response"))))) == 2
    assert len(set(keys(Clamp(5, value=1.0, where=Where(start=3))))) == 1


# --- hooks that do not fire


def test_a_hook_that_never_fires_is_an_error_and_no_steered_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a compiled graph leaves hooks out."""
    model, steered = tiny_model(), steer(tiny_model(), random_sae(), [Clamp(5, value=60.0)])
    leave_taps_out(monkeypatch)
    for run in (lambda: steered.generate(tokens(), max_new_tokens=2), lambda: steered.logits(tokens())):
        with pytest.raises((HookpointError, StageError), match="fired"):
            run()
    with steered, pytest.raises(HookpointError, match="fired for 0 rows"):
        model.generate(tokens(), max_new_tokens=2)


def test_steering_that_forgets_a_place_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    steered = steer(tiny_model(), random_sae(), [Clamp(5, value=60.0)])
    monkeypatch.setattr(Steered, "_of_pass", lambda self, given, ledger: ())
    with pytest.raises(StageError, match="fired at 0 of 12 positions"):
        steered.logits(tokens())


# --- padding and the model


def test_padding_is_never_seen_by_any_family(tiny_families: list[LanguageModel]) -> None:
    for model in tiny_families:
        batch, padding = side_by_side([torch.arange(5, 14), torch.arange(20, 24), torch.tensor([50])])
        together = model.generate(batch, padding=padding, max_new_tokens=6)
        for row, n in enumerate(padding):
            assert torch.equal(together[row, n:], model.generate(batch[row : row + 1, n:], max_new_tokens=6)[0]), (
                model.name
            )


@pytest.fixture
def tiny_families() -> list[LanguageModel]:
    """One with positions that are learned, one with rotary ones, one with a bias by distance."""
    return [_tiny(name) for name in ("gpt2", "gemma2", "bloom", "opt")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding": [1]}, r"padding \[1\]: one number"),
        ({"padding": [0, 12]}, "nothing of that text is left"),
        ({"padding": [0, -1]}, "one number from 0 to 12"),
        ({"seed": [1]}, "seed: 1 of them for 2 rows"),
    ],
)
def test_padding_and_seeds_must_fit_the_batch(options: dict[str, list[int]], words: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=words):
        tiny_model().generate(tokens(batch=2), max_new_tokens=2, **options)


def test_positions_are_counted_in_each_text() -> None:
    given = PassTokens(torch.zeros(2, 3, dtype=torch.int64), 4, (0, 5), (7, 2), (1, 0))
    assert given.positions.tolist() == [[4, 5, 6], [-1, 0, 1]]
    assert given.n_text == (3, 2)


def test_on_the_built_in_model_rows_together_are_rows_alone() -> None:
    """With real text and eight prompts in four languages, of other lengths, other latents and strengths each."""
    model = load_model("planted", self_test=False)
    draw = torch.Generator().manual_seed(0)
    ways = torch.nn.functional.normalize(torch.randn(N_LATENTS, model.d_model, generator=draw), dim=1)
    sae = SparseAutoencoder("resid_post.1", ReLU(), ways, torch.zeros(N_LATENTS), ways * 2, torch.zeros(model.d_model))
    sources = Sources.of([sae])
    prompts = [model.tokenizer.prompt(text)[0] for text in bridge_prompts()[:8]]
    plans = [make_plan(model, [Clamp(row, value=3.0 + row)], sources) if row % 3 else None for row in range(8)]
    batch, padding = side_by_side(prompts)
    together = steer_rows(model, plans).generate(batch, padding=padding, max_new_tokens=16)
    for row, (each, text) in enumerate(zip(plans, prompts, strict=True)):
        one = steer_rows(model, [each]).generate(text[None], max_new_tokens=16)
        assert torch.equal(together.tokens[row, padding[row] :], one.tokens[0])
        assert together.stamps[row] == one.stamps[0]
