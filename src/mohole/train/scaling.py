"""Scaling laws of dictionaries, fitted to the tables of sweeps: how FVU falls with latents, sparsity and rows, and what it costs.

    width     L(n)    = a n^-alpha + e                                                  one sparsity, one number of rows
    sparsity  L(n, k) = exp(alpha + beta_k log k + beta_n log n + gamma log k log n) + exp(zeta + eta log k)    one number of rows
    rows      L(n, D) = a n^-alpha + b D^-beta + e                                      one sparsity

L is FVU, n latents, k active latents, D rows trained on; `mohole.train.laws` has the formulas. Least squares of log L; intervals
are of 90 %, from the Gauss-Newton covariance with Student's t for the degrees of freedom. Of points that differ in learning rate
alone the best one counts.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from scipy.optimize import least_squares  # type: ignore[import-untyped]
from scipy.stats import t as student_t  # type: ignore[import-untyped]

from mohole.errors import StageError
from mohole.train.laws import MOST, ROWS, SPARSITY, WIDTH, Float64, Form, bounded_exp
from mohole.train.table import SweepTable

CONFIDENCE = 0.90
FAR = 4.0
"""A prediction this many times beyond the data is marked."""
_TINY = 1e-9
_FLAT = 0.01
_REACH, _HALVINGS = 20.0, 40
_WORST_CONDITION = 1e7


@dataclass(frozen=True)
class Point:
    """One trained dictionary."""

    n_latents: int
    k: int | None
    rows: int
    fvu: float
    setting: str
    flops: float

    @property
    def kind(self) -> str:
        """Of its nonlinearity."""
        return self.setting.partition(",")[0]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval of 90 %. An end that nothing bounds is infinite."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """A fitted formula."""

    form: Form
    place: str
    where: str
    """What is the same for all its points."""
    points: tuple[Point, ...]
    theta: Float64
    covariance: Float64
    centre: Float64
    sigma: float
    """Standard deviation of log L about the law."""

    @property
    def freedom(self) -> int:
        return len(self.points) - self.form.n_parameters

    def constants(self) -> dict[str, Estimate]:
        """The formula's constants. Factors are positive, so their intervals are of their logarithms."""
        return {name: self._constant(name) for name in self.form.named(self.theta, self.centre)}

    def _constant(self, name: str) -> Estimate:
        found = self.estimate(lambda theta: self.form.named(theta, self.centre)[name], is_positive=name in {"a", "b"})
        return Estimate(found.value, max(found.low, 0.0), found.high) if name == "e" else found

    def curve(self, inputs: Float64) -> Float64:
        """FVU at each line of inputs [point, input], in the order of `form.inputs_are`, without intervals."""
        return self.form.predict(self.theta, np.log(inputs) - self.centre)

    def loss(self, *inputs: float) -> Estimate:
        """FVU at these inputs, in the order of `form.inputs_are`."""
        at = np.log(np.asarray([inputs])) - self.centre
        return self.estimate(lambda theta: float(self.form.predict(theta, at)[0]))

    def is_far(self, name: str, value: float) -> bool:
        """Is this more than 4 times beyond the data? `name`: n_latents, k, rows."""
        known = [float(getattr(point, name)) for point in self.points]
        return not min(known) / FAR <= value <= max(known) * FAR

    def estimate(self, quantity: Callable[[Float64], float], *, is_positive: bool = True) -> Estimate:
        """What follows from the fitted numbers, with the interval of its linear approximation (the delta method).

        Not from draws of the covariance: where a floor hardly shows, its logarithm is known within a factor of e or more, draws
        leave the curved valley of good fits, and 40 % of intervals of predictions missed the truth.
        """
        if is_positive:
            logarithm = self.estimate(lambda theta: math.log(quantity(theta)), is_positive=False)
            return Estimate(*(bounded_exp(value) for value in (logarithm.value, logarithm.low, logarithm.high)))
        gradient = np.empty_like(self.theta)
        for place, step in enumerate(np.maximum(1e-3 * np.sqrt(np.diag(self.covariance)), 1e-7)):
            shift = np.zeros_like(self.theta)
            shift[place] = step
            gradient[place] = (quantity(self.theta + shift) - quantity(self.theta - shift)) / (2 * step)
        spread = self.t * math.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0))
        value = quantity(self.theta)
        return Estimate(value, value - spread, value + spread)

    @property
    def t(self) -> float:
        """Standard errors on either side of an interval."""
        return float(student_t.ppf(0.5 + CONFIDENCE / 2, self.freedom))

    def floor(self, k: int | None = None) -> Estimate:
        """What FVU tends to as latents (and rows) grow, with the k that a sparsity law asks for."""
        if self.form is not SPARSITY:
            return self.estimate(lambda theta: float(theta[-1]), is_positive=False)
        log_k = math.log(k or 1) - float(self.centre[1])
        return self.estimate(lambda theta: bounded_exp(theta[4] + theta[5] * log_k))


