"""Reading what `faultsim sweep-voltage` wrote, finished or not, without trusting it."""

import csv
import io
import math
from pathlib import Path
from types import NoneType
from typing import Any

from ...errors import FaultsimError
from ...io.bounds import parse_integer, parse_json, parse_number, read_text
from ...io.run_directory import MOST_JSON
from ...metrics.metric import ACCURACY, METRICS, Collector, Metric
from .document import LARGEST, look_up

INFORMATION = "sweep.json"
MOST_CSV = 64 << 20  # bytes
MOST_POINTS = 20_000  # rows of a summary: a chart holds no more
MOST_LETTERS = 300  # of what an energy leaves out
_NUMBERS = (
    "voltage",
    "bit_error_rate",
    "energy_per_access",
    "energy_per_inference",
    "energy_saving",
    "mean",
    "std",
    "ci95_low",
    "ci95_high",
    "worst",
    "best",
)
_ALWAYS = ("bit_error_rate", "mean", "std", "worst", "best")
_VALUES = (
    "mean",
    "std",
    "ci95_low",
    "ci95_high",
    "worst",
    "best",
)  # which may be infinite, but for accuracies


def read_information(directory: Path) -> dict:
    """Read sweep.json: the configuration and where it was run. Raises FaultsimError when it cannot be read."""
    path = directory / INFORMATION
    try:
        found = parse_json(read_text(path, MOST_JSON), MOST_JSON)
        if not isinstance(found["configuration"], dict):
            raise TypeError("no configuration")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FaultsimError(f"{path} cannot be read as a sweep's description ({_why(error)})") from None
    return found


def read_metric(configuration: dict) -> Metric:
    """Return what a sweep measured. Raises FaultsimError where its configuration does not say it."""
    found = configuration.get("metric")
    if found is None:
        return ACCURACY
    name, better = look_up(found, "name"), look_up(found, "higher_is_better")
    if not isinstance(name, str) or not isinstance(better, bool):
        raise FaultsimError(f"{INFORMATION} doesn't say which metric was measured")
    known = [
        metric for metric in METRICS.values() if (metric.name, metric.higher_is_better) == (name, better)
    ]
    return known[0] if known else Metric(name, _measured_before, higher_is_better=better)


def _measured_before() -> Collector:
    raise FaultsimError("a metric that was read from a file can't be measured again")


def read_rows(directory: Path, configuration: dict) -> tuple[list[dict], list[str]]:
    """Read the summary of a sweep.

    Parameters
    ----------
    directory : Path
        Where the sweep wrote.
    configuration : dict
        Of its sweep.json.

    Returns
    -------
    rows : list of dict
        Numbers, and None for what is not known.
    notes : list of str
        What the reader must know of them.

    Raises
    ------
    FaultsimError
        For a damaged file.
    """
    points = configuration.get("points")
    if not isinstance(points, list):
        raise FaultsimError(f"{directory / INFORMATION} says nothing about its points")
    summary, results = directory / "summary.csv", directory / "results.csv"
    metric = read_metric(configuration)
    if summary.exists():
        found = _csv(summary)
        if len(found) > MOST_POINTS:
            raise FaultsimError(f"{summary} is damaged: it has more than {MOST_POINTS:,} rows")
        rows = [_numbers(row, summary, metric) for row in found]
        return rows, _not_finite(rows)
    if not results.exists():
        return [], ["the sweep has no results yet"]
    rows = _unfinished(results, points, metric, configuration.get("precision") is not None)
    swept = len({(row["voltage"], row["bit_error_rate"]) for row in rows})
    notes = [f"the sweep is not finished: {swept} of {len(points)} points are there"]
    return rows, [*notes, *_not_finite(rows)]


def _not_finite(rows: list[dict]) -> list[str]:
    wrong = sum(row["not_finite"] for row in rows)
    return [f"{wrong:,} answers were not finite (NaN or infinity): they count as wrong"] if wrong else []


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, MOST_CSV), ""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise FaultsimError(f"{path} cannot be read ({_why(error)})") from None
    if any(None in row or None in row.values() for row in rows):
        raise FaultsimError(f"{path} is damaged: a row has another number of cells than the header")
    return rows


def _numbers(row: dict[str, str], path: Path, metric: Metric) -> dict:
    try:
        words = {"variant": row["variant"], "uncounted": (row.get("uncounted") or "")[:MOST_LETTERS]}
        odd = () if metric.fraction else ("inf", "-inf", "nan")  # a metric of the user's may say so
        found: dict[str, Any] = {
            name: None if not row[name] else float(row[name]) if row[name] in odd else parse_number(row[name])
            for name in _NUMBERS
        }
        chips, images = parse_integer(row["chips"]), parse_integer(row["images"])
        not_finite = parse_integer(row.get("not_finite") or "0")
        if not metric.fraction:
            lost = {name: None for name in _VALUES if found[name] is None or not math.isfinite(found[name])}
            found |= lost
            values = [value for value in found.values() if value is not None]
            if not all(abs(value) < LARGEST for value in values) or found["bit_error_rate"] is None:
                raise ValueError("a number is missing")
            if not 0 <= found["bit_error_rate"] <= 1 or not_finite < 0:
                raise ValueError("a rate is outside [0, 1]")
            return {**words, **found, "chips": chips, "images": images, "not_finite": not_finite}
        values = [value for value in found.values() if value is not None]
        if not all(abs(value) < LARGEST for value in values) or any(found[name] is None for name in _ALWAYS):
            raise ValueError("a number is missing")
        if not all(0 <= found[name] <= 1 for name in ("bit_error_rate", "mean", "worst", "best")):
            raise ValueError("an accuracy or rate is outside [0, 1]")
    except (KeyError, ValueError) as error:
        raise FaultsimError(f"{path} is damaged ({_why(error)})") from None
    return {**words, **found, "chips": chips, "images": images, "not_finite": not_finite}


def _unfinished(path: Path, points: list, metric: Metric, stops: bool) -> list[dict]:
    """Make the summary of a sweep that was stopped from its rows of single chips.

    Energies per inference are not known, nor are intervals of a sweep that `stops` at a precision.
    """
    from ...studies.sweep_result import OperatingPoint, SweepRow, read_evaluation

    groups: dict[tuple[str, ...], list[dict]] = {}
    for row in _csv(path):
        groups.setdefault(
            (row.get("variant", ""), row.get("voltage", ""), row.get("bit_error_rate", "")), []
        ).append(row)
    energies: dict[Any, Any] = {
        look_up(p, "voltage"): look_up(p, "energy_per_access") for p in points if _is_point(p)
    }
    found = []
    for (variant, voltage, errors), rows in groups.items():
        try:
            evaluation = read_evaluation(rows, metric)
            volts = parse_number(voltage) if voltage else None
            place = OperatingPoint(volts, parse_number(errors), energies.get(volts))
            summary = SweepRow(
                variant, place, evaluation, None, None, half_width=math.nan if stops else None
            ).as_dict()
            texts = {
                name: "" if value != value or value is None else str(value) for name, value in summary.items()
            }
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            raise FaultsimError(f"{path} is damaged ({_why(error)})") from None
        found.append(_numbers(texts, path, metric))
    return found


def _is_point(value: object) -> bool:
    numbers = (float, int, NoneType)
    return isinstance(value, dict) and all(
        isinstance(value.get(name), numbers) for name in ("voltage", "energy_per_access")
    )


def _why(error: Exception) -> str:
    return (
        f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
    )
