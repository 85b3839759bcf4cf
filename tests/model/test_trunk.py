"""A pass that begins at a trunk gives, to the bit, what the whole pass gives; and where it cannot, it is not used."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mohole.errors import HookpointError, ModelError
from mohole.model import Edit, EditTally, LanguageModel
from mohole.model.trunk import beginning_at, layers_before

Tiny = Callable[[str], LanguageModel]


def pushed(rows: Tensor, _first: int) -> Tensor:
    return rows + torch.linspace(-1, 1, rows.shape[-1])


def doubled_in_place(_module: object, taken: tuple[Tensor, ...]) -> None:
    taken[0].mul_(2.0)


def test_every_change_of_every_family_is_the_same_to_the_bit(tiny: Tiny, family: str, tokens: Tensor) -> None:
    model = tiny(family)
    clean = model.logits(tokens)
    for name in model.hookpoints():
        found = model.untouched(tokens, changes=[name])
        assert torch.equal(found.logits, clean)
        n_layers = layers_before(name)
        assert (found.trunk.n_layers if found.trunk else 0) == n_layers, f"{name}: proven"
        tally = EditTally()
        short = model.logits(tokens, [Edit(name, pushed)], trunk=found.trunk, tally=tally)
        assert torch.equal(short, model.logits(tokens, [Edit(name, pushed)]))
        assert tally.complete
        assert tally.n_rows == tokens.numel()
    assert torch.equal(model.logits(tokens), clean), "nothing is left behind"


def test_the_trunk_ends_before_the_first_of_several_changes(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("llama")
    found = model.untouched(tokens, reads=["resid_post.2"], changes=["resid_post.2", "mlp_in.1"])
    assert found.trunk is not None
    assert found.trunk.n_layers == 1
    assert torch.equal(found.rows["resid_post.2"], model.read(tokens, ["resid_post.2"])["resid_post.2"])
    assert model.untouched(tokens, changes=["embed", "mlp_in.2"]).trunk is None


def test_skipped_blocks_do_not_run(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("llama")
    trunk = model.untouched(tokens, changes=["mlp_in.2"]).trunk
    seen: list[int] = []
    handles = [
        block.mlp.register_forward_hook(lambda *_, layer=layer: seen.append(layer))
        for layer, block in enumerate(model.hf.model.layers)  # type: ignore[union-attr, arg-type]
    ]
    model.logits(tokens, trunk=trunk)
    for handle in handles:
        handle.remove()
    assert seen == [2]


def test_other_tokens_and_earlier_changes_are_refused(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("gpt2")
    trunk = model.untouched(tokens, changes=["mlp_in.2"]).trunk
    with pytest.raises(ModelError, match="of other tokens"):
        model.logits(tokens.flip(1), trunk=trunk)
    with pytest.raises(HookpointError, match=r"mlp_in\.1: the trunk has 2 layers"):
        model.logits(tokens, [Edit("mlp_in.1", pushed)], trunk=trunk)
    with pytest.raises(HookpointError, match=r"resid_post\.0: the trunk"):
        model.logits(tokens, [Edit("resid_post.0", pushed)], trunk=trunk)


def test_a_model_whose_layers_hand_on_more_than_they_return_runs_whole_passes(
    tiny: Tiny, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    monkeypatch.setattr(model, "_trunk_is_proven", {})
    remembered: list[Tensor] = []
    first, last = model.hf.model.layers[0], model.hf.model.layers[2]  # type: ignore[union-attr, index]
    writing = first.mlp.register_forward_hook(lambda _m, _a, output: remembered.append(output.sum(-1, keepdim=True)))  # type: ignore[union-attr]
    reading = last.mlp.register_forward_hook(lambda _m, _a, output: output + remembered[-1])  # type: ignore[union-attr]
    try:
        assert model.untouched(tokens, changes=["mlp_in.2"]).trunk is None
        assert model.untouched(tokens, changes=["mlp_in.2"]).trunk is None
    finally:
        writing.remove()
        reading.remove()


def test_layers_that_write_into_what_they_take_do_not_spoil_the_trunk(
    tiny: Tiny, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is made nor while it is used: the second pass that begins there is like the first."""
    model = tiny("llama")
    monkeypatch.setattr(model, "_trunk_is_proven", {})
    last = model.hf.model.layers[2]  # type: ignore[union-attr, index]
    writing = last.register_forward_pre_hook(doubled_in_place)  # type: ignore[union-attr]
    try:
        clean = model.logits(tokens)
        trunk = model.untouched(tokens, changes=["mlp_in.2"]).trunk
        assert trunk is not None
        for _ in range(2):
            assert torch.equal(model.logits(tokens, trunk=trunk), clean)
    finally:
        writing.remove()


def test_blocks_are_as_before_also_after_an_error(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("llama")
    trunk = model.untouched(tokens, changes=["mlp_in.2"]).trunk
    blocks = list(model.hf.model.layers)  # type: ignore[union-attr, arg-type]
    own = blocks[1].forward
    blocks[1].forward = own  # as a wrapper of another library would
    with beginning_at(blocks, trunk):
        assert blocks[1].forward is not own
    with pytest.raises(ZeroDivisionError), beginning_at(blocks, trunk):
        raise ZeroDivisionError
    assert blocks[1].forward is own
    assert blocks[1].__dict__.pop("forward") is own
    assert "forward" not in blocks[0].__dict__