@dataclass(frozen=True)
class Need:
    """What a target FVU takes, by one law. An infinite number: no such dictionary reaches it."""

    law: Law
    target: float
    n_latents: Estimate
    rows: Estimate | None
    flops: Estimate | None
    is_far: bool
    k: int | None = None


def points_of(table: SweepTable) -> list[Point]:
    """The members that were trained to their end."""
    return [
        Point(entry.n_latents, entry.k, entry.rows, entry.fvu, entry.setting, entry.flops)
        for entry in table.members
        if entry.fvu and entry.flops
    ]


def best_points(points: Sequence[Point]) -> list[Point]:
    """Of points that differ in learning rate alone, the one with the lowest FVU."""
    best: dict[tuple[str, int, int], Point] = {}
    for point in sorted(points, key=lambda point: point.fvu):
        best.setdefault((point.setting, point.n_latents, point.rows), point)
    return sorted(best.values(), key=lambda point: (point.setting, point.rows, point.n_latents))


def fit_all(place: str, points: Sequence[Point]) -> tuple[list[Law], list[str]]:
    """Every law that the points of one place can tell, and why others cannot be told that vary in what they are about.

    Raises:
        StageError: none can.
    """
    laws: list[Law] = []
    refused: list[tuple[bool, str]] = []
    for form, where, own in _groups(best_points(points)):
        try:
            laws.append(fit(form, own, place=place, where=where))
        except StageError as error:
            refused.append((_varies(form, own), str(error)))
    if not laws:
        reasons = [reason for varies, reason in refused if varies] or [reason for _, reason in refused]
        raise StageError("; ".join(reasons) or f"{place}: no member of a sweep was trained to its end; sweep again")
    return laws, [reason for varies, reason in refused if varies]


def _varies(form: Form, points: Sequence[Point]) -> bool:
    return all(len({getattr(point, name) for point in points}) > 1 for name in form.inputs_are)


def _groups(points: Sequence[Point]) -> Iterator[tuple[Form, str, list[Point]]]:
    """The points of each law: what the law has no variable for is the same for all of them."""
    numbers = sorted({point.rows for point in points})
    for setting in dict.fromkeys(point.setting for point in points):
        own = [point for point in points if point.setting == setting]
        for rows in sorted({point.rows for point in own}):
            yield WIDTH, f"{setting}, {rows:,} rows", [point for point in own if point.rows == rows]
        yield ROWS, setting, own
    for kind, rows in product(sorted({point.kind for point in points if point.k is not None}), numbers):
        yield (
            SPARSITY,
            f"{kind}, {rows:,} rows",
            [p for p in points if p.k is not None and (p.kind, p.rows) == (kind, rows)],
        )


def fit(form: Form, points: Sequence[Point], *, place: str = "these points", where: str = "") -> Law:
    """Fit a law.

    Raises:
        StageError: too few points, or such as leave a constant open; says what is needed.
    """
    title = f"{place}, {form.name} law" + (f" ({where})" if where else "")
    _check_enough(form, points, title)
    logs = np.log([[float(getattr(point, name)) for name in form.inputs_are] for point in points])
    centre = logs.mean(0)
    theta, jacobian, cost = _least(form, logs - centre, np.asarray([point.fvu for point in points]))
    sigma = math.sqrt(2 * cost / (len(points) - form.n_parameters))
    law = Law(form, place, where, tuple(points), theta, _covariance(jacobian, sigma, title), centre, sigma)
    _check_told(law, title)
    return law


