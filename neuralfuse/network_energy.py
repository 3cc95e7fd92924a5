"""The weight memory energy of a network, alone and behind a generator: counts, costs and what a voltage saves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from energy.accelerator import Accelerator
from energy.costs import count_costs
from energy.counts import NetworkCounts
from energy.dry_run import Example
from energy.engines import count, find_differences
from energy.layers import Layer
from energy.saving import compute_saving, find_break_even_voltage
from energy.topology import read_topology
from energy.trace import POLICIES, CountingPolicy, Trace, trace_layers, trace_model
from faultsim import models
from faultsim.errors import FaultsimError
from faultsim.formats import INT8, AnyFormat, as_format
from faultsim.memory import Share, measure_share
from faultsim.network.inventory import take_inventory
from faultsim.show.units import format_joules, format_percent
from faultsim.voltage import VoltageCurve

from . import generators

COUNTINGS = ("paper", "exact")
"""How layers become rows: as in the paper's Table 6, or with real sizes and exact transposed convolutions."""
_DIFFERENCE = ("layer", "quantity", "closed-form", "scalesim")
_MOST_NAMES = 5  # in one line


@dataclass(frozen=True)
class NetworkEnergy:
    """Counts of a network's SRAM accesses, and of a generator in front of it."""

    layers: list[Layer]
    """Of the network, without the generator."""
    counts: NetworkCounts
    generator_counts: NetworkCounts | None
    """None without a generator."""
    report: dict[str, Any]
    """All of it, with costs, savings and what the counts leave out, as JSON values."""

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Numbers in which the engines differ."""
        return self.report.get("differences", [])

    def lines(self) -> list[str]:
        """Say in lines what of the weights is counted, what the network costs, and what the voltage saves."""
        report = self.report
        lines = [_describe_accesses(report["model"], self.counts)]
        if self.generator_counts is not None:
            lines.append(_describe_accesses(report["generator"], self.generator_counts))
        lines += _describe_memory(report)
        for name, costs in ((report["model"], "costs"), (report["generator"], "generator_costs")):
            if costs in report:
                numbers = report[costs]
                lines.append(
                    f"{name}: {numbers['parameters']:,} parameters, {numbers['macs'] / 1e6:,.2f} M MACs "
                    f"({numbers['table8_macs'] / 1e6:,.2f} M in the counting of Table 8)"
                )
        return [*lines, *_describe_savings(report), *self._describe_engines()]

    def notes(self) -> list[str]:
        """Say in lines what the columns of the counts are."""
        one = "int8 value" if "format" not in self.report else "value"
        lines = [f"P output pixels, K weights per filter, F filters; one access per {one}."]
        total = self.counts.total
        if self.generator_counts is not None:
            total = total + self.generator_counts.total
        for number, what in (
            (total.output_overcount, "output writes are SCALE-Sim's over-count (R + C per fold)"),
            (total.input_overcount, "input reads lie outside of the map (sizes are rounded up)"),
        ):
            if number:
                lines.append(f"{number:,} of the {what}.")
        return lines

    def _describe_engines(self) -> list[str]:
        """Say whether both engines agree, if both counted."""
        if len(self.report["engines"]) < 2:
            return []
        if not self.differences:
            behind = 0 if self.generator_counts is None else len(self.generator_counts.layers)
            layers = len(self.counts.layers) + behind
            return [f"Closed form and SCALE-Sim agree in every number of {layers} layers."]
        found = ["differ: " + ", ".join(f"{k} {v}" for k, v in one.items()) for one in self.differences]
        return [*found, f"The engines differ in {len(found)} numbers."]


def count_network(
    model: str | None = None,
    generator: str | None = None,
    topology: Path | None = None,
    *,
    shape: Example = (3, 32, 32),
    accelerator: Accelerator | None = None,
    engines: Sequence[str] = ("closed-form",),
    counting: str = "paper",
    curve: VoltageCurve | None = None,
    voltage: float | None = None,
    input_voltage: float | None = None,
    format: AnyFormat = INT8,
) -> NetworkEnergy:
    """Count the SRAM accesses of a network layer by layer, and the weight memory energy that a voltage saves.

    Parameters
    ----------
    model : str, optional
        A model of faultsim.models.NAMES, a generator, or package.module:function.
    generator : str, optional
        NeuralFuse generator in front of the model. It runs at Vmin.
    topology : path, optional
        Instead of a model: the layers of a SCALE-Sim topology CSV.
    shape : tuple of int, or inputs
        Of one input without the batch; or the inputs of one sample, for models that take something else than one tensor
        of floats.
    accelerator : Accelerator, optional
        Default: the paper's.
    engines : sequence of str
        Of energy.ENGINES; the first gives the counts, and all of them are compared.
    counting : str
        One of COUNTINGS.
    curve : VoltageCurve, optional
        Default: the paper's.
    voltage : float, optional
        In the unit of the curve.
    input_voltage : float, optional
        Also count the energy of the input memory, at this voltage.
    format : Format or str
        What a weight of the model is, or its name: how many of them an access reads. A generator's are int8.

    Returns
    -------
    NetworkEnergy

    Raises
    ------
    FaultsimError
        For unknown words, a voltage off the curve, a generator that does not fit the input, and a network without a
        layer that can be counted.
    """
    if (model is None) == (topology is None):
        raise FaultsimError("give either a model or a topology")
    if counting not in COUNTINGS:
        raise FaultsimError(f"unknown counting {counting!r}: it can be paper or exact")
    curve, held = curve or VoltageCurve.default(), as_format(format)
    accelerator = accelerator or Accelerator()
    if held != INT8:
        accelerator = replace(accelerator, weight_bits=held.cells)
    if voltage is not None:
        curve.energy_per_access(voltage)  # a voltage off the curve is refused before anything runs
    if input_voltage is not None:
        if voltage is None:
            raise FaultsimError("a voltage of the input memory needs the voltage of the weight memory")
        curve.energy_per_access(input_voltage)
    if generator is not None:
        one_image = isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)
        generators.check_generator_size(generator, cast(tuple[int, ...], shape) if one_image else None)
    costs: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    front: list[Layer] = []
    if topology is not None:
        title, layers = topology.name, read_topology(topology)
    elif model is not None:
        title = model
        network = create_shapes(model, (*models.NAMES, *generators.KNOWN))
        traced = trace_model(network, shape, _find_policy(model, counting))
        layers, memory = list(traced.layers), _describe_uncounted(network, traced)
        costs["costs"] = asdict(count_costs(network, shape))
    if generator:
        network = create_shapes(generator, generators.KNOWN)
        front = list(trace_layers(network, shape, _find_policy(generator, counting, generator=True)))
        costs["generator_costs"] = asdict(count_costs(network, shape))
    results = [count([*front, *layers], accelerator, name) for name in engines]
    differences = (
        [dict(zip(_DIFFERENCE, d, strict=True)) for d in find_differences(*results)]
        if len(results) > 1
        else []
    )
    base, before = _split(results[0], len(front))
    report = {
        "model": title,
        "generator": generator,
        **({} if held == INT8 else {"format": held.name}),
        "accelerator": asdict(accelerator),
        "engines": list(engines),
        **({"differences": differences} if len(results) > 1 else {}),
        "counting": counting if model else "topology",
        **costs,
        **memory,
        **_describe_counts(base),
        **({"generator_counts": _describe_counts(before)} if generator else {}),
        **_compute_savings(base, before if generator else None, curve, voltage, input_voltage),
    }
    return NetworkEnergy(layers, base, before if generator else None, report)


def create_shapes(spec: str, names: Sequence[str] = (*models.NAMES, *generators.KNOWN)) -> nn.Module:
    """Create a network whose weights have shapes and no values, or the user's own.

    Parameters
    ----------
    spec : str
        One of `names`, models or generators; or package.module:function, whose network keeps its values.
    names : sequence of str
        Which ones are known.

    Raises
    ------
    FaultsimError
        For another name, and a function that returns no network.
    """
    if ":" in spec:
        return models.resolve(spec)
    if spec not in names:
        raise FaultsimError(
            f"unknown network {spec!r}: it can be {', '.join(names)}, or your own as package.module:function"
        )
    with torch.device("meta"):  # shapes are enough, and there is nothing to initialize
        return models.create(spec) if spec in models.NAMES else generators.create(spec)


def _describe_uncounted(network: nn.Module, traced: Trace) -> dict[str, Any]:
    """Report which weights in the faulty memory are counted. Raises FaultsimError where none is."""
    found = take_inventory(network)
    sizes = {weight.tensors[0]: weight.count for weight in found.weights}
    uncounted = traced.uncounted(weight.tensors for weight in found.weights)
    if not traced.layers:
        raise FaultsimError(
            f"no layer of this model can be counted: {_some(uncounted)}; convolutions of one and two dimensions, "
            "their transposed forms and linear layers can"
        )
    return {
        "memory": measure_share(sizes.values(), found.left_out).as_dict(),
        "uncounted": {"weights": sum(sizes[name] for name in uncounted), "tensors": uncounted},
    }


def _some(names: list[str]) -> str:
    """Join the first names, and say how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _describe_memory(report: dict[str, Any]) -> list[str]:
    """How many weights lie in the faulty memory, and how many of them the counts leave out."""
    if "memory" not in report:
        return []

    known, left = Share(report["memory"]["stored"], report["memory"]["weights"]), report["uncounted"]
    if not left["tensors"]:
        return [f"{known}, all of them are counted"]
    return [
        str(known),
        f"Not counted: {left['weights']:,} of these, {_some(left['tensors'])}",
    ]


