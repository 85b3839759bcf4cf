"""A line of JSON for each request. What was asked and answered stands in it only where the server was told so."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import IO

from mohole.errors import ConfigError


class Journal:
    """A file that lines are added to, or standard error. Without one, nothing is written."""

    def __init__(self, file: Path | None, *, with_prompts: bool = False) -> None:
        """Raises: ConfigError: the file cannot be written."""
        self.with_prompts = with_prompts and file is not None
        self._writing = threading.Lock()
        self._out: IO[str] | None = None
        if file is not None:
            self._out = sys.stderr if str(file) == "-" else _opened(file)

    def write(self, facts: dict[str, object]) -> None:
        """One line, with the time in front."""
        if self._out is None:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
        line = json.dumps({"time": stamp, **facts}, ensure_ascii=True)  # what is odd in it stays on its line
        with self._writing:
            self._out.write(line + "\n")
            self._out.flush()

    def close(self) -> None:
        """Close the file."""
        if self._out is not None and self._out is not sys.stderr:
            self._out.close()


def _opened(file: Path) -> IO[str]:
    try:
        return file.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--log {file}: {error.strerror}") from None
