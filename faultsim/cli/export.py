"""`faultsim export`: a generator or a base model as an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultsimError
from ..show.units import format_percent
from .options import (
    BitErrorRateOption,
    CapacityOption,
    CurveOption,
    DataDirOption,
    DataOption,
    FaultKindOption,
    InputSizeOption,
    MeanOption,
    ModelOption,
    PerChannelOption,
    PlacementOption,
    PolarityOption,
    PresetOption,
    ReadErrorOption,
    StdOption,
    VoltageOption,
    WeightsOption,
    curve_of,
    fault_model,
    operating_point,
)
from .own_data import own_data

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data import Dataset, Normalization, OwnBatches
    from ..stored import StoredWeights
    from .own_data import OwnData


def export(
    onnx: Annotated[Path, typer.Option(help="The file to write (.onnx).")],
    generator: Annotated[
        Path | None, typer.Option(help="Weight file of a NeuralFuse generator; exports F(x), as said above.")
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
        int | None,
        typer.Option(
            help="Seed of a simulated chip: export a base model's weights as it reads them at --voltage, or at "
            "--bit-error-rate."
        ),
    ] = None,
    voltage: VoltageOption = None,
    bit_error_rate: BitErrorRateOption = None,
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
    data: DataOption = None,
    input_size: InputSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    images: Annotated[
        int | None,
        typer.Option(
            help="How many test images to check the file with. [default: 64; all of --data]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a generator, or a base model, as an ONNX file with int8 weights.

    A generator's file computes F(x) = clamp(x + G(x), -1, 1), float32 in [-1, 1], for the base model behind it. A base
    model's gives the logits. Weights are int8 initializers with DequantizeLinear nodes (QDQ, opset 17), activations
    float32, the batch size is free. The file is written only if onnxruntime, given test images, answers what torch
    does within 1e-4 (of the largest output, where that is above 1). Configuration and commit are in metadata_props.
    """

    from ..conditions import Conditions
    from ..export import export_onnx
    from ..io.files import keep_apart
    from ..io.provenance import installed, provenance

    if onnx.suffix != ".onnx":
        raise FaultsimError(f"--onnx {onnx}: the name of an ONNX file must end in .onnx")
    keep_apart({"--onnx": onnx}, {"--generator": generator, "--weights": weights, "--curve": curve})
    own = own_data(data, input_size, mean, std, dataset, data_dir)
    if own is None and images is None:
        images = 64
    faulty = (voltage, bit_error_rate, fault_kind, placement, preset, polarity, read_error, capacity, curve)
    if chip is None and any(option is not None for option in faulty):
        raise FaultsimError("bit errors need a chip: add --chip, or leave out the options of bit errors")
    if generator is not None:
        if model is not None or weights is not None or per_channel:
            raise FaultsimError("give either --generator, or --model and --weights of a base model")
        if chip is not None:
            raise FaultsimError("--chip cannot be combined with --generator, which runs without bit errors")
        network, stored, checked, configuration = _generator(generator, dataset, data_dir, images, own)
    else:
        network, stored, checked, configuration = _base(
            model, weights, per_channel, dataset, data_dir, images, own
        )
    pixels, normalization = _inputs(checked)
    if chip is not None:
        from ..faults import Chip
        from ..perturbation import corrupt_stored

        volts, rate = operating_point(voltage, bit_error_rate, curve)
        electrical = curve_of(voltage, curve)
        faults = fault_model(fault_kind, placement, preset, polarity, read_error, capacity)
        stored = corrupt_stored(stored, Chip(chip), bit_error_rate=rate, faults=faults)
        configuration["read_by"] = {
            "chip": chip,
            "voltage": volts,
            "bit_error_rate": rate,
            "curve": electrical and electrical.describe(),
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
        normalization=normalization,
        metadata={**configuration, "input": inputs, "output": output, **origin},
    )
    name = configuration.get("generator") or configuration["model"]
    at = " without bit errors"
    if chip is not None:
        conditions = Conditions(faults, electrical)
        at = f" as chip {chip} reads it at bit error rate {format_percent(rate)} ({conditions})"
    print(
        f"{name}{at}: {onnx.stat().st_size:,} bytes, {stored.bytes:,} int8 weights; onnxruntime and torch differ by "
        f"{difference:.1g} at most on {len(pixels)} {configuration['checked_with']['dataset']} images; "
        f"written to {onnx}"
    )
    if chip is not None:
        print(stored.share)


Parts = tuple["nn.Module", "StoredWeights", "Dataset | OwnBatches", dict[str, Any]]
"""What is exported: module, its weights as stored, what to check it with, and what it is."""


def _inputs(checked: "Dataset | OwnBatches") -> "tuple[Tensor, Normalization | None]":
    """Pixels, or inputs that a model takes as they are, and how pixels are normalized."""
    import torch

    from ..batch import describe_inputs
    from ..data import Dataset

    if isinstance(checked, Dataset):
        return checked.images, checked.normalization
    parts = [inputs for inputs, _ in checked.batches]
    for part in parts:
        if not isinstance(part, torch.Tensor) or part.shape[1:] != parts[0].shape[1:]:
            raise FaultsimError(
                f"export needs a model with one input of one size; {checked.name} gives {describe_inputs(part)}"
            )
    return torch.cat(parts), None


def _generator(
    path: Path, dataset: str | None, data_dir: Path | None, images: int | None, own: "OwnData | None"
) -> Parts:
    from neuralfuse.files import read_generator
    from neuralfuse.generators import NeuralFuse, check_generator_size

    from ..data.sources import load_own, load_test_images

    saved = read_generator(path)
    name, network, stored, trained = saved
    test = (
        load_own(own, images)
        if own
        else load_test_images(dataset or trained.get("dataset"), data_dir, images)
    )
    check_generator_size(name, test.input_shape)
    configuration = {"generator": name, "weights": saved.fingerprint, "trained": trained}
    return NeuralFuse(network), stored, test, configuration | _checked_with(test)


def _base(
    model: str | None,
    weights: Path | None,
    per_channel: bool,
    dataset: str | None,
    data_dir: Path | None,
    images: int | None,
    own: "OwnData | None",
) -> Parts:
    import torch

    from ..subject import load_subject

    subject = load_subject(
        model,
        weights,
        dataset,
        data_dir,
        torch.device("cpu"),
        images,
        per_channel=per_channel,
        own=own,
        **({"metric": None} if own else {}),
    )
    return (
        subject.model,
        subject.stored,
        subject.dataset,
        subject.network | _checked_with(subject.dataset),
    )


def _checked_with(test: Any) -> dict[str, Any]:
    return {
        "checked_with": {"dataset": test.name, "images": len(test), "images_fingerprint": test.fingerprint}
    }
