"""The command line. Thin: it reads a recipe, calls the job, prints. Importing it loads neither torch nor transformers."""

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line. Ctrl-C is understood from the first moment, while the libraries are still being loaded."""
    before = signal.signal(signal.SIGINT, _stop)
    from mohole.cli.app import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _stop(signum: int, frame: FrameType | None) -> None:
    sys.stderr.write("error: interrupted before anything was begun\n")
    sys.stderr.flush()
    sys.exit(128 + signum)


__all__ = ["main"]
