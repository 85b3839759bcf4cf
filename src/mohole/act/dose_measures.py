"""What the passes of a sweep summed, as measures with intervals. Runs nothing."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from mohole.act.dose import Concept, TaskRight, Trial
from mohole.act.dose_rows import Written
from mohole.metrics import DocumentSums, Masks, Measure, measured, perplexity, repeated_ngrams, wilson
from mohole.metrics.written import NGRAM

Right = dict[str, tuple[int, int]]
"""By task: right answers, and prompts."""

_WRITTEN = ("tokens", "active", "words", "nats", "repeated", "ngrams")


def measures_of(
    texts: Sequence[Written], other: DocumentSums, right: Right, concept: Concept, trial: Trial
) -> dict[str, Measure]:
    """Of one strength: perplexity, repeated, words and active of what was written, kl on other text, tasks; those there are."""
    return (
        _of_written(texts, concept, trial)
        | {"kl": _kl(other, trial.seed)}
        | ({"tasks": _tasks(right)} if right else {})
    )


def by_task(right: Right) -> tuple[TaskRight, ...]:
    """Each task by itself."""
    return tuple(TaskRight(name, n, n_right / n, *wilson(n_right, n)) for name, (n_right, n) in right.items())


def _of_written(texts: Sequence[Written], concept: Concept, trial: Trial) -> dict[str, Measure]:
    """Sums are by prompt: prompts are what is resampled."""
    sums = DocumentSums(_WRITTEN)
    for text in texts:
        repeated, ngrams = repeated_ngrams(text.tokens)
        n_words = sum(token in concept.words for token in text.tokens)
        sums.add(
            np.array([text.item // trial.n_samples]),
            np.array([[len(text.tokens), text.n_active, n_words, text.nats, repeated, ngrams]], dtype=np.float64),
            place=f"text {text.item}",
        )
    n = int(sums.total("tokens"))
    own = partial(
        measured,
        documents=sums.documents,
        seed=trial.seed,
        masks=Masks(
            replaced="as the interventions say, while writing",
            scored="tokens that the model wrote; not the prompt, not an end-of-text token",
        ),
        baseline="the same prompts and draws, unsteered",
        undefined="nothing was written, or too little",
    )
    nats, tokens = sums.column("nats"), sums.column("tokens")
    measures = {
        "perplexity": own(
            lambda weights: perplexity(weights @ nats, weights @ tokens),
            name="perplexity",
            unit="tokens",
            n=n,
            n_of="written tokens",
            definition="exp of the mean -ln p(written token | what stands before it), p of the model unsteered",
        ),
        "repeated": own(
            sums.mean_of("repeated", "ngrams"),
            name="repeated",
            unit=f"share of {NGRAM}-grams",
            n=int(sums.total("ngrams")),
            n_of=f"{NGRAM}-grams of written tokens",
            definition=f"{NGRAM}-grams that stood in the same text before, of all",
        ),
    }
    if concept.words:
        measures["words"] = own(
            sums.mean_of("words", "tokens"),
            name="words",
            unit="share of tokens",
            n=n,
            n_of="written tokens",
            definition=f"written tokens that are words of the concept: {concept.how}",
        )
    if concept.latents:
        measures["active"] = own(
            sums.mean_of("active", "tokens"),
            name="active",
            unit="share of tokens",
            n=n,
            n_of="written tokens",
            definition="written tokens at which a steered latent is active when the unsteered model reads the text",
        )
    return measures


def _kl(sums: DocumentSums, seed: int) -> Measure:
    masks = Masks(
        replaced="as the interventions say; the first half of a text is its prompt",
        scored="predictions of the second half of each text",
    )
    return measured(
        sums.mean_of("kl", "pairs"),
        sums.documents,
        seed=seed,
        name="kl",
        unit="nats per token",
        n=int(sums.total("pairs")),
        n_of="predictions",
        masks=masks,
        baseline="the model unsteered",
        definition="mean KL(unsteered || steered) of next-token predictions on other text",
    )


def _tasks(right: Right) -> Measure:
    n_right, n = (sum(counts) for counts in zip(*right.values(), strict=True))
    low, high = wilson(n_right, n)
    return Measure(
        name="tasks",
        value=n_right / n,
        unit="share of prompts",
        low=low,
        high=high,
        n=n,
        n_of="prompts",
        n_documents=n,
        masks=Masks(replaced="as the interventions say; the answer is the response", scored="the answer's tokens"),
        baseline="the model unsteered",
        definition=f"prompts of {len(right)} tasks whose whole answer is the likeliest continuation; interval: Wilson",
    )
