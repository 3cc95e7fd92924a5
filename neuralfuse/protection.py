"""Accuracy without and with a generator, on the same chips: the columns of the paper's Table 1."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from faultsim.activations.memory import ActivationMemory, FaultSites
from faultsim.errors import FaultsimError
from faultsim.evaluation import Evaluation, evaluate
from faultsim.faults import Chip, FaultModel
from faultsim.metrics.metric import AnyMetric, find_metric
from faultsim.network.architecture import Architecture
from faultsim.network.batch import split_batch
from faultsim.stored import StoredWeights
from faultsim.studies.chip_statistics import Statistics, compute_improvement
from faultsim.voltage import VoltageCurve

if TYPE_CHECKING:
    from faultsim.cluster.workers import AnyClient


@dataclass(frozen=True)
class Protection:
    """Accuracy (or another metric) of a base model alone and behind a generator.

    The fields are the columns of the paper's Table 1. Those with a generator are None if there is none.
    """

    clean: Evaluation
    """C.A.: the base model without bit errors, one pass."""
    perturbed: Evaluation
    """P.A.: the base model with bit errors, on each chip."""
    clean_fused: Evaluation | None = None
    """C.A.+N.F.: behind the generator, without bit errors."""
    perturbed_fused: Evaluation | None = None
    """P.A.+N.F.: behind the generator, with bit errors."""

    @property
    def improvement(self) -> Statistics | None:
        """IP: P.A.+N.F. minus P.A. on the same chip, so that the interval is that of the paired difference."""
        if self.perturbed_fused is None:
            return None
        return compute_improvement(self.perturbed, self.perturbed_fused)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary for each column of the paper's Table 1; accuracies are fractions.

        Returns
        -------
        list of dict
            name and mean; with bit errors also std, interval and the value on each chip; not_finite where some answers
            were not. The last one, with a generator, is IP.
        """
        rows: list[dict[str, Any]] = []
        for name, evaluation, without_errors in (
            ("C.A.", self.clean, True),
            ("P.A.", self.perturbed, False),
            ("C.A.+N.F.", self.clean_fused, True),
            ("P.A.+N.F.", self.perturbed_fused, False),
        ):
            if evaluation is None:
                continue
            row: dict[str, Any] = {"name": name, "mean": evaluation.mean}
            if not without_errors:  # without errors all chips are alike
                row |= {"std": evaluation.std, "interval": evaluation.interval, "chips": evaluation.values}
            if evaluation.wrong_numbers:
                row["not_finite"] = evaluation.wrong_numbers
            rows.append(row)
        if self.improvement is not None:
            rows.append({"name": "IP", **asdict(self.improvement)})
        return rows


def evaluate_protected(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    chips: Sequence[Chip],
    *,
    bit_error_rate: float,
    faults: FaultModel,
    stored: StoredWeights,
    generator: nn.Module | None = None,
    metric: AnyMetric = "accuracy",
    sites: FaultSites = "weights",
    activations: ActivationMemory | None = None,
    curve: VoltageCurve | None = None,
    compute: str = "float32",
    report: Callable[[Evaluation], None] | None = None,
    client: "AnyClient | None" = None,
    architectures: tuple[Architecture, Architecture | None] | None = None,
) -> Protection:
    """Evaluate a base model alone and behind a generator, without bit errors and on every chip.

    Parameters
    ----------
    model
        Base model. It runs in evaluation mode.
    data
        Batches of inputs and targets. They are iterated several times: a list or a DataLoader, not a generator.
    chips
        Chips to evaluate, the same ones without and with the generator.
    bit_error_rate
        Fraction of failing cells of the base model's weight memory. The generator's memory has no errors.
    faults
        What a failing cell does, and which memory the weights lie in.
    stored
        The model's int8 weights (``StoredWeights.of(model)``).
    generator
        NeuralFuse module, as `neuralfuse.load` returns it. Default: the base model alone is evaluated.
    metric
        Name of a metric, or a metric (see ``faultsim.evaluate``).
    sites, activations
        Which memory's cells fail (see ``faultsim.evaluate``). The clean columns have neither memory's errors.
    curve
        For the activations' own voltage, if they have one. Default: the paper's SRAM.
    compute
        What the models compute in (see ``faultsim.evaluate``).
    report
        Called with each evaluation of the chips so far.
    client
        A client of a Dask cluster (or ``faultsim.cluster.workers.Workers``) whose workers evaluate.
    architectures
        With a client: what makes the base model and the generator anew on the workers.

    Returns
    -------
    Protection
        C.A., P.A., C.A.+N.F. and P.A.+N.F. of the paper's Table 1, and IP.

    Raises
    ------
    FaultsimError
        For the reasons that ``faultsim.evaluate`` has.
    """
    # without bit errors there are none in voltage domains either
    clean: tuple[float, Sequence[Chip], FaultModel, FaultSites]
    clean = 0.0, chips[:1], replace(faults, domains=()), "weights"
    runs: list[tuple[nn.Module | None, float, Sequence[Chip], FaultModel, FaultSites]] = [
        (transform, *run)
        for transform in ([None] if generator is None else [None, generator])
        for run in (clean, (bit_error_rate, chips, faults, sites))
    ]

    def evaluate_by_workers() -> list[Evaluation]:
        from faultsim.cluster.networks import PackedNetwork, PackedWeights
        from faultsim.cluster.spread import Plan, spread_study
        from faultsim.cluster.study import Case, PackedVariant, Study, name_metric, pack_chips
        from faultsim.cluster.workers import open_workers

        if architectures is None or (generator is not None and architectures[1] is None):
            raise FaultsimError("workers cannot make the networks anew: give their architectures")
        base, front = architectures
        packed = None if generator is None or front is None else PackedNetwork.of(front, generator)
        with open_workers(client, stored.layers[0].values.device.type) as workers:
            study = Study(
                PackedNetwork.of(base, model),
                PackedWeights.of(stored, model),
                [split_batch(batch) for batch in data],
                tuple(
                    PackedVariant(kinds, transform=None if transform is None else packed)
                    for transform, _, _, kinds, _ in runs
                ),
                tuple(
                    Case(number, bit_error_rate=rate, sites=failing)
                    for number, (_, rate, _, _, failing) in enumerate(runs)
                ),
                pack_chips(chips),
                curve,
                name_metric(find_metric(metric)),
                activations,
                workers.device,
                compute,
            )
            plan = Plan(
                ("C.A.", "P.A.", "C.A.+N.F.", "P.A.+N.F.")[: len(runs)],
                tuple((number,) for number in range(len(runs))),
                tuple((len(on),) for _, _, on, _, _ in runs),
                lambda group, found: True,
                find_metric(metric),
                1 if generator is None else 8,
            )
            with spread_study(study, plan, workers) as ahead:
                return [ahead.evaluate(case, 0, looks[0], report) for case, looks in enumerate(plan.looks)]

    if client is not None:
        return Protection(*evaluate_by_workers())
    return Protection(
        *(
            evaluate(
                model,
                data,
                on,
                bit_error_rate=rate,
                faults=kinds,
                stored=stored,
                transform=transform,
                metric=metric,
                curve=curve,
                sites=failing,
                activations=activations,
                compute=compute,
                report=report,
            )
            for transform, rate, on, kinds, failing in runs
        )
    )