def _find_policy(spec: str, counting: str, generator: bool = False) -> CountingPolicy:
    """How the layers of a network become rows."""
    as_generator = counting == "paper" and (generator or spec in generators.KNOWN)
    return POLICIES["paper-generator" if as_generator else counting]


def _split(counts: NetworkCounts, front: int) -> tuple[NetworkCounts, NetworkCounts]:
    """Split counts into those of the model and those of the `front` generator layers before it, which are int8."""
    int8 = replace(counts.accelerator, weight_bits=INT8.cells)
    return (
        replace(counts, layers=counts.layers[front:], counts=counts.counts[front:]),
        replace(counts, accelerator=int8, layers=counts.layers[:front], counts=counts.counts[:front]),
    )


def _describe_counts(counts: NetworkCounts) -> dict[str, Any]:
    """Layers, totals and weight memory accesses."""
    return {
        "layers": [
            {**asdict(layer), **asdict(numbers)}
            for layer, numbers in zip(counts.layers, counts.counts, strict=True)
        ],
        "total": asdict(counts.total),
        "weight_memory_accesses": counts.weight_memory_accesses,
    }


def _compute_savings(
    base: NetworkCounts,
    before: NetworkCounts | None,
    curve: VoltageCurve,
    voltage: float | None,
    input_voltage: float | None,
) -> dict[str, Any]:
    """Report what the voltage saves without and with the generator, and where the generator breaks even."""
    accesses = base.weight_memory_accesses
    result: dict[str, Any] = {}
    if voltage is not None:
        result["curve"] = curve.name
        result["voltage"] = voltage
        result["bit_error_rate"] = curve.bit_error_rate(voltage)
        result["relative_energy_per_access"] = curve.energy_per_access(voltage)
        result["saving"] = compute_saving(accesses, curve, voltage)
    if voltage is not None and input_voltage is not None:
        inputs = base.count_input_accesses()
        result["input_memory_accesses"] = inputs
        result["input_voltage"] = input_voltage
        result["saving_with_inputs"] = compute_saving(
            accesses, curve, voltage, input_accesses=inputs, input_voltage=input_voltage
        )
    if curve.access_pj is not None:
        result["energy_per_inference_at_vmin_pj"] = curve.access_pj * accesses
        if voltage is not None:
            energy = curve.access_pj * curve.energy_per_access(voltage)
            result["energy_per_access_pj"] = energy
            result["energy_per_inference_pj"] = energy * accesses
    if before is not None:
        extra = before.weight_memory_accesses
        if curve.access_pj is not None:
            result["generator_energy_per_inference_pj"] = curve.access_pj * extra
        if voltage is not None:
            result["saving_with_generator"] = compute_saving(accesses, curve, voltage, extra)
        result["break_even_voltage"] = find_break_even_voltage(accesses, extra, curve)
    return result


