"""Taps on modules written here: tensor and tuple outputs, flattened rows, and nothing left behind whatever happens."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mohole.errors import HookpointError, ModelError, NumericsError
from mohole.model import Edit, EditTally, LanguageModel
from mohole.model.hooks import Site, run_hooked

Tiny = Callable[[str], LanguageModel]
SHAPE = (2, 3)


class Gives(nn.Module):
    """Doubles its input and gives it as `form` says."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, hidden_states: Tensor, extra: int = 7) -> Any:
        doubled = 2 * hidden_states
        forms = {
            "tensor": doubled,
            "tuple": (doubled, extra),
            "flat": doubled.reshape(-1, 4),
            "dict": {"rows": doubled},
        }
        return forms[self.form]


def rows() -> Tensor:
    return torch.arange(24.0).reshape(2, 3, 4)


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("form", ["tensor", "tuple", "flat"])
@pytest.mark.parametrize("by_name", [False, True])
def test_both_sides_of_every_form(form: str, by_name: bool) -> None:
    module = Gives(form)
    sites = {"in": Site(module, "input"), "out": Site(module, "output")}
    edits = [Edit("in", lambda rows, _: rows + 1), Edit("out", lambda rows, _: rows * 10)]
    call = (lambda: module(hidden_states=rows(), extra=5)) if by_name else (lambda: module(rows(), extra=5))
    done = run_hooked(call, sites, shape=SHAPE, reads=["in", "out"], edits=edits)
    assert torch.equal(done.rows["in"], rows() + 1)
    assert torch.equal(done.rows["out"], 20 * (rows() + 1))
    assert torch.equal(first(done.output).reshape(2, 3, 4), done.rows["out"])
    assert first(done.output).shape == first(module(rows())).shape
    assert done.n_edited == [6, 6]
    if form == "tuple":
        assert done.output[1] == 5


def test_edits_of_one_place_run_in_order() -> None:
    module = Gives("tensor")
    edits = [Edit("out", lambda rows, _: rows + 1), Edit("out", lambda rows, _: rows * 2)]
    done = run_hooked(lambda: module(rows()), {"out": Site(module, "output")}, shape=SHAPE, edits=edits)
    assert torch.equal(done.output, (2 * rows() + 1) * 2)


def test_a_multiplied_site_is_read_and_written_in_the_streams_units() -> None:
    module = Gives("tensor")
    site = {"out": Site(module, "output", scale=0.3)}
    target = torch.full((2, 3, 4), 5.0)
    done = run_hooked(lambda: module(rows()), site, shape=SHAPE, reads=["out"], edits=[Edit("out", lambda *_: target)])
    torch.testing.assert_close(done.output * 0.3, target)
    clean = run_hooked(lambda: module(rows()), site, shape=SHAPE, reads=["out"])
    assert torch.equal(clean.rows["out"], 2 * rows() * 0.3)


def test_what_a_multiplied_edit_leaves_alone_keeps_its_bits() -> None:
    module = Gives("tensor")
    inputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    site = {"out": Site(module, "output", scale=0.3)}

    def second_position(rows: Tensor, _: int) -> Tensor:
        rows[:, 1] = 0
        return rows

    done = run_hooked(lambda: module(inputs), site, shape=SHAPE, edits=[Edit("out", second_position)])
    assert torch.equal(done.output[:, [0, 2]], 2 * inputs[:, [0, 2]])
    assert torch.equal(done.output[:, 1], torch.zeros(2, 4))


def test_nobody_elses_memory_is_written() -> None:
    """Neither an edit in place, nor a model that writes into its output in place, reaches what others hold."""
    module, held = Gives("tensor"), torch.ones(2, 3, 4)
    inputs = rows()

    def forward() -> Tensor:
        output: Tensor = module(inputs)
        output += 100
        return output

    done = run_hooked(
        forward, {"out": Site(module, "output")}, shape=SHAPE, edits=[Edit("out", lambda *_: held)], reads=["out"]
    )
    assert torch.equal(held, torch.ones(2, 3, 4))
    assert torch.equal(done.rows["out"], held)
    run_hooked(forward, {"in": Site(module, "input")}, shape=SHAPE, edits=[Edit("in", lambda rows, _: rows.zero_())])
    assert torch.equal(inputs, rows())


def n_hooks(module: nn.Module) -> int:
    """Hooks and replaced forwards, of a module and its parts."""
    return sum(
        ("forward" in part.__dict__) + len(part._forward_hooks) + len(part._forward_pre_hooks)
        for part in module.modules()
    )


