"""How many chips do stopping rules need, and do their intervals cover? python benchmarks/precision.py --json FILE

Sweeps are simulated by drawing chips, with replacement, from the results of 200 chips that were measured
(results/chips-digits.json: the default sweep), so that the expected values are known. At a point, a rule stops once all
variants and their difference are precise enough on the same chips. Compared are

  fixed       as many chips at every point as give the widest point Student's 95 % interval of the precision
  sequence    faultsim.studies.precision
  mixture     asymptotic confidence sequence of Waudby-Smith et al. (Annals of Statistics 52, 2024), tuned at its end
  bernstein   predictable plug-in empirical Bernstein sequence of Waudby-Smith and Ramdas (JRSS B 86, 2024): no
              assumption but values in [0, 1]
  chow        Chow and Robbins (1965): stops as soon as Student's interval is as narrow; valid for this stop only

"covers" is the share of sweeps in which the interval at the end covers, "always" that in which those of all looks do;
on average and at the worst point and variant (or difference).

    faultsim sweep-voltage --chips 200 --out DIR && python benchmarks/precision.py --keep DIR

writes results/chips-digits.json anew.
"""

import argparse
import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance
from faultsim.studies.precision import LEAST_CHIPS, compute_half_widths

MEASURED = Path(__file__).parent / "results" / "chips-digits.json"
ALPHA = 0.05
AT_ONCE = 1 << 22  # values of one series that are simulated together

Array = NDArray[np.float64]
Rule = Callable[[Array, float, float], tuple[Array, Array]]
"""Values [sweeps, chips], precision and reach -> centers and half widths after each chip."""


@dataclass(frozen=True)
class Point:
    """What was measured at one voltage."""

    series: Array
    """[series, chips]: accuracies of each variant, and of all but the first their difference to the first."""
    reach: float
    """How far an unseen chip may lie from the mean: 0 without bit errors."""

    @property
    def spread(self) -> float:
        """Standard deviation of the widest series."""
        return float(self.series.std(axis=-1, ddof=1).max())


def moments(values: Array) -> tuple[Array, Array, Array]:
    """Number of chips so far, mean and sample variance after each chip."""
    chips = np.arange(1, values.shape[-1] + 1)
    sums = values.cumsum(axis=-1)
    rest = np.maximum((values**2).cumsum(axis=-1) - sums**2 / chips, 0)
    return chips, sums / chips, rest / np.maximum(chips - 1, 1)


def sequence(values: Array, precision: float, reach: float) -> tuple[Array, Array]:
    return moments(values)[1], compute_half_widths(values, precision, reach)


def mixture(values: Array, precision: float, reach: float) -> tuple[Array, Array]:
    """The normal mixture's boundary (their equation 8) with rho = constant precision / s: narrowest where it ends."""
    chips, mean, variance = moments(values)
    end = -2 * math.log(ALPHA) + math.log(1 - 2 * math.log(ALPHA))  # rho^2 n of the narrowest boundary
    size = 2 * (end + 1) / end * math.log(math.sqrt(end + 1) / ALPHA)  # (half width)^2 n / s^2 there
    rho2 = end / size * precision**2 / np.maximum(variance, 1e-12)
    inside = 2 * (chips * rho2 + 1) / (chips**2 * rho2) * np.log(np.sqrt(chips * rho2 + 1) / ALPHA)
    return mean, np.sqrt(variance * inside)


def bernstein(values: Array, precision: float, reach: float) -> tuple[Array, Array]:
    """Their theorem 2, for values in [0, 1]; differences in [-1, 1] are moved there."""
    low, width = (-1.0, 2.0) if values.min() < 0 else (0.0, 1.0)
    values = (values - low) / width
    chips = np.arange(1, values.shape[-1] + 1)
    mean = (0.5 + values.cumsum(axis=-1)) / (chips + 1)
    variance = (0.25 + ((values - mean) ** 2).cumsum(axis=-1)) / (chips + 1)

    def before(x: Array, first: float) -> Array:  # what was known before each chip
        return np.concatenate([np.full_like(x[..., :1], first), x[..., :-1]], axis=-1)

    past = before(variance, 0.25)
    bets = np.minimum(np.sqrt(2 * math.log(2 / ALPHA) / (past * chips * np.log1p(chips))), 0.5)
    surprise = 4 * (values - before(mean, 0.5)) ** 2 * (-np.log1p(-bets) - bets) / 4
    total = bets.cumsum(axis=-1)
    center = (bets * values).cumsum(axis=-1) / total
    return low + width * center, width * (math.log(2 / ALPHA) + surprise.cumsum(axis=-1)) / total


def chow(values: Array, precision: float, reach: float) -> tuple[Array, Array]:
    chips, mean, variance = moments(values)
    return mean, t.ppf(1 - ALPHA / 2, np.maximum(chips - 1, 1)) * np.sqrt(variance / chips)


RULES: dict[str, Rule] = {"sequence": sequence, "mixture": mixture, "bernstein": bernstein, "chow": chow}
MOST = {"sequence": (9, 3), "mixture": (14, 1), "bernstein": (30, 16), "chow": (7, 1)}
"""More chips than a rule needs: so many times (standard deviation / precision)^2, and so many over the precision."""


def fixed_number(spread: float, precision: float) -> int:
    """Chips after which Student's 95 % interval of values with this standard deviation is expected to be so narrow."""
    chips = 2
    while t.ppf(1 - ALPHA / 2, chips - 1) * spread > precision * math.sqrt(chips):
        chips = max(chips + 1, int(chips * 1.01))
    return chips


