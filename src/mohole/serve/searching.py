"""Finding features: by label (people's first), by the token they fire on, by a text. The searching itself is mohole.search's."""

import threading
from collections import defaultdict
from collections.abc import Callable

from mohole.serve import finders
from mohole.serve.answers import Plain, lines
from mohole.serve.errors import Refusal, short
from mohole.serve.finders import Index, XrayRows
from mohole.serve.queries import SearchAsk
from mohole.serve.runs import OpenHookpoint
from mohole.serve.xrays import share_of_maximum, strongest

_Found = tuple[int, float, str]


def check(ask: SearchAsk) -> None:
    """Raises: Refusal: nothing to look for, or what would do nothing."""
    of_numbers = ask.model_fields_set - {"q", "by", "limit"}
    if ask.by == "statistics" and ask.q:
        raise Refusal(422, f"query q: {short(ask.q)}: by statistics nothing is looked for but numbers", "leave q out")
    if ask.by != "statistics" and not ask.q:
        raise Refusal(422, "query q: nothing to look for", "give a word, a phrase or a text; or by=statistics")
    if ask.by != "statistics" and of_numbers:
        raise Refusal(422, f"query {min(of_numbers)}: does nothing by {ask.by}", "it goes with by=statistics")


class Searcher:
    """Searches of labels, tokens and numbers, with indices for each hookpoint, opened (see kept.py) with its first search."""

    def __init__(self) -> None:
        self._indices: dict[tuple[str, str], Index] = {}
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)

    def search(self, place: OpenHookpoint, ask: SearchAsk) -> Plain:
        """By label, by token or by statistics."""
        if ask.by == "statistics":
            hits = finders.by_statistics(place.columns.statistics(place.by_hand), ask)
            found = [(hit.latent, hit.score, hit.why) for hit in hits]
        elif ask.by == "token":
            hits = self._tokens(place).search(ask.q, ask.limit)
            found = [(hit.latent, hit.score, hit.why) for hit in hits]
        else:
            found = self._by_label(place, ask)
        return _answer(place, ask.q, ask.by, found[: ask.limit])

    def _by_label(self, place: OpenHookpoint, ask: SearchAsk) -> list[_Found]:
        """Labels by hand that hold the query come first; of what they stand before, the automatic label is not searched."""
        people, wanted = place.by_hand, ask.q.casefold()
        by_hand = [(latent, text) for latent, text in people.items() if wanted in text.casefold()]
        hits = self._labels(place).search(ask.q, ask.limit + len(people))
        best = max([hit.score for hit in hits], default=1.0)
        first = [(latent, best, f"a person's label: {text}") for latent, text in sorted(by_hand)]
        rest = [(hit.latent, hit.score, hit.why) for hit in hits if hit.latent not in people]
        return first + rest

    def _labels(self, place: OpenHookpoint) -> Index:
        texts, made_from = place.columns.named_texts, [place.columns.made_from]
        return self._kept(("labels", place.dictionary), lambda: finders.label_index(texts, place.kept, made_from))

    def _tokens(self, place: OpenHookpoint) -> Index:
        key = ("tokens", place.catalogue.manifest.digest)
        return self._kept(key, lambda: finders.token_index(place.catalogue, place.corpus, place.kept))

    def _kept(self, key: tuple[str, str], make: Callable[[], Index]) -> Index:
        """The index, made by the first who asks; others of it wait for that, those of another index for nothing."""
        if (there := self._indices.get(key)) is not None:
            return there
        with self._locks[key]:
            if key not in self._indices:
                self._indices[key] = make()
            return self._indices[key]


def found_in_text(place: OpenHookpoint, ask: SearchAsk, rows: XrayRows) -> Plain:
    """The features that fire on a text, by their share of their maximum."""
    found = []
    for latent, value, where in strongest(place, rows, ask.limit):
        share = share_of_maximum(place, latent, value)
        height = f"{value:.3g}" if share is None else f"{value:.3g}, {share:.0%} of its maximum"
        found.append((latent, share or 0.0, f"fires on “{rows.tokens[where]}” ({height})"))
    return _answer(place, ask.q, "text", found)


def _answer(place: OpenHookpoint, query: str, by: str, found: list[_Found]) -> Plain:
    """A `SearchAnswer`."""
    features = lines(place, [latent for latent, _, _ in found], place.by_hand)
    hits = [
        {"feature": feature, "score": score, "why": why}
        for feature, (_, score, why) in zip(features, found, strict=True)
    ]
    return {"query": query, "by": by, "hits": hits}
