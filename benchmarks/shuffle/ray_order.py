"""In an environment with ray[data]: the order that its random_shuffle gives to numbered rows. Prints where its blocks begin.

python ray_order.py OUT.npy N_ROWS N_BLOCKS
"""

import json
import sys

import numpy as np
import ray

out, n_rows, n_blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
shuffled = ray.data.range(n_rows, override_num_blocks=n_blocks).random_shuffle(seed=0)
blocks = [
    ray.get(block)["id"].to_numpy() for bundle in shuffled.iter_internal_ref_bundles() for block in bundle.block_refs
]
np.save(out, np.concatenate(blocks))
print(json.dumps({"version": ray.__version__, "starts": np.cumsum([0, *map(len, blocks[:-1])]).tolist()}))
