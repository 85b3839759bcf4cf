"""Labels to measure with: phrases as a labeller writes them, over a vocabulary as uneven as that of real text. Seeded."""

import numpy as np

_PHRASES = (
    "references to {0} and {1} in {2} contexts",
    "the word {0} in {1} text",
    "{0} {1} followed by {2}",
    "discussions of {0}, especially {1} or {2}",
    "punctuation after {0}",
    "names of {0} associated with {1} {2} {3}",
    "code that handles {0} {1}",
    "“{0}”, “{1}”, “{2}” and {3} more",
)
_SYLLABLES = ("ba", "ri", "ton", "gel", "mu", "ska", "ver", "lo", "phi", "dren", "is", "qua", "o", "ste", "ny", "cur")


def vocabulary(n_words: int, seed: int) -> list[str]:
    """Distinct pronounceable words."""
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n_words:
        found["".join(random.choice(_SYLLABLES, random.integers(2, 6)))] = None
    return list(found)


def labels(n: int, *, n_words: int = 100_000, n_topics: int = 500, seed: int = 0) -> list[str]:
    """n labels, a third of their words by Zipf's law from everywhere and the rest from one topic of the label's own."""
    random = np.random.default_rng(seed)
    words = vocabulary(n_words, seed)
    by_law = np.minimum(random.zipf(1.3, (n, 4)), n_words) - 1
    topics = random.integers(0, n_topics, n)
    of_topic = topics[:, None] + n_topics * random.integers(0, n_words // n_topics, (n, 4))
    chosen = np.where(random.random((n, 4)) < 1 / 3, by_law, of_topic)
    phrases = random.integers(0, len(_PHRASES), n)
    return [
        _PHRASES[phrase].format(*(words[number] for number in numbers))
        for phrase, numbers in zip(phrases.tolist(), chosen.tolist(), strict=True)
    ]
