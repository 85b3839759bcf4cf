"""Sorting and filtering all latents of a dictionary: numpy columns and orders, made once, so that a page costs what it shows."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mohole.catalogue import Catalogue
from mohole.interpret import Labels
from mohole.interpret.label_columns import STATUSES as LABEL_STATUSES
from mohole.search.statistics import Statistics
from mohole.serve.kept import Kept
from mohole.serve.queries import FeaturesAsk
from mohole.serve.relations import families_of
from mohole.serve.shapes import Sort

Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

STATUSES = (*LABEL_STATUSES, "person")
SCORED = ("good", "partial", "none")
"""Statuses of labels whose F1 means something."""
_UNLABELLED = "(no label yet)"
_KEPT_SELECTIONS = 8  # each 4 bytes a latent
_BETWEEN = b"\xff"  # in no UTF-8 text


class Texts(Sequence[str]):
    """Every latent's automatic label: read when it is asked for, a million strings are nowhere kept."""

    def __init__(self, n: int, labels: Labels | None, *, only_named: bool = False) -> None:
        """`only_named`: nothing in place of a label that only says that there is no name."""
        self._n, self._labels, self._only_named = n, labels, only_named

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return self.of(range(*at.indices(self._n)))
        if not 0 <= at < self._n:
            raise IndexError(at)
        return self.of([at])[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.of(None))

    def of(self, latents: Sequence[int] | None) -> list[str]:
        """Of these; None: of all."""
        if self._labels is None:
            nothing = "" if self._only_named else _UNLABELLED
            return [nothing] * (self._n if latents is None else len(latents))
        columns, chosen = self._labels.columns, None if latents is None else np.asarray(latents, dtype=np.int64)
        texts = columns.texts() if chosen is None else columns.texts(chosen)
        if not self._only_named:
            return texts
        status = columns.status if chosen is None else columns.status[chosen]
        is_named = (status <= STATUSES.index("partial")).tolist()
        return [text if named else "" for text, named in zip(texts, is_named, strict=True)]


