"""Sizes in bytes as people write them: `512MiB`, `2GB`."""

import re

from pydantic_core import PydanticCustomError

from mohole.errors import ConfigError

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?(?:([kMGT])(i?))?B")


def a_size(text: str) -> str:
    """The text itself, if it is a size: for a field's validator."""
    if _SIZE.fullmatch(text) is None:
        raise PydanticCustomError("size", "not a size; write such as 512MiB or 2GB")
    return text


def n_bytes(size: str) -> int:
    """Bytes of a size such as `512MiB`, `2 GB` or `1048576B`.

    >>> n_bytes("512MiB"), n_bytes("1.5 GB")
    (536870912, 1500000000)

    Raises:
        ConfigError: not a size.
    """
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ConfigError(f"{size!r}: not a size; write such as 512MiB or 2GB")
    number, prefix, binary = match.groups()
    power = 0 if prefix is None else "kMGT".index(prefix) + 1
    return int(float(number) * (1024 if binary else 1000) ** power)
