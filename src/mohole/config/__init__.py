"""Recipes: TOML files into frozen, strict values, with overrides. No stage logic: what a field means is said here, once.

A recipe has one table per stage. An unknown key, a wrong type or an impossible value is a `ConfigError` that names the
key, the value and the nearest valid one.
"""

from mohole.config.given import Given
from mohole.config.listing import settings
from mohole.config.read import from_tables, members, parse, read_recipe
from mohole.config.recipe import (
    Catalogue,
    Clamp,
    Corpus,
    DatasetCorpus,
    Evaluate,
    Harvest,
    Label,
    Machine,
    Model,
    PlantedCorpus,
    Recipe,
    Report,
    Shuffle,
    Steer,
    Suite,
    TextCorpus,
    Windows,
)
from mohole.config.sizes import n_bytes
from mohole.config.sweep import Sweep
from mohole.config.synthetic import Synthetic
from mohole.config.tables import Table
from mohole.config.train import (
    L0,
    L1,
    BatchTopK,
    Gated,
    JumpReLU,
    Nonlinearity,
    ReLU,
    Sparsity,
    Tanh,
    TopK,
    Train,
)

__all__ = [
    "L0", "L1", "BatchTopK", "Catalogue", "Clamp", "Corpus", "DatasetCorpus", "Evaluate", "Gated", "Given", "Harvest", "JumpReLU",
    "Label", "Machine", "Model", "Nonlinearity", "PlantedCorpus", "ReLU", "Recipe", "Report", "Shuffle", "Sparsity", "Steer",
    "Suite", "Sweep", "Synthetic", "Table", "Tanh", "TextCorpus", "TopK", "Train", "Windows", "from_tables", "members", "n_bytes",
    "parse", "read_recipe", "settings",
]  # fmt: skip
