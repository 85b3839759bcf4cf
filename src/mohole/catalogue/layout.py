"""Names and fixed sizes of a catalogue's files, for its writers and its reader. docs/formats.md says what is in them."""

import numpy as np

FACTS_FILE = "catalogue.json"
HEADER_FILE = "header.bin"
PAGES_FILE = "header.pages"
PIECES_FILE = "pieces.safetensors"
DOCUMENTS_FILE = "documents.safetensors"
CODES, INDEX, FEATURES, TASKS = "codes", "index", "features", "tasks"
BULK = (HEADER_FILE, CODES, INDEX, FEATURES, TASKS)
"""What the artifact's manifest does not list: it can be large, and has checksums of its own, looked at when it is read."""
COMMITS = (f"{TASKS}/**/*.json",)

FORMAT = "catalogue 3"

N_HISTOGRAM_BINS = 40
LOWEST_EXPONENT, N_EXPONENTS = -31, 64
"""Powers of two in which activations are counted: from below 2^-31 to below 2^32."""

FEATURES_PER_BLOCK = 32
"""Together in one compressed block: near 20 KB, which is one read."""
LATENTS_PER_RANGE = 4096
"""What one task makes, and one file of blocks holds."""
TOKENS_PER_PART = 131_072
"""What one task encodes, and one file of codes holds. Whole documents, so a part may be larger by one of them."""

HEADER = np.dtype(
    [
        ("count", "<i8"),
        ("sum", "<f8"),
        ("maximum", "<f4"),
        ("family", "<i4"),
        ("x", "<f4"),
        ("y", "<f4"),
        ("offset", "<u8"),
        ("n_bytes", "<u4"),
        ("reserved", "<u4"),
    ]
)
"""One entry for each latent, in order. `offset` and `n_bytes` are those of its block in the features' file of its range."""

AGAIN = "`mohole catalogue RECIPE --replace` makes it again"
"""What to do about damage."""
PAGE_BYTES = 1 << 16
"""The header's pages have a checksum each."""


def part_name(number: int) -> str:
    return f"{number:06}"


def codes_file(number: int) -> str:
    return f"{CODES}/{part_name(number)}.safetensors"


def features_file(number: int) -> str:
    return f"{FEATURES}/{part_name(number)}.bin"
