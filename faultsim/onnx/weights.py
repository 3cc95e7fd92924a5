"""How an ONNX file holds a weight: in the numbers of the memory's format, and with the nodes that make floats of them.

ONNX has int8, int4 and two floating-point types of 8 bits, which DequantizeLinear multiplies by a scale, and wider
floating-point types, which Cast turns into float32. Integers of 2 and 3 bits are written as int4, those of 5 to 7 bits
as int8: each number is the same. An asymmetric range adds its center to the product.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from ..formats import FloatFormat, Format, IntegerFormat, Nonfinite
from ..stored import StoredLayer
from ..support.extras import needs_extra

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET = 17
"""Of files with int8 weights. DequantizeLinear with an axis needs 13; no more is asked of a runtime than must be."""


class _Type(NamedTuple):
    """A type of ONNX, by its name there."""

    name: str
    opset: int = OPSET
    """The first one in which DequantizeLinear (or Cast) reads it."""
    scaled: bool = True
    """Whether DequantizeLinear multiplies it by a scale."""


_INT4, _INT8 = _Type("INT4", 21), _Type("INT8")
_FLOATS = {
    torch.float32: _Type("FLOAT", scaled=False),
    torch.float16: _Type("FLOAT16", scaled=False),
    torch.bfloat16: _Type("BFLOAT16", scaled=False),
    torch.float8_e4m3fn: _Type("FLOAT8E4M3FN", 19),
    torch.float8_e5m2: _Type("FLOAT8E5M2", 19),
}
_FOUR_BITS = IntegerFormat(4)


def _find_type(stored: Format) -> _Type:
    if isinstance(stored, IntegerFormat):
        return _INT4 if stored.bits <= 4 else _INT8
    return _FLOATS[stored.dtype]


def find_opset(stored: Format) -> int:
    """Return the version of ONNX's operators that a file with such weights needs."""
    return _find_type(stored).opset


def write_weight(name: str, output: str, layer: StoredLayer) -> tuple[list["NodeProto"], list["TensorProto"]]:
    """Return the nodes that compute a weight in float32, and the tensors that they read.

    Parameters
    ----------
    name
        Of the weight; names of nodes and tensors begin with it.
    output
        Name of the result.
    layer
        What the memory holds of it.
    """
    with needs_extra("onnx"):
        from onnx import TensorProto, helper, numpy_helper

    kind = _find_type(layer.format)
    codes = f"{name}.{'float32' if kind.name == 'FLOAT' else kind.name.lower()}"
    tensors = [
        helper.make_tensor(
            codes,
            getattr(TensorProto, kind.name),
            tuple(layer.values.shape),
            _find_bytes(layer, kind),
            raw=True,
        )
    ]
    if not kind.scaled:
        return [helper.make_node("Cast", [codes], [output], f"{name}.cast", to=TensorProto.FLOAT)], tensors
    inputs = [codes, f"{name}.scale"]
    tensors.append(numpy_helper.from_array(layer.scale.contiguous().numpy(), inputs[1]))
    if kind is _INT8:
        zero = torch.zeros_like(layer.scale, dtype=torch.int8)
        tensors.append(numpy_helper.from_array(zero.numpy(), f"{name}.zero_point"))
        inputs.append(f"{name}.zero_point")
    axis: dict[str, Any] = {} if layer.axis < 0 else {"axis": layer.axis}
    product = output if layer.center is None else f"{name}.product"
    nodes = [helper.make_node("DequantizeLinear", inputs, [product], f"{name}.dequantize", **axis)]
    if layer.center is not None:
        spread = [-1 if d == layer.axis else 1 for d in range(layer.values.dim())] if layer.axis >= 0 else []
        center = layer.center.reshape(spread).contiguous()
        tensors.append(numpy_helper.from_array(center.numpy(), f"{name}.center"))
        nodes.append(helper.make_node("Add", [product, f"{name}.center"], [output], f"{name}.add"))
    return nodes, tensors


def _find_bytes(layer: StoredLayer, kind: _Type) -> bytes:
    """Return the numbers of a weight as the bytes of an ONNX tensor."""
    stored = layer.format
    if isinstance(stored, FloatFormat):
        numbers = _settle(stored, layer.values.float()).to(layer.values.dtype)
        return numbers.contiguous().view(torch.uint8).numpy().tobytes()
    steps = _find_steps(cast(IntegerFormat, stored), layer.values).contiguous()
    if kind is _INT8:
        return steps.numpy().tobytes()
    packed = _FOUR_BITS.pack(steps)[: -(-steps.numel() // 2)]  # the lower half of a byte first, as ONNX does
    return packed.numpy().tobytes()


def _find_steps(stored: IntegerFormat, codes: Tensor) -> Tensor:
    """Return int8 numbers that are the weights (but for a center) when they are multiplied by the scale."""
    steps = codes.int() - stored.zero if stored.offset else codes.int()
    return (steps.clamp(min=-stored.largest) if stored.clamps else steps).to(torch.int8)


def _settle(stored: FloatFormat, numbers: Tensor) -> Tensor:
    """Do what the format says to numbers that are not finite: a file has no policy, it holds what a read returns."""
    if stored.nonfinite is Nonfinite.ZERO:
        return torch.where(numbers.isfinite(), numbers, 0.0)
    if stored.nonfinite is Nonfinite.CLAMP:
        return torch.where(numbers.isnan(), 0.0, numbers).clamp(-stored.largest, stored.largest)
    return numbers
