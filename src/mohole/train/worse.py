"""Is a training worse than the mean, and for how long? When to stop it, and what to say. No step is taken here."""

from collections.abc import Mapping
from typing import Any

from mohole.config import Train
from mohole.errors import NumericsError

_LINES, _STEPS = 20, 200
"""Lines of the record in a row with fvu > 1, after the warm-up, at which a training is stopped: so many, or two and more over so
many steps. Twenty lines at the default `log_every` are as many steps; a record of few lines would else never stop one."""


class WorseThanTheMean:
    """The lines of a record, one after the other: how many at the end of them, in a row, have fvu above 1."""

    def __init__(self, name: str, settings: Train) -> None:
        self._name, self._settings = name, settings
        self.n_lines = 0

    def see(self, line: Mapping[str, Any]) -> None:
        """The record's next line."""
        is_worse = (line["fvu"] or 0.0) > 1.0 and line["step"] > self._settings.warmup_steps
        self.n_lines = self.n_lines + 1 if is_worse else 0

    def stop_if_it_stays(self, line: Mapping[str, Any]) -> None:
        """Asked at the line that was seen last.

        Raises:
            NumericsError: there are so many of them that the training will hardly recover.
        """
        every, step = self._settings.log_every, line["step"]
        first = (-(-step // every) - self.n_lines + 1) * every  # lines are at multiples, and at the last step
        if self.n_lines >= _LINES or (self.n_lines >= 2 and step - first >= _STEPS):
            raise NumericsError(self.sentence(line))

    def sentence(self, line: Mapping[str, Any]) -> str:
        """What is wrong at this line, the last one, and what may help."""
        lines = f"{self.n_lines} lines of the record" if self.n_lines > 1 else "the last line of the record"
        return (
            f"{self._name}: fvu {line['fvu']} at step {line['step']}, above 1 for {lines}: the mean alone reconstructs better; "
            f"try a lower train.lr than {self._settings.rate():.3g}, or a lower train.sparsity.weight"
        )
