"""Proof, at load time, that a model's hookpoints are where their names say. Three short forward passes, no reference needed.

1. Reading. resid_pre + attn_out + mlp_out = resid_post, to rounding, at every layer and token. A branch taken before its
   post-norm or multiplier has cosine 1 and the wrong length, so the whole difference is compared, not the angle.
   resid_post.L is resid_pre.L+1 to the bit. resid_pre.0 - embed is the same for every token (the position's part).
   The head applied to the last resid_post gives the model's own logits.
2. Writing. With every attn_out and mlp_out set to zero, the stream leaves the last layer as it entered the first, to the bit:
   nothing else is added to it.
3. mlp_in. An MLP treats positions alike, so copying position 0's input to another position must copy its output; each
   layer copies to a position of its own. (What is before the norm would pass as well: that is the layout's word.)
4. z, where the family has it. Projected, as the model projects it, it is attn_out; and copied to another position it takes
   position 0's attn_out along: nothing else goes into it. A model that fails here is kept, without z. (Which columns are whose
   is the layout's word: heads side by side, each as wide as the others.)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mohole.errors import HookpointError, ModelError
from mohole.model.hookpoints import Kind
from mohole.model.hooks import Edit

if TYPE_CHECKING:
    from mohole.model.language_model import LanguageModel

N_SEQUENCES, N_POSITIONS = 2, 12
SUM_ROUNDINGS = 2.0  # errors allowed, in units of eps x (|resid_pre| + |attn_out| + |mlp_out|); up to 0.5 was seen
LOGIT_ROUNDINGS = 8.0  # the same, relative to the largest logit; 0 was seen: same modules, same shapes
COPIED_SHARE = 0.02  # of the two positions' difference in mlp_out may be left when mlp_in is copied


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was measured. `error` passes up to `limit`; `cosine` and `norm_ratio` compare found with expected."""

    what: str
    error: float
    limit: float
    cosine: float = 1.0
    norm_ratio: float = 1.0

    is_z: bool = False
    """It is about the heads' outputs, which a model may do without."""

    @property
    def passed(self) -> bool:
        return self.error <= self.limit


@dataclass(frozen=True, slots=True)
class SelfTest:
    """All checks of a model, in the order of its layers."""

    checks: tuple[Check, ...]

    def first_failure(self) -> Check | None:
        """The first check that failed, which names the place to look at."""
        return next((check for check in self.checks if not check.passed), None)


def prove_hookpoints(model: "LanguageModel") -> SelfTest:
    """Run the self-test and keep its measurements in `model.self_test`.

    Raises:
        ModelError: a hookpoint is not what its name says: which one, and the measured error.
    """
    try:
        measured = measure(model)
        if failure := next((check for check in measured.checks if not check.passed and check.is_z), None):
            model.without_z(f"{failure.what} fails with error {failure.error:.2g} (limit {failure.limit:.2g})")
            measured = SelfTest(tuple(check for check in measured.checks if not check.is_z))
    except HookpointError as error:
        raise ModelError(f"{model.name}: the {model.family} family is refused: {error}") from error
    if failure := measured.first_failure():
        raise ModelError(
            f"{model.name}: the {model.family} family is refused: {failure.what} fails with error {failure.error:.2g} "
            f"(limit {failure.limit:.2g}, cosine {failure.cosine:.6f}, norm ratio {failure.norm_ratio:.4f}); "
            "its layout in mohole/model/families.py is wrong, or its blocks do more than add attention and MLP to the stream"
        )
    model.self_test = measured
    return measured


def measure(model: "LanguageModel") -> SelfTest:
    """Every check, passed or not."""
    tokens = _probe_tokens(model)
    rows = {name: value.double() for name, value in model.read(tokens, model.hookpoints()).items()}
    eps = torch.finfo(model.dtype).eps
    if bad := [name for name, value in rows.items() if not bool(torch.isfinite(value).all())]:
        raise ModelError(
            f"{model.name}: {bad[0]} holds a NaN or an infinity: damaged weights, or {model.dtype} is too narrow"
        )
    stream = rows["resid_pre.0"]
    if other := [
        name
        for name, value in rows.items()
        if value.shape[-1] != model.width(name) or value.shape[:2] != stream.shape[:2]
    ]:
        what = f"{other[0]} (width {rows[other[0]].shape[-1]}) is as wide as it should be ({model.width(other[0])})"
        return SelfTest((Check(what, 1.0, 0.0),))
    checks = [_embed_check(rows, eps)]
    for layer in range(model.n_layers):
        if layer > 0:
            before, after = rows[f"resid_post.{layer - 1}"], rows[f"resid_pre.{layer}"]
            checks.append(_compare(f"resid_post.{layer - 1} = resid_pre.{layer}", after, before, 0.0))
        checks.append(_sum_check(rows, layer, eps))
    checks.append(_head_check(model, tokens, rows, eps))
    checks.append(_write_check(model, tokens))
    checks.extend(_copy_checks(model, tokens, rows, "mlp_in", "mlp_out"))
    if model.heads is not None:
        checks.extend(_projection_checks(model, rows, eps))
        checks.extend(_copy_checks(model, tokens, rows, "z", "attn_out"))
    return SelfTest(tuple(checks))


