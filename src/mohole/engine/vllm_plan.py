"""Plans in the words of interp-engine, the plug-in that steers inside vLLM: what it can say, and by name what it cannot. No vLLM.

It moves rows along given directions: adds (also in units of the row's length), takes out, scales and caps what lies along one.
It has no dictionaries, so what must know a latent's activation (clamp, scale, ablate, cap and swap of latents, conditions) is not
for it; nor are classes of tokens and windows of what is written. One request has one choice of positions.
"""

from dataclasses import dataclass
from typing import Any

from mohole.act import NOTHING, Plan, Where
from mohole.act.terms import Projection, Term
from mohole.errors import ConfigError
from mohole.model import parse_hookpoint


@dataclass(frozen=True)
class WorkerSteering:
    """What a worker is told of one request."""

    specs: tuple[dict[str, Any], ...]
    """In order; each reads what the one before it has written."""
    skipped: tuple[int, ...]
    """Positions of the prompt, begin-of-text counted, that are left alone."""
    generated: bool
    """Also tokens that the model writes."""
    point: str
    """Where its rows are counted."""

    def n_acted(self, n_prompt: int, n_run: int) -> int:
        """Tokens, of so many that were run, that it acts at."""
        return n_prompt - len(self.skipped) + (n_run - n_prompt if self.generated else 0)


def worker_steering(plan: Plan, n_prompt: int, begins: int) -> WorkerSteering | None:
    """A plan for a prompt of so many tokens; None: nothing is done.

    Args:
        begins: 1 where the prompt begins with a begin-of-text token, else 0.

    Raises:
        ConfigError: something that the plug-in cannot say, by its name.
    """
    if plan is NOTHING or not plan.stages:
        return None
    terms = list(plan.terms)
    wheres = list(dict.fromkeys(term.where for term in terms))
    if len(wheres) > 1:
        raise ConfigError(
            f"vllm: interventions at {wheres[0]} and at {wheres[1]}; there a request has one choice of tokens"
        )
    skipped, generated = _positions(wheres[0], n_prompt, begins)
    specs = tuple(_spec(term) for term in terms)
    return WorkerSteering(specs, skipped, generated, f"{specs[0]['point']}.{specs[0]['layer']}")


def _positions(where: Where, n_prompt: int, begins: int) -> tuple[tuple[int, ...], bool]:
    """Positions of the prompt to leave alone, and whether what is written is acted at."""
    if where.tokens or where.classes:
        raise ConfigError("vllm: cannot act at certain tokens alone; leave where.tokens and where.classes out")
    has_window = (where.start, where.stop) != (0, None)
    if has_window and where.part != "prompt":
        raise ConfigError("vllm: a window is counted in the prompt alone; say where.part = 'prompt'")
    n_text = n_prompt - begins
    first = where.start if where.start >= 0 else n_text + where.start
    last = n_text if where.stop is None else where.stop if where.stop >= 0 else n_text + where.stop
    acted = set() if where.part == "response" else {begins + place for place in range(max(0, first), min(last, n_text))}
    if where.bos and begins:
        acted.add(0)
    return tuple(place for place in range(n_prompt) if place not in acted), where.part != "prompt"


def _spec(term: Term) -> dict[str, Any]:
    kind = type(term.of).__name__.lower()
    point = parse_hookpoint(term.hookpoint)
    if point.kind != "resid_post" or point.layer is None:
        raise ConfigError(f"vllm: {kind} at {term.hookpoint}; there only resid_post.L is acted at")
    if term.when is not None:
        raise ConfigError(f"vllm: {kind} with a condition (when); there nothing is read")
    read = term.read if term.slope or _is_bounded(term) or term.scaled_by is not None else None
    if read is not None and not isinstance(read, Projection):
        raise ConfigError(
            f"vllm: {kind} of a latent must know its activation, and there are no dictionaries there; add is of any vector"
        )
    head = {
        "point": point.kind,
        "layer": point.layer,
        "stream": None,
        "vector": term.along.detach().cpu().float().tolist(),
    }
    if read is None:
        return head | _adding(term)
    if read.vector is not term.along or read.bias:
        raise ConfigError(f"vllm: {kind} moves rows along another direction than it reads; there both are one")
    if _is_bounded(term):
        return head | {"op": "projection_cap", "min": _bound(term.low), "max": _bound(term.high)}
    return head | {"op": "orthogonal", "coeff": 1.0 + term.slope}


def _adding(term: Term) -> dict[str, Any]:
    if term.by_norm:  # its own bound on the length would be a weaker push than was asked for
        return {"op": "norm_scaled_add", "coeff": term.constant, "max_fraction": 2.0 * max(1.0, abs(term.constant))}
    return {"op": "additive", "coeff": term.constant}


def _is_bounded(term: Term) -> bool:
    return _bound(term.low) is not None or _bound(term.high) is not None


def _bound(value: float) -> float | None:
    return None if value in (float("-inf"), float("inf")) else value
