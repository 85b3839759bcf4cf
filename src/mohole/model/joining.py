"""Caches of several batches as one batch, and one batch's cache without the padding that nobody needs any more.

Texts end together, so a shorter one gets more padding in front. Keys hold the position of their token in its own text, not their
column: so they may be moved. That is true of plain caches alone; one of a sliding window or a recurrent state is left as it is.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mohole.model.passes import TextCache


def join(caches: Sequence[TextCache]) -> TextCache | None:
    """The texts of all, in order, to go on as one batch. What they are joined of is used up.

    None, and nothing is touched: a model whose caches are not plain keys and values.
    """
    if len(caches) == 1:
        return caches[0]
    if not all(is_plain(cache) for cache in caches):
        return None
    longest = max(cache.tokens.shape[1] for cache in caches)
    before = [longest - cache.tokens.shape[1] for cache in caches]
    held = caches[0].held
    for number, layer in enumerate(held.layers):
        others = [cache.held.layers[number] for cache in caches]
        layer.keys = _stacked([each.keys for each in others], before, dim=-2)
        layer.values = _stacked([each.values for each in others], before, dim=-2)
    return TextCache(
        tokens=_stacked([cache.tokens for cache in caches], before, dim=-1),
        padding=tuple(each + more for cache, more in zip(caches, before, strict=True) for each in cache.padding),
        n_prompt=tuple(each for cache in caches for each in cache.n_prompt),
        begins=tuple(each for cache in caches for each in cache.begins),
        made_under=tuple(each for cache in caches for each in cache.made_under),
        held=held,
    )


def trim(cache: TextCache) -> TextCache:
    """Without the first columns that are padding in every text. What is given is used up; what is not plain stays as it is."""
    n = min(cache.padding)
    if n == 0 or not is_plain(cache):
        return cache
    for layer in cache.held.layers:
        layer.keys, layer.values = layer.keys[..., n:, :], layer.values[..., n:, :]
    return replace(cache, tokens=cache.tokens[:, n:], padding=tuple(each - n for each in cache.padding))


def is_plain(cache: TextCache) -> bool:
    """Is every layer of it keys and values of every column, and nothing else?"""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    held = cache.held
    return type(held) is DynamicCache and all(
        type(layer) is DynamicLayer and layer.is_initialized for layer in held.layers
    )


def _stacked(parts: Sequence[Tensor], before: Sequence[int], dim: int) -> Tensor:
    """Side by side along the first axis, each with so many zeros in front along `dim`."""
    filled = []
    for part, n in zip(parts, before, strict=True):
        shape = list(part.shape)
        shape[dim] = n
        filled.append(torch.cat([part.new_zeros(shape), part], dim=dim) if n else part)
    return torch.cat(filled, dim=0)
