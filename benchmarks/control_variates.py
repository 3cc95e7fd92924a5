"""Do a chip's own faults, counted without inference, tell its accuracy? python benchmarks/control_variates.py

A control variate (or strata) with the multiple correlation R to the accuracy over chips divides the variance of the
mean accuracy by 1 / (1 - R^2), and so the number of chips that a precision takes. The candidates are what a chip's
faults say without a single forward pass: visible errors, errors of sign bits, the same layer by layer, and the size of
the change of the weights. Their expectations are known, or cost nothing beside inference.

R^2 is that of predictions for chips that the fit has not seen (leave one out): with few chips a fit of many variates
explains noise. A factor of 1 or less is no gain.

"estimates" draws EVALUATED chips of the measured ones, with replacement, and estimates the mean with and without
faultsim.studies.control_variates, the norms of the changes of each layer being the variates: how much smaller the
mean squared error is, and how many of the 95 % intervals cover.

--reuse takes the right answers from an earlier report in place of evaluating the same chips anew.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from faultsim import (
    Chip,
    Evaluation,
    FaultModel,
    StoredWeights,
    bundled,
    data,
    evaluate,
    evaluation_chips,
    models,
)
from faultsim.checkpoint import load_weights
from faultsim.data import iterate_batches
from faultsim.io.files import write_text
from faultsim.io.provenance import record_provenance
from faultsim.perturbation import corrupt_stored
from faultsim.studies.control_variates import estimate_control_mean

RATES = (0.01, 0.02, 0.03)
STRATA = 5
EVALUATED = 50
TIMES = 2000


def counts(stored: StoredWeights, chip: Chip, rate: float, faults: FaultModel) -> np.ndarray:
    """[layers, 4] of one chip: visible errors, errors of sign bits, sum of |change| and of change^2 in int8 steps."""
    read = corrupt_stored(stored, chip, bit_error_rate=rate, faults=faults)
    rows = []
    for old, new in zip(stored.layers, read.layers, strict=True):
        wrong = (old.values ^ new.values).view(torch.uint8).numpy()
        change = (new.values.int() - old.values.int()).numpy().astype(np.float64)
        rows.append(
            (np.bitwise_count(wrong).sum(), (wrong >> 7).sum(), np.abs(change).sum(), (change**2).sum())
        )
    return np.array(rows, dtype=np.float64)


def left_out_r2(variates: np.ndarray, accuracies: np.ndarray) -> float:
    """1 - (squared errors of least squares for chips left out of the fit) / (squared deviations from the mean of the
    others). `variates` [chips, k], `accuracies` [chips]."""
    chips = len(accuracies)
    spread = variates.std(axis=0)
    scaled = (variates[:, spread > 0] - variates.mean(axis=0)[spread > 0]) / spread[spread > 0]
    design = np.column_stack([np.ones(chips), scaled])
    hat = design @ np.linalg.pinv(design)
    left_out = (accuracies - hat @ accuracies) / (1 - np.diag(hat))
    alone = (accuracies - accuracies.mean()) / (1 - 1 / chips)
    return float(1 - (left_out**2).sum() / (alone**2).sum())


def post_stratified(variate: np.ndarray, accuracies: np.ndarray) -> float:
    """The same of the means of STRATA strata of equal size, by one variate."""
    stratum = np.argsort(np.argsort(variate, kind="stable"), kind="stable") * STRATA // len(variate)
    return left_out_r2((stratum[:, None] == np.arange(1, STRATA)).astype(float), accuracies)


def candidates(found: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> variates [chips, k] from counts [chips, layers, 4]."""
    total, sizes = found.sum(axis=1), np.sqrt(found[:, :, 3])
    return {
        "visible errors": total[:, :1],
        "sign-bit errors": total[:, 1:2],
        "visible and sign-bit errors": total[:, :2],
        "sign-bit errors of the first layer": found[:, 0, 1:2],
        "sign-bit errors of each layer": found[:, :, 1],
        "visible and sign-bit errors of each layer": found[:, :, :2].reshape(len(found), -1),
        "norm of the change of each layer": sizes,
        "norm of the change of each layer, and its square": np.concatenate([sizes, found[:, :, 3]], axis=1),
    }


