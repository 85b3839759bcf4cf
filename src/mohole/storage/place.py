"""From what a user wrote, a path or a URL, to the storage it means. Opening reads and makes nothing."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mohole.errors import ConfigError
from mohole.storage.local import LocalStorage
from mohole.storage.storage import Storage

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def open_storage(place: str | Path) -> Storage:
    """The storage at a path, `file://`, `s3://bucket/folder`, `gs://bucket/folder` or `memory://folder`.

    The folder need not exist: the first object makes it. Credentials and endpoints come from the environment, as the
    library of each scheme reads them (s3: AWS_ENDPOINT_URL, AWS_PROFILE, AWS_ACCESS_KEY_ID, ...).

    Raises:
        ConfigError: a scheme that mohole does not know, or whose package is not installed.
    """
    scheme = _SCHEME.match(str(place))
    if isinstance(place, Path) or scheme is None:
        return LocalStorage(Path(place))
    if scheme[1].lower() == "file":
        return LocalStorage(_path_of(place))
    from mohole.storage.remote import open_remote  # fsspec is loaded only by who needs it

    return open_remote(place)


def _path_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"{url}: names the machine {parts.netloc!r}; file:///PATH is a folder of this one")
    return Path(unquote(parts.path))
