"""Names for latents. Offline: simple rules about the text, each scored on documents that played no part in finding it."""

from mohole.interpret.labeller import label
from mohole.interpret.labels import Label, Labels, Status, unlabelled

__all__ = ["Label", "Labels", "Status", "label", "unlabelled"]
