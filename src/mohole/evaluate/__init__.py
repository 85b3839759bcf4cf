"""How good is a dictionary: reconstruction, damage to the model's predictions and skills, and recovery of planted truth."""

from mohole.evaluate.files import read_evaluation, read_recovery
from mohole.evaluate.recovery.results import Recovery
from mohole.evaluate.results import Evaluation
from mohole.evaluate.stage import evaluate

__all__ = ["Evaluation", "Recovery", "evaluate", "read_evaluation", "read_recovery"]