def _least(form: Form, inputs: Float64, losses: Float64) -> tuple[Float64, Float64, float]:
    """The best of the fits from every start: numbers, Jacobian of log L, half the sum of squares."""

    def residual(theta: Float64) -> Float64:
        return np.asarray(np.log(np.maximum(form.predict(theta, inputs), 1e-300)) - np.log(losses))

    exact: dict[str, Any] = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-12)
    found = [
        least_squares(
            residual, np.clip(start, form.low, form.high), bounds=(form.low, form.high), x_scale="jac", **exact
        )
        for start in form.starts(inputs, losses)
    ]
    best = min(found, key=lambda result: float(result.cost))
    return np.asarray(best.x), np.asarray(best.jac), float(best.cost)


def need(law: Law, target: float, d_in: int, k: int | None = None) -> Need:
    """What reaches an FVU: latents; by the rows law the latents, rows and FLOPs (of the encoder's products) that cost least.

    Args:
        k: active latents, which the sparsity law asks for.

    Raises:
        StageError: the law's floor lies above the target.
    """
    if law.form is SPARSITY and k is None:
        raise StageError(f"{law.place}, {law.form.name} law ({law.where}): needs k beside the target; give --k")
    floor = law.floor(k)
    margin = 0.01 * (floor.high - floor.value)
    if target <= floor.value + margin or not np.isfinite(_cheapest(law, target, k)).all():
        raise StageError(
            f"{law.place}, {law.form.name} law ({law.where}): fvu {target:g} is not above its floor of {floor.value:.4g}; "
            "ask for more, or allow more active latents or rows"
        )

    ends = [_cheapest(law, target, k), *(_end(law, target, k, floor.value, bound) for bound in ("low", "high"))]
    n_latents = Estimate(*(float(inputs[0]) for inputs in ends))
    is_far = law.is_far("n_latents", n_latents.value)
    if law.form is SPARSITY and k is not None:
        return Need(law, target, n_latents, None, None, is_far or law.is_far("k", k), k)
    if law.form is not ROWS:
        return Need(law, target, n_latents, None, None, is_far)
    if floor.high < target:  # the share of each is less sure than their product
        n_latents, rows = (
            law.estimate(lambda theta, place=place: float(_cheapest(law, target, k, theta)[place]))  # type: ignore[misc]
            for place in (0, 1)
        )
    else:
        rows = Estimate(float(ends[0][1]), float(ends[1][1]), math.inf)
    flops = Estimate(*(2.0 * d_in * float(inputs.prod()) for inputs in ends))
    return Need(law, target, n_latents, rows, flops, is_far or law.is_far("rows", rows.value))


def _end(law: Law, target: float, k: int | None, floor: float, bound: Literal["low", "high"]) -> Float64:
    """Where the band of predictions along the cheapest inputs meets the target: its lower edge first, its upper edge last.

    Not the linear approximation of the inputs: near the floor it has lower ends of 1e-69 latents.
    """

    def misses(log_left: float) -> bool:
        inputs = _cheapest(law, floor + math.exp(log_left), k)
        found = law.loss(*(float(value) for value in inputs), *([float(k)] if law.form is SPARSITY and k else []))
        return (found.low if bound == "low" else found.high) > target

    near = math.log(target - floor)
    far = near + (_REACH if bound == "low" else -_REACH)
    if misses(far) != (bound == "low"):
        return np.full(len(_cheapest(law, target, k)), 0.0 if bound == "low" else np.inf)
    low, high = min(near, far), max(near, far)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if misses(middle) else (middle, high)
    return _cheapest(law, floor + math.exp(low), k)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Points that no cheaper one equals, by ascending FLOPs."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.flops, point.fvu)):
        if not found or point.fvu < found[-1].fvu:
            found.append(point)
    return found


