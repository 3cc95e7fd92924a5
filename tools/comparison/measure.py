"""`python -m tools.comparison.measure BASE OUT --data-dir DIR`: measures it for a base model, on a CPU.

Each operating point under each fault model has a directory of its own in OUT/BASE, as `faultsim compare --out` writes
it. A run that was stopped goes on when the program is started again. Entries that are measured later (`--entries`) have
the same chips and images; they go into a folder within OUT/BASE (`--into`).
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from faultsim import FaultModel, Subject, compare, load_subject
from faultsim.io.files import write_text
from faultsim.studies.comparison import MITIGATIONS
from faultsim.studies.entries import Entry
from neuralfuse.entries import classify_alone, classify_first, look_up, put_in_front
from neuralfuse.stage_files import CLASSIFIER_ENDING

RESULTS = Path(__file__).resolve().parents[2] / "results"
MODELS = RESULTS / "models"
PATTERNS = RESULTS / "patterns" / "patterns-VGG11-cifar10-paper-neuralfuse_2022-0.01.safetensors"
BASES = {
    "VGG11": MODELS / "base-VGG11-cifar10-paper.safetensors",
    "VGG7": MODELS / "base-VGG7-cifar10-rbet.safetensors",
}
"""Those that are kept: one that was trained as usual, and one with clipped weights and random bit errors."""
GENERATORS = ("UNetL", "UNetS", "ConvS", "DeConvS")
CLASSIFIERS = GENERATORS[:3]
"""DeConvS has the encoder of ConvS."""
PRESETS = ("neuralfuse_2022", "iid_flips")
VOLTAGES = (0.83, 0.80, 0.86, 0.90, 0.78)
"""Those that say most come first."""
BATCH = 125


def find_generator(name: str) -> Path:
    """Return the kept file of a generator that was trained in stages."""
    return MODELS / f"generator-{name}-VGG11-cifar10-paper-neuralfuse_2022-0.01-staged.safetensors"


def list_entries() -> dict[str, str | Entry]:
    """List what is compared, by name. All generators, classifiers and patterns were trained for VGG11."""
    classifiers = {name: find_generator(name).with_suffix(CLASSIFIER_ENDING) for name in CLASSIFIERS}
    return {
        **{label: f"boosted={label}" if label == "boosted" else label for label in MITIGATIONS},
        "fault-aware": "fault-aware",
        **{f"with {name}": put_in_front(find_generator(name)) for name in GENERATORS},
        **{f"classifier {name}": classify_alone(path) for name, path in classifiers.items()},
        **{f"cascade {name}": classify_first(path) for name, path in classifiers.items()},
        **{f"lookup {name}": look_up(path, PATTERNS) for name, path in classifiers.items()},
    }


@contextmanager
def timed(directory: Path) -> Iterator[None]:
    """Write how it was computed, and how long it took, into a directory."""
    wall, processor = time.monotonic(), time.process_time()
    yield
    about = {
        "precision": "bfloat16 by autocast",
        "seconds": round(time.monotonic() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
    }
    write_text(directory / "about.json", json.dumps(about, indent=1) + "\n")


def measure(subject: Subject, entries: Sequence[str | Entry], out: Path, chips: int) -> None:
    """Measure all points that are not there yet."""
    for voltage in VOLTAGES:
        for preset in PRESETS:
            directory = out / f"{preset}-{voltage:.2f}"
            if (directory / "about.json").exists():
                continue
            with timed(directory):
                compare(
                    subject,
                    entries,
                    chips,
                    voltages=[voltage],
                    faults=FaultModel.preset(preset),
                    out=directory,
                    report=lambda row: print(row.point, row.variant, row.evaluation, flush=True),
                )


def main() -> None:
    """Parse the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", choices=BASES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--entries",
        help="by commas: names that the tables show, such as 'cascade UNetS', or labels of faultsim compare "
        "[default: all that the tables show]",
    )
    parser.add_argument("--into", default="", metavar="FOLDER", help="with --entries: folder within OUT/BASE")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--chips", type=int, default=10)
    given = parser.parse_args()
    subject = load_subject(
        weights=BASES[given.base],
        data_dir=given.data_dir,
        images=given.images,
        batch_size=BATCH,
        compute="bfloat16",
    )
    known = list_entries()
    names = known if given.entries is None else given.entries.split(",")
    measure(
        subject, [known.get(name, name) for name in names], given.out / given.base / given.into, given.chips
    )


if __name__ == "__main__":
    main()
