"""PyTorch's own count of floating-point operations, without what `FlopCounterMode` imports for it.

`FlopCounterMode` and tensors without data import the compiler of torch and SymPy, about two seconds of processor time.
A small convolutional network runs sooner than that, so its operations are counted as they run on the CPU.
"""

from collections.abc import Iterable
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
_PLAIN = {
    _aten.adaptive_max_pool2d.default,
    _aten.add.Tensor,
    _aten.addmm.default,
    _aten.avg_pool2d.default,
    _aten.cat.default,
    _aten.convolution.default,
    _aten.empty.memory_format,
    _aten.max_pool2d_with_indices.default,
    _aten.mean.dim,
    _aten.native_batch_norm.default,
    _aten.native_group_norm.default,
    _aten.relu.default,
    _aten.t.default,
    _aten.tanh.default,
    _aten.upsample_bilinear2d.default,
    _aten.upsample_nearest2d.default,
    _aten.view.default,
    _aten.zeros.default,
}
"""Operations that are the same on every device. Attention and recurrent layers are not: a CPU may run them as a whole,
for which there is no formula."""


class Counter(Protocol):
    """A context that counts what runs inside of it, such as `torch.utils.flop_counter.FlopCounterMode`."""

    def get_total_flops(self) -> int:
        """Return the operations until now; a multiply-accumulate is two."""

    def __enter__(self) -> Self:
        """Start to count."""

    def __exit__(self, *error: Any) -> Any:
        """End the count."""


class UnknownOperationError(Exception):
    """An operation that a real run may count in another way than a run without data."""


class PlainFlops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count a run on the CPU that consists of plain operations. UnknownOperationError for any other."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no, or torch imports its compiler in order to keep it away from here."""
        return False

    def get_total_flops(self) -> int:
        """Return the operations until now; a multiply-accumulate is two."""
        return self._total

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation and count it."""
        if func not in _PLAIN:
            raise UnknownOperationError(str(func))
        found: Tensor = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self._total += count(*args, **(kwargs or {}), out_val=found)
        return found