def _check_enough(form: Form, points: Sequence[Point], title: str) -> None:
    for name, least in zip(form.inputs_are, form.needs, strict=True):
        n_found = len({getattr(point, name) for point in points})
        if n_found < least:
            raise StageError(f"{title}: needs {least} values of {name}, and has {n_found}; sweep more")
    if len(points) < form.n_points:
        raise StageError(f"{title}: needs {form.n_points} points, and has {len(points)}; sweep more")
    losses = [point.fvu for point in points]
    if wrong := [loss for loss in losses if not 0 < loss < math.inf]:
        raise StageError(f"{title}: fvu {wrong[0]} is no number above zero; leave that member out")
    if max(losses) < min(losses) * (1 + _FLAT):
        raise StageError(
            f"{title}: fvu hardly changes ({min(losses):.4g} to {max(losses):.4g}), so the fit is degenerate; sweep wider"
        )


def _covariance(jacobian: Float64, sigma: float, title: str) -> Float64:
    """sigma^2 (J^T J)^-1, by columns of length 1."""
    scale = np.linalg.norm(jacobian, axis=0)
    if (scale < _TINY).any():
        raise StageError(f"{title}: the points leave a constant open: the fit is degenerate; sweep wider")
    _, singular, right = np.linalg.svd(jacobian / scale, full_matrices=False)
    if singular[0] > _WORST_CONDITION * singular[-1]:
        raise StageError(f"{title}: the points leave a constant open: the fit is degenerate; sweep wider")
    inverse = (right.T / singular**2) @ right / np.outer(scale, scale)
    return np.asarray(sigma**2 * inverse)


def _check_told(law: Law, title: str) -> None:
    """A law whose FVU does not surely fall with an input tells nothing about that input."""
    spread = law.t * np.sqrt(np.diag(law.covariance))
    exponents = {WIDTH.name: {"n_latents": 1}, ROWS.name: {"n_latents": 1, "rows": 3}, SPARSITY.name: {}}[law.form.name]
    for name, place in exponents.items():
        exponent = law.theta[place]
        if exponent - spread[place] <= 0 or exponent > law.form.high[place] * 0.999:
            raise StageError(
                f"{title}: the points do not say how fvu falls with {name} (exponent {exponent:.3g} +- {spread[place]:.2g}): "
                "the fit is degenerate; sweep wider, or give each member its own best lr"
            )


def _cheapest(law: Law, target: float, k: int | None, theta: Float64 | None = None) -> Float64:
    """[n] or [n, rows] that reach the target at the least n * rows; infinite where nothing does.

    At the least cost alpha a n^-alpha = beta b D^-beta: neither latents nor rows are the cheaper way to what is left.
    """
    theta = law.theta if theta is None else theta
    if law.form is SPARSITY:
        return _cheapest_at(law, target, k or 1)
    left = target - theta[-1]
    if left <= 0:
        return np.full(len(law.centre), np.inf)
    if law.form is WIDTH:
        logs = (theta[:1] - math.log(left)) / theta[1]
    else:
        log_a, alpha, log_b, beta, _ = theta
        log_n = (log_a - math.log(left * beta / (alpha + beta))) / alpha
        logs = np.asarray([log_n, (log_b - math.log(left * alpha / (alpha + beta))) / beta])
    return np.asarray(np.exp(np.minimum(logs + law.centre, MOST)))


def _cheapest_at(law: Law, target: float, k: int) -> Float64:
    """By the sparsity law."""
    theta, log_k = law.theta, math.log(k) - float(law.centre[1])
    left = target - math.exp(theta[4] + theta[5] * log_k)
    slope = theta[1] + theta[3] * log_k
    if left <= 0 or slope >= 0:
        return np.asarray([np.inf])
    log_n = (math.log(left) - theta[0] - theta[2] * log_k) / slope
    return np.asarray(np.exp(np.minimum(np.asarray([log_n + law.centre[0]]), MOST)))