@pytest.mark.parametrize("reads", [["in"], ["out"], ["in", "out"]])
def test_what_somebody_elses_hooks_make_of_it_is_read_and_edited(reads: list[str]) -> None:
    """The model goes on with what they return, so that is the activation."""
    module = Gives("tensor")
    module.register_forward_pre_hook(lambda _module, args: (args[0] + 1,))
    module.register_forward_hook(lambda _module, _args, output: output * 10)
    sites = {"in": Site(module, "input"), "out": Site(module, "output")}
    edits = [Edit("in", lambda rows, _: rows + 2), Edit("out", lambda rows, _: rows + 3)]
    done = run_hooked(lambda: module(rows()), sites, shape=SHAPE, reads=reads, edits=edits)
    expected = {"in": rows() + 1 + 2, "out": 2 * (rows() + 3) * 10 + 3}
    assert torch.equal(done.output, expected["out"])
    for name in reads:
        assert torch.equal(done.rows[name], expected[name])
    assert n_hooks(module) == 2
    assert torch.equal(module(rows()), 2 * (rows() + 1) * 10)


def test_what_a_hook_on_all_modules_makes_of_it_is_read() -> None:
    """As a profiler's or a quantiser's that is registered for every module at once."""
    module = Gives("tensor")
    handle = nn.modules.module.register_module_forward_hook(lambda _module, _args, output: output * 10)
    try:
        done = run_hooked(lambda: module(rows()), {"out": Site(module, "output")}, shape=SHAPE, reads=["out"])
    finally:
        handle.remove()
    assert torch.equal(done.rows["out"], done.output)


def test_passes_that_end_in_the_order_they_began_in_leave_nothing_behind() -> None:
    """Two threads share a model, which they must not. That is an error of the pass, and does not change the model for good."""
    module, first_ran, second_began = Gives("tensor"), threading.Event(), threading.Event()
    site = {"out": Site(module, "output")}

    def late() -> Tensor:
        second_began.set()
        assert first_ran.wait(10)
        output: Tensor = module(rows())
        return output

    def early() -> Tensor:
        later = pool.submit(run_hooked, late, site, shape=SHAPE, edits=[Edit("out", lambda rows, _: rows + 10)])
        waiting.append(later)
        assert second_began.wait(10)
        output: Tensor = module(rows())
        return output

    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Any]] = []
        run_hooked(early, site, shape=SHAPE, edits=[Edit("out", lambda rows, _: rows + 1)])
        first_ran.set()
        with pytest.raises(HookpointError, match="fired for 12 rows of 6"):
            waiting[0].result(10)
    assert n_hooks(module) == 0


def test_all_taps_go_though_somebody_took_one_away() -> None:
    one, other = Gives("tensor"), Gives("tensor")

    def forward() -> Tensor:
        output = other(one(rows()))
        del one.__dict__["forward"]
        return output

    sites = {"one": Site(one, "output"), "other": Site(other, "output")}
    run_hooked(forward, sites, shape=SHAPE, reads=["one", "other"])
    assert n_hooks(one) == n_hooks(other) == 0


def test_a_forward_that_somebody_put_there_is_called_and_put_back() -> None:
    """As accelerate does, where a module's weights are brought when it is called."""
    module = Gives("tensor")
    theirs = lambda hidden_states: -hidden_states  # noqa: E731
    module.forward = theirs  # type: ignore[method-assign]
    edit = Edit("out", lambda rows, _: rows + 1)
    done = run_hooked(lambda: module(rows()), {"out": Site(module, "output")}, shape=SHAPE, edits=[edit])
    assert torch.equal(done.output, 1 - rows())
    assert module.__dict__["forward"] is theirs


def test_an_edit_that_keeps_nothing_is_spared_the_copies() -> None:
    module, seen = Gives("tensor"), []

    def change(given: Tensor, _: int) -> Tensor:
        seen.append(given)
        return given

    kept = Edit("out", change, keeps_nothing=True)
    done = run_hooked(lambda: module(rows()), {"out": Site(module, "output")}, shape=SHAPE, edits=[kept])
    assert done.output is seen[0]
    bad = Edit("out", lambda given, _: given / 0, keeps_nothing=True)
    with pytest.raises(NumericsError, match="NaN or an infinity"):
        run_hooked(lambda: module(rows()), {"out": Site(module, "output")}, shape=SHAPE, edits=[bad])


def test_an_edit_that_looks_for_itself_is_not_looked_at_again() -> None:
    module = Gives("tensor")
    bad = Edit("out", lambda given, _: given / 0, is_checked=True)
    done = run_hooked(lambda: module(rows()), {"out": Site(module, "output")}, shape=SHAPE, edits=[bad])
    assert not done.output.isfinite().all()


