"""What each latent fires on: mergeable statistics and examples, built once, read feature by feature."""

from mohole.catalogue.builder import build
from mohole.catalogue.catalogue import Catalogue, Example, Feature, Histogram, Interval
from mohole.catalogue.sample import first_twins, within_budget

__all__ = ["Catalogue", "Example", "Feature", "Histogram", "Interval", "build", "first_twins", "within_budget"]
