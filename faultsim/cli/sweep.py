"""`faultsim sweep-voltage`: accuracy and energy against supply voltage."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from .activation_options import ActivationOptions
from .cluster_options import ClusterOptions
from .domain_options import DomainOptions
from .numerals import accuracy, parse_numbers, points
from .option_groups import FaultOptions, FormatOptions, expand_options
from .options import ChipSeedOption, CurveOption
from .study_options import OutputOptions, SubjectOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..chips.measured_chip import AnyChip
    from ..metrics.metric import Metric

_CHIPS, _MAX_CHIPS = 10, 10_000
_VOLTAGES = "0.78,0.79,0.80,0.81,0.82,0.83,0.84,0.86,0.90,0.95,1.00"


@dataclass(frozen=True)
class ChipOptions:
    """Which chips, and how many: a number, or as many as a precision needs."""

    chips: Annotated[
        int | None,
        typer.Option(help="Simulated chips per voltage. [default: 10]", show_default=False),
    ] = None
    precision: Annotated[
        float | None,
        typer.Option(
            parser=points,
            metavar="POINTS",
            help="Instead of --chips: at each voltage add chips until the 95 % interval of each variant, and of their "
            "difference, is at most plus or minus so many points of accuracy, like 0.5 (or units of another --metric). "
            "The interval is a confidence sequence: it stays valid however often it is checked.",
        ),
    ] = None
    max_chips: Annotated[
        int | None,
        typer.Option(
            help=f"With --precision: largest number of chips per voltage. [default: {_MAX_CHIPS:,}]",
            show_default=False,
        ),
    ] = None
    fault_map: Annotated[
        list[Path] | None,
        typer.Option(help="Measured chip (.npz or .csv) instead of simulated ones; may be repeated."),
    ] = None
    seed: ChipSeedOption = 0

    def samples(self) -> "Sequence[AnyChip]":
        """The chips, at most; FaultsimError for options that do not go together."""
        from ..chips.measured_chip import MeasuredChip
        from ..faults import evaluation_chips

        if self.precision is None and self.max_chips is not None:
            raise FaultsimError("--max-chips needs --precision")
        if self.precision is not None and (self.chips is not None or self.fault_map):
            other = "--fault-map" if self.fault_map else "--chips: give --max-chips"
            raise FaultsimError(f"--precision cannot be combined with {other}")
        if self.fault_map:
            return [MeasuredChip.load(path) for path in self.fault_map]
        given, default = (self.chips, _CHIPS) if self.precision is None else (self.max_chips, _MAX_CHIPS)
        return evaluation_chips(self.seed, default if given is None else given)

    def half_width(self, metric: "Metric") -> float | None:
        """The precision in the unit of the metric; None without --precision."""
        if self.precision is None:
            return None
        return self.precision / 100 if metric.fraction else self.precision


@expand_options
def sweep_voltage(
    *,
    subject: SubjectOptions,
    generator: Annotated[
        Path | None,
        typer.Option(
            help="Weight file of a NeuralFuse generator: sweep the model alone and behind it. "
            "[default: none; for a bundled model its bundled generator]",
            show_default=False,
        ),
    ] = None,
    voltages: Annotated[
        str | None,
        typer.Option(
            help="A list like 0.8,0.9 or a range first:last:step, in the curve's unit (1 is Vmin). "
            "[default: the points of --curve; without "
            f"it {_VOLTAGES}; of a fault map, as far down as it was measured]"
        ),
    ] = None,
    bit_error_rates: Annotated[
        str | None,
        typer.Option(help="Instead of --voltages: fractions of failing cells, like 0.001,0.01 or 0.1%,1%."),
    ] = None,
    sample: ChipOptions,
    memory: FaultOptions,
    supplies: DomainOptions,
    inputs: ActivationOptions,
    curve: CurveOption = None,
    stored: FormatOptions,
    accuracy_floor: Annotated[
        float | None,
        typer.Option(
            parser=accuracy,
            metavar="FRACTION",
            help="Also find the voltage with the least energy at which the accuracy is at least this, like 0.97 "
            "or 97%.",
        ),
    ] = None,
    cluster: ClusterOptions,
    output: OutputOptions,
) -> None:
    """Measure accuracy and energy against supply voltage.

    Without options it sweeps DigitsNet, a small bundled network for handwritten digits, alone and behind its NeuralFuse
    generator. --model DigitsVGG takes a larger bundled network, relative to which its generator costs little energy.
    Start the same command with the same --out again to continue after an interruption.
    """
    from neuralfuse.files import read_generator

    from ..show.sweep_table import describe_cheapest, describe_sweep, make_tables
    from ..studies.voltage_sweep import FILES, plan_points, sweep_subject
    from ..voltage import VoltageCurve
    from .progress import show_sweep

    if voltages is not None and bit_error_rates is not None:
        raise FaultsimError("give either --voltages or --bit-error-rates")
    measured, sites = subject.measured(accuracy_floor), inputs.sites
    read = {
        "--weights": subject.network.weights,
        "--generator": generator,
        "--curve": curve,
        "--fault-map": sample.fault_map,
        "--domains": supplies.domains,
    }
    output.check(FILES, read)
    electrical = None if curve is None else VoltageCurve.from_csv(curve)
    at = None if voltages is None else parse_numbers(voltages, "--voltages")
    rates = (
        None if bit_error_rates is None else parse_numbers(bit_error_rates, "--bit-error-rates", rates=True)
    )
    faults = supplies.add_to(memory.fault_model())
    samples, precision = sample.samples(), sample.half_width(measured)
    plan = plan_points(electrical, at, rates, samples)
    generator = subject.choose_generator(generator)
    loaded = subject.load(stored, cluster)
    transform = generator and read_generator(generator).create_variant(
        loaded.device, loaded.dataset.input_shape
    )
    steps = len(plan) * (1 if transform is None else 2)
    with cluster.open(subject.device) as workers, show_sweep(steps, len(samples), precision) as calls:
        result = sweep_subject(
            loaded,
            samples,
            plan,
            curve=electrical,
            faults=faults,
            transform=transform,
            metric=measured,
            precision=precision,
            sites=sites,
            activations=inputs.memory(loaded, faults),
            seed=sample.seed,
            out=output.out,
            client=workers,
            **calls,
        )
    cheapest = [] if accuracy_floor is None else describe_cheapest(result, accuracy_floor)
    output.show(result, make_tables(result), [*describe_sweep(result), *cheapest], FILES)
