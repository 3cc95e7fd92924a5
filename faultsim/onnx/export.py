"""A model as an ONNX file: weights stay what they are in memory, everything else is float32.

Each weight is an initializer in the numbers of its format, and nodes that make float32 of them (faultsim.onnx.weights);
activations are not quantized. Normalization is not folded into the weights, which would make other numbers of them.
"""

import io
import json
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data.dataset import Normalization, normalize
from ..errors import FaultsimError, summarize_error
from ..io.files import write_bytes
from ..network.batch import find_answer
from ..network.modes import evaluation_mode
from ..network.torch_internals import quiet_exporter
from ..stored import StoredLayer, StoredWeights
from ..support.extras import needs_extra
from .weights import OPSET, find_opset, write_weight

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4

INPUTS = {
    "float32": "float32 [batch, 3, height, width] in [-1, 1]",
    "uint8": "uint8 [batch, 3, height, width], 0 to 255",
    "uint8-nhwc": "uint8 [batch, height, width, 3], 0 to 255, as cameras and image files have them",
}
"""What an exported model can take. Of pixels it computes x / 127.5 - 1 itself."""


class _Exported(nn.Module):
    """The model with its weights as further inputs, so that the exporter folds nothing into them."""

    def __init__(self, model: nn.Module, stored: StoredWeights, inputs: str) -> None:
        super().__init__()
        self.model, self.stored, self.inputs = model, stored, inputs

    @property
    def weights(self) -> dict[str, StoredLayer]:
        """By the names that they have in the file, which are those of the parameters."""
        names = {module: name for name, module in self.named_modules()}
        return {f"{names[layer.modules[0]]}.{layer.attributes[0]}": layer for layer in self.stored.layers}

    def forward(self, images: Tensor, *weights: Tensor) -> Tensor:
        if self.inputs == "uint8-nhwc":
            images = images.permute(0, 3, 1, 2)
        if self.inputs != "float32":
            images = normalize(images)
        with self.stored.replaced(weights):
            answer: Tensor = find_answer(self.model(images))
            return answer


def export_onnx(
    path: str | PathLike[str],
    model: nn.Module,
    stored: StoredWeights,
    images: Tensor,
    *,
    inputs: str = "float32",
    output: str = "logits",
    metadata: dict[str, Any] | None = None,
    normalization: Normalization | None = None,
) -> float:
    """Write a model with given weights as an ONNX file, in evaluation mode and for any batch size.

    onnxruntime checks the file before it is written: its output may differ from torch's by TOLERANCE, times the largest
    output where that is above 1.

    Parameters
    ----------
    path : path
        The file.
    model : nn.Module
        On the CPU, in float32. It is left as it is.
    stored : StoredWeights
        The weights that the file holds, as StoredWeights.of or load_weights return them, or as a chip reads them
        (corrupt_stored).
    images : Tensor
        At least 3 samples to check the file with: uint8 [N, C, H, W], or inputs [N, ...] of another type, which the
        model takes as they are.
    inputs : str
        What the exported model takes, one of INPUTS. The input is called "images".
    output : str
        Name of the output.
    metadata : dict, optional
        JSON values for "faultsim" in the file's metadata_props.
    normalization : Normalization, optional
        Of `images`, for the input format float32. Default: to [-1, 1].

    Returns
    -------
    float
        The largest difference between the outputs of onnxruntime and torch.

    Raises
    ------
    FaultsimError
        For a difference above the tolerance, for a model that cannot be exported, and where onnx or onnxruntime is not
        installed.
    """
    if inputs not in INPUTS:
        raise FaultsimError(f"unknown input format {inputs!r}: it can be {', '.join(INPUTS)}")
    if len(images) < 3:
        raise FaultsimError(f"{len(images)} images: at least 3 are needed, to check an exported model with")
    stored.check(model)
    if fixed := [layer.tensors[0] for layer in stored.layers if layer.held.is_int8]:
        raise FaultsimError(
            f"the model cannot be exported to ONNX: {fixed[0]} is int8 in torch's own way; export the float model"
        )
    if inputs != "float32" and (images.dtype != torch.uint8 or normalization is not None):
        raise FaultsimError(
            f"the input format {inputs} is for pixels that become x / 127.5 - 1: give float32 for other inputs"
        )
    x = images if inputs != "float32" else normalize(images, normalization)
    x = (x.permute(0, 2, 3, 1) if inputs == "uint8-nhwc" else x).contiguous()
    with evaluation_mode(model):
        exported = _Exported(model, stored, inputs).eval()
        weights = [layer.decode() for layer in stored.layers]
        with torch.no_grad():
            expected = exported(x, *weights)
            if not bool(expected.isfinite().all()):
                raise FaultsimError(
                    f"the model's answers with these {stored.format} weights are not finite: an ONNX file of it could "
                    "not be checked"
                )
            traced = _convert(_trace(exported, x[:2], weights, output), stored)
            graph = _with_stored(traced, exported.weights)
    if metadata:
        graph.metadata_props.add(key="faultsim", value=json.dumps(metadata, sort_keys=True))
    data = graph.SerializeToString()
    difference = _difference(path, data, x, expected)
    write_bytes(path, data)
    return difference


