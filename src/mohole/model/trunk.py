"""The layers before a change, run once: what they gave is kept, and passes that change something further on begin there.

A pass with an edit at layer L repeats what the untouched pass did in every layer before it. Five ablations and a
reconstruction at layer 2 of 5 cost 3.5 passes this way, not 6. In the middle of a deep model half is saved.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mohole.errors import HookpointError, ModelError
from mohole.model.hookpoints import parse_hookpoint

Tokens = Int[Tensor, "batch position"]


@dataclass(frozen=True, slots=True)
class Trunk:
    """What the first `n_layers` blocks of a model made of `tokens`, with nothing changed."""

    tokens: Tokens
    n_layers: int
    output: Any
    """What the last of these blocks returned: a tensor, or a tuple that begins with one."""

    def check(self, tokens: Tokens, hookpoints: Sequence[str]) -> None:
        """Can a pass over `tokens` that reads or edits at `hookpoints` (by mohole's names) begin here?

        Raises:
            ModelError: it is a trunk of other tokens. HookpointError: a place that the trunk has behind it.
        """
        if not torch.equal(self.tokens, tokens):
            raise ModelError("trunk: it is of other tokens; make one of these with `untouched`")
        for name in hookpoints:
            if layers_before(name) < self.n_layers:
                raise HookpointError(
                    f"{name}: the trunk has {self.n_layers} layers behind it, this place among them; "
                    "name it in `changes` when the trunk is made"
                )


@dataclass(frozen=True, slots=True)
class Untouched:
    """What one pass gave that nothing was changed in."""

    logits: Float[Tensor, "batch position vocab"]
    rows: dict[str, Float[Tensor, "batch position d"]]
    trunk: Trunk | None
    """Where passes over the same tokens may begin; None: at the first layer."""


def layers_before(hookpoint: str) -> int:
    """How many blocks have done all their work when this hookpoint (by mohole's name) is reached.

    >>> layers_before("mlp_out.3"), layers_before("resid_post.3"), layers_before("embed")
    (3, 4, 0)
    """
    point = parse_hookpoint(hookpoint)
    if point.layer is None:
        return 0
    return point.layer + (point.kind == "resid_post")


def kept(output: Any) -> Any:
    """A block's output with memory of its own: later blocks may write into it."""
    if isinstance(output, tuple):
        return tuple(kept(part) for part in output)
    return output.clone() if isinstance(output, Tensor) else output


@contextmanager
def recording(block: nn.Module) -> Iterator[list[Any]]:
    """While it is open, what `block` returns is added to the list."""
    outputs: list[Any] = []
    handle = block.register_forward_hook(lambda _module, _arguments, output: outputs.append(kept(output)))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def beginning_at(blocks: Sequence[nn.Module], trunk: Trunk | None) -> Iterator[None]:
    """While it is open, the trunk's blocks return what the last of them did, at once. Their hooks see that, too."""
    skipped = list(blocks[: trunk.n_layers]) if trunk else []
    own = [
        block.__dict__.get("forward") for block in skipped
    ]  # a wrapper that was put there before, as accelerate does
    try:
        for block in skipped:
            assert trunk is not None
            block.forward = partial(_given, trunk.output)
        yield
    finally:
        for block, before in zip(skipped, own, strict=True):
            if before is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = before


def _given(output: Any, *_arguments: Any, **_options: Any) -> Any:
    return kept(output)
