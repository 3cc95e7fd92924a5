"""What several commands ask for: the words of their options, and what those words become."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError

if TYPE_CHECKING:
    import torch

    from ..faults import FaultModel
    from ..metrics import Metric
    from ..voltage import VoltageCurve

MOST_NUMBERS = 10_000

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="ResNet18, ResNet50, VGG11, VGG16, VGG19, your own package.module:function, or DigitsNet or DigitsVGG, "
        "which ship with their weights. [default: that of --weights; DigitsNet without either]",
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
    str | None, typer.Option("--dataset", help="digits, cifar10, cifar100 or gtsrb (their test images).")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the data set lies, as its official archive or folder; fetched without.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FUNCTION|FOLDER",
        help="Your own data instead of --dataset: package.module:function, which gives an iterable of batches (inputs, "
        "labels), dictionaries or several inputs, of any size; or a folder that holds a folder of pictures for each "
        "class.",
    ),
]
InputSizeOption = Annotated[
    str | None,
    typer.Option(
        "--input-size",
        metavar="CxHxW",
        help="What the pictures of a --data folder become, such as 1x28x28 or 3x224x224. "
        "[default: that of --weights, else 3x32x32]",
        show_default=False,
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="NUMBERS",
        help="With --std, of a --data folder: pixels become (x / 255 - mean) / std; one number, or one a channel. "
        "[default: that of --weights, else x / 127.5 - 1]",
        show_default=False,
    ),
]
StdOption = Annotated[str | None, typer.Option("--std", metavar="NUMBERS", help="See --mean.")]
MetricOption = Annotated[
    str,
    typer.Option(
        "--metric",
        help="What is measured: accuracy, top5, mean_iou, cross_entropy, perplexity, mse, mae, or your own as "
        "package.module:name, a class with update(answers, targets) and compute() as torchmetrics has them.",
    ),
]
ImagesOption = Annotated[int | None, typer.Option("--images", help="Use the first N test images only.")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", help="Images of one pass through the model.")]
PerChannelOption = Annotated[
    bool, typer.Option("--per-channel", help="One int8 scale for each output channel (float weights).")
]
ChipSeedOption = Annotated[int, typer.Option("--seed", help="Which chips: different seeds share none.")]
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
        help="Where weights lie in the memory: unlimited, tiled, tiled_per_layer or neuralfuse_2022. "
        "[default: unlimited]",
        show_default=False,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Fault kind and placement by name: iid_flips or neuralfuse_2022 (the code published with the "
        "paper); --fault-kind and --placement change parts of it.",
        show_default=False,
    ),
]
PolarityOption = Annotated[
    float | None,
    typer.Option(
        "--polarity",
        help="stuck_at_random: probability that a failing cell is stuck at 1. [default: 0.5]",
        show_default=False,
    ),
]
ReadErrorOption = Annotated[
    float | None,
    typer.Option(
        "--read-error",
        help="transient: probability that one read of a failing cell is wrong. [default: 0.5]",
        show_default=False,
    ),
]
CapacityOption = Annotated[
    int | None,
    typer.Option(
        "--capacity",
        help="KiB of weight memory, for the tiled placements. [default: 256]",
        show_default=False,
    ),
]
CurveOption = Annotated[
    str | None,
    typer.Option(
        "--curve",
        metavar="CSV",
        help="Your own characterisation: voltage,bit_error_rate,energy_per_access. "
        "[default: the paper's 14 nm SRAM]",
        show_default=False,
    ),
]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="PATTERN",
        help="Which tensors lie in the faulty memory, by name, like 'encoder.*' or '*.weight'; may be repeated. "
        "[default: all of two or more dimensions but biases and normalisation]",
        show_default=False,
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def parse_numbers(text: str, option: str = "--voltages") -> list[float]:
    """Numbers of a list "0.8,0.9" or of an inclusive range "first:last:step", in the order given.

    Ranges are counted in decimals: 0.78:1.00:0.01 holds the float 0.83 itself. Raises FaultsimError, naming
    `option`, for what is no finite number, for repeats, a step that isn't above 0, bounds out of order and
    more than 10,000 points.
    """

    def number(word: str) -> Decimal:
        try:
            value = Decimal(word.strip())
        except InvalidOperation:
            value = None
        if value is None or not value.is_finite() or abs(value.adjusted()) > 300:
            raise FaultsimError(
                f"{option} {text!r}: {word.strip()!r} is no finite number; write a list like 0.8,0.9 "
                "or a range like 0.78:1.00:0.02"
            )
        return value

    if ":" not in text:
        values = [number(word) for word in text.split(",")]
        if len(values) > MOST_NUMBERS:
            raise FaultsimError(f"{option}: {len(values)} numbers, at most {MOST_NUMBERS:,} are allowed")
    else:
        parts = text.split(":")
        if len(parts) != 3:
            raise FaultsimError(f"{option} {text!r}: a range is written first:last:step, like 0.78:1.00:0.02")
        first, last, step = map(number, parts)
        if step <= 0:
            raise FaultsimError(f"{option} {text!r}: the step {step} must be above 0")
        if first > last:
            raise FaultsimError(
                f"{option} {text!r}: the first number {first} must not be above the last, {last}"
            )
        with localcontext() as context:
            context.prec = 50
            steps = (last - first) / step
            if steps >= MOST_NUMBERS:
                raise FaultsimError(
                    f"{option} {text!r}: more than {MOST_NUMBERS:,} points; take a larger step"
                )
            values = [first + i * step for i in range(int(steps) + 1)]
    numbers = [float(value) for value in values]
    seen = set()
    for value in numbers:
        if value in seen:
            raise FaultsimError(f"{option} {text!r}: {value:g} occurs more than once")
        seen.add(value)
    return numbers


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
                f"--capacity has no meaning for placement {model.memory.placement}: add --placement tiled"
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
                f"--{name} has no meaning for fault kind {model.kind}: add --fault-kind {needed}"
            )
        model = replace(model, **{option: value})
    return model


@dataclass(frozen=True)
class OwnData:
    """What --data and the options beside it ask for."""

    source: str
    is_folder: bool
    input_size: tuple[int, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def own_data(
    data: str | None,
    input_size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    dataset: str | None = None,
    data_dir: Path | None = None,
) -> OwnData | None:
    """The words of --data, --input-size, --mean and --std; None without --data. FaultsimError for words that don't go
    together."""
    sizes = {"--input-size": input_size, "--mean": mean, "--std": std}
    given = [name for name, word in sizes.items() if word is not None]
    if data is None:
        if given:
            raise FaultsimError(f"{given[0]} is for the pictures of a folder: add --data FOLDER")
        return None
    if dataset is not None or data_dir is not None:
        other = "--dataset" if dataset is not None else "--data-dir"
        raise FaultsimError(f"--data cannot be combined with {other}: give one of them")
    is_folder = Path(data).is_dir()
    if not is_folder and ":" not in data:
        raise FaultsimError(f"--data {data}: no such folder; your own function is package.module:function")
    if given and not is_folder:
        raise FaultsimError(
            f"{given[0]} is for the pictures of a folder: {data} gives its own sizes and numbers"
        )
    if (mean is None) != (std is None):
        raise FaultsimError("--mean and --std belong together: give both")
    numbers = [
        None if text is None else _numbers(text, name) for text, name in ((mean, "--mean"), (std, "--std"))
    ]
    return OwnData(data, is_folder, None if input_size is None else parse_size(input_size), *numbers)


def parse_size(text: str, option: str = "--input-size") -> tuple[int, ...]:
    """(channels, height, width) of "1x28x28"."""
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(re.fullmatch("[0-9]{1,6}", size.strip()) and int(size) for size in sizes):
        raise FaultsimError(f"{option} {text}: write channels x height x width, such as 1x28x28 or 3x224x224")
    return tuple(int(size) for size in sizes)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(number) for number in found):
        raise FaultsimError(
            f"{option} {text!r}: write a number, or one for each channel, such as 0.485,0.456,0.406"
        )
    return found


def metric_named(text: str) -> "Metric":
    """A word of faultsim.metrics.METRICS, or the user's own package.module:name."""
    from ..metrics import find_metric
    from ..models import imported

    return find_metric(imported(text, "metric", "a metric") if ":" in text else text.replace("-", "_"))


