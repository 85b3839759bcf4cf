"""Names and fixed sizes of a published folder, for its writers. docs/formats.md says what is in them; web/src/published reads."""

FORMAT = "published 1"

DATA = "data"
PAGE_FILE = "run.json"
HEADER_FILE = "header.bin"
LINES, COLUMNS, PLACES, FAMILIES = "lines", "columns", "places", "families"
"""Tables: NAME.bin holds blocks, NAME.at where each begins."""

LATENTS_OF_LINES = 512
"""In one block of `lines`: some 6 KB, for a reader who wants one label."""
LATENTS_OF_COLUMNS = 65_536
"""In one block of `columns` and `places`, which are read whole or not at all."""
FAMILIES_PER_BLOCK = 32
LATENTS_PER_FILE = 4096
"""In one file of features: some 5 MB, so that no host refuses a file for its size."""
LEVEL = 15
"""Of zstd. 9 takes a third of the time of everything and 6 % more bytes, 19 twice the time for 1 % less."""
MOST_BYTES_PER_FEATURE = 2200
"""The aim, for texts and everything else."""


def features_file(number: int) -> str:
    return f"features/{number:06}.bin"
