"""Reading and writing activations while a model runs: taps on its modules, always removed. Knows no family and no names' meaning.

A tap does at one hookpoint what a forward hook would. "Hook" alone means one of torch's here: somebody else's, or what a tap has
to be beside those. A tap costs nothing measurable beside a layer; wrappers that trace or re-implement the model cost 1.15 to
4.5 times a bare forward. Four traps are handled here, once:
  - a layer may return a tensor or a tuple whose first entry is the tensor; `output[0]` on a tensor is batch row 0;
  - a module may see rows flattened to [batch * position, d] (OPT's MLP);
  - later code may write into the same memory (Falcon adds attention to the MLP's output in place), so what is read is a copy,
    and so is what is written (an edit may spare that: `Edit.keeps_nothing`);
  - the last layers are not needed by a read, so the pass stops when the last hookpoint has been read.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.hooks import RemovableHandle

from mohole.errors import HookpointError, ModelError, NumericsError

Rows = Float[Tensor, "batch position d"]


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the activation at `hookpoint`.

    `change(rows, first_position)` gets the rows [batch, position, d] of this forward pass, a copy of its own unless
    `keeps_nothing`, and returns the rows that take their place. `first_position` is the text position of rows[:, 0]: 0, or the
    number of cached positions when generation feeds one token at a time. What it returns unchanged stays bitwise the same.
    """

    hookpoint: str
    change: Callable[[Rows, int], Rows]
    keeps_nothing: bool = False
    """`change` writes nothing into the rows it gets and holds on to none of those it returns, so neither are copied."""
    is_checked: bool = False
    """`change` itself raises where a row that it changes becomes NaN or infinite, so nobody looks again."""


