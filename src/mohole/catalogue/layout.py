"""Names and fixed sizes of a catalogue's files, for its writer and its reader."""

CATALOGUE_FILE = "catalogue.safetensors"
CODES_FILE = "codes.safetensors"
FACTS_FILE = "catalogue.json"

N_HISTOGRAM_BINS = 40
