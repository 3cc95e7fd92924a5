"""`faultsim export`: a generator or a base model as an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError
from .options import (
    CapacityOption,
    CurveOption,
    DataDirOption,
    FaultKindOption,
    ModelOption,
    PerChannelOption,
    PlacementOption,
    PolarityOption,
    PresetOption,
    ReadErrorOption,
    WeightsOption,
    fault_model,
    operating_point,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..stored import StoredWeights


def export(
    onnx: Annotated[Path, typer.Option(help="The file to write (.onnx).")],
    generator: Annotated[
        Path | None, typer.Option(help="Weight file of a NeuralFuse generator; exports F(x), see below.")
    ] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    per_channel: PerChannelOption = False,
    inputs: Annotated[
        str,
        typer.Option(
            "--input",
            help="float32 (images [batch, 3, height, width] in [-1, 1]), uint8 (the same shape, 0 to 255) or "
            "uint8-nhwc ([batch, height, width, 3], 0 to 255). From pixels the model computes x / 127.5 - 1 itself.",
        ),
    ] = "float32",
    chip: Annotated[
        int | None, typer.Option(help="Export a base model's weights as this chip reads them.")
    ] = None,
    voltage: Annotated[
        float | None, typer.Option(help="With --chip: voltage of --curve (1 is Vmin).")
    ] = None,
    bit_error_rate: Annotated[
        float | None, typer.Option(help="With --chip, instead: fraction of failing cells, like 0.01.")
    ] = None,
    fault_kind: FaultKindOption = None,
    placement: PlacementOption = None,
    preset: PresetOption = None,
    polarity: PolarityOption = None,
    read_error: ReadErrorOption = None,
    capacity: CapacityOption = None,
    curve: CurveOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="digits, cifar10, cifar100 or gtsrb: to check the file with. [default: its own]"),
    ] = None,
    data_dir: DataDirOption = None,
    images: Annotated[int, typer.Option(help="How many test images to check the file with.")] = 64,
) -> None:
    """Write a generator, or a base model, as an ONNX file with int8 weights.

    A generator's file computes F(x) = clamp(x + G(x), -1, 1), float32 in [-1, 1], for the base model behind it. A base
    model's gives the logits. Weights are int8 initialisers with DequantizeLinear nodes (QDQ, opset 17), activations
    float32, the batch size is free. The file is written only if onnxruntime, given test images, answers what torch
    does within 1e-4 (of the largest output, where that is above 1). Configuration and commit are in metadata_props.
    """

    from ..export import export_onnx
    from ..provenance import installed, provenance

    if onnx.suffix != ".onnx":
        raise FaultsimError(f"--onnx {onnx}: the name of an ONNX file must end in .onnx")
    faulty = (voltage, bit_error_rate, fault_kind, placement, preset, polarity, read_error, capacity, curve)
    if chip is None and any(option is not None for option in faulty):
        raise FaultsimError("bit errors need a chip: add --chip, or leave voltage, rate and faults away")
    if generator is not None:
        if model is not None or weights is not None or per_channel:
            raise FaultsimError("give either --generator, or --model and --weights of a base model")
        if chip is not None:
            raise FaultsimError("--chip has no meaning for a generator, which runs without bit errors")
        network, stored, pixels, configuration = _generator(generator, dataset, data_dir, images)
    else:
        network, stored, pixels, configuration = _base(model, weights, per_channel, dataset, data_dir, images)
    if chip is not None:
        from ..faults import Chip
        from ..inject import corrupt_stored

        volts, rate = operating_point(voltage, bit_error_rate, curve)
        faults = fault_model(fault_kind, placement, preset, polarity, read_error, capacity)
        stored = corrupt_stored(stored, Chip(chip), bit_error_rate=rate, faults=faults)
        configuration["read_by"] = {
            "chip": chip,
            "voltage": volts,
            "bit_error_rate": rate,
            "faults": faults.describe(),
            "memory": stored.share.as_dict(),
        }
    origin = provenance("cpu")
    origin["versions"] |= {name: installed(name) for name in ("onnx", "onnxruntime")}
    output = "logits" if generator is None else "transformed"
    difference = export_onnx(
        onnx,
        network,
        stored,
        pixels,
        inputs=inputs,
        output=output,
        metadata={**configuration, "input": inputs, "output": output, **origin},
    )
    name = configuration.get("generator") or configuration["model"]
    at = "" if chip is None else f" as chip {chip} reads it at bit error rate {rate:g}"
    print(
        f"{name}{at}: {onnx.stat().st_size:,} bytes, {stored.bytes:,} int8 weights; onnxruntime and torch differ by "
        f"{difference:.1g} at most on {len(pixels)} {configuration['checked_with']['dataset']} images; "
        f"written to {onnx}"
    )
    if chip is not None:
        print(stored.share)


Parts = tuple["nn.Module", "StoredWeights", "Tensor", dict[str, Any]]
"""What is exported: module, its weights as stored, uint8 images to check it with, and what it is."""


def _generator(path: Path, dataset: str | None, data_dir: Path | None, images: int) -> Parts:
    from neuralfuse.generators import NeuralFuse

    from .subject import fingerprint, load_images, read_generator

    name, network, stored, trained = read_generator(path)
    test = load_images(dataset or trained.get("dataset"), data_dir, images)
    configuration = {"generator": name, "weights": fingerprint(network, stored), "trained": trained}
    return NeuralFuse(network), stored, test.images, configuration | _checked_with(test)


def _base(
    model: str | None,
    weights: Path | None,
    per_channel: bool,
    dataset: str | None,
    data_dir: Path | None,
    images: int,
) -> Parts:
    import torch

    from .subject import load_subject

    subject = load_subject(
        model, weights, dataset, data_dir, torch.device("cpu"), images, per_channel=per_channel
    )
    return (
        subject.model,
        subject.stored,
        subject.dataset.images,
        subject.network | _checked_with(subject.dataset),
    )


def _checked_with(test: Any) -> dict[str, Any]:
    return {
        "checked_with": {"dataset": test.name, "images": len(test), "images_fingerprint": test.fingerprint}
    }
