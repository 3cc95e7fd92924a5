"""What the kernel does with the words of a protected memory, and reads through it (csrc/codec.h)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..formats import INT8, Format
from ..formats.operators import describe_image
from ..kernel import ops
from ..kernel.native import native
from ..kernel.op_checks import Draw
from ..stored import StoredLayer
from .codes import CheckMatrix
from .mitigation import WORD, Decoded, MemoryMitigation, Written

_KERNEL = native()

ALL_CELLS = (1 << 8 * WORD) - 1
"""The cells of a word."""


@dataclass(frozen=True, eq=False)
class Codec:
    """What is written of words, and what becomes of them when they are read. This one does nothing.

    `native` is how the kernel knows it. All results are the kernel's: faultsim/mitigations/reference.py says what they
    must be.
    """

    stored: Format = INT8
    """How weights lie in a word."""

    def encode(self, weights: Tensor) -> Written:
        """Return what is written of words int8 [words, 8]."""
        return Written(weights)

    @property
    def check_bytes(self) -> int:
        """Bytes of check bits that lie in arrays of their own, for each word."""
        return 0

    @property
    def reads_again(self) -> bool:
        """Whether some words are read again, without errors."""
        return False

    def describe(self, device: torch.device) -> dict[str, Any]:
        """Return the arguments of the kernel's Codec; tensors are contiguous and on the device."""
        return {"decode": "nothing"}

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Decode words; arguments and result as of MemoryMitigation.decode."""
        read, right = read.contiguous(), written.weights.contiguous()
        checks = None if checks is None else checks.contiguous()
        out = torch.empty_like(read)
        again = (
            torch.empty(read.shape[:-1], dtype=torch.bool, device=read.device) if self.reads_again else None
        )
        job = _KERNEL.DecodeJob(
            codec=_find_described(self, read.device).codec,
            read=read.data_ptr(),
            checks=_address(checks if self.check_bytes else None),
            written=right.data_ptr(),
            output=out.data_ptr(),
            again=_address(again),
            words=right.numel() // WORD,
            chips=read.numel() // max(right.numel(), 1),
        )
        if read.device.type == "cuda":
            index = read.device.index
            _KERNEL.launch_decode_cuda(job, index, torch.cuda.current_stream(index).cuda_stream)
        else:
            _KERNEL.launch_decode_cpu(job, ops.find_cpu_path())
        return Decoded(out, again)


@dataclass(frozen=True, eq=False)
class SyndromeCodec(Codec):
    """The syndrome of a word says what happens to it, byte by byte of the syndrome."""

    matrix: CheckMatrix = field(default_factory=lambda: CheckMatrix([0] * 64))
    """The check bits that each bit of the word belongs to."""
    flip: Tensor | None = None
    """int8 [syndrome bytes, 256, 8]: what is flipped for each value of each byte. Default: nothing."""
    keep: Tensor | None = None
    """int8 [syndrome bytes, 256, 8]: what is kept then. Default: everything."""
    rereads: bool = False
    """Whether what is not kept is read again, without errors. Default: it reads 0."""

    def encode(self, weights: Tensor) -> Written:
        """Add the check bits."""
        return Written(weights, self.matrix.compute_syndrome(weights))

    @property
    def check_bytes(self) -> int:
        """Bytes of check bits for each word."""
        return self.matrix.check_bytes

    @property
    def reads_again(self) -> bool:
        """Whether some words are read again, without errors."""
        return self.rereads

    def describe(self, device: torch.device) -> dict[str, Any]:
        """Return the arguments of the kernel's Codec."""
        return {
            "decode": "code",
            "rows": self.matrix.rows,
            "check_bytes": self.check_bytes,
            "flip": None if self.flip is None else self.flip.contiguous().to(device),
            "keep": None if self.keep is None else self.keep.contiguous().to(device),
            "rereads": self.rereads,
        }


@dataclass(frozen=True, eq=False)
class MaskCodec(Codec):
    """What a detector finds wrong is masked."""

    mask: str = "mask_weights"
    """What is masked: mask_weights, mask_words or mask_bits."""

    def describe(self, device: torch.device) -> dict[str, Any]:
        """Return the arguments of the kernel's Codec."""
        return {"decode": self.mask}


