"""What adapters make of the rows of a batch, compiled: each row by itself, over the adapter in its own slot.

A row reads the adapter once and writes to nothing but its own output, so rows share neither padding nor sums, and
nothing of one adapter can reach another's row. Threads take rows, from torch's own pool.
"""

# numba reads no annotations, and mypy none of its decorators.
# mypy: disable-error-code="untyped-decorator"

from typing import Any

import numpy
from numba import njit, prange

Array = numpy.ndarray[Any, Any]

_EXACT_ENOUGH = {"contract", "reassoc", "nsz"}
"""Sums may be taken in any order; infinities and what is no number stay what they are."""
_UNROLLED = 8


@njit(fastmath=_EXACT_ENOUGH, nogil=True, cache=True)
def _shrink(shrunk: Array, a: Array, row: Array) -> None:
    """Multiply (rank, in) by a row."""
    for k in range(a.shape[0]):
        factors, total = a[k], numpy.float32(0)
        for j in range(row.shape[0]):
            total += factors[j] * row[j]
        shrunk[k] = total


@njit(fastmath=_EXACT_ENOUGH, nogil=True, cache=True)
def _expand(delta: Array, shrunk: Array, b: Array) -> None:
    """Multiply what `_shrink` left by (rank, out), eight ranks in one pass over `delta`, which it overwrites."""
    delta[:] = 0
    whole = b.shape[0] // _UNROLLED * _UNROLLED
    for k in range(0, whole, _UNROLLED):
        b0, b1, b2, b3, b4, b5, b6, b7 = b[k], b[k + 1], b[k + 2], b[k + 3], b[k + 4], b[k + 5], b[k + 6], b[k + 7]
        s0, s1, s2, s3 = shrunk[k], shrunk[k + 1], shrunk[k + 2], shrunk[k + 3]
        s4, s5, s6, s7 = shrunk[k + 4], shrunk[k + 5], shrunk[k + 6], shrunk[k + 7]
        for j in range(delta.shape[0]):
            delta[j] += (s0 * b0[j] + s1 * b1[j] + s2 * b2[j] + s3 * b3[j]) + (
                s4 * b4[j] + s5 * b5[j] + s6 * b6[j] + s7 * b7[j]
            )
    for k in range(whole, b.shape[0]):
        factors, factor = b[k], shrunk[k]
        for j in range(delta.shape[0]):
            delta[j] += factor * factors[j]


@njit(
    "void(f4[:,::1], f4[:,::1], f4[:,:,:,::1], f4[:,:,::1], i8[::1], i8[::1], i8[::1])",
    fastmath=_EXACT_ENOUGH,
    nogil=True,
    parallel=True,
    cache=True,
)
def adapter_deltas(  # noqa: PLR0917 - numba takes no keywords
    deltas: Array, inputs: Array, a: Array, b: Array, slots: Array, ranks: Array, offsets: Array
) -> None:
    """Write into each row of `deltas` (rows, out) what the adapter in its slot makes of its row of `inputs` (rows, in).

    `a` is (slots, projections, rank, in) and `b` (slots, rank, out); of a slot only the first of its `ranks` count.
    `offsets` say where each projection's part of `out` begins, and where the last one ends.
    """
    for row in prange(slots.shape[0]):
        slot = slots[row]
        rank = ranks[slot]
        shrunk = numpy.empty(rank, numpy.float32)
        for projection in range(a.shape[1]):
            begin, end = offsets[projection], offsets[projection + 1]
            _shrink(shrunk, a[slot, projection, :rank], inputs[row])
            _expand(deltas[row, begin:end], shrunk, b[slot, :rank, begin:end])
