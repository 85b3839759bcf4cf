"""What a report says of the definitions that it was measured by: which ones, and that they gave every known answer."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mohole import artifact

_METRICS = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Stamp:
    """The definitions of one version of the code, and what came of asking them."""

    definitions: str
    """Checksum of the source files of mohole.metrics, known answers included."""
    n_answers: int
    wrong: tuple[str, ...]
    """Known answers that they did not give, a sentence each. Empty is good."""


@lru_cache(maxsize=1)
def stamp() -> Stamp:
    """Ask our definitions for every known answer, once in a process: some seconds."""
    from mohole.metrics.known_answers import CHECKS  # scikit-learn and all: not for those who only read a report
    from mohole.metrics.known_answers.seen import asked

    found = tuple(asked(CHECKS))
    wrong = tuple(f"{each.name}: {sentence}" for each in found for sentence in each.wrong)
    sources = sorted(_METRICS.rglob("*.py"))
    named = [(path.relative_to(_METRICS).as_posix(), artifact.file_digest(path)) for path in sources]
    return Stamp(artifact.digest_of(named), sum(len(each.answers) for each in found), wrong)
