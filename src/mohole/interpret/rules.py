"""Rules and the search for the best one: sets of keys of one aspect, possibly only after a trigger word. No wording here.

Rules are proposed on the explain pool, chosen on explain and select, and the chosen rule's keys are taken again from both.
The test pool is counted once, for the rule that was chosen.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mohole.interpret.aspects import Aspect
from mohole.interpret.contexts import SCOPES, Context, Contexts, Inside
from mohole.interpret.text import EXPLAIN, SELECT, TEST, Text

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

ITEM_COST = 0.003  # F1 that another key must gain to be worth reading
CONTEXT_COST = 0.02
COMBINATION_COST = 0.04
_RESOLVED = 0.9  # above this chosen F1 no context is tried
_MIN_SELECT = 10  # firings that the select pool needs to choose on its own
_WITH_CONTEXT = ("word", "class", "next")
_N_CONTEXTS = 4
_WIDEST_CONTEXT = 0.35  # share of places
_N_COMBINED = 2


@dataclass(frozen=True)
class Score:
    """Counts of a rule against firings, over the places of some pools."""

    hits: int
    predicted: int
    fired: int

    @property
    def f1(self) -> float:
        return 2 * self.hits / max(self.predicted + self.fired, 1)

    @property
    def precision(self) -> float:
        return self.hits / max(self.predicted, 1)

    @property
    def recall(self) -> float:
        return self.hits / max(self.fired, 1)


@dataclass(frozen=True)
class Rule:
    """Fires where the aspect's key is one of `keys`, and the context holds where there is one."""

    aspect: str
    keys: tuple[int, ...]
    """Most hits first."""
    context: Context | None = None


@dataclass(frozen=True)
class Firing:
    """Places at which one latent fires, by pool."""

    by_pool: tuple[Int64, Int64, Int64]

    def of(self, *pools: int) -> Int64:
        return np.concatenate([self.by_pool[pool] for pool in pools])


