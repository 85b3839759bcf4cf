"""A recipe's [[dictionary]] tables: dictionaries that are there already and are not to be trained."""

from mohole.config.tables import Flag, Name, Table


class Given(Table):
    """A dictionary of any library, used in place of one that would be trained."""

    path: Name
    """Its folder or file, or a hub id: whatever `mohole.load_dictionary` reads."""
    hookpoint: Name
    """Where it belongs, such as `resid_post.6`."""
    allow_download: Flag = False
    """Fetch from the hub what is not in its local cache."""