def load_curve(path: str | None) -> "VoltageCurve":
    """The curve of a CSV file, or the default curve."""
    from ..voltage import VoltageCurve

    return VoltageCurve.default() if path is None else VoltageCurve.from_csv(path)


def operating_point(
    voltage: float | None, bit_error_rate: float | None, curve: str | None
) -> tuple[float | None, float]:
    """(voltage or None, bit error rate) from whichever of the two is given; FaultsimError unless it is just one."""
    from ..draw import checked_rate

    if (voltage is None) == (bit_error_rate is None):
        raise FaultsimError("give either --voltage or --bit-error-rate")
    if voltage is not None:
        return voltage, load_curve(curve).bit_error_rate(voltage)
    if curve is not None:
        raise FaultsimError("--curve has no meaning for a bit error rate: give --voltage instead")
    return None, checked_rate(bit_error_rate)


def device(name: str = "auto") -> "torch.device":
    """auto (a GPU if torch and the kernel can use one), cpu, cuda or cuda:N; FaultsimError if it is missing."""
    import torch

    from ..native import native

    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if name != "auto" and (kind != "cuda" or (index and not index.isdecimal()) or name.endswith(":")):
        raise FaultsimError(f"--device {name!r}: it can be auto, cpu, cuda or cuda:N")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    built = native().built_with_cuda()
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if gpus and built else torch.device("cpu")
    if not gpus:
        raise FaultsimError(f"--device {name}: torch {torch.__version__} finds no GPU here; use --device cpu")
    if not built:
        raise FaultsimError(
            f"--device {name}: faultsim's kernel was built without CUDA; use --device cpu, or install it "
            "again where nvcc is found"
        )
    chosen = int(index) if index else torch.cuda.current_device()
    if chosen >= gpus:
        raise FaultsimError(f"--device {name}: this machine has {gpus} GPU(s), cuda:0 to cuda:{gpus - 1}")
    return torch.device("cuda", chosen)
