"""The main job: which artifact comes from which, and making the missing ones. Used by the command line and by notebooks."""

from mohole.config import Recipe, read_recipe
from mohole.job.plan import Stage, plan
from mohole.job.run import run, run_verb

__all__ = ["Recipe", "Stage", "plan", "read_recipe", "run", "run_verb"]
