"""What each latent fires on: statistics and examples, gathered by tasks in any number of workers, read feature by feature.

The names below are imported when first used: what a job has to do is known without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mohole.catalogue.builder import build
    from mohole.catalogue.catalogue import Catalogue
    from mohole.catalogue.elsewhere import Elsewhere, Match, matches
    from mohole.catalogue.feature import Example, Feature, Histogram, Interval
    from mohole.catalogue.sources import InMemory, OnDisk, Sources

_WHERE = {
    "Catalogue": "catalogue",
    "Elsewhere": "elsewhere",
    "Example": "feature",
    "Feature": "feature",
    "Histogram": "feature",
    "InMemory": "sources",
    "Interval": "feature",
    "Match": "elsewhere",
    "OnDisk": "sources",
    "Sources": "sources",
    "build": "builder",
    "matches": "elsewhere",
}

__all__ = [
    "Catalogue",
    "Elsewhere",
    "Example",
    "Feature",
    "Histogram",
    "InMemory",
    "Interval",
    "Match",
    "OnDisk",
    "Sources",
    "build",
    "matches",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"mohole.catalogue has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"mohole.catalogue.{_WHERE[name]}"), name)
