"""Artifacts: folders with a `manifest.json` that says what they are, what made them and what bytes they hold.

An artifact is written in a hidden folder beside its place and renamed into it when whole, so a killed stage leaves nothing
that looks finished. Its manifest holds no time and no machine: the same recipe and seed give the same bytes.
"""

from mohole.artifact.folder import create, lock, mend, mend_swap, reopen, swap, sync
from mohole.artifact.manifest import (
    MANIFEST,
    SCHEMA,
    Inputs,
    Manifest,
    check_parent,
    difference,
    flatten,
    is_finished,
    is_part,
    manifest_bytes,
    open_artifact,
    open_part,
    parse_manifest,
    read_manifest,
)
from mohole.artifact.seal import data_digest, digest_of, file_digest, sealed, tree_digest, unsealed

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "Inputs",
    "Manifest",
    "check_parent",
    "create",
    "data_digest",
    "difference",
    "digest_of",
    "file_digest",
    "flatten",
    "is_finished",
    "is_part",
    "lock",
    "manifest_bytes",
    "mend",
    "mend_swap",
    "open_artifact",
    "open_part",
    "parse_manifest",
    "read_manifest",
    "reopen",
    "sealed",
    "swap",
    "sync",
    "tree_digest",
    "unsealed",
]