class CodecMitigation(MemoryMitigation, ABC):
    """A mitigation that the kernel knows."""

    @abstractmethod
    def make_codec(self, stored: Format) -> Codec:
        """Return what the kernel does with words of a format."""

    def encode(self, weights: Tensor) -> Written:
        """Return what is written of int8 weights."""
        return self.make_codec(INT8).encode(weights)

    def decode(self, read: Tensor, checks: Tensor | None, written: Written) -> Decoded:
        """Return what a read of int8 weights returns."""
        return self.make_codec(INT8).decode(read, checks, written)


def find_codec(mitigation: MemoryMitigation, stored: Format) -> Codec | None:
    """Return what the kernel does for a mitigation; None where the mitigation decodes in Python."""
    own = type(mitigation)
    if isinstance(mitigation, CodecMitigation):
        known = own.decode is CodecMitigation.decode and own.encode is CodecMitigation.encode
        return mitigation.make_codec(stored) if known else None
    known = own.decode is MemoryMitigation.decode and own.encode is MemoryMitigation.encode
    return Codec(stored) if known else None


class _Described:
    """A codec as the kernel knows it on a device, with the tensors that it points to."""

    def __init__(self, codec: Codec, device: torch.device) -> None:
        own = codec.describe(device)
        self.tensors = [value for value in own.values() if isinstance(value, Tensor)]
        """Kept as long as the kernel may read them."""
        self.codec = _KERNEL.Codec(
            decode=_KERNEL.DECODES[own["decode"]],
            rows=own.get("rows", ()),
            check_bytes=own.get("check_bytes", 0),
            flip=_address(own.get("flip")),
            keep=_address(own.get("keep")),
            rereads=own.get("rereads", False),
            borrowed=own.get("borrowed", 0),
            low=sum(1 << weight * codec.stored.cells for weight in range(codec.stored.weights_per_word)),
            bits=codec.stored.width,
        )


_described: WeakKeyDictionary[Codec, dict[torch.device, _Described]] = WeakKeyDictionary()


def _find_described(codec: Codec, device: torch.device) -> _Described:
    """Return a codec as the kernel knows it; its tensors live as long as the codec."""
    known = _described.setdefault(codec, {})
    if device not in known:
        known[device] = _Described(codec, device)
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()  # the tensors may be read from another stream
    return known[device]


Cells = tuple[int, Tensor]
"""Mask of cells of a word, and the table of the bit error rate at which they fail."""


@dataclass(frozen=True)
class ProtectedTensor:
    """One tensor in a protected memory, as the kernel reads it."""

    codec: Codec
    layer: StoredLayer
    written: Written
    """What the memory holds."""

    def read(
        self,
        draw: Draw,
        parts: Sequence[Cells],
        check_base: int,
        check_table: Tensor,
        out: Tensor,
        again: Tensor | None = None,
    ) -> None:
        """Write the tensor as chips read it into `out`.

        Parameters
        ----------
        draw
            Which faults are drawn; its table is not used.
        parts
            Cells of a word with their bit error rates. Others never fail.
        check_base
            Address of the check bits of the word at address 0, a multiple of 4,096.
        check_table
            Table of the check bits' bit error rate.
        out
            int8 [chips, words, 8]; on CPUs also one of ops.FLOATS, [chips, *shape].
        again
            bool [chips, words], where they are wanted: which words were read again.
        """
        layer, checks = self.layer, self.written.checks
        words = self.written.weights.view(-1)
        scale = image = None
        if out.dtype != torch.int8:
            scale, cells = layer.scale.contiguous(), layer.format.cells
            if cells >= 8:  # the kernel knows how many bytes they take, and that the last word is filled up
                words = words[: layer.values.numel() * cells // 8]
            if layer.format != INT8:
                image = describe_image(layer.format, layer.values.numel(), layer.center)
        job = _KERNEL.ProtectedJob(
            read=ops.make_job(words, out, draw, scale=scale, axis=layer.axis, image=image),
            codec=_find_described(self.codec, words.device).codec,
            checks=_address(checks),
            again=_address(again),
            check_base=check_base,
            check_table=check_table.data_ptr(),
            check_thresholds=check_table.numel() - 2,
            parts=[(cells, table.data_ptr(), table.numel() - 2) for cells, table in parts],
        )
        if words.device.type == "cuda":
            index = words.device.index
            _KERNEL.launch_protected_cuda(job, index, torch.cuda.current_stream(index).cuda_stream)
        else:
            _KERNEL.launch_protected_cpu(job, torch.get_num_threads(), ops.find_cpu_path())


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
