"""What a dictionary spends its time in: slow obvious versions (`reference`), and fast ones tested against them.

`cpu` (torch's products and numba's loops), `gpu` (Triton's programs) and `plain` (torch alone, any device) have the same names
and the same laws.
"""

from importlib.util import find_spec

HAS_NUMBA = find_spec("numba") is not None
HAS_TRITON = find_spec("triton") is not None