def _trace(exported: _Exported, x: Tensor, weights: Sequence[Tensor], output: str) -> "ModelProto":
    """Export by tracing.

    The exporter through torch.export takes ten times as long, needs another package, and differs from one version of
    torch to the next.
    """
    with needs_extra("onnx"):
        import onnx

    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), quiet_exporter():
            warnings.simplefilter("ignore")  # of its age, and of shapes, which are constants here
            torch.onnx.export(
                exported,
                (x, *weights),
                file,  # type: ignore[arg-type]  # it writes to file objects, too
                input_names=["images", *exported.weights],
                output_names=[output],
                dynamic_axes={"images": {0: "batch"}, output: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # a user's model may hold anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FaultsimError(f"the model cannot be exported to ONNX: {reason}") from error
    return onnx.load_from_string(file.getvalue())


def _convert(graph: "ModelProto", stored: StoredWeights) -> "ModelProto":
    """Return the model with the operators of the version that its weights need."""
    with needs_extra("onnx"):
        from onnx import helper, version_converter

    opset = find_opset(stored.format)
    if opset == OPSET:
        return graph
    try:
        converted = version_converter.convert_version(graph, opset)
    except Exception as error:  # what it says of operators that it does not know has no common class
        raise FaultsimError(
            f"the model cannot be exported to ONNX with {stored.format} weights, which need opset {opset}: "
            f"{summarize_error(error)}"
        ) from error
    converted.ir_version = max(graph.ir_version, helper.find_min_ir_version_for(converted.opset_import))
    return converted


def _with_stored(graph: "ModelProto", weights: dict[str, StoredLayer]) -> "ModelProto":
    """Turn the weights, inputs until now, into initializers and nodes that read them."""
    with needs_extra("onnx"):
        import onnx

    body = graph.graph
    inputs = [entry for entry in body.input if entry.name not in weights]
    nodes = list(body.node)
    readers = {name: {node.op_type for node in nodes if name in node.input} for name in weights}
    del body.input[:], body.node[:]
    body.input.extend(inputs)
    for name, layer in weights.items():
        if not readers[name]:
            continue
        # onnxruntime (1.32) makes one operator of DequantizeLinear and MatMul, which quantizes activations to int8 and
        # is wrong in the fourth digit. A sum of one term between the two keeps it from that.
        apart = not readers[name].isdisjoint(("MatMul", "Transpose"))
        readings, tensors = write_weight(name, f"{name}.float" if apart else name, layer)
        body.initializer.extend(tensors)
        body.node.extend(readings)
        if apart:
            body.node.append(onnx.helper.make_node("Sum", [f"{name}.float"], [name], f"{name}.apart"))
    body.node.extend(nodes)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _difference(path: str | PathLike[str], data: bytes, x: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference of onnxruntime's output, in batches of two sizes."""
    with needs_extra("onnx"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # an older one does not know every type of weights
        raise FaultsimError(
            f"{path} was not written: onnxruntime {onnxruntime.__version__} cannot run it ({summarize_error(error)})"
        ) from error
    found = [session.run(None, {"images": part.numpy()})[0] for part in (x[:1], x[1:])]
    difference = float((torch.cat([torch.from_numpy(part) for part in found]) - expected).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise FaultsimError(
            f"{path} was not written: onnxruntime's output differs from torch's by {difference:.2g}, "
            f"where {allowed:.2g} is allowed"
        )
    return difference
