"""A sweep of strengths as plain values: what is tried on what, what is looked for, what came of it. Measures nothing."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from mohole.act.interventions import Latent
from mohole.act.usable import Bounds, UsableRange
from mohole.corpus import Task
from mohole.errors import ConfigError
from mohole.metrics import Measure


@dataclass(frozen=True)
class Trial:
    """What strengths are tried on."""

    prompts: tuple[str, ...]
    """To be continued."""
    texts: tuple[Int[Tensor, "1 _"], ...]
    """Other text, begin-of-text token included. Its first half counts as prompt, predictions of its second are compared."""
    tasks: tuple[Task, ...] = ()
    n_samples: int = 2
    """Texts for each prompt."""
    max_new_tokens: int = 24
    temperature: float = 1.0
    seed: int = 0
    batch_rows: int = 128

    def __post_init__(self) -> None:
        """Raises: ConfigError: nothing to continue, or no text of two tokens to predict."""
        if not self.prompts or not all(self.prompts):
            raise ConfigError("sweep: a prompt is needed, and none may be empty; give --prompt TEXT")
        if not self.texts or min(text.shape[1] for text in self.texts) < 3:
            raise ConfigError("sweep: other text of three tokens at least is needed, to see what steering does to it")
        if self.n_samples < 1 or self.max_new_tokens < 1:
            raise ConfigError(f"sweep: {self.n_samples} texts of {self.max_new_tokens} tokens; both must be 1 at least")


@dataclass(frozen=True)
class Concept:
    """What the effect is looked for by."""

    latents: tuple[Latent, ...]
    """Any of them active at a token counts. None: only words do."""
    words: frozenset[int]
    """Token ids. None: only activity does."""
    how: str
    """Where the words come from, for people."""
    effect: str = ""
    """Name of the measure that decides: active or words. Empty: active where there are latents."""

    def __post_init__(self) -> None:
        """Raises: ConfigError: nothing to look for."""
        if not self.latents and not self.words:
            raise ConfigError("sweep: nothing says when steering has worked; give a word of the concept, --word TEXT")
        if not self.effect:
            object.__setattr__(self, "effect", "active" if self.latents else "words")


@dataclass(frozen=True, slots=True)
class TaskRight:
    """Right answers to one task."""

    name: str
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """What was found at one strength."""

    strength: float | None
    """In the sweep's unit. None: unsteered."""
    measures: dict[str, Measure]
    """active (where a latent is steered), words (where there are any), perplexity, repeated, kl, tasks (where there are any)."""
    tasks: tuple[TaskRight, ...]
    texts: tuple[str, ...]
    """What was written, prompt after prompt, all samples of one together."""
    broken: tuple[str, ...]
    """What of the rule does not hold here. Empty: usable. Of the unsteered model: nothing is said."""


@dataclass(frozen=True, slots=True)
class DoseResponse:
    """A sweep of strengths and what came of it."""

    of: str
    """What was swept: a latent, a variant, a direction."""
    label: str
    interventions: tuple[dict[str, Any], ...]
    """As JSON, at 1 times their strength."""
    unit: str
    """Of strengths, in words: times its maximum, times as said."""
    latents: tuple[str, ...]
    words: tuple[str, ...]
    """As they stand in a text."""
    words_are: str
    effect: str
    """Which measure is the effect of the rule."""
    bounds: Bounds
    usable: UsableRange
    unsteered: Point
    points: tuple[Point, ...]
    """Strengths ascending."""
    prompts: tuple[str, ...]
    n_samples: int
    max_new_tokens: int
    temperature: float
    seed: int