def _describe_accesses(name: str, counts: NetworkCounts) -> str:
    """One line on the weight memory accesses of an inference."""
    return (
        f"{name}: {counts.weight_memory_accesses:,} weight memory accesses per inference "
        f"({counts.accelerator.weights_per_access} weights each)"
    )


def _describe_energy(report: dict[str, Any]) -> str:
    """Energies of an inference in joules."""
    words = f"{format_joules(report['energy_per_inference_at_vmin_pj'])} at Vmin"
    if "voltage" in report:
        words += f", {format_joules(report['energy_per_inference_pj'])} at voltage {report['voltage']:g}"
    if "generator_energy_per_inference_pj" in report:
        words += f"; {report['generator']} takes {format_joules(report['generator_energy_per_inference_pj'])}"
    return words


def _describe_savings(report: dict[str, Any]) -> list[str]:
    """Lines on what the voltage saves, and where a generator breaks even."""
    lines = []
    if "voltage" in report:
        lines.append(
            f"At voltage {report['voltage']:g} of curve '{report['curve']}': bit error rate "
            f"{format_percent(report['bit_error_rate'])}, energy per access "
            f"{report['relative_energy_per_access']:.3f} of that at Vmin"
        )
    if "energy_per_inference_at_vmin_pj" in report:
        lines.append(f"Weight-memory energy of one inference: {_describe_energy(report)}")
    if "voltage" in report:
        lines.append(f"Saved weight-memory energy: {100 * report['saving']:.2f} %")
    if "saving_with_generator" in report:
        lines[-1] += f", with {report['generator']} {100 * report['saving_with_generator']:.2f} %"
    if "input_voltage" in report:
        lines.append(
            f"Saved weight- and input-memory energy, inputs at voltage {report['input_voltage']:g} "
            f"({report['input_memory_accesses']:,} input memory accesses): {100 * report['saving_with_inputs']:.2f} %"
        )
    if "break_even_voltage" in report:
        at = report["break_even_voltage"]
        lines.append(
            f"{report['generator']} takes more than any voltage of the curve saves"
            if at is None
            else f"{report['generator']} pays below voltage {at:.3f}"
        )
    return lines
