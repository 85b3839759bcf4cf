"""The main job: which artifact comes from which, and making the missing ones. Used by the command line and by notebooks."""

from mohole.config import Recipe, read_recipe
from mohole.job.layout import plan
from mohole.job.make import run, run_until, run_verb
from mohole.job.stage import Stage
from mohole.job.sweep import run_sweep

__all__ = ["Recipe", "Stage", "plan", "read_recipe", "run", "run_sweep", "run_until", "run_verb"]
