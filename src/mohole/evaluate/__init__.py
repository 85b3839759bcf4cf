"""How good is a dictionary: reconstruction, damage to the model's predictions and skills, and recovery of planted truth.

    stage       the flow: everything below, in order, into one folder
    standin     the dictionary made ready: what it reads, what it writes, how it rebuilds rows
    rows/       what stored rows and the weights say, no model run
    in_model/   what the model loses with the dictionary in the place of its activations
    guards/     what should not be: other rows, numbers out of range, likely mistakes
    suites/     supervised and causal suites, those that are asked for
    recovery/   each known concept held against the latents, where the corpus has truth
    results     what was found, as typed values; files writes and reads them

Which room may import which stands in `pyproject.toml`: suites from recovery, both from rows and in_model, those from neither.
"""

from mohole.evaluate.files import read_evaluation, read_recovery
from mohole.evaluate.recovery.results import Recovery
from mohole.evaluate.results import Evaluation
from mohole.evaluate.stage import evaluate

__all__ = ["Evaluation", "Recovery", "evaluate", "read_evaluation", "read_recovery"]