def test_numbers_whose_sum_overflows_are_no_infinity() -> None:
    module, large = Gives("tensor"), torch.full((2, 3, 4), 3e38)
    site = {"out": Site(module, "output")}

    def replaced_by(target: Tensor) -> Any:
        return run_hooked(lambda: module(rows()), site, shape=SHAPE, edits=[Edit("out", lambda *_: target)]).output

    assert torch.equal(replaced_by(large), large)
    for wrong in (torch.nan, torch.inf, -torch.inf):
        target = large.clone()
        target[1, 2, 3] = wrong
        with pytest.raises(NumericsError):
            replaced_by(target)


class FailureError(Exception):
    """Raised by a test's own edit."""


def fails(rows: Tensor, first_position: int) -> Tensor:
    raise FailureError


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (fails, FailureError),
        (lambda rows, _: rows[:, :1], HookpointError),
        (lambda rows, _: rows / 0, NumericsError),
        (lambda rows, _: rows * torch.nan, NumericsError),
    ],
)
def test_hooks_are_gone_after_any_end(tiny: Tiny, tokens: Tensor, change: Any, error: type[Exception]) -> None:
    model = tiny("llama")
    clean = model.logits(tokens)
    before = n_hooks(model.hf)
    with pytest.raises(error):
        model.logits(tokens, [Edit("resid_post.0", lambda rows, _: rows + 1), Edit("mlp_in.1", change)])
    assert n_hooks(model.hf) == before
    with pytest.raises(error):
        model.generate(tokens, max_new_tokens=2, edits=[Edit("attn_out.1", change)])
    model.read(tokens, ["resid_pre.1"])
    assert n_hooks(model.hf) == before
    assert torch.equal(model.logits(tokens), clean)


def test_errors_of_edits_name_the_place(tiny: Tiny, tokens: Tensor) -> None:
    with pytest.raises(NumericsError, match=r"resid_post\.1: the edit returned a NaN"):
        tiny("llama").logits(tokens, [Edit("resid_post.1", lambda rows, _: rows * torch.inf)])
    with pytest.raises(HookpointError, match=r"resid_post\.1: the edit returned shape \(2, 1, 32\)"):
        tiny("llama").logits(tokens, [Edit("resid_post.1", lambda rows, _: rows[:, :1])])
    with pytest.raises(HookpointError, match=r"resid_post\.9: llama has 3 layers \(0-2\)"):
        tiny("llama").logits(tokens, [Edit("resid_post.9", lambda rows, _: rows)])


def test_a_module_that_never_runs_is_an_error() -> None:
    used, unused = Gives("tensor"), Gives("tensor")
    with pytest.raises(HookpointError, match="other: its module did not run"):
        run_hooked(lambda: used(rows()), {"other": Site(unused, "output")}, shape=SHAPE, reads=["other"], stop=True)
    edit = Edit("other", lambda rows, _: rows)
    with pytest.raises(HookpointError, match="other: the edit fired for 0 rows of 6"):
        run_hooked(lambda: used(rows()), {"other": Site(unused, "output")}, shape=SHAPE, edits=[edit])


def test_a_module_that_gives_something_else_is_an_error() -> None:
    gives_dict, gives_tensor = Gives("dict"), Gives("tensor")
    with pytest.raises(ModelError, match="Gives: expected a tensor of activations, found dict"):
        run_hooked(lambda: gives_dict(rows()), {"out": Site(gives_dict, "output")}, shape=SHAPE, reads=["out"])
    with pytest.raises(ModelError, match=r"out: its module works on shape \(2, 3, 4\), not on one row per token"):
        run_hooked(lambda: gives_tensor(rows()), {"out": Site(gives_tensor, "output")}, shape=(3, 2), reads=["out"])


def test_a_tally_is_complete_only_if_every_edit_saw_every_row() -> None:
    tally = EditTally()
    tally.add(10, [10, 10])
    tally.add(2, [2, 2])
    assert (tally.n_rows, tally.n_edited, tally.complete) == (12, [12, 12], True)
    tally.add(2, [2, 0])
    assert not tally.complete


def test_reading_nothing_runs_nothing(tiny: Tiny, tokens: Tensor) -> None:
    assert tiny("gpt2").read(tokens, []) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), "shape [batch, position]"),
        (torch.zeros(2, 0, dtype=torch.int64), "at least one"),
        (torch.full((1, 2), 96), "token 96 is outside its vocabulary (0-95)"),
        (torch.full((1, 2), -1), "token -1 is outside"),
        (torch.zeros(1, 65, dtype=torch.int64), "tokens take 65 positions, its context has 64"),
    ],
)
def test_tokens_that_cannot_be_meant(tiny: Tiny, wrong: Tensor, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        tiny("gpt2")._intake.check(wrong)
    assert message in str(caught.value)