class Search:
    """Finds the best rule for one latent after another, over one text."""

    def __init__(self, text: Text, aspects: dict[str, Aspect]) -> None:
        self.text = text
        self.aspects = aspects
        self._contexts = {scope: Contexts(text, aspects["word"].keys, scope) for scope in SCOPES}

    def best_rule(self, firing: Firing) -> Rule:
        """The rule with the best F1, less what its length costs, on pools other than the test pool."""
        choose = (SELECT,) if len(firing.by_pool[SELECT]) >= _MIN_SELECT else (EXPLAIN, SELECT)
        candidates = [(self._chosen_f1(rule, firing, choose), rule) for rule in self._plain(firing)]
        best = max(candidates, key=lambda candidate: candidate[0])
        if best[0] < _RESOLVED:
            contextual = self._contextual(firing, best[0])
            best = max(
                [best, *((self._chosen_f1(rule, firing, choose), rule) for rule in contextual)], key=lambda c: c[0]
            )
        return self._refitted(best[1], firing)

    def score(self, rule: Rule, firing: Firing, pools: tuple[int, ...] = (TEST,)) -> Score:
        """How a rule does on some pools."""
        aspect, places = self.aspects[rule.aspect], firing.of(*pools)
        keys = np.asarray(rule.keys, dtype=np.int64)
        chosen = np.zeros(aspect.counts.shape[1] + 1, dtype=np.bool_)  # one more, for key -1
        chosen[keys] = True
        hit = chosen[aspect.keys[places]]
        if rule.context is None:
            return Score(int(hit.sum()), int(aspect.counts[list(pools)][:, keys].sum()), len(places))
        inside = self._inside(rule.context)
        if rule.aspect == "anything":
            predicted = sum(len(inside.by_pool[pool]) for pool in pools)
        else:
            predicted = sum(int(chosen[aspect.keys[inside.by_pool[pool]]].sum()) for pool in pools)
        return Score(int((hit & inside.mask[places]).sum()), predicted, len(places))

    def _inside(self, context: Context) -> Inside:
        return self._contexts[context.scope].inside(context.trigger)

    def _chosen_f1(self, rule: Rule, firing: Firing, pools: tuple[int, ...]) -> float:
        cost = self.aspects[rule.aspect].cost + ITEM_COST * len(rule.keys)
        if rule.context is not None:
            cost += CONTEXT_COST if rule.aspect == "anything" else COMBINATION_COST
        return self.score(rule, firing, pools).f1 - cost

    def _plain(self, firing: Firing) -> list[Rule]:
        fired = firing.of(EXPLAIN)
        return [
            Rule(name, best_keys(aspect, fired, aspect.counts[EXPLAIN])) for name, aspect in self.aspects.items()
        ]  # fmt: skip

    def _contextual(self, firing: Firing, to_beat: float) -> list[Rule]:
        """Everything after a trigger; and for the best triggers, sets of keys after it.

        Passed over: a context that holds nearly everywhere, which says nothing, and one that misses so many firings that no
        set of keys after it could beat what there is (F1 <= 2 r / (1 + r) for recall r).
        """
        fired = firing.of(EXPLAIN)
        n_explain = int(self.aspects["anything"].counts[EXPLAIN, 0])
        rules: list[Rule] = []
        for scope, contexts in self._contexts.items():
            promising: list[tuple[float, Context]] = []
            for trigger in contexts.candidates(fired, _N_CONTEXTS):
                context = Context(scope, trigger)
                rule = Rule("anything", (0,), context)
                score = self.score(rule, firing, (EXPLAIN,))
                if score.predicted > _WIDEST_CONTEXT * n_explain:
                    continue
                rules.append(rule)
                if 2 * score.recall / (1 + score.recall) - COMBINATION_COST > to_beat:
                    promising.append((score.recall + score.f1, context))
            promising.sort(key=lambda candidate: -candidate[0])
            for _, context in promising[:_N_COMBINED]:
                rules += self._combined(context, fired)
        return rules

    def _combined(self, context: Context, fired: Int64) -> list[Rule]:
        inside = self._inside(context)
        hits = fired[inside.mask[fired]]
        rules = []
        for name in _WITH_CONTEXT:
            counts = self._counts_inside(self.aspects[name], inside.by_pool[EXPLAIN])
            rules.append(Rule(name, best_keys(self.aspects[name], hits, counts, n_fired=len(fired)), context))
        return rules

    @staticmethod
    def _counts_inside(aspect: Aspect, inside: Int64) -> Int64:
        keys = aspect.keys[inside]
        return np.bincount(keys[keys >= 0], minlength=aspect.counts.shape[1])

    def _refitted(self, rule: Rule, firing: Firing) -> Rule:
        """The same kind of rule with its keys taken from explain and select together: more places, more rare keys."""
        aspect, fired = self.aspects[rule.aspect], firing.of(EXPLAIN, SELECT)
        if rule.context is None:
            return replace(rule, keys=best_keys(aspect, fired, aspect.counts[EXPLAIN] + aspect.counts[SELECT]))
        inside = self._inside(rule.context)
        counts = self._counts_inside(aspect, np.concatenate([inside.by_pool[EXPLAIN], inside.by_pool[SELECT]]))
        return replace(rule, keys=best_keys(aspect, fired[inside.mask[fired]], counts, n_fired=len(fired)))


def best_keys(aspect: Aspect, fired: Int64, counts: Int64, n_fired: int | None = None) -> tuple[int, ...]:
    """The set of keys with the best F1 against the firings, less ITEM_COST each; most hits first. At least one key.

    The set with the best F1 takes keys in the order of their precision, so one pass along that order finds it. A key must hit
    twice, unless none does, and half a hit is taken off: what was seen once proves nothing.

    Args:
        counts: how many places have each key, among those that the firings come from.
        n_fired: firings in all, if more than those given.
    """
    known = aspect.keys[fired]
    hits = np.bincount(known[known >= 0])
    keys = np.flatnonzero(hits >= 2)
    if len(keys) == 0:
        keys = np.flatnonzero(hits)
    if len(keys) == 0:
        return ()
    hits = hits[keys]
    predicted = counts[keys]
    by_precision = np.lexsort((keys, -hits, -(hits - 0.5) / predicted))
    # "The first so many" is a rule; "the second and the fifth" is none.
    order = np.argsort(keys) if aspect.name == "position" else by_precision
    keys, hits, predicted = (column[order][: aspect.max_items] for column in (keys, hits, predicted))
    f1 = 2 * np.cumsum(hits) / (np.cumsum(predicted) + (len(fired) if n_fired is None else n_fired))
    n_kept = int(np.argmax(f1 - ITEM_COST * np.arange(len(keys)))) + 1
    kept = np.lexsort((keys[:n_kept], -hits[:n_kept]))
    return tuple(keys[kept].tolist())
