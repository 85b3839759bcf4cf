"""Axes of plots: numbers onto pixels, and where the ticks stand and what they say. Linear or logarithmic. Draws nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Scale = Literal["log", "linear"]

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_LEAST = 1e-290
"""Of a number that is told from zero: with smaller ones the spaces between ticks would have no float."""
_FLAT = 1e-9
"""Of the size of its numbers: a smaller spread is none, for which labels would have more digits than anybody reads."""

_SIZES = ((1e9, "G", 1e9), (1e6, "M", 1e6), (1e3, "k", 1e4))
"""Units, and from where on they are used."""


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    scale: Scale

    @classmethod
    def over(
        cls, values: Sequence[float], start: float, end: float, scale: Scale, *,
        floor: float | None = None, has_zero: bool = False,
    ) -> "Axis":  # fmt: skip
        """An axis with all of the values on it, and a little room. A linear one begins at zero where that is not far off.

        Args:
            floor: of a linear one: what lies below is left out.
            has_zero: a linear one begins at zero however far off it is.

        Values up to 1e100 have an axis: the record of a training is held to that.
        """
        low, high = (0.0 if abs(value) < _LEAST else value for value in (min(values), max(values)))
        if scale == "log":
            low, high = low or _LEAST, high or _LEAST
            room = max(math.exp(0.06 * _decades(low, high) * math.log(10)), 1.05)
            return cls(low / room, high * room, start, end, scale)
        if floor is not None:
            low, high = max(low, floor), max(high, floor)
        if low >= 0 and (has_zero or low < 0.5 * high):
            low = 0.0
        size = max(abs(low), abs(high))
        spread = high - low if high - low > _FLAT * size else size * 0.2 or 1.0
        return cls(low - (0.05 * spread if low else 0.0), high + 0.05 * spread, start, end, scale)

    def at(self, value: float) -> float:
        """Its pixel."""
        if self.scale == "log":
            share = _decades(self.low, value) / _decades(self.low, self.high)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, room: float) -> list[tuple[float, str]]:
        """Values with their labels, at least `room` pixels apart."""
        if self.scale == "linear":
            return self._linear_ticks(room)
        kept: list[float] = []
        for value in self._log_places():
            if not kept or abs(self.at(value) - self.at(kept[-1])) >= room:
                kept.append(value)
        return [(value, _log_label(value)) for value in kept]

    def _linear_ticks(self, room: float) -> list[tuple[float, str]]:
        n_most = max(abs(self.end - self.start) / room, 2.0)
        rough = (self.high - self.low) / n_most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(times * power for times in (1.0, 2.0, 2.5, 5.0, 10.0) if times * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [
            (count * step, _linear_label(count * step, step, max(abs(self.low), abs(self.high))))
            for count in range(first, last + 1)
        ]

    def _log_places(self) -> list[float]:
        """1, 2 and 5 times the powers of ten; more of them within a decade, the powers alone over more than three."""
        span = _decades(self.low, self.high)
        fine, coarse = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 5.0)
        steps = (1.0,) if span > 3 else coarse if span > math.log10(8) else fine
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [step * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in found if self.low <= value <= self.high]
        if len(inside) > 1:
            return inside
        return [self.low * 10.0 ** (span * share) for share in (0.1, 0.5, 0.9)]


def _decades(low: float, high: float) -> float:
    """From one to the other. Of two logarithms: the quotient of a large and a small number is none."""
    return math.log10(high) - math.log10(low)


def _log_label(value: float) -> str:
    digits, _, power = f"{value:.2e}".partition("e")
    if not 1e-3 <= value < 1e5:
        times = digits.rstrip("0").rstrip(".")
        return f"{'' if times == '1' else f'{times}·'}10{str(int(power)).translate(_SUPERSCRIPTS)}"
    return f"{value:,.0f}" if 10 <= value < 1e6 else f"{value:.3g}"


def _linear_label(value: float, step: float, largest: float) -> str:
    """As many digits as the step has, in units that suit the largest number on the axis."""
    if abs(value) < step / 2:
        return "0"
    size, unit = next(((size, unit) for size, unit, least in _SIZES if largest >= least), (1.0, ""))
    if largest < 1e-3:
        power = math.floor(math.log10(largest))
        size, unit = 10.0**power, f"e{power}"
    own = step / size
    power = math.floor(math.log10(own) + 1e-9)
    is_quarter = abs(own / 10.0**power - 2.5) < 1e-6
    return f"{value / size:,.{max(0, is_quarter - power)}f}{unit}"