def estimates(variates: np.ndarray, accuracies: np.ndarray) -> dict[str, float]:
    """Mean squared errors and coverages of TIMES estimates from EVALUATED chips each."""
    rng, truth = np.random.default_rng(0), accuracies.mean()
    population = np.tile(variates, (10, 1))
    errors, covers = [], []
    for _ in range(TIMES):
        drawn = rng.integers(0, len(accuracies), EVALUATED)
        found = estimate_control_mean(accuracies[drawn], variates[drawn], population)
        plain = accuracies[drawn]
        half = stats.t.ppf(0.975, EVALUATED - 1) * plain.std(ddof=1) / math.sqrt(EVALUATED)
        errors.append((plain.mean() - truth, found.mean - truth))
        covers.append((abs(plain.mean() - truth) <= half, found.interval[0] <= truth <= found.interval[1]))
    plain_error, error = (np.array(errors) ** 2).mean(axis=0)
    plain_covers, controlled_covers = np.mean(covers, axis=0)
    return {
        "chips": EVALUATED,
        "squared_error_factor": float(plain_error / error),
        "covers": float(controlled_covers),
        "plain_covers": float(plain_covers),
    }


def study(name: str, preset: str, rate: float, chips: int, earlier: list[dict]) -> dict:
    """Accuracies and counts of `chips` chips of a bundled model at one bit error rate, and what the counts explain."""
    model, faults = models.create(name), FaultModel.preset(preset)
    stored, _ = load_weights(model, bundled.MODELS[name])
    samples = evaluation_chips(0, chips)
    same = {"model": name, "preset": preset, "bit_error_rate": rate, "chips": chips}
    known = next((old for old in earlier if same.items() <= old.items()), None)
    if known:
        result = Evaluation(tuple(known["correct"]), known["images"])
    else:
        images = list(iterate_batches(data.load(bundled.DATASET, "test"), 256))
        result = evaluate(model, images, samples, bit_error_rate=rate, faults=faults, stored=stored)
    accuracies = np.array(result.values)
    found = np.stack([counts(stored, chip, rate, faults) for chip in samples])
    explained = {key: left_out_r2(x, accuracies) for key, x in candidates(found).items()}
    explained[f"{STRATA} strata of sign-bit errors"] = post_stratified(found.sum(axis=1)[:, 1], accuracies)
    return {
        **same,
        "fault_kind": str(faults.kind),
        "placement": str(faults.memory.placement),
        "images": result.images,
        "mean": result.mean,
        "std": result.std,
        "r2": explained,
        "variance_factor": {key: 1 / (1 - r2) if r2 < 1 else math.inf for key, r2 in explained.items()},
        "estimates": estimates(candidates(found)["norm of the change of each layer"], accuracies),
        "correct": list(result.correct),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chips", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--models", nargs="+", default=list(bundled.MODELS))
    parser.add_argument("--presets", nargs="+", default=["iid_flips", "neuralfuse_2022"])
    parser.add_argument("--reuse", type=Path, help="an earlier report, whose right answers are taken")
    parser.add_argument("--json", type=Path, help="write the results into this file")
    args = parser.parse_args()
    earlier = json.loads(args.reuse.read_text(encoding="utf-8")) if args.reuse else {}
    evaluated = earlier.get("evaluated") or {key: earlier.get(key) for key in ("commit", "device", "date")}
    found = []
    for name in args.models:
        for preset in args.presets:
            for rate in args.rates:
                found.append(study(name, preset, rate, args.chips, earlier.get("studies", [])))
                best = max(found[-1]["variance_factor"], key=found[-1]["variance_factor"].get)
                print(
                    f"{name} {preset} {rate:g}: {100 * found[-1]['mean']:.2f} % +- {100 * found[-1]['std']:.2f};"
                    f" best {found[-1]['variance_factor'][best]:.2f} x by {best}; {found[-1]['estimates']}",
                    flush=True,
                )
                if args.json:
                    content = {"benchmark": "control_variates", "studies": found, **record_provenance("cpu")}
                    content |= {"evaluated": evaluated} if args.reuse else {}
                    write_text(args.json, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
