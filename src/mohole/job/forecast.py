"""From a recipe to the numbers that its forecast needs: how many rows, how wide, in how many runs. Runs no model."""

import json
from pathlib import Path

from mohole import artifact
from mohole.config import Recipe, TextCorpus, n_bytes
from mohole.errors import ConfigError, ModelError
from mohole.execute import share_cores
from mohole.job.asked import hookpoints_of
from mohole.model.source import find_model
from mohole.store.columns import RowFormat
from mohole.store.forecast import Forecast, Prices, forecast_rows
from mohole.store.plan import SEGMENT_BYTES, Limits

__all__ = ["Forecast", "Prices", "forecast"]

_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
"""What the config files of model families call the width of the residual stream."""


def forecast(
    recipe: Recipe,
    prices: Prices,
    *,
    n_tokens: int | None = None,
    d_model: int | None = None,
    segment_bytes: int | None = None,
) -> Forecast:
    """What harvest, shuffle and loader of a recipe take.

    Args:
        n_tokens: where the corpus has not been made; None: that of the corpus, or `corpus.max_tokens`.
        d_model: where the model is not on this machine.

    Raises:
        ConfigError: the number of tokens or the width is neither given nor known.
    """
    n_rows, n_runs = _rows(recipe, n_tokens)
    width = d_model or _width(recipe)
    row_format = RowFormat(recipe.harvest.dtype, width)
    memory = n_bytes(recipe.machine.memory)
    # What a cluster's recipe says of memory is of a host; its workers share it.
    processes = share_cores(64, processes=recipe.machine.processes, threads=1).processes
    limits = Limits(memory // processes, segment_bytes or SEGMENT_BYTES)
    return forecast_rows(
        n_rows,
        row_format.row_bytes,
        hookpoints_of(recipe),
        n_runs=n_runs,
        limits=limits,
        loader_bytes=memory,
        stored=recipe.shuffle.stored,
        levels=recipe.shuffle.levels,
        prices=prices,
    )


def _rows(recipe: Recipe, n_tokens: int | None) -> tuple[int, int]:
    """Rows and runs: exact where the corpus is there already, but for special tokens in its text."""
    folder = Path(recipe.run) / "corpus"
    if n_tokens is None and (folder / artifact.MANIFEST).is_file():
        from mohole.corpus import Corpus
        from mohole.corpus.slices import slices

        corpus = Corpus.open(folder)
        return corpus.n_tokens, len(slices(corpus, recipe.harvest.shard_tokens))
    if n_tokens is None and isinstance(recipe.corpus, TextCorpus):
        n_tokens = recipe.corpus.max_tokens
    if n_tokens is None:
        raise ConfigError(f"{folder}: no corpus there yet; say how many tokens it will have with --tokens")
    return n_tokens, -(-n_tokens // recipe.harvest.shard_tokens)


def _width(recipe: Recipe) -> int:
    try:
        folder = find_model(recipe.model.path, recipe.model.revision, allow_download=False)[1]
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ModelError, OSError, json.JSONDecodeError):
        raise ConfigError(
            f"model.path: {recipe.model.path} is not on this machine; say how wide it is with --d-model"
        ) from None
    config = config.get("text_config", config)
    for key in _WIDTHS:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise ConfigError(f"model.path: the config of {recipe.model.path} names no width; say it with --d-model")
