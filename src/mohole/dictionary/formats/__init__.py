"""Dictionaries of other libraries: recognised by their files, read, written. All become mohole's classes, in model units."""

from mohole.dictionary.formats.export import WRITTEN, export_dictionary
from mohole.dictionary.formats.imported import Imported, Units
from mohole.dictionary.formats.load import import_dictionary, load_dictionary

__all__ = ["WRITTEN", "Imported", "Units", "export_dictionary", "import_dictionary", "load_dictionary"]
