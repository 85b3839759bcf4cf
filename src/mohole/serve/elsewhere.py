"""What other dictionaries that are served have in place of a feature: worked out when it is asked for, and kept.

A feature costs one reading of the others' decoder directions, which are mapped: 0.05 to 0.2 s for each 50 million numbers of
them that are in memory, on one core. It is done in a thread of its own, so that no other answer waits for it.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mohole.serve.answers import names_of
from mohole.serve.runs import OpenHookpoint, Served
from mohole.serve.shapes import DictionaryMatches, Match
from mohole.serve.turns import Turns

if TYPE_CHECKING:
    from mohole.catalogue import Elsewhere

N_MATCHES = 3
"""Of each dictionary."""
MOST_NUMBERS = 1 << 30
"""Numbers of the others' directions read for one feature: a second or two. Dictionaries beyond are left out, and that is said."""
_LONGEST_QUEUE = 32
_KEPT = 4096


@dataclass(frozen=True)
class _Compared:
    """Another dictionary, and what it has; None: left out."""

    other: OpenHookpoint
    found: "Elsewhere | None"
    n_numbers: int


class Matcher:
    """Matches of the features of all runs that are served."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._turns = Turns(_LONGEST_QUEUE, "features wait to be matched")
        self._directions: dict[str, NDArray[np.float32]] = {}
        self._kept: OrderedDict[tuple[str, int], tuple[_Compared, ...]] = OrderedDict()

    async def matches(self, place: OpenHookpoint, latent: int) -> tuple[DictionaryMatches, ...]:
        """A feature in every other dictionary of the same width, in the order of runs and hookpoints.

        Raises:
            Refusal: too many wait. ArtifactError: a dictionary's file is not what it was.
        """
        key = place.dictionary, latent
        found = self._kept.get(key)  # of an event loop: no other thread writes it
        if found is None:
            found = await self._turns.take(lambda: tuple(self._compare(place, latent)))
            self._kept[key] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return tuple(_facts(place, each) for each in found)

    def close(self) -> None:
        """Take no more."""
        self._turns.close()

    def _compare(self, place: OpenHookpoint, latent: int) -> Iterator[_Compared]:
        from mohole.catalogue import matches

        directions, n_left = self._of(place), MOST_NUMBERS
        for other in self._others(place):
            theirs = self._of(other)
            if theirs.shape[1] != directions.shape[1]:
                continue
            if theirs.size > n_left:
                yield _Compared(other, None, theirs.size)
                continue
            n_left -= theirs.size
            found = matches(place.catalogue, directions, latent, other.catalogue, theirs, n=N_MATCHES)
            yield _Compared(other, found, theirs.size)

    def _others(self, place: OpenHookpoint) -> Iterator[OpenHookpoint]:
        """The other hookpoints of its run first. A dictionary that is served twice is no other."""
        runs = sorted(self._served.runs.values(), key=lambda run: run is not place.run)  # stable
        return (other for run in runs for other in run.hookpoints.values() if other.dictionary != place.dictionary)

    def _of(self, place: OpenHookpoint) -> NDArray[np.float32]:
        if place.dictionary not in self._directions:
            from mohole.dictionary.files import open_directions

            self._directions[place.dictionary] = open_directions(place.folder / "dictionary")
        return self._directions[place.dictionary]


def _facts(place: OpenHookpoint, compared: _Compared) -> DictionaryMatches:
    other, found = compared.other, () if compared.found is None else compared.found.matches
    names = names_of(other, [each.latent for each in found], other.by_hand)
    return DictionaryMatches(
        run=other.run.name,
        hookpoint=other.name,
        n_latents=other.catalogue.n_latents,
        is_same_model=place.run.model_digest is not None and place.run.model_digest == other.run.model_digest,
        chance=None if compared.found is None else compared.found.chance,
        matches=tuple(
            Match(latent=each.latent, label=name, cosine=each.cosine, correlation=each.correlation)
            for each, name in zip(found, names, strict=True)
        ),
        left_out=None
        if compared.found is not None
        else f"{compared.n_numbers:,} numbers of directions are too many to be read for one feature",
    )
