"""A latent and its evidence, as plain values, and how a notebook shows them. Reads no files: catalogue.py fills them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mohole.drawing import notebook

Texts = Callable[[int, int], tuple[str, ...] | None]
"""(first token, one past the last) -> their pieces; None: the corpus is not at hand."""

_SHOWN = 6
"""Of each kind, in a notebook."""


@dataclass(frozen=True, slots=True)
class Example:
    """A stretch of one document around a firing: a pointer into the corpus, with the latent's activations along it."""

    document: int
    token: int
    """Global index of the token it is about: of a top example the document's strongest, of an interval the one drawn."""
    start: int
    end: int
    """The stretch is tokens [start, end), cut to the document."""
    activations: tuple[float, ...]
    """The latent's activation at each token of the stretch, 0 where it is silent: to 11 bits, the maximum exactly; below
    2^-14 of the maximum to 2^-25 of it, and never 0. `Catalogue.entries` has every activation exactly."""

    @property
    def activation(self) -> float:
        """At `token`."""
        return self.activations[self.token - self.start]


@dataclass(frozen=True, slots=True)
class Interval:
    """Activations in (low, high]."""

    low: float
    high: float
    count: int
    """Tokens whose activation lies in it."""
    examples: tuple[Example, ...]
    """Drawn uniformly from the documents that fire in it, without those already shown higher up."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts[i] activations in (edges[i], edges[i + 1]]: equal steps from 0 to the maximum, zeros not counted."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Feature:
    """A latent and its evidence. A dead one fired nowhere: no examples, no intervals, no histogram."""

    latent: int
    count: int
    """Tokens at which it fires, of the catalogue's `n_tokens`."""
    density: float
    """count / n_tokens."""
    maximum: float
    mean: float
    """Mean activation where it fires."""
    is_dead: bool
    histogram: Histogram
    top: tuple[Example, ...]
    """Strongest first, at most one from a document; documents with the same text count as one."""
    intervals: tuple[Interval, ...]
    """From weak to strong."""
    promoted: tuple[tuple[str, float], ...]
    """(vocabulary entry, logit) that its direction raises most, strongest first; see catalogue.vocabulary.lens."""
    suppressed: tuple[tuple[str, float], ...]
    neighbours: tuple[tuple[int, float], ...]
    """(latent, cosine) of the nearest decoder directions, nearest first."""
    together: tuple[tuple[int, int, float], ...]
    """(latent, tokens at which both fire, phi) of the latents that fire at the same tokens, the closest first; phi is the
    correlation of the two firings, yes or no, over `n_counted_together` tokens."""
    family: int | None
    """Latents of one family have directions that hang together; None: it has none."""
    texts: Texts | None = field(default=None, repr=False, compare=False)
    """Pieces of the corpus, where that lies beside the catalogue: what a notebook shows of the examples."""

    def _repr_html_(self) -> str:
        """Shown by notebooks."""
        if self.is_dead:
            return notebook.card(f"Latent {self.latent}", notebook.note("It fires nowhere: it is dead.", kind="soft"))
        facts = (
            f"fires at {self.density:.2%} of tokens ({self.count:,}), maximum {self.maximum:.3g}, mean {self.mean:.3g}"
            + ("" if self.family is None else f", family {self.family}")
        )
        histogram = notebook.bars(self.histogram.counts, "0", f"{self.maximum:.3g}", "Activations by strength")
        near = [(f"{latent}", f"{cosine:.2f}") for latent, cosine in self.neighbours[:_SHOWN]]
        both = [(f"{latent}", f"{n:,}", f"{phi:.2f}") for latent, n, phi in self.together[:_SHOWN]]
        return notebook.card(
            f"Latent {self.latent}",
            notebook.note(facts, kind="soft"),
            notebook.sides(
                notebook.part("Activations", histogram),
                *(
                    notebook.part(title, notebook.entries(some[:_SHOWN]))
                    for title, some in (("Says next", self.promoted), ("Avoids", self.suppressed))
                    if some
                ),
                *(
                    notebook.part(title, notebook.table(heads, lines))
                    for title, heads, lines in (
                        ("Neighbours", ("latent", "cosine"), near),
                        ("Fires together with", ("latent", "tokens", "phi"), both),
                    )
                    if lines
                ),
            ),
            notebook.part("Strongest", *self._examples()),
        )

    def _examples(self) -> Iterator[notebook.Html]:
        for example in self.top[:_SHOWN]:
            pieces = None if self.texts is None else self.texts(example.start, example.end)
            if pieces is None:
                yield notebook.note("The corpus is not beside the catalogue, so its texts are not shown.", kind="soft")
                return
            shares = [value / self.maximum for value in example.activations]
            yield notebook.passage(pieces, shares, example.token - example.start)
