"""The arithmetic of the evaluator: how sums are formed, how results are rounded.

A float16 value is held as float32 numbers that float16 can represent. An operator computes in
float32; what it writes is rounded to float16. The product of two float16 numbers is exact in
float32 (22 significant bits), so the only choice is how sums are formed:

* ``half=False``: in float32 throughout.
* ``half=True``: the terms are cut, in order, into blocks of ``BLOCK``; a block is summed in
  float32, and the running sum is rounded to float16 after each block:
  ``s[0] = h(b[0])``, ``s[i] = h(s[i-1] + b[i])``. This is the pessimistic model of an
  accelerator whose dot-product units hand float16 partial sums to each other.

In both modes a sum of ``BLOCK`` terms or fewer is rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgevit.runtimes.mil.spec import Array

__all__ = ["BLOCK", "add", "contract", "round_half", "total"]

BLOCK = 16
_CHUNK = 1 << 15  # elements: the temporaries of one chunk stay in the second-level cache
_OVERFLOW = np.float32(65520.0).view(np.uint32)  # from here on rounding gives infinity
_SMALLEST_NORMAL = np.float32(2.0**-14).view(np.uint32)
_FEW = 16  # up to a sixteenth, single elements cost less than the whole chunk


def round_half(x: Array) -> Array:
    """Float32 numbers rounded to the nearest float16 (ties to even), kept as float32.

    The same as ``x.astype(float16).astype(float32)``, which numpy does an element at a time
    on most processors: here the low 13 bits of the significand are rounded off in integer
    arithmetic, and only subnormal, overflowing and NaN results take the slow way.
    """
    contiguous = np.ascontiguousarray(x, dtype=np.float32).reshape(x.shape)
    result = np.empty_like(contiguous)
    _round_into(contiguous, result)
    return result


def _round_into(x: Array, out: Array) -> None:
    """``round_half`` of a contiguous array into another."""
    flat, result = x.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        _round_chunk(flat[part], result[part])


def _round_chunk(x: Array, out: Array) -> None:
    bits = x.view(np.uint32)
    rounded = out.view(np.uint32)
    np.right_shift(bits, 13, out=rounded)
    rounded &= 1  # the last bit kept: half of it, plus itself, rounds ties to even
    rounded += 0xFFF
    rounded += bits
    rounded &= 0xFFFFE000
    size = bits & np.uint32(0x7FFFFFFF)  # of numbers that are not NaN, in their order
    if size.max() >= _OVERFLOW:
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is the result
            out[...] = x.astype(np.float16)
        return
    size -= np.uint32(1)  # zero becomes the largest
    small = size < _SMALLEST_NORMAL - np.uint32(1)
    count = np.count_nonzero(small)
    if count > small.size // _FEW:
        np.copyto(out, _round_subnormal(x), where=small)
    elif count:
        out[small] = x[small].astype(np.float16)


def _round_subnormal(x: Array) -> Array:
    """Below 2^-14: rounded to multiples of 2^-24, the unit of the last place of 0.75 + x."""
    shifted = x + np.float32(0.75)
    shifted -= np.float32(0.75)
    return np.copysign(shifted, x)


def add(a: Array, b: Array, *, half: bool) -> Array:
    """One step of a running sum."""
    return round_half(a + b) if half else a + b


def contract(a: Array, b: Array, *, half: bool) -> Array:
    """``a @ b`` for operands of rank 2 and above, summed as the module says.

    Args:
        a: ``[..., m, k]``.
        b: ``[..., k, n]``, batch dimensions broadcast.
        half: Round the running sum to float16 after each block of terms.
    """
    if not half:
        return np.asarray(np.matmul(a, b))
    partial = np.asarray(np.matmul(a[..., :BLOCK], b[..., :BLOCK, :]))
    result: Array = np.empty_like(partial)
    _round_into(partial, result)
    for start in range(BLOCK, a.shape[-1], BLOCK):
        stop = start + BLOCK
        np.matmul(a[..., start:stop], b[..., start:stop, :], out=partial)
        partial += result
        _round_into(partial, result)
    return result


def total(x: Array, axes: Sequence[int], *, keepdims: bool, half: bool) -> Array:
    """Sum of ``x`` over ``axes`` (row-major order of terms), summed as the module says."""
    axes = tuple(sorted(axis % x.ndim for axis in axes)) if x.ndim else ()
    if not axes:
        return np.asarray(np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype))
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    # numpy adds pairwise along the fastest axis only; along another one, the error of a sum of
    # many terms (a softmax over 18,710 classes) would grow with their number.
    terms = np.ascontiguousarray(x.transpose([*kept, *axes]))
    terms = terms.reshape(*(x.shape[axis] for axis in kept), -1)
    result = _running(terms) if half else np.asarray(terms.sum(axis=-1, dtype=x.dtype))
    return np.expand_dims(result, axes) if keepdims else result


def _running(terms: Array) -> Array:
    """The sum along the last axis, rounded to float16 after each block of terms."""
    result: Array = np.zeros(terms.shape[:-1], dtype=terms.dtype)
    for start in range(0, terms.shape[-1], BLOCK):
        result = round_half(result + terms[..., start : start + BLOCK].sum(axis=-1))
    return result