def _probe_tokens(model: "LanguageModel") -> Tensor:
    """Different ordinary tokens at every place: special tokens are usually at the ends of the vocabulary."""
    n_positions = min(N_POSITIONS, model.context or N_POSITIONS)
    if n_positions < 2:
        raise ModelError(
            f"{model.name}: a context of {n_positions} is too short for the self-test; load with self_test=False"
        )
    index = torch.arange(N_SEQUENCES * n_positions).reshape(N_SEQUENCES, n_positions)
    low, width = model.vocab_size // 8, max(1, model.vocab_size // 2)
    return low + (index * max(1, width // index.numel())) % width


def _embed_check(rows: dict[str, Tensor], eps: float) -> Check:
    stream, embed = rows["resid_pre.0"], rows["embed"]
    rest = stream - embed
    scale = (stream.abs() + embed.abs()).norm(dim=-1)
    error = float(((rest - rest[:1]).norm(dim=-1) / (scale + scale[:1])).max())
    return Check("embed + position = resid_pre.0", error, SUM_ROUNDINGS * eps, *_alike(stream, embed + rest[:1]))


def _sum_check(rows: dict[str, Tensor], layer: int, eps: float) -> Check:
    before, attn, mlp = (rows[f"{kind}.{layer}"] for kind in ("resid_pre", "attn_out", "mlp_out"))
    after = rows[f"resid_post.{layer}"]
    error = (before + attn + mlp - after).norm(dim=-1) / (before.abs() + attn.abs() + mlp.abs()).norm(dim=-1)
    what = f"resid_pre.{layer} + attn_out.{layer} + mlp_out.{layer} = resid_post.{layer}"
    return Check(what, float(error.max()), SUM_ROUNDINGS * eps, *_alike(attn + mlp, after - before))


def _head_check(model: "LanguageModel", tokens: Tensor, rows: dict[str, Tensor], eps: float) -> Check:
    last = f"resid_post.{model.n_layers - 1}"
    what = f"head({last}) = the model's logits"
    return _compare(what, model.unembed(rows[last]).double(), model.logits(tokens).double(), LOGIT_ROUNDINGS * eps)


def _write_check(model: "LanguageModel", tokens: Tensor) -> Check:
    layers = range(model.n_layers)
    edits = [
        Edit(f"{kind}.{layer}", lambda rows, _: torch.zeros_like(rows))
        for layer in layers
        for kind in ("attn_out", "mlp_out")
    ]
    last = f"resid_post.{model.n_layers - 1}"
    rows = model.read(tokens, ["resid_pre.0", last], edits)
    what = f"{last} = resid_pre.0 with every attn_out and mlp_out set to zero"
    return _compare(what, rows[last].double(), rows["resid_pre.0"].double(), 0.0)


def _projection_checks(model: "LanguageModel", rows: dict[str, Tensor], eps: float) -> list[Check]:
    checks = []
    for layer in range(model.n_layers):
        expected = rows[f"attn_out.{layer}"]
        what = f"z.{layer} through the output projection = attn_out.{layer}"
        try:
            projected = model.project(layer, rows[f"z.{layer}"]).double()
        except (TypeError, RuntimeError, ValueError):  # the layout's modules do not follow each other
            projected = torch.zeros_like(expected)
        checks.append(_compare(what, projected, expected, LOGIT_ROUNDINGS * eps, is_z=True))
    return checks


def _copy_checks(
    model: "LanguageModel", tokens: Tensor, rows: dict[str, Tensor], kind: Kind, decides: Kind
) -> list[Check]:
    layers = range(model.n_layers)
    target = [1 + layer % (tokens.shape[1] - 1) for layer in layers]
    edits = [Edit(f"{kind}.{layer}", _CopyFirst(target[layer])) for layer in layers]
    edited = model.read(tokens, [f"{decides}.{layer}" for layer in layers], edits)
    checks = []
    for layer in layers:
        name = f"{decides}.{layer}"
        left = (edited[name][:, target[layer]] - edited[name][:, 0]).double().norm()
        usual = (rows[name][:, target[layer]] - rows[name][:, 0]).norm()
        what = f"{kind}.{layer} alone decides {name}"
        error = float(left / usual) if usual > 0 else float(left)
        checks.append(Check(what, error, COPIED_SHARE, is_z=kind == "z"))
    return checks


@dataclass(frozen=True, slots=True)
class _CopyFirst:
    target: int

    def __call__(self, rows: Tensor, first_position: int) -> Tensor:
        rows[:, self.target] = rows[:, 0]
        return rows


def _compare(what: str, found: Tensor, expected: Tensor, limit: float, *, is_z: bool = False) -> Check:
    """Largest difference relative to the largest expected value, with angle and length."""
    scale = float(expected.abs().max())
    error = float((found - expected).abs().max()) / (scale if scale > 0 else 1.0)
    return Check(what, error, limit, *_alike(found, expected), is_z)


def _alike(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """(cosine, ratio of norms) over all rows; 1 and 1 for two zeros."""
    found_norm, expected_norm = float(found.norm()), float(expected.norm())
    if found_norm == 0 or expected_norm == 0:
        return (1.0, 1.0) if found_norm == expected_norm else (0.0, 0.0 if found_norm == 0 else float("inf"))
    return float((found * expected).sum()) / (found_norm * expected_norm), found_norm / expected_norm
