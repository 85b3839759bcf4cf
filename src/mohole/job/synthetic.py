"""Synthetic rows, a dictionary learned from them, and its scores: the three artifacts of `mohole synthesize`.

RUN/synthetic/rows  ->  RUN/synthetic/dictionary  ->  RUN/synthetic/scores
"""

from pathlib import Path
from typing import Any

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import Recipe, n_bytes
from mohole.dictionary.files import open_sae
from mohole.job.make import Say, print_line
from mohole.metrics import Measure
from mohole.metrics.measure import as_json
from mohole.record import write_json

FOLDER = "synthetic"
_VERSION = 1


def run_synthetic(recipe: Recipe, *, replace: bool = False, say: Say = print_line) -> dict[str, Measure]:
    """Make what is missing of rows, dictionary and scores; the scores.

    Raises:
        ArtifactError: an artifact stands there that was made from something else, and `replace` is false.
    """
    from mohole.store import Store
    from mohole.store.stream import Stream
    from mohole.synthetic import SCORES_FILE, SyntheticWorld, read_scores, score, write_rows
    from mohole.train import train

    run, seed, settings = Path(recipe.run) / FOLDER, recipe.seed, recipe.synthetic
    rows, dictionary, scores = run / "rows", run / "dictionary", run / "scores"
    world = SyntheticWorld(settings, seed)
    made_of = settings.model_dump(mode="json", exclude={"scored_rows"}) | {"dtype": recipe.harvest.dtype}
    inputs = Inputs(kind="activations", config=made_of, seed=seed, version=_VERSION)
    if not artifact.is_finished(rows, inputs):
        say(f"synthesize: {settings.n_rows:,} rows of {settings.n_features:,} features")
        write_rows(rows, world, seed=seed, dtype=recipe.harvest.dtype, inputs=inputs, replace=replace)
    inputs = _after(rows, "dictionary", recipe.train.model_dump(mode="json"), seed)
    if not artifact.is_finished(dictionary, inputs):
        store = Store.open(rows)
        stream = Stream(store, store.hookpoints[0], memory_bytes=n_bytes(recipe.machine.memory))
        with artifact.create(dictionary, inputs, replace=replace) as out:
            train(out, stream, recipe.train, seed=seed)
    inputs = _after(dictionary, "scores", {"scored_rows": settings.scored_rows}, seed)
    if not artifact.is_finished(scores, inputs):
        with artifact.create(scores, inputs, replace=replace) as out:
            found = score(world, open_sae(dictionary), n_rows=settings.scored_rows, seed=seed)
            write_json(out / SCORES_FILE, {name: as_json(measure) for name, measure in found.items()})
    return read_scores(scores)


def _after(parent: Path, kind: str, config: dict[str, Any], seed: int) -> Inputs:
    digest = artifact.read_manifest(parent).digest
    return Inputs(kind=kind, config=config, seed=seed, parents={parent.name: digest}, version=_VERSION)
