"""Entries of a comparison that change the model: weights written for each known chip, and restricted activations."""

import json

from .entries import Entry, Setting
from .errors import FaultsimError
from .fault_aware import FaultAwareWeights
from .faults import FaultKind
from .range_restriction import OutOfRange, RangeRestricted
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
        )

    return create_variant
