"""Windows of rows on a GPU: each program copies a part of one window, which lies in one piece."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from robocache.ops.allocation import allocator
from robocache.ops.launch import PreparedKernel, can_overlap

# Words that a program of one warp copies: 16 a thread, so that many loads are on their way at once. Windows that are
# smaller get smaller programs, of which more are at work.
MOST_WORDS, LEAST_WORDS = 512, 128
_ACCESS_BYTES = 16
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


@triton.jit(do_not_specialize=["row_words", "window", "rows", "chunks"])
def _gather_kernel(
    packed_ptr, starts_ptr, ends_ptr, out_ptr, row_words, window, rows, chunks,
    VECTOR: tl.constexpr, HAS_ENDS: tl.constexpr, OVERLAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`row_words` comes divided by VECTOR."""
    if OVERLAPS:
        # The next launch may begin to start, and this one waits for those before it: their starts cost no time then.
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    number = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = (tl.program_id(0) % chunks).to(tl.int64)
    end = rows
    if HAS_ENDS:
        end = tl.minimum(tl.load(ends_ptr + number), rows)
    start = tl.load(starts_ptr + number)
    at = chunk * BLOCK + tl.arange(0, BLOCK)
    size = window * row_words * VECTOR
    to_ptr = out_ptr + number * window * row_words * VECTOR + at
    if (start >= 0) & (start + window <= end):
        words = tl.load(packed_ptr + start * row_words * VECTOR + at, mask=at < size)
        tl.store(to_ptr, words, mask=at < size)
    else:
        row = at // (row_words * VECTOR)
        column = at - row * (row_words * VECTOR)
        row = tl.maximum(tl.minimum(start + row, end - 1), 0)
        words = tl.load(packed_ptr + row * row_words * VECTOR + column, mask=at < size)
        tl.store(to_ptr, words, mask=at < size)


class WindowPlan:
    """Everything about a gather but its pointers.

    Args:
        packed: [rows, *shape], contiguous.
        batch: Windows.
        window: Rows of each.
        with_ends: Whether ends will be given.
    """

    def __init__(self, packed: Tensor, batch: int, window: int, *, with_ends: bool) -> None:
        rows, device = packed.shape[0], packed.device
        row_bytes = math.prod(packed.shape[1:]) * packed.element_size()
        word_bytes = math.gcd(row_bytes, 4)
        row_words = row_bytes // word_bytes
        vector = math.gcd(row_words, _ACCESS_BYTES // word_bytes)
        self._word = _WORDS[word_bytes]
        self._index = packed.get_device()
        self._new_out = allocator((batch, window, *packed.shape[1:]), packed.dtype, device)
        block = min(max(triton.next_power_of_2(max(window * row_words, 1)), LEAST_WORDS), MOST_WORDS)
        chunks = triton.cdiv(window * row_words, block)
        self._kernel = None
        overlaps = {"OVERLAPS": True, "launch_pdl": True} if can_overlap(device) else {"OVERLAPS": False}
        if batch and window and row_words:
            self._kernel = PreparedKernel(
                _gather_kernel,
                batch * chunks,
                (0, 0, 0, 0),
                (row_words // vector, window, rows, chunks),
                {"VECTOR": vector, "HAS_ENDS": with_ends, "BLOCK": block, "num_warps": 1} | overlaps,
            )

    def __call__(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """[batch, window, *shape].

        Args:
            tensors: `packed`, `starts` and, if the plan was made with them, `ends`.
        """
        out = self._new_out()
        kernel = self._kernel
        if kernel is not None:
            packed, starts, ends = tensors[0], tensors[1], tensors[-1]
            if not kernel.relaunch((packed, starts, ends, out), self._index):
                word = self._word
                kernel.launch((packed.view(-1).view(word), starts, ends, out.view(-1).view(word)), self._index)
        return out