def simulate(
    point: Point, drawn: NDArray[np.int64], rule: Rule, precision: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Where each sweep stops at a point, and, [series, sweeps], whether its interval covers then, and always did.
    `drawn` [sweeps, n] says which of the measured chips each simulated sweep draws, in order."""
    enough = np.ones(drawn.shape, dtype=bool)
    misses = []
    for values in point.series:
        center, width = rule(values[drawn], precision, point.reach)
        width[:, : LEAST_CHIPS - 1] = math.inf
        enough &= width <= precision * (1 + 1e-12)
        misses.append(np.abs(center - values.mean()) > width + 1e-12)
    if not enough.any(axis=-1).all():
        raise RuntimeError("a simulated sweep ran out of chips: raise MOST")
    end = enough.argmax(axis=-1)
    rows = np.arange(len(end))
    covers = np.stack([~miss[rows, end] for miss in misses])
    first = [np.where(miss.any(axis=-1), miss.argmax(axis=-1), drawn.shape[1]) for miss in misses]
    return end + 1, covers, np.stack([at > end for at in first])


def study_point(point: Point, name: str, precision: float, sweeps: int, seed: list[int]) -> dict:
    """Mean number of chips at a point, and the shares of sweeps that simulate() counts, of each series."""
    often, more = MOST[name]
    most = int(often * (point.spread / precision) ** 2 + more / precision) + 60
    generator = np.random.default_rng(seed)
    group = max(1, AT_ONCE // most)
    parts = []
    for first in range(0, sweeps, group):
        drawn = generator.integers(0, point.series.shape[1], (min(group, sweeps - first), most))
        parts.append(simulate(point, drawn, RULES[name], precision))
    ends, covers, always = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return {
        "chips": float(ends.mean()),
        "covers": covers.mean(axis=-1).tolist(),
        "always": always.mean(axis=-1).tolist(),
    }


def study(points: list[Point], precision: float, sweeps: int, rules: list[str], seed: int) -> dict:
    """Chips that each rule needs at all points, beside a fixed number, and how often its intervals cover."""
    fixed = fixed_number(max(point.spread for point in points), precision)
    found: dict = {"precision": precision, "sweeps": sweeps, "fixed_chips": fixed, "rules": {}}
    for name in rules:
        each = [study_point(point, name, precision, sweeps, [seed, at]) for at, point in enumerate(points)]
        found["rules"][name] = {
            "share_of_fixed": sum(one["chips"] for one in each) / (fixed * len(points)),
            **{f"{key}_mean": float(np.mean([one[key] for one in each])) for key in ("covers", "always")},
            **{f"{key}_least": float(np.min([one[key] for one in each])) for key in ("covers", "always")},
            "points": each,
        }
    return found


def keep(directory: Path, path: Path = MEASURED) -> None:
    """Write the counts of right answers of a sweep's directory, with where they come from."""
    points: dict[tuple[str, str], dict[str, list[int]]] = {}
    images = set()
    with (directory / "results.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            variants = points.setdefault((row["voltage"], row["bit_error_rate"]), {})
            variants.setdefault(row["variant"], []).append(int(row["correct"]))
            images.add(int(row["images"]))
    (number,) = images
    described = json.loads((directory / "sweep.json").read_text(encoding="utf-8"))
    configuration = described.pop("configuration")
    content = {
        **{key: configuration[key] for key in ("model", "weights", "faults", "seed", "device", "generator")},
        **described,
        "images": number,
        "points": [
            {"voltage": float(voltage), "bit_error_rate": float(rate), "correct": variants}
            for (voltage, rate), variants in points.items()
        ],
    }
    write_text(path, re.sub(r"\n\s+(\d+)(?=,?\n)", r" \1", json.dumps(content, indent=1)) + "\n")


def measured(path: Path = MEASURED) -> list[Point]:
    """The points of the measured sweep."""
    content = json.loads(path.read_text(encoding="utf-8"))
    points = []
    for point in content["points"]:
        values = [np.array(correct) / content["images"] for correct in point["correct"].values()]
        series = np.stack([*values, *(other - values[0] for other in values[1:])])
        points.append(Point(series, 1.0 if point["bit_error_rate"] else 0.0))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=2000)
    parser.add_argument("--precisions", type=float, nargs="+", default=[0.005, 0.01, 0.02])
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results into this file")
    parser.add_argument(
        "--keep", type=Path, help="keep what this directory of a sweep holds, and simulate nothing"
    )
    args = parser.parse_args()
    if args.keep:
        return keep(args.keep)
    studies = []
    for precision in args.precisions:
        studies.append(study(measured(), precision, args.sweeps, args.rules, args.seed))
        print(f"+- {100 * precision:g} points; fixed: {studies[-1]['fixed_chips']:,} chips a point")
        for name, result in studies[-1]["rules"].items():
            print(
                f"  {name:<10}{100 * result['share_of_fixed']:7.1f} % of them;"
                f" covers {100 * result['covers_mean']:.2f} % (least {100 * result['covers_least']:.2f} %),"
                f" always {100 * result['always_mean']:.2f} % (least {100 * result['always_least']:.2f} %)",
                flush=True,
            )
        if args.json:
            content = {
                "benchmark": "precision",
                "seed": args.seed,
                "studies": studies,
                **record_provenance("cpu"),
            }
            write_text(args.json, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
