"""Every error mohole raises on purpose. Each message is one line: the thing, the value, the next step.

MoholeError
├── ConfigError       a recipe, an override or an argument that cannot be meant
├── ArtifactError     a folder that is missing, unfinished, damaged, in use, or of another kind
│   └── DamageError       one file of it whose bytes have changed, and which can be made again alone
├── ModelError        a model that cannot be loaded or whose hookpoints cannot be proved
│   └── HookpointError    a hookpoint name that the model does not have
├── CorpusError       text that cannot be read, or too little of it
├── NumericsError     a NaN, an infinity, a divergence
├── StageError        a stage that cannot run as asked
└── EngineError       an engine that takes no more, or cuts what it has: nothing is wrong with what was asked
"""

from typing import Literal


class MoholeError(Exception):
    """Shown to the user as `error: <message>`; the traceback only with --debug."""


class ConfigError(MoholeError, ValueError):
    """A recipe, an override or an argument that cannot be meant."""


class ArtifactError(MoholeError):
    """A folder that is missing, unfinished, damaged, in use, or of another kind."""


class DamageError(ArtifactError):
    """A file whose bytes are not what was written. `name` is its place in the storage at `url`."""

    def __init__(self, message: str, name: str, url: str) -> None:
        super().__init__(message, name, url)  # all, so that it survives the way from a worker
        self.name, self.url = name, url

    def __str__(self) -> str:
        return str(self.args[0])


class ModelError(MoholeError):
    """A model that cannot be loaded or whose hookpoints cannot be proved."""


class HookpointError(ModelError):
    """A hookpoint name that the model does not have."""


class CorpusError(MoholeError):
    """Text that cannot be read, or too little of it."""


class NumericsError(MoholeError):
    """A NaN, an infinity or a divergence, with the place where it was first seen."""


class StageError(MoholeError):
    """A stage that cannot run as asked."""


class EngineError(MoholeError):
    """Something that is not answered though nothing is wrong with it.

    `full`: too much waits; come back. `ending`: the engine takes no more, or cuts what it has. `late`: it took too long.
    """

    def __init__(self, reason: Literal["full", "ending", "late"], message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message
