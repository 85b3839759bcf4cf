"""The version of mohole, in a file of its own so that manifests can name it without importing the package's front door."""

__version__ = "0.1.0"
