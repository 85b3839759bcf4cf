"""The command line. Thin: it reads a recipe, calls the job, prints. Importing it loads neither torch nor transformers."""

from mohole.cli.main import main

__all__ = ["main"]
