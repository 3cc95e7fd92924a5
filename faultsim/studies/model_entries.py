"""Entries of a comparison that change the model: weights written for each known chip, and restricted activations."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..activations.ranges import ActivationRanges
from ..activations.restriction import OutOfRange, RangeRestricted
from ..errors import FaultsimError
from ..fault_aware import FaultAwareWeights
from ..faults import FaultKind
from ..network.architecture import Architecture
from .entries import Entry, Setting
from .sweep_result import Variant


def write_for_each_chip() -> Entry:
    """Make the entry of fault-aware quantization: each chip is known, and holds weights that were written for it.

    Its energy leaves out what it takes to test each chip at each voltage, and to keep weights of its own for it.

    Raises
    ------
    FaultsimError
        When called, for weights that are no integers, and transient faults.
    """

    def create_variant(setting: Setting) -> Variant:
        if setting.faults.kind is FaultKind.TRANSIENT:
            raise FaultsimError("fault-aware: transient faults are new at every read, no chip can be known")
        return Variant(
            "fault-aware",
            fingerprint="fault-aware quantization for each chip",
            stored=FaultAwareWeights(setting.subject.stored),
            uncounted="a test of each chip at each voltage, and weights written for it alone",
        )

    return create_variant


def restrict_activations(out_of_range: str = OutOfRange.CLAMP, samples: int = 256) -> Entry:
    """Make the entry of a model whose activations are kept within the ranges that they have without errors.

    Parameters
    ----------
    out_of_range
        "clamp" or "zero".
    samples
        The ranges are those of the first so many samples of the data, in whole batches.

    Raises
    ------
    FaultsimError
        When called, for another word.
    """

    def create_variant(setting: Setting) -> Variant:
        subject = setting.subject
        model = RangeRestricted(subject.model, subject.calibrate(samples), out_of_range)
        return Variant(
            f"range-restriction:{model.out_of_range}",
            fingerprint=json.dumps([model.ranges.as_dict(), model.out_of_range]),
            model=model,
            stored=subject.stored,
            uncounted="the comparators of activations",
            architecture=Architecture(
                "faultsim.studies.model_entries:restrict_untrained",
                {
                    "architecture": asdict(subject.architecture),
                    "ranges": model.ranges.as_dict(),
                    "out_of_range": str(model.out_of_range),
                },
            ),
        )

    return create_variant


def restrict_untrained(
    architecture: Mapping[str, Any], ranges: Mapping[str, Any], out_of_range: str
) -> RangeRestricted:
    """Make a model of an architecture, with any weights, whose activations are kept within ranges.

    Parameters
    ----------
    architecture
        Fields of the Architecture of the model without ranges.
    ranges
        What ActivationRanges.as_dict returns.
    out_of_range
        "clamp" or "zero".
    """
    return RangeRestricted(
        Architecture(**architecture).build(), ActivationRanges.from_dict(ranges), out_of_range
    )