class Columns:
    """What a list of features is sorted and filtered by. `people` are labels by hand: they stand before the others."""

    def __init__(self, catalogue: Catalogue, labels: Labels | None, kept: Kept) -> None:
        self.catalogue = catalogue
        self.texts = Texts(catalogue.n_latents, labels)
        """Each latent's automatic label."""
        self._kept_files = kept
        self.n = catalogue.n_latents
        self._labels = labels
        self._orders: dict[tuple[str, bool], Int32] = {}
        self._selections: OrderedDict[object, Int32] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def named_texts(self) -> Texts:
        """As `texts`, but nothing where a label only says that there is no name: nobody looks for that."""
        return Texts(self.n, self._labels, only_named=True)

    def texts_of(self, latents: Sequence[int]) -> list[str]:
        """These latents' automatic labels."""
        return self.texts.of(latents)

    @property
    def made_from(self) -> str:
        """Digest of the artifact that decides what the texts are."""
        return (self.catalogue if self._labels is None else self._labels).manifest.digest

    @cached_property
    def status(self) -> NDArray[np.uint8]:
        """Each latent's automatic status, as its place in STATUSES."""
        if self._labels is None:
            return np.where(self.catalogue.counts == 0, STATUSES.index("dead"), STATUSES.index("few")).astype(np.uint8)
        return self._labels.columns.status

    @cached_property
    def f1(self) -> Float64:
        """Of each latent's automatic label; NaN where it was not scored."""
        return np.full(self.n, np.nan) if self._labels is None else self._labels.columns.scored_f1

    def f1_of(self, latents: Sequence[int]) -> list[float | None]:
        """Of these latents' automatic labels; None where it was not scored."""
        return [None if math.isnan(f1) else f1 for f1 in self.f1[np.asarray(latents, dtype=np.int64)].tolist()]

    @cached_property
    def n_dead(self) -> int:
        """Latents that fired nowhere."""
        return int((self.catalogue.counts == 0).sum())

    @cached_property
    def n_named(self) -> int:
        """Latents whose automatic label is good or partial."""
        return int((self.status <= STATUSES.index("partial")).sum())

    def is_named(self, latent: int) -> bool:
        """Is its automatic label good or partial?"""
        return bool(self.status[latent] <= STATUSES.index("partial"))

    @cached_property
    def families(self) -> Int32 | None:
        """Each latent's family, -1 for none."""
        return families_of(self.catalogue)

    def f1_with(self, people: Mapping[int, str]) -> Float64:
        """As `f1`; a label by hand has none."""
        if not people:
            return self.f1
        f1 = self.f1.copy()
        f1[list(people)] = np.nan
        return f1

    def statistics(self, people: Mapping[int, str]) -> Statistics:
        """What a search by numbers looks at."""
        return Statistics(self.catalogue.density, self.catalogue.maximum, self.f1_with(people))

    def select(self, ask: FeaturesAsk, people: Mapping[int, str], edition: int) -> Int32:
        """The latents that pass, in the order asked for. Kept for the next page."""
        key = (ask.model_dump_json(exclude={"offset", "limit"}), edition)
        with self._lock:
            if key in self._selections:
                self._selections.move_to_end(key)
                return self._selections[key]
        order = self._order(ask.sort, ask.descending, people)
        if (mask := self._mask(ask, people)) is not None:
            order = order[mask[order]]
        with self._lock:
            self._selections[key] = order
            while len(self._selections) > _KEPT_SELECTIONS:
                self._selections.popitem(last=False)
        return order

    def members(self, family: int, n: int) -> tuple[int, Int32]:
        """How many latents a family has, and its n most frequent."""
        if self.families is None:
            return 0, np.zeros(0, dtype=np.int32)
        wanted = np.int32(family)  # of the column's own type: else all of that is copied into another one first
        first, last = (np.searchsorted(self._by_family[1], wanted, side) for side in ("left", "right"))
        return int(last - first), self._by_family[0][first : min(last, first + n)]

    @cached_property
    def _by_family(self) -> tuple[Int32, Int32]:
        """Latents by family, the frequent ones first; and the family of each."""
        assert self.families is not None
        order = np.lexsort((-self.catalogue.counts, self.families)).astype(np.int32)
        return order, self.families[order]

    def _mask(self, ask: FeaturesAsk, people: Mapping[int, str]) -> Bool | None:
        """Which latents pass. None: all."""
        masks: list[Bool] = []
        if ask.which != "all":
            masks.append((self.catalogue.counts == 0) == (ask.which == "dead"))
        if ask.status is not None:
            status = self.status.copy()
            status[list(people)] = STATUSES.index("person")
            masks.append(status == STATUSES.index(ask.status))
        if ask.least_density is not None:
            masks.append(self.catalogue.density >= ask.least_density)
        if ask.most_density is not None:
            masks.append(self.catalogue.density <= ask.most_density)
        if ask.least_f1 is not None:
            masks.append(self.f1_with(people) >= ask.least_f1)
        if ask.family is not None:
            masks.append(np.zeros(self.n, np.bool_) if self.families is None else self.families == ask.family)
        if ask.q:
            masks.append(self._said(ask.q, people))
        return np.logical_and.reduce(masks) if masks else None

    def _said(self, query: str, people: Mapping[int, str]) -> Bool:
        """Whose label has the query in it, in any case; and the latent whose number it is."""
        wanted = _folded(query)
        mask = self._haystack.containing(wanted)
        for latent, text in people.items():
            mask[latent] = wanted in _folded(text)
        if query.isascii() and query.isdecimal() and len(query) < 19 and int(query) < self.n:
            mask[int(query)] = True
        return mask

    @cached_property
    def _listed(self) -> Mapping[str, NDArray[Any]]:
        """What lists need of all labels, from the file of it: their order, and what they are searched in."""

        def make() -> dict[str, NDArray[Any]]:
            folded = [text.casefold() for text in self.texts.of(None)]
            order = np.array(sorted(range(self.n), key=folded.__getitem__), dtype=np.int32)
            return haystack_columns([text.encode("utf-8", "replace") for text in folded]) | {"order": order}

        return self._kept_files.arrays("texts", [self.made_from], make)

    @cached_property
    def _haystack(self) -> "Haystack":
        return Haystack(self._listed)

    def _order(self, sort: Sort, descending: bool, people: Mapping[int, str]) -> Int32:
        """All latents by one column, ties by number; those without a value last, either way."""
        match sort:
            case "latent":
                order = np.arange(self.n, dtype=np.int32)
                return order[::-1] if descending else order
            case "label":
                by_label: Int32 = self._listed["order"]
                order = self._with_people(by_label, people) if people else by_label
                return order[::-1] if descending else order
            case "f1":
                order = self._kept("f1", descending, lambda: _ranked(self.f1, descending))
                if not people:
                    return order
                by_hand = np.zeros(self.n, np.bool_)
                by_hand[list(people)] = True
                return np.concatenate([order[~by_hand[order]], np.flatnonzero(by_hand).astype(np.int32)])
            case "density" | "maximum":
                column = self.catalogue.counts if sort == "density" else self.catalogue.maximum
                return self._kept(sort, descending, lambda: _ranked(column, descending))

    def _kept(self, name: str, descending: bool, make: Callable[[], Int32]) -> Int32:
        key = (name, descending)
        if key not in self._orders:
            self._orders[key] = make()
        return self._orders[key]

    def _with_people(self, order: Int32, people: Mapping[int, str]) -> Int32:
        """The order by automatic labels, with the few that are labelled by hand taken out and put where they belong."""
        by_hand = np.zeros(self.n, np.bool_)
        by_hand[list(people)] = True
        rest = order[~by_hand[order]]
        added = sorted(people, key=lambda latent: (people[latent].casefold(), latent))
        places = [_place(rest, self.texts, people[latent].casefold()) for latent in added]
        return np.insert(rest, places, np.array(added, dtype=np.int32))


