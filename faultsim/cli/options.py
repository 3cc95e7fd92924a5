"""What several commands ask for: the words of their options, and what those words become."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .numerals import fraction

if TYPE_CHECKING:
    from ..faults import FaultModel
    from ..metrics.metric import Metric
    from ..voltage import VoltageCurve


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="ResNet18, ResNet50, VGG11, VGG16, VGG19, VGG7; your own package.module:function; transformers:FOLDER for "
        "a language model; or DigitsNet, DigitsVGG or transformers:CharGPT, which are bundled with their weights. "
        "[default: the model that --weights names, else DigitsNet]",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights", help="safetensors file: int8 weights as faultsim saves them, or a float state_dict."
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Test images: digits, cifar10, cifar100 or gtsrb. [default: those that the weight file names]",
        show_default=False,
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Directory or archive of the dataset. [default: it is downloaded]",
        show_default=False,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FUNCTION|FOLDER",
        help="Your own data instead of --dataset: package.module:function, which returns an iterable of batches "
        "(inputs, labels), also with dictionaries or several inputs; or a folder with a folder of pictures per class.",
    ),
]
InputSizeOption = Annotated[
    str | None,
    typer.Option(
        "--input-size",
        metavar="CxHxW",
        help="Size to which the pictures of a --data folder are brought, such as 1x28x28 or 3x224x224. "
        "[default: that of --weights, else 3x32x32]",
        show_default=False,
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="NUMBERS",
        help="With --std: normalize the pictures of a --data folder to (x / 255 - mean) / std. One number, or one per "
        "channel. [default: as --weights says, else x / 127.5 - 1]",
        show_default=False,
    ),
]
StdOption = Annotated[str | None, typer.Option("--std", metavar="NUMBERS", help="See --mean.")]
TextOption = Annotated[
    Path | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="Text file for a language model, --model transformers:FOLDER, instead of --dataset. Its tokenizer divides "
        "it into tokens; each is predicted from those before it.",
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="TOKENS",
        help="Tokens in a window of --text. [default: 256, or as many as the model takes if that is less]",
        show_default=False,
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="What is measured: accuracy, top5, mean_iou, cross_entropy, perplexity, mse, mae, or your own as "
        "package.module:name, a class with update(answers, targets) and compute() as torchmetrics has them. "
        "[default: accuracy; of a text: perplexity]",
        show_default=False,
    ),
]
ImagesOption = Annotated[
    int | None, typer.Option("--images", help="Use only the first N test images. [default: all]")
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", help="Images in one pass through the model.")]
ComputeOption = Annotated[
    str,
    typer.Option(
        "--compute",
        help="What the model computes in: float32, or bfloat16, which is faster on processors that multiply so and "
        "changes a few answers.",
    ),
]
PerChannelOption = Annotated[
    bool,
    typer.Option(
        "--per-channel",
        help="Quantize float weights with one scale per output channel. [default: one per tensor]",
    ),
]
BitsOption = Annotated[
    int | None,
    typer.Option(
        "--bits",
        metavar="N",
        help="Bits of a stored weight, 2 to 8: --bits 4 is --format int4. [default: 8]",
        show_default=False,
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="What a stored weight is: int2 to int8, uint2 to uint8 (with -asymmetric, -truncated, -unpacked), "
        "float16, bfloat16, float32 (with -zero or -clamp), float8_e4m3fn or float8_e5m2 (also with -scaled). "
        "[default: what --weights says, else int8]",
        show_default=False,
    ),
]
ChipSeedOption = Annotated[
    int, typer.Option("--seed", help="Seed of the sample of chips; two seeds have no chip in common.")
]
FaultKindOption = Annotated[
    str | None,
    typer.Option(
        "--fault-kind",
        help="What a failing cell does: flip, stuck_at_random, stuck_at_0, stuck_at_1 or transient. "
        "[default: flip]",
        show_default=False,
    ),
]
PlacementOption = Annotated[
    str | None,
    typer.Option(
        "--placement",
        help="How weights lie in the memory: unlimited, tiled, tiled_per_layer or neuralfuse_2022. "
        "[default: unlimited]",
        show_default=False,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Fault kind and placement by name: iid_flips or neuralfuse_2022 (the code published with the "
        "paper). --fault-kind and --placement override its parts.",
        show_default=False,
    ),
]
PolarityOption = Annotated[
    float | None,
    typer.Option(
        "--polarity",
        parser=fraction,
        metavar="FRACTION",
        help="With stuck_at_random: probability that a failing cell is stuck at 1. [default: 0.5]",
        show_default=False,
    ),
]
ReadErrorOption = Annotated[
    float | None,
    typer.Option(
        "--read-error",
        parser=fraction,
        metavar="FRACTION",
        help="With transient faults: probability that a read of a failing cell is wrong. [default: 0.5]",
        show_default=False,
    ),
]
CapacityOption = Annotated[
    int | None,
    typer.Option(
        "--capacity",
        help="Size of the weight memory in KiB, with a tiled placement. [default: 256]",
        show_default=False,
    ),
]
CurveOption = Annotated[
    str | None,
    typer.Option(
        "--curve",
        metavar="CSV",
        help="Your own measured curve, with the columns voltage, bit_error_rate and energy_per_access (or "
        "energy_per_access_pj, in picojoules). [default: the paper's 14 nm SRAM]",
        show_default=False,
    ),
]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="PATTERN",
        help="Names of the tensors in the faulty memory, like 'encoder.*' or '*.weight'; may be repeated. [default: "
        "all of two or more dimensions except biases and normalization]",
        show_default=False,
    ),
]
BitErrorRateOption = Annotated[
    float | None,
    typer.Option(
        "--bit-error-rate",
        parser=fraction,
        metavar="FRACTION",
        help="Instead of --voltage: fraction of failing cells, like 0.01 or 1%.",
    ),
]
VoltageOption = Annotated[
    float | None,
    typer.Option(
        "--voltage", help="Supply voltage, in the unit of the curve. On the default curve 1 is Vmin."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def fault_model(
    kind: str | None = None,
    placement: str | None = None,
    preset: str | None = None,
    polarity: float | None = None,
    read_error: float | None = None,
    capacity: int | None = None,
) -> "FaultModel":
    """The preset (default: iid_flips), its parts replaced by those given (capacity in KiB); FaultsimError for unknown
    words, and for an option that the kind or placement has no use for."""
    from dataclasses import replace

    from ..faults import FaultModel

    model = FaultModel.preset(preset) if preset is not None else FaultModel()
    if kind is not None:
        model = replace(model, kind=kind)
    if placement is not None:
        model = replace(model, memory=replace(model.memory, placement=placement))
    if capacity is not None:
        if not model.memory.placement.startswith("tiled"):
            raise FaultsimError(
                f"--capacity cannot be combined with placement {model.memory.placement}: add --placement tiled"
            )
        model = replace(model, memory=replace(model.memory, capacity_bytes=1024 * capacity))
    for option, value, needed in (
        ("polarity", polarity, "stuck_at_random"),
        ("read_error", read_error, "transient"),
    ):
        if value is None:
            continue
        if model.kind != needed:
            name = option.replace("_", "-")
            raise FaultsimError(
                f"--{name} cannot be combined with fault kind {model.kind}: add --fault-kind {needed}"
            )
        model = replace(model, **{option: value})
    return model


def metric_named(text: str | None, default: str = "accuracy") -> "Metric":
    """A word of faultsim.metrics.metric.METRICS, or the user's own package.module:name; without it the default."""
    from ..metrics.metric import find_metric
    from ..models import import_function

    text = default if text is None else text
    return find_metric(import_function(text, "metric", "a metric") if ":" in text else text.replace("-", "_"))


def load_curve(path: str | None) -> "VoltageCurve":
    """The curve of a CSV file, or the default curve."""
    from ..voltage import VoltageCurve

    return VoltageCurve.default() if path is None else VoltageCurve.from_csv(path)
