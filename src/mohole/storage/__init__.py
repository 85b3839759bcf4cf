"""Where bytes live: one folder of named objects, on this machine or behind a URL. It knows no formats and no tensors."""

from mohole.storage.lease import lease
from mohole.storage.place import open_storage
from mohole.storage.storage import Buffer, Storage, Traffic, Writer

__all__ = ["Buffer", "Storage", "Traffic", "Writer", "lease", "open_storage"]
