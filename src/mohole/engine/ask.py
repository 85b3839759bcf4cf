"""What an engine is asked for and what it tells: plain values. Nothing runs here."""

from dataclasses import dataclass
from typing import Literal

from mohole.act import NOTHING, LatentReading, Plan, Stamp
from mohole.model.generate import Sampling

Reason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt, continued once for each way of sampling."""

    prompt: tuple[int, ...]
    samplings: tuple[Sampling, ...]
    """One for each continuation, with its own seed."""
    max_new_tokens: int
    plan: Plan = NOTHING
    """What is done to the model for it."""
    stop: tuple[str, ...] = ()
    """Texts that end it, and are not part of it."""
    n_top: int | None = None
    """Log-probabilities of the token and of so many likeliest ones; None: of none."""
    readings: tuple[LatentReading, ...] = ()
    """Latents whose activation is wanted at every token that is written."""
    skips_space: bool = False
    """Leave out the spaces that the text begins with."""
    most_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a token was, before temperature and top_p; and the likeliest ones."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """(token, log-probability), likeliest first."""


@dataclass(frozen=True, slots=True)
class Written:
    """One token of a continuation whose text is settled: what comes behind cannot change it any more."""

    row: int
    """Which of the ask's continuations."""
    token: int
    text: str
    """What it adds. All of them put together are the continuation's text, and never end within a character."""
    likelihood: Likelihood | None = None
    values: tuple[float, ...] | None = None
    """Of the readings, at this token's own row."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A continuation is whole."""

    row: int
    reason: Reason
    n_written: int
    """Tokens that the model wrote, with those of a stop string or of the end of text."""
    stamp: Stamp


Event = Written | Ended