class Haystack:
    """Many short texts, searched for a part at once: no loop over texts or hits in Python."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Of columns as `haystack_columns` gives them, in memory or mapped."""
        self._bytes: NDArray[np.uint8] = columns["bytes"]
        self._starts: Int64 = columns["starts"]
        self._often: Int64 = columns["often"]

    def containing(self, part: bytes) -> Bool:
        """Which texts have this part in them: places of its rarest byte, then of those the ones with the next rarest..."""
        mask = np.zeros(len(self._starts), dtype=np.bool_)
        wanted = np.frombuffer(part, dtype=np.uint8)
        rarest_first = np.argsort(self._often[wanted], kind="stable")
        places: Int64 = np.flatnonzero(self._bytes == wanted[rarest_first[0]]) - rarest_first[0]
        places = places[(places >= 0) & (places + len(wanted) <= len(self._bytes))]
        for i in rarest_first[1:]:
            places = places[self._bytes[places + i] == wanted[i]]
        mask[np.searchsorted(self._starts, places, side="right") - 1] = True
        return mask


def haystack_columns(texts: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """What `Haystack` looks through: the texts one after the other, where each begins, how often each byte is there."""
    joined = np.frombuffer(_BETWEEN.join(texts) + _BETWEEN, dtype=np.uint8)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)], dtype=np.int64)[:-1]
    return {"bytes": joined, "starts": starts, "often": np.bincount(joined, minlength=256)}


def _folded(text: str) -> bytes:
    return text.casefold().encode("utf-8", "replace")


def _ranked(column: NDArray[Any], descending: bool) -> Int32:
    return np.argsort(-column if descending else column, kind="stable").astype(np.int32)


def _place(order: Int32, texts: Sequence[str], text: str) -> int:
    """Where in an order by label a text would stand, after its equals."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if text < texts[int(order[middle])].casefold() else (middle + 1, high)
    return low