@dataclass(slots=True)
class EditTally:
    """How many rows (sequence x position) the model ran, and how many each edit replaced: proof that edits fired."""

    n_rows: int = 0
    n_edited: list[int] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Every edit saw every row that the model ran."""
        return all(edited == self.n_rows for edited in self.n_edited)

    def add(self, n_rows: int, n_edited: Sequence[int]) -> None:
        """Count one forward pass."""
        self.n_rows += n_rows
        before = self.n_edited or [0] * len(n_edited)
        self.n_edited = [old + new for old, new in zip(before, n_edited, strict=True)]


@dataclass(frozen=True, slots=True)
class Site:
    """One side of one module. The activation is `scale` times what the module takes (input) or gives (output)."""

    module: nn.Module
    side: Literal["input", "output"]
    scale: float = 1.0
    columns: slice | None = None
    """The part of each row that it is; None: all of it."""


@dataclass(slots=True)
class Pass:
    """What one forward pass gave: its output (None when it was stopped early), rows by hookpoint, rows replaced per edit."""

    output: Any
    rows: dict[str, Tensor]
    n_edited: list[int]


class _Stop(Exception):  # noqa: N818  (a signal, not an error)
    """Everything asked for has been read."""


def run_hooked(
    forward: Callable[[], Any],
    sites: Mapping[str, Site],
    *,
    shape: tuple[int, int],
    reads: Sequence[str] = (),
    edits: Sequence[Edit] = (),
    first_position: int = 0,
    stop: bool = False,
    held_as: torch.dtype | None = None,
) -> Pass:
    """Run `forward` with taps at `sites`, then remove them. Rows read at an edited hookpoint are the edited rows, also where
    what was edited is a part of what is read.

    `shape` is (batch, position) of this pass. With `stop`, the pass ends when every read is done and `output` is None.
    `held_as` is the type of the rows that are read; None: the model's own.

    Raises:
        HookpointError: a hookpoint that never ran in this pass, or ran twice; an edit that returned another shape.
        NumericsError: an edit that returned a NaN or an infinity.
    """
    result = Pass(None, {}, [0] * len(edits))
    by_module: dict[nn.Module, list[_Tap]] = {}
    # Edits first: a read sees what the edits made of its module.
    names = [*(edit.hookpoint for edit in edits), *reads]
    for name in dict.fromkeys(names):
        own = [(index, edit) for index, edit in enumerate(edits) if edit.hookpoint == name]
        tap = _Tap(name, sites[name], shape, own, first_position, result, reads, stop, held_as)
        by_module.setdefault(tap.site.module, []).append(tap)
    tapped: list[_Tapped] = []
    try:
        for module, taps in by_module.items():
            tapped.append(_Tapped(module, taps))
        result.output = forward()
    except _Stop:
        return result
    finally:
        for each in tapped:
            each.remove()
    for name in reads:
        if name not in result.rows:
            raise HookpointError(f"{name}: its module did not run in this forward pass; its family's layout is wrong")
    for edit, count in zip(edits, result.n_edited, strict=True):
        if count != shape[0] * shape[1]:
            raise HookpointError(f"{edit.hookpoint}: the edit fired for {count} rows of {shape[0] * shape[1]}")
    return result


class _Tapped:
    """A module with taps at what it takes and gives, until they are removed.

    They stand in its `forward`, not in hooks: torch calls a module that has any hook by a longer way, and makes and removes the
    hook's handle each pass, which together cost 10 to 25 microseconds of a pass of 3 ms. Where somebody else's hooks are, the
    model goes on with what those return, so there the taps are hooks that run after them.

    A class, not a closure: jaxtyping would recompile a closure's checks each pass.
    """

    def __init__(self, module: nn.Module, taps: Sequence["_Tap"]) -> None:
        self.module = module
        self.inputs = [tap for tap in taps if tap.site.side == "input"]
        self.outputs = [tap for tap in taps if tap.site.side == "output"]
        self.handles: list[RemovableHandle] = []
        if module._forward_hooks or module._forward_pre_hooks or _has_any_global_hook():  # type: ignore[no-untyped-call]
            self.handles.append(module.register_forward_pre_hook(self.before, with_kwargs=True))
            self.handles.append(module.register_forward_hook(self.after))
        else:
            self.replaced, self.forward = module.__dict__.get("forward"), module.forward
            module.__dict__["forward"] = self

    def remove(self) -> None:
        """Leave the module as it was before, whoever else has changed it meanwhile."""
        for handle in self.handles:
            handle.remove()
        if self.handles:
            return
        above = self.module.__dict__.get("forward")
        while isinstance(above, _Tapped) and above is not self and above.replaced is not self:
            above = above.replaced
        if isinstance(above, _Tapped) and above is not self:  # another thread's pass, which began later and still runs
            above.replaced, above.forward = self.replaced, self.forward
        elif self.replaced is None:
            self.module.__dict__.pop("forward", None)
        else:
            self.module.__dict__["forward"] = self.replaced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.inputs:
            args, kwargs = self.before(self.module, args, kwargs)
        return self.after(self.module, args, self.forward(*args, **kwargs))

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments that the module takes in place of these."""
        for tap in self.inputs:
            changed = tap.visit(_tensor(args[0] if args else kwargs.get("hidden_states"), module))
            if changed is not None:
                args, kwargs = ((changed, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": changed})
        return args, kwargs

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The output that the module gives in place of this."""
        for tap in self.outputs:
            is_tuple = isinstance(output, tuple)
            changed = tap.visit(_tensor(output[0] if is_tuple else output, module))
            if changed is not None:
                output = (changed, *output[1:]) if is_tuple else changed
        return output


@dataclass(slots=True)
class _Tap:
    """What is read and edited at one hookpoint in one pass."""

    name: str
    site: Site
    shape: tuple[int, int]
    edits: Sequence[tuple[int, Edit]]
    """Those of this hookpoint, each with its place among all edits of the pass."""
    first_position: int
    result: Pass
    reads: Sequence[str]
    stop: bool
    held_as: torch.dtype | None

    def visit(self, raw: Tensor) -> Tensor | None:
        """Edit and read the module's tensor; what it is to be replaced by, None to leave it."""
        scale, columns = self.site.scale, self.site.columns
        whole = _as_rows(raw, self.shape, self.name)
        rows = whole if columns is None else whole[..., columns]
        rows = rows if scale == 1.0 else rows * scale
        edited = rows
        for index, edit in self.edits:
            edited = _apply(edit, edited, self.first_position)
            self.result.n_edited[index] += self.shape[0] * self.shape[1]
        if self.name in self.reads:
            self.result.rows[self.name] = _copied(edited, self.held_as)
            if self.stop and len(self.result.rows) == len(set(self.reads)):
                raise _Stop
        if not self.edits:
            return None
        if columns is None:
            return _as_raw(raw, rows, edited, scale)
        changed = whole.clone()
        changed[..., columns] = _as_raw(whole[..., columns], rows, edited, scale)
        return changed.reshape(raw.shape)


def _tensor(value: object, module: nn.Module) -> Tensor:
    if not isinstance(value, Tensor):
        raise ModelError(f"{type(module).__name__}: expected a tensor of activations, found {type(value).__name__}")
    return value


def _as_rows(raw: Tensor, shape: tuple[int, int], name: str) -> Tensor:
    if raw.shape[:-1] == shape:
        return raw
    if raw.shape[:-1] != (shape[0] * shape[1],):
        raise ModelError(f"{name}: its module works on shape {tuple(raw.shape)}, not on one row per token of {shape}")
    return raw.reshape(*shape, raw.shape[-1])


def _copied(rows: Tensor, held_as: torch.dtype | None) -> Tensor:
    return rows.to(held_as or rows.dtype, copy=True)


def _apply(edit: Edit, rows: Tensor, first_position: int) -> Tensor:
    changed = edit.change(rows if edit.keeps_nothing else rows.clone(), first_position)
    if changed.shape != rows.shape:
        raise HookpointError(
            f"{edit.hookpoint}: the edit returned shape {tuple(changed.shape)} for rows of shape {tuple(rows.shape)}"
        )
    if not (edit.keeps_nothing and changed.dtype is rows.dtype and changed.device == rows.device):
        changed = changed.to(dtype=rows.dtype, device=rows.device, copy=not edit.keeps_nothing)
    if not edit.is_checked:
        demand_finite(edit.hookpoint, changed)
    return changed


def demand_finite(hookpoint: str, edited: Tensor, at: Tensor | None = None) -> None:
    """Of what an edit returned, at these rows [batch, position]; None: at all. Raises: NumericsError: a NaN or an infinity."""
    # A sum loses neither of them, and is one operator; `isfinite` is six. Where the sum overflows, they look again.
    if not math.isfinite(edited.sum().item()) and not bool(torch.isfinite(edited if at is None else edited[at]).all()):
        raise NumericsError(f"{hookpoint}: the edit returned a NaN or an infinity; use a smaller strength")


def _as_raw(raw: Tensor, rows: Tensor, edited: Tensor, scale: float) -> Tensor:
    """Edited rows as the module's own tensor. What was not changed keeps its bits, which dividing by `scale` would not."""
    if scale != 1.0:
        edited = torch.where(edited == rows, raw.reshape(rows.shape), edited / scale)
    return edited if edited.shape == raw.shape else edited.reshape(raw.shape)
