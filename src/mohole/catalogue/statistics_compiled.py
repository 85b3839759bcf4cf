"""The compiled loops of `statistics`: each firing is looked at once, and most go no further. The same bytes as without numba.

Axes: F firings, L latents, I intervals, G = L x I groups, N kept of each. `held` says how many are kept; the best stand first.
In a file of their own, so that numba is imported where they run and nowhere else.
"""

from typing import no_type_check

import numba
import numpy as np

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@numba.njit(cache=True, nogil=True)
@no_type_check  # numba compiles the function as it is written, not what a type checker makes of it
def documents_of(tokens, starts, twins, found):
    """The first document with the text of each token's document, into `found` [F]. Quick where tokens of a latent ascend."""
    last = len(starts) - 2
    document, low, high = -1, 0, 0  # the document found last, and its tokens
    for place in range(len(tokens)):
        token = tokens[place]
        if token < low or token >= high:
            first, end = (min(document + 1, last), last) if token >= high else (0, document)
            step = 1
            while first + step < end and starts[first + step] <= token:  # near ones first: a frequent latent's are
                first += step
                step *= 2
            end = min(first + step, end)
            while first < end:  # the last document that starts at the token or before it
                middle = (first + end + 1) // 2
                if starts[middle] <= token:
                    first = middle
                else:
                    end = middle - 1
            document, low, high = first, starts[first], starts[first + 1]
        found[place] = twins[document]


@numba.njit(cache=True, nogil=True)
@no_type_check
def add_moments(latents, values, lowest_exponent, counts, maximum, magnitudes, mantissas):
    """Counts and maxima [L], and numbers and whole numbers of units by powers of two [L, exponent]."""
    words = values.view(np.uint32)
    smallest = 2.0 ** (24 - lowest_exponent)
    for place in range(len(latents)):
        latent, value, word = latents[place], values[place], words[place]
        exponent = np.int64((word >> np.uint32(23)) & np.uint32(0xFF)) - 126
        if exponent >= lowest_exponent:
            whole = np.int64((word & np.uint32(0x7FFFFF)) | np.uint32(0x800000))
            whole = -whole if value < 0 else whole
        elif value == 0:
            exponent, whole = 0, 0
        else:
            exponent, whole = lowest_exponent, np.int64(np.rint(np.float64(value) * smallest))
        counts[latent] += 1
        magnitudes[latent, exponent - lowest_exponent] += 1
        mantissas[latent, exponent - lowest_exponent] += whole
        if value > maximum[latent]:
            maximum[latent] = value


@numba.njit(cache=True, nogil=True)
@no_type_check
def keep_strongest(latents, values, tokens, documents, held, kept_values, kept_tokens, kept_documents):
    """Put each firing where it belongs among its latent's strongest distinct documents [L, N]."""
    n = kept_values.shape[1]
    for place in range(len(latents)):
        latent, value = latents[place], values[place]
        end = held[latent]
        if end == n and (n == 0 or value < kept_values[latent, n - 1]):
            continue
        token, document = tokens[place], documents[place]
        at = end  # where it belongs
        while at > 0 and (
            kept_values[latent, at - 1] < value
            or (kept_values[latent, at - 1] == value and kept_tokens[latent, at - 1] > token)
        ):
            at -= 1
        before = 0
        while before < at and kept_documents[latent, before] != document:
            before += 1
        if before < at or at == n:  # its document has a stronger one, or there are n of them
            continue
        gap = at
        while gap < end and kept_documents[latent, gap] != document:
            gap += 1
        if gap == end:  # a new document: the last one falls out, if there are n
            held[latent] = min(end + 1, n)
            gap = held[latent] - 1
        for later in range(gap, at, -1):
            kept_values[latent, later] = kept_values[latent, later - 1]
            kept_tokens[latent, later] = kept_tokens[latent, later - 1]
            kept_documents[latent, later] = kept_documents[latent, later - 1]
        kept_values[latent, at], kept_tokens[latent, at], kept_documents[latent, at] = value, token, document


@numba.njit(cache=True, nogil=True)
@no_type_check
def draw(  # noqa: C901 - one loop over the hottest data there is
    latents, values, tokens, documents, edges, first_latent, seed, document_use, token_use,
    counts, held, kept_keys, kept_token_keys, kept_values, kept_tokens, kept_documents,
):  # fmt: skip
    """Count each firing in its interval [L, I], and keep the documents of smallest key of each group [G, N], by one token."""
    n_intervals, n = counts.shape[1], kept_keys.shape[1]
    drawn_latent, drawn_document, key = np.int64(-1), np.int64(-1), np.uint64(0)
    for place in range(len(latents)):
        latent, value, document = latents[place], values[place], documents[place]
        interval = 0
        for edge in range(1, n_intervals):
            interval += np.int64(value > edges[latent, edge])
        counts[latent, interval] += 1
        if n == 0:
            continue
        if latent != drawn_latent or document != drawn_document:
            drawn_latent, drawn_document = latent, document
            key = _word(seed, document_use, latent + first_latent, document)
        group = latent * n_intervals + interval
        end = held[group]
        if end == n and key > kept_keys[group, n - 1]:
            continue
        at = end
        while at > 0 and kept_keys[group, at - 1] > key:
            at -= 1
        token_key = _word(seed, token_use, latent + first_latent, tokens[place])
        if at > 0 and kept_documents[group, at - 1] == document:
            at -= 1
            if token_key >= kept_token_keys[group, at]:
                continue
        elif at == n:  # another document of the same key: never, in practice
            continue
        else:
            held[group] = min(end + 1, n)
            for later in range(held[group] - 1, at, -1):
                kept_keys[group, later] = kept_keys[group, later - 1]
                kept_token_keys[group, later] = kept_token_keys[group, later - 1]
                kept_values[group, later] = kept_values[group, later - 1]
                kept_tokens[group, later] = kept_tokens[group, later - 1]
                kept_documents[group, later] = kept_documents[group, later - 1]
        kept_keys[group, at], kept_token_keys[group, at] = key, token_key
        kept_values[group, at], kept_tokens[group, at], kept_documents[group, at] = value, tokens[place], document


@numba.njit(cache=True, nogil=True)
@no_type_check
def add_bins(latents, values, maximum, scales, counts):
    """Firings in each bin [L, bin]. maximum and scales [L] are float64."""
    n_bins = counts.shape[1]
    for place in range(len(latents)):
        latent, value = latents[place], np.float64(values[place])
        number = min(max(np.int64(np.ceil(value * scales[latent])) - 1, 0), n_bins - 1)
        if number > 0 and value <= maximum[latent] * number / n_bins:
            number -= 1
        counts[latent, number] += 1


@numba.njit(cache=True, nogil=True, inline="always")
@no_type_check
def _word(seed, use, id_, sub_id):
    """As `keys.words`."""
    low, high = np.uint64(sub_id), np.uint64(id_) | use
    c0, c1, c2, c3 = low & _LOW, low >> _HALF, high & _LOW, high >> _HALF
    k0, k1 = seed & _LOW, seed >> _HALF
    for _ in range(10):
        product0, product1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (product1 >> _HALF) ^ c1 ^ k0, product1 & _LOW, (product0 >> _HALF) ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return c0 | (c1 << _HALF)
