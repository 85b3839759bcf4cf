"""How much of an ablation's damage to the model's distributions a reconstruction leaves undone, in KL."""

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.language import LEAST_DAMAGE_NATS

Float64 = NDArray[np.float64]


def kl_recovered(replaced: Float64, ablated: Float64) -> Float64:
    """1 - KL(clean || replaced) / KL(clean || ablated): 1 is no damage, 0 is as bad as the ablation. NaN: undefined.

    Undefined where the ablation costs less than LEAST_DAMAGE_NATS. Unlike CE recovered it cannot be above 1, and a model that
    is wrong either way does not hide that its mind was changed.
    """
    kept = np.full_like(ablated, np.nan)
    return 1.0 - np.divide(replaced, ablated, out=kept, where=ablated > LEAST_DAMAGE_NATS)
