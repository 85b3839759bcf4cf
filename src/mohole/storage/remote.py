"""A storage behind a URL, through fsspec."""

from mohole.errors import ConfigError
from mohole.storage.storage import Storage


def open_remote(url: str) -> Storage:
    raise ConfigError(f"{url}: not yet")
