"""Do concept vectors add? fox(en) - dog(en) + dog(de) = fox(de), in the built-in model, with the nulls that such sums need.

    python examples/arithmetic.py

Words of the built-in world have a concept and a language, and the truth of the corpus says which. The vector of a pair is the
mean row of its tokens, less the mean of all pairs. A sum is right where the nearest of all pairs by cosine, but for the three
that went in, is the fourth. Two nulls: the nearest to the first vector alone (nothing added; most "analogies" are won by it:
Rogers et al. 2017), and the sum with the difference of two pairs drawn at random.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from mohole import artifact
from mohole.corpus import Corpus, build_corpus
from mohole.model import load_model
from mohole.planted.stream import documents

Vector = NDArray[np.float64]
Pair = tuple[str, str]
FAMILY, LANGUAGE = "animal", "word_language"


@dataclass(frozen=True)
class Analogies:
    """Shares of sums that end at the right pair."""

    n: int
    added: float
    nothing_added: float
    wrong_difference: float
    n_candidates: int

    @property
    def chance(self) -> float:
        return 1 / (self.n_candidates - 3)


def analogies(means: Mapping[Pair, Vector], *, seed: int = 0) -> Analogies:
    """Try every sum of two concepts and two languages of which all four pairs are there.

    Args:
        means: the vector of each (concept, language).
    """
    pairs = list(means)
    place = {pair: i for i, pair in enumerate(pairs)}
    vectors = np.stack([means[pair] for pair in pairs])
    vectors = vectors - vectors.mean(0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    concepts, languages = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    random = np.random.default_rng(seed)
    right: list[tuple[bool, bool, bool]] = []
    for a, b in permutations(concepts, 2):
        for one, other in permutations(languages, 2):
            corners = [(a, one), (b, one), (b, other), (a, other)]
            if not all(corner in place for corner in corners):
                continue
            start, minus, plus, goal = (place[corner] for corner in corners)
            stray = random.choice(len(pairs), size=2, replace=False)
            sums = (
                vectors[start] - vectors[minus] + vectors[plus],
                vectors[start],
                vectors[start] - vectors[stray[0]] + vectors[stray[1]],
            )
            right.append(tuple(_nearest(unit, each, (start, minus, plus)) == goal for each in sums))  # type: ignore[arg-type]
    shares = np.mean(right, axis=0)
    return Analogies(len(right), *map(float, shares), len(pairs))


def _nearest(unit: Vector, vector: Vector, but: tuple[int, ...]) -> int:
    cosine = unit @ vector
    cosine[list(but)] = -np.inf
    return int(cosine.argmax())


def mean_rows(hookpoint: str, n_documents: int, *, least: int = 5) -> dict[Pair, Vector]:
    """The mean row of each (concept, language) of the built-in world that has tokens enough."""
    model = load_model("planted")
    with TemporaryDirectory() as folder:
        place = Path(folder) / "corpus"
        with artifact.create(place, artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
            text = documents(1 << 41, n_documents, held_out=None)
            build_corpus(out, text, model.tokenizer, context=128, has_bos=True, held_out=0.1, seed=0)
        corpus = Corpus.open(place)
        rows = np.zeros((corpus.n_tokens, model.d_model), dtype=np.float32)
        wanted = np.unique(
            np.concatenate([corpus.truth(label) for label in corpus.labels if label.startswith(f"{FAMILY}/")])
        )
        windows = np.unique(np.searchsorted(corpus.windows.start, wanted, side="right") - 1)
        for start in range(0, len(windows), 32):
            some = windows[start : start + 32]
            found = model.read(torch.from_numpy(corpus.window_tokens(some, model.bos_id)), [hookpoint])[hookpoint][
                :, 1:
            ]
            for row, window in zip(found, some, strict=True):
                first, length = corpus.windows.start[window], corpus.windows.length[window]
                rows[first : first + length] = row[:length].float().numpy()
        result = {}
        for concept in (label for label in corpus.labels if label.startswith(f"{FAMILY}/")):
            for language in (label for label in corpus.labels if label.startswith(f"{LANGUAGE}/")):
                tokens = np.intersect1d(corpus.truth(concept), corpus.truth(language))
                if len(tokens) >= least:
                    result[concept, language] = rows[tokens].astype(np.float64).mean(0)
        return result


def main() -> None:
    torch.set_num_threads(1)
    for hookpoint in ("resid_post.0", "resid_post.1", "resid_post.2"):
        found = analogies(mean_rows(hookpoint, 1500))
        sys.stdout.write(
            f"{hookpoint}: {found.added:.0%} of {found.n} sums end at the fourth word; nothing added "
            f"{found.nothing_added:.0%}, a wrong difference {found.wrong_difference:.0%}, chance {found.chance:.1%}\n"
        )


if __name__ == "__main__":
    main()
