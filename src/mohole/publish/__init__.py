"""A run as a folder that any static host with range requests can serve: the web app, and the features in pieces it can fetch."""

from mohole.publish.folder import Published, publish

__all__ = ["Published", "publish"]
