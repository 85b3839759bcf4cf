"""What each latent fires on: mergeable statistics and examples, built once, read feature by feature."""

from mohole.catalogue.builder import build
from mohole.catalogue.catalogue import Catalogue, Example, Feature, Histogram, Interval

__all__ = ["Catalogue", "Example", "Feature", "Histogram", "Interval", "build"]
