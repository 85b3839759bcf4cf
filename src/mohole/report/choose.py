"""Which features to show a person who will look at twenty: good ones, unlike each other. No layout."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

from mohole.report.findings import FeatureCard, Findings, Snippet

_LISTED = 5  # a label that has to list so many words is seldom one meaning
_MANY_WORDS = 7  # among a dozen examples: more look like several meanings


@dataclass(frozen=True, slots=True)
class Chosen:
    """A feature and where it is from."""

    hookpoint: str
    feature: FeatureCard


def choose_features(findings: Findings, n: int) -> list[Chosen]:
    """Up to `n` features of all hookpoints, the steered one first, then the best by merit less what they repeat.

    Merit: the label's F1 on unseen documents and brevity, a planted concept recovered, a few word forms or scripts among the
    strongest tokens; punctuation counts against. Repetition: the same label or strongest word (heavily), kind of label, decade of
    density, hookpoint. Greedy, deterministic; ties go to the earlier hookpoint and the lower latent.
    """
    pool = [
        Chosen(place.hookpoint, feature) for place in findings.hookpoints for feature in place.features if feature.top
    ]
    merits = {id(item): _merit(item, findings) for item in pool}  # once each: the loop below asks n times for all
    seen: Counter[tuple[str, str]] = Counter()
    chosen: list[Chosen] = []
    while pool and len(chosen) < n:
        best = max(pool, key=lambda item: merits[id(item)] - _repetition(item, seen))
        if merits[id(best)] - _repetition(best, seen) < 0 and chosen:
            break
        pool.remove(best)
        chosen.append(best)
        seen.update(_traits(best))
    return chosen


def _merit(item: Chosen, findings: Findings) -> float:
    feature, steering = item.feature, findings.steering
    if steering and (item.hookpoint, feature.latent) == (steering.hookpoint, steering.latent):
        return 100.0
    return merit(feature)


def merit(feature: FeatureCard) -> float:
    """How much a person is likely to learn from a feature, by itself."""
    words = _words(feature)
    if not words:
        return (feature.f1 or 0.0) - 0.7
    worth = 0.2 if feature.f1 is None else feature.f1
    worth -= 0.3 if feature.label.text.count("“") >= _LISTED else 0.0
    if feature.concept:
        worth += 0.3 * feature.concept.f1 + 0.05 * feature.concept.n_languages
    if len(words) <= _MANY_WORDS:
        worth += 0.05 * min(len(words) - 1, 3) + 0.1 * (len({_script(word) for word in words}) - 1)
    return worth


def _repetition(item: Chosen, seen: Counter[tuple[str, str]]) -> float:
    weights = {"label": 0.9, "word": 0.6, "kind": 0.06, "decade": 0.03, "hookpoint": 0.02, "family": 0.08}
    return sum(weights[trait] * seen[trait, value] for trait, value in _traits(item))


def _traits(item: Chosen) -> list[tuple[str, str]]:
    feature = item.feature
    words = _words(feature)
    traits = [
        ("label", feature.label.text.casefold()),
        ("hookpoint", item.hookpoint),
        ("decade", str(floor(log10(feature.density)) if feature.density else None)),
    ]
    if words:
        traits.append(("word", words.most_common(1)[0][0]))
    if feature.label.kind:
        traits.append(("kind", feature.label.kind))
    if feature.concept:
        traits.append(("family", feature.concept.label.partition("/")[0]))
    return traits


def _words(feature: FeatureCard) -> Counter[str]:
    """The tokens that the strongest examples are about, without case and spaces, punctuation left out."""
    words = (snippet.pieces[snippet.focus].strip().casefold() for snippet in feature.top)
    return Counter(word for word in words if any(letter.isalnum() for letter in word))


def _script(word: str) -> str:
    letter = next(letter for letter in word if letter.isalnum())
    return unicodedata.name(letter, "?").split(" ", 1)[0]


def varied_snippets(feature: FeatureCard, n: int) -> Sequence[Snippet]:
    """Up to `n` of the strongest examples, those about different words first."""
    seen: set[str] = set()
    fresh: list[Snippet] = []
    rest: list[Snippet] = []
    for snippet in feature.top:
        word = snippet.pieces[snippet.focus].strip().casefold()
        (rest if word in seen else fresh).append(snippet)
        seen.add(word)
    return [*fresh, *rest][:n]
