"""The proof that every token was run under the interventions: what their edits saw, and what is said of it for each row."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool
from torch import Tensor

from mohole.act.terms import Plan
from mohole.errors import StageError
from mohole.model import PassTokens


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is known of one row of a steered batch. The last token written is never run, so it is not counted."""

    n_tokens: int
    """Tokens of text that the model ran for it, begin-of-text not counted."""
    n_fired: int
    """Those that the hooks saw at every hookpoint that is acted at. Equal to `n_tokens`, or there is an error and no stamp."""
    n_moved: int
    """Those whose row an intervention moved, at some hookpoint: where it was to act, and had anything to change."""
    key: str
    """Of the interventions; empty where there were none."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What the edit at one hookpoint saw of one pass."""

    given: PassTokens
    n_rows: int
    """Batch x position; a column that runs again counts again."""
    moved: Bool[Tensor, "batch position"] | None
    """Which rows moved; None: it only reads there."""

    @property
    def columns(self) -> range:
        """Positions, counted from the first column of the batch."""
        return range(self.given.first, self.given.first + self.given.tokens.shape[1])


@dataclass
class Ledger:
    """What the edits of one text saw: kept apart from what the model says that it ran, and added up when the text is done."""

    seen: dict[str, list[Sight]] = field(default_factory=dict)
    """By hookpoint."""

    def add(self, name: str, sight: Sight) -> None:
        self.seen.setdefault(name, []).append(sight)

    def demand_all(self, hookpoints: Sequence[str], columns: range, n_rows: int) -> None:
        """Every one of these columns once at least, and every row that the model ran (without a cache, rows run again)."""
        for name in hookpoints:
            seen: set[int] = set()
            rows = 0
            for sight in self.seen.get(name, ()):
                seen.update(sight.columns)
                rows += sight.n_rows
            if seen != set(columns) or rows != n_rows:
                raise StageError(
                    f"{name}: the intervention fired at {len(seen)} of {len(columns)} positions ({rows} of {n_rows} rows), so "
                    "the result is not steered; load the model with its self-test on to check its hookpoints"
                )

    def stamps(self, plans: Sequence[Plan], n_tokens: Sequence[int]) -> tuple[Stamp, ...]:
        """Of each row.

        Args:
            plans: of each row; a single one is that of all.
            n_tokens: of text, that the model ran for each row.
        """
        fired = n_tokens
        for own in self.seen.values():
            seen = _n_text(own)
            fired = seen if fired is n_tokens else list(map(min, fired, seen))
        moved = self._n_moved(len(n_tokens))
        keys = [plan.key for plan in plans] * (len(n_tokens) if len(plans) == 1 else 1)
        return tuple(Stamp(*each) for each in zip(n_tokens, fired, moved, keys, strict=True))

    def _n_moved(self, n_rows: int) -> list[int]:
        """For each row, how many of its tokens moved at any hookpoint."""
        passes = [(sight, sight.moved) for own in self.seen.values() for sight in own if sight.moved is not None]
        if not passes:
            return [0] * n_rows
        whole = passes[0][1]
        if len(passes) > 1:
            first = min(sight.columns.start for sight, _ in passes)
            whole = whole.new_zeros(n_rows, max(sight.columns.stop for sight, _ in passes) - first)
            for sight, moved in passes:
                whole[:, sight.columns.start - first : sight.columns.stop - first] |= moved
        return list(map(sum, whole.tolist()))


def _n_text(own: Sequence[Sight]) -> Sequence[int]:
    """Tokens of text that were seen at one hookpoint, for each row of the batch; one that ran twice counts once."""
    given = own[0].given
    if len(own) == 1:
        return given.n_text
    columns = {column for sight in own for column in sight.columns}
    begins = map(sum, zip(given.padding, given.begins, strict=True))
    return [sum(column >= begin for column in columns) for begin in begins]
