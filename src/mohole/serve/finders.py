"""The door to mohole.search: what the server asks of it."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mohole.search import labels as search_labels
from mohole.search import statistics as search_statistics
from mohole.search import tokens as search_tokens
from mohole.search import xray as search_xray
from mohole.search.statistics import Bounds, Statistics
from mohole.serve.kept import Kept
from mohole.serve.queries import SearchAsk

Int64 = NDArray[np.int64]


@runtime_checkable
class Hit(Protocol):
    """A latent that was found."""

    @property
    def latent(self) -> int: ...

    @property
    def score(self) -> float: ...

    @property
    def why(self) -> str: ...


@runtime_checkable
class Index(Protocol):
    """Searches labels by words and by meaning, or tokens by words."""

    def search(self, query: str, limit: int) -> Sequence[Hit]: ...


@runtime_checkable
class XrayPeaks(Protocol):
    """Where each latent that fires in a text is strongest in it."""

    @property
    def latents(self) -> Int64: ...

    @property
    def values(self) -> NDArray[np.float32]: ...

    @property
    def places(self) -> Int64: ...


@runtime_checkable
class XrayRows(Protocol):
    """A text with each token's strongest latents."""

    @property
    def tokens(self) -> tuple[str, ...]: ...

    @property
    def latents(self) -> tuple[tuple[int, ...], ...]: ...

    @property
    def activations(self) -> tuple[tuple[float, ...], ...]: ...

    @property
    def along(self) -> tuple[float, ...] | None: ...

    @property
    def peaks(self) -> XrayPeaks: ...


def label_index(labels: Sequence[str], kept: Kept, made_from: Sequence[str]) -> Index:
    """An index of these labels; place i is latent i. `made_from`: digests of what the labels are from."""
    columns = kept.arrays("words", made_from, lambda: search_labels.label_columns(list(labels)))
    return search_labels.LabelIndex(labels, columns=columns)


def token_index(catalogue: Any, corpus: Any, kept: Kept) -> Index:
    """An index of the tokens that latents fire on or raise."""
    made_from = [catalogue.manifest.digest, corpus.manifest.digest]

    def make() -> dict[str, Any]:
        top_tokens, promoted_ids = catalogue.strongest()
        return search_tokens.token_columns(top_tokens, promoted_ids, corpus)

    columns = kept.arrays("tokens", made_from, make)
    return search_tokens.TokenIndex(columns, corpus)


def by_statistics(statistics: Statistics, ask: SearchAsk) -> Sequence[Hit]:
    """Latents by their numbers."""
    bounds = Bounds(**{field.name: getattr(ask, field.name) for field in fields(Bounds)})
    return search_statistics.by_statistics(statistics, bounds, ask.limit, sort=ask.sort, ascending=ask.ascending)


def xray(
    model: Any, dictionary: Any, text: str, *, hookpoint: str, top: int, follow: int | None, context: int
) -> XrayRows:
    """Run a text through the model, in windows of `context` tokens, and read the dictionary at every token."""
    return search_xray.xray(model, dictionary, text, hookpoint=hookpoint, top=top, follow=follow, context=context)
