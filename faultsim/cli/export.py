"""`faultsim export`: a generator or a base model as an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import FaultsimError
from .option_groups import (
    DataOptions,
    FaultOptions,
    FormatOptions,
    ModelOptions,
    PointOptions,
    expand_options,
)

_IMAGES = 64


@expand_options
def export(
    *,
    onnx: Annotated[Path, typer.Option(help="The file to write (.onnx).")],
    generator: Annotated[
        Path | None,
        typer.Option(
            help="Weight file of a NeuralFuse generator, to export it instead of a base model.",
            show_default=False,
        ),
    ] = None,
    network: ModelOptions,
    held: FormatOptions,
    inputs: Annotated[
        str,
        typer.Option(
            "--input",
            help="What the file takes: float32 (images [batch, 3, height, width] in [-1, 1]), uint8 (the same shape, "
            "0 to 255) or uint8-nhwc ([batch, height, width, 3], 0 to 255). From pixels the file computes "
            "x / 127.5 - 1.",
        ),
    ] = "float32",
    chip: Annotated[
        int | None,
        typer.Option(
            help="Seed of a simulated chip: export the base model's weights as this chip reads them at --voltage or "
            "--bit-error-rate. [default: without bit errors]",
            show_default=False,
        ),
    ] = None,
    point: PointOptions,
    memory: FaultOptions,
    data: DataOptions,
    images: Annotated[
        int | None,
        typer.Option(
            help="Check the file with the first N test images. [default: 64; all of --data]",
            metavar="N",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export a base model or a generator to ONNX.

    The weights stay what they are in memory. The file of a base model computes the logits; that of a generator F(x) =
    clamp(x + G(x), -1, 1), the base model's input. int8 weights are initializers with DequantizeLinear nodes (QDQ,
    opset 17); integers of 2 to 4 bits (--bits, --format) are int4 (opset 21), those of 5 to 7 bits int8 numbers of the
    same values; floating-point weights keep their type (8 bits: opset 19). Activations are float32, and the batch size
    is free. The file is written only if onnxruntime and torch agree on test images to 1e-4 (relative to the largest
    output, where that is above 1). Its metadata_props hold the configuration and the commit.
    """
    from neuralfuse.files import read_generator

    from ..data.sources import load_own, load_test_images
    from ..io.files import keep_apart
    from ..onnx.exportable_model import ExportableModel
    from ..studies.subject import load_subject

    if onnx.suffix != ".onnx":
        raise FaultsimError(f"--onnx {onnx}: the name of an ONNX file must end in .onnx")
    keep_apart(
        {"--onnx": onnx}, {"--generator": generator, "--weights": network.weights, "--curve": point.curve}
    )
    own = data.own(network.model)
    count = _IMAGES if own is None and images is None else images
    if chip is None and (point.given or memory.given):
        raise FaultsimError("bit errors need a chip: add --chip, or remove the options of bit errors")
    if generator is not None:
        if network.given or held != FormatOptions():
            raise FaultsimError("give either --generator, or --model and --weights of a base model")
        if chip is not None:
            raise FaultsimError("--chip cannot be combined with --generator, which runs without bit errors")
        saved = read_generator(generator)
        known = data.dataset or saved.metadata.get("dataset")
        source = saved.prepare_export(
            load_own(own, count) if own else load_test_images(known, data.data_dir, count)
        )
    else:
        subject = load_subject(
            network.model,
            network.weights,
            data.dataset,
            data.data_dir,
            images=count,
            per_channel=network.per_channel,
            format=held.chosen(),
            own=own,
            **({"metric": None} if own else {}),
        )
        source = ExportableModel.of(subject)
    if chip is not None:
        volts, rate = point.point()
        where = {"bit_error_rate": rate} if volts is None else {"voltage": volts}
        source = source.read_by(chip, **where, curve=point.voltage_curve(), faults=memory.fault_model())
    print(source.write(onnx, inputs))
    if chip is not None:
        print(source.stored.share)
