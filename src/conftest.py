"""Which modules' examples cannot be tried here. Any other module that does not import is an error, not skipped."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["mohole/kernels/gpu_*_programs.py"]  # not there on every machine
