"""Are the stored rows this model's over this corpus? Asked before anything is measured."""

import numpy as np
import torch
from torch import Tensor

from mohole.corpus import Corpus
from mohole.errors import StageError
from mohole.evaluate.rows.choice import Rows
from mohole.evaluate.standin import StandIn
from mohole.model import LanguageModel
from mohole.store import Store

_OTHER_ROWS = 0.05  # of their squared length


def require_rows_of(model: LanguageModel, corpus: Corpus, store: Store, rows: Rows, spliced: StandIn) -> None:
    """The store's rows must be this model's over this corpus: a few windows are run and compared.

    Raises:
        StageError: they are others.
    """
    names = tuple(dict.fromkeys((*spliced.reads, *spliced.writes)))
    window = np.searchsorted(corpus.windows.start, rows.tokens, side="right") - 1
    first = int(corpus.has_bos)
    ours: dict[str, list[Tensor]] = {name: [] for name in names}
    theirs: dict[str, list[Tensor]] = {name: [] for name in names}
    for number in np.unique(window)[:4]:
        tokens = rows.tokens[window == number]
        batch = torch.from_numpy(corpus.window_tokens(np.array([number]), model.bos_id if first else None))
        read = model.read(batch, names)
        place = torch.from_numpy(tokens - corpus.windows.start[number] + first)
        for name in names:
            ours[name].append(read[name][0].cpu().float()[place])
            theirs[name].append(torch.from_numpy(store.take(name, tokens)))
    for name in names:
        expected, found = torch.cat(ours[name]).double(), torch.cat(theirs[name]).double()
        share = float((found - expected).square().sum() / expected.square().sum().clamp(min=1e-30))
        if np.isfinite(share) and share > _OTHER_ROWS:  # a NaN is named where rows are measured
            raise StageError(
                f"{name}: rows of {store.url} are not what {model.name} makes of this corpus (they differ by {share:.0%} of "
                "their squared length); harvest them again with this model"
            )
