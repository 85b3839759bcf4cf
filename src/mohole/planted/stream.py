"""The keyed stream of documents, and the entropy floor that goes with it. Document i depends on (seed, i) only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol, runtime_checkable

from mohole.corpus import Document
from mohole.planted import kinds
from mohole.planted.page import Dice, KeyedDice, Page
from mohole.planted.sentences import draw_concept, say_aside


@dataclass(frozen=True, slots=True)
class Mix:
    """Share of each kind of document and of each mode among speakers (they need not sum to one), and two weights.

    `fixation` is the share of documents whose writer keeps returning to one concept, in asides. `bridge` is how often the
    Golden Gate Bridge is drawn against another being, wherever anybody may be mentioned: it is the demo's main character.
    """

    kinds: dict[str, float] = field(
        default_factory=lambda: {
            "facts": 0.22,
            "verdicts": 0.12,
            "speakers": 0.18,
            "code": 0.16,
            "sums": 0.10,
            "chains": 0.05,
            "role_play": 0.20,
        }
    )
    modes: dict[str, float] = field(default_factory=lambda: {"honest": 0.42, "lying": 0.38, "silent": 0.20})
    fixation: float = 0.20
    bridge: float = 12.0


def write(dice: Dice, mix: Mix, withheld: bool | None) -> Page:
    """One document: one kind, or two parted by an empty line."""
    page = Page(dice, withheld, mix.bridge)
    if page.roll([1.0 - mix.fixation, 1.0]):
        page.fixation = draw_concept(page, beings_only=False)
        say_aside(page, page.fixation)
    first = _write_part(page, mix, tuple(mix.kinds))
    if len(mix.kinds) > 1 and page.n_words < 36 and page.chance("second_part"):
        page.say("\n\n")
        _write_part(page, mix, tuple(kind for kind in mix.kinds if kind != first))
    return page


def _write_part(page: Page, mix: Mix, names: tuple[str, ...]) -> str:
    kind = names[page.roll(list(accumulate(mix.kinds[name] for name in names)))]
    start = page.length
    match kind:
        case "facts":
            kinds.write_facts(page)
        case "verdicts":
            kinds.write_verdicts(page)
        case "speakers":
            kinds.write_speakers(page, mix.modes)
        case "code":
            kinds.write_code(page)
        case "sums":
            kinds.write_sums(page)
        case "chains":
            kinds.write_chains(page)
        case "role_play":
            kinds.write_role_play(page)
        case _:
            raise ValueError(f"kind {kind!r}: no such kind of document; one of {', '.join(Mix().kinds)}")
    page.mark(start, page.length, f"kind/{kind}", every=True)
    return kind


def pages(
    seed: int, count: int, *, start: int = 0, held_out: bool | None = False, mix: Mix | None = None
) -> Iterator[Page]:
    """Pages start, start + 1, ...: documents with the surprise of their choices in nats."""
    mix = mix or Mix()
    for document in range(start, start + count):
        yield write(KeyedDice(seed, document), mix, held_out)


def documents(
    seed: int, count: int, *, start: int = 0, held_out: bool | None = False, mix: Mix | None = None
) -> Iterator[Document]:
    """Documents with their truth.

    Args:
        held_out: False for combinations that training may show (facts in two languages, claims, sums, chains),
            True for those it never shows, None for the natural world with both.
    """
    return (page.document() for page in pages(seed, count, start=start, held_out=held_out, mix=mix))


@runtime_checkable
class Tokenizer(Protocol):
    def encode(self, text: str) -> list[int]:
        """Token ids, without special tokens."""
        ...


@dataclass(frozen=True, slots=True)
class EntropyFloor:
    """What documents cost to write: nats of surprise, over the tokens that a model predicts (their end token included)."""

    nats: float
    n_tokens: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.n_tokens


def entropy_floor(
    tokenizer: Tokenizer, seed: int, count: int, *, held_out: bool | None = None, mix: Mix | None = None
) -> EntropyFloor:
    """The lowest loss on these documents: exact, since every choice can be seen in the text (tests/planted proves it).

    A single sample may be beaten by luck; the expectation cannot. By default of the natural world, in which the withheld
    combinations are as frequent as others: a model that generalises to them meets this floor.
    """
    written = list(pages(seed, count, held_out=held_out, mix=mix))
    n_tokens = sum(len(tokenizer.encode(page.document().text)) + 1 for page in written)
    return EntropyFloor(sum(page.nats for page in written), n_tokens)
