"""Options that several commands share, as groups: a dataclass declares them once, a decorator expands them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, get_type_hints

from ..errors import FaultsimError
from ..support.integers import checked_integer
from . import options
from .options import fault_model, load_curve

if TYPE_CHECKING:
    from ..faults import FaultModel
    from ..formats import Format
    from ..metrics.metric import Metric
    from ..voltage import VoltageCurve
    from .own_data import OwnData


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a group of options by the options themselves.

    A group is a dataclass whose fields are annotated as options of typer, or are groups again. The command line shows
    its fields as options, at the place of the parameter; the command receives an instance.
    """
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters.values()
    parameters = [
        member.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in given
        for member in _expand(parameter.replace(annotation=hints[parameter.name]))
    ]

    @wraps(command)
    def run(**values: Any) -> None:
        command(**{p.name: _collect(p.name, hints[p.name], values) for p in given})

    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _expand(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Return the options of a group, or the parameter itself."""
    if not is_dataclass(parameter.annotation):
        return [parameter]
    hints = get_type_hints(parameter.annotation, include_extras=True)
    members = inspect.signature(parameter.annotation).parameters.values()
    return [member for f in members for member in _expand(f.replace(annotation=hints[f.name]))]


def _collect(name: str, hint: Any, values: dict[str, Any]) -> Any:
    """Return the instance of a group, made of the values of its options, or the value of that name."""
    if not is_dataclass(hint):
        return values[name]
    hints = get_type_hints(hint, include_extras=True)
    return hint(**{field.name: _collect(field.name, hints[field.name], values) for field in fields(hint)})


@dataclass(frozen=True)
class ModelOptions:
    """Which model, with which weights."""

    model: options.ModelOption = None
    weights: options.WeightsOption = None
    per_channel: options.PerChannelOption = False

    @property
    def given(self) -> bool:
        """Whether the user gave any of them."""
        return self != ModelOptions()


@dataclass(frozen=True)
class FormatOptions:
    """What a stored weight is."""

    bits: options.BitsOption = None
    format: options.FormatOption = None

    def chosen(self) -> "Format | None":
        """The format; None where the user gave none."""
        from ..formats import Format, IntegerFormat

        if self.bits is not None and self.format is not None:
            raise FaultsimError(
                "--bits cannot be combined with --format: --bits 4 is short for --format int4"
            )
        if self.bits is not None:
            return IntegerFormat(checked_integer(self.bits, "--bits", 2, 8))
        return None if self.format is None else Format.parse(self.format)


@dataclass(frozen=True)
class DataOptions:
    """Which test data: a dataset that faultsim knows, or the user's own."""

    dataset: options.DatasetOption = None
    data_dir: options.DataDirOption = None
    data: options.DataOption = None
    input_size: options.InputSizeOption = None
    mean: options.MeanOption = None
    std: options.StdOption = None
    text: options.TextOption = None
    context: options.ContextOption = None

    def own(self, model: str | None = None) -> "OwnData | None":
        """The user's own data, None without --data and --text; a text needs the model's name."""
        from .own_data import own_data, own_text

        text = own_text(self.text, self.context, model, self.data, self.dataset, self.data_dir)
        return text or own_data(self.data, self.input_size, self.mean, self.std, self.dataset, self.data_dir)

    def find_metric(self, word: str | None, model: str | None) -> "Metric":
        """The metric of --metric; by default that of the data: accuracy, or the perplexity of a text."""
        own = None if self.data is not None else self.own(model)
        return options.metric_named(word, "perplexity" if own is not None and own.is_text else "accuracy")


@dataclass(frozen=True)
class FaultOptions:
    """What a failing cell does, and how the weights lie in the memory."""

    fault_kind: options.FaultKindOption = None
    placement: options.PlacementOption = None
    preset: options.PresetOption = None
    polarity: options.PolarityOption = None
    read_error: options.ReadErrorOption = None
    capacity: options.CapacityOption = None

    @property
    def given(self) -> bool:
        """Whether the user gave any of them."""
        return self != FaultOptions()

    def fault_model(self) -> "FaultModel":
        """The fault model; FaultsimError for unknown words, and for options that do not go together."""
        return fault_model(
            self.fault_kind, self.placement, self.preset, self.polarity, self.read_error, self.capacity
        )


@dataclass(frozen=True)
class PointOptions:
    """One operating point: a voltage on a curve, or a bit error rate."""

    bit_error_rate: options.BitErrorRateOption = None
    voltage: options.VoltageOption = None
    curve: options.CurveOption = None

    @property
    def given(self) -> bool:
        """Whether the user gave any of them."""
        return self != PointOptions()

    def point(self) -> tuple[float | None, float]:
        """(voltage or None, bit error rate); FaultsimError unless just one of the two was given."""
        from ..hit_table import checked_rate

        if (self.voltage is None) == (self.bit_error_rate is None):
            raise FaultsimError("give either --voltage or --bit-error-rate")
        if self.voltage is not None:
            return self.voltage, load_curve(self.curve).bit_error_rate(self.voltage)
        if self.curve is not None:
            raise FaultsimError("--curve cannot be combined with --bit-error-rate: give --voltage instead")
        return None, checked_rate(self.bit_error_rate)

    def voltage_curve(self) -> "VoltageCurve | None":
        """The curve of the voltage; None for a bit error rate, which needs none."""
        return None if self.voltage is None else load_curve(self.curve)
