"""`python -m tools.comparison.lookup OUT --data-dir DIR`: class patterns that are looked up, in front of VGG11.

OUT/clean has the accuracies without bit errors, OUT/errors those at 1 % on 10 chips, on all test images, as `faultsim
compare --out` writes them. A run that was stopped goes on when the program is started again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from faultsim import FaultModel, compare, load_subject
from faultsim.studies.entries import Entry
from neuralfuse.entries import look_up
from neuralfuse.stage_files import CLASSIFIER_ENDING
from tools.comparison.measure import BASES, PATTERNS, find_generator

GENERATORS = ("ConvL", "ConvS", "UNetL", "UNetS")
"""DeConvL and DeConvS have the encoders of ConvL and ConvS."""
CONFIDENCES = (0.0, 0.6)
BATCH = 125


def list_entries() -> list[Entry]:
    """List the look-ups: each classifier, with and without a smallest confidence."""
    return [
        look_up(find_generator(name).with_suffix(CLASSIFIER_ENDING), PATTERNS, confidence)
        for name in GENERATORS
        for confidence in CONFIDENCES
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--chips", type=int, default=10)
    given = parser.parse_args(arguments)
    subject = load_subject(
        weights=BASES["VGG11"],
        data_dir=given.data_dir,
        images=given.images,
        batch_size=BATCH,
        compute="bfloat16",
    )
    for name, chips, voltage in (("clean", 1, 1.0), ("errors", given.chips, 0.83)):
        compare(
            subject,
            list_entries(),
            chips,
            voltages=[voltage],
            faults=FaultModel.preset("neuralfuse_2022"),
            out=given.out / name,
            report=lambda row: print(row.point, row.variant, row.evaluation, flush=True),
        )


if __name__ == "__main__":
    main()
