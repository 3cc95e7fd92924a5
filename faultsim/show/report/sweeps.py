"""The directory of `faultsim sweep-voltage` as a section."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ...metrics.metric import ACCURACY, Metric
from ...voltage import VoltageCurve
from ..comparison_plot import MOST_BANDS
from ..plots import label_voltage
from ..series_styles import choose_styles
from .comparison import compute_energy_used, make_tables, summarize
from .document import (
    DASH,
    MINUS,
    Chart,
    Point,
    Row,
    Section,
    Series,
    Table,
    Tile,
    format_error_rate,
    format_share,
    format_value,
    list_origin,
    look_up,
)
from .sweep_files import read_information, read_metric, read_rows

KEPT = 0.01
"""Accuracy that may be lost where the section says how low the voltage can be."""
_EXPLANATION = "Line: mean over chips. Bars: 95 % confidence interval of the mean ({interval}). "
_BAND = "Band: from the worst chip to the best. "
_HOLLOW = "Hollow markers: the energy is a lower bound, part of it is not counted."
_STUDENT, _SEQUENCE = "Student's t", "a confidence sequence, which ends at the precision asked for"


def make_section(directory: Path, shown: str) -> Section:
    """Make the section on a sweep, finished or not.

    Parameters
    ----------
    directory : Path
        Where the sweep wrote.
    shown : str
        The name of the directory for the reader.

    Raises
    ------
    FaultsimError
        For a damaged file.
    """
    information = read_information(directory)
    configuration = information["configuration"]
    metric = read_metric(configuration)
    interval = _STUDENT if configuration.get("precision") is None else _SEQUENCE
    rows, notes = read_rows(directory, configuration)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    of = {variant: [row for row in rows if row["variant"] == variant] for variant in variants}
    by_voltage = all(row["voltage"] is not None for row in rows)
    scale = _scale(configuration)
    charts: list[Chart] = []
    if rows:
        charts.append(_accuracy(of, by_voltage, scale, metric))
        if all(row["energy_saving"] is not None for row in rows):
            charts.append(_accuracy_energy(of, metric))
            if by_voltage:
                charts.append(_energy(of, scale, metric))
        elif rows[0]["energy_saving"] is not None:
            notes.append("some bit error rates have no voltage on the curve, so no energy is known for them")
        else:
            notes.append("energy is not shown: it was not counted, or the sweep is not finished")
    model, dataset = (
        format_value(look_up(configuration, "model")),
        format_value(look_up(configuration, "dataset")),
    )
    return Section(
        title=" on ".join(filter(None, (model, dataset))) or "unnamed model",
        kind="Comparison" if len(of) > MOST_BANDS else "Voltage sweep",
        path=shown,
        tiles=summarize(of, metric)
        if len(of) > MOST_BANDS
        else tuple(tile for variant in variants for tile in _tiles(of[variant], len(variants) > 1, metric)),
        facts=_facts(configuration, information, metric),
        charts=tuple(charts),
        explanation=_explain(interval, rows, len(of) > MOST_BANDS) if charts else "",
        tables=make_tables(rows, metric)
        if len(of) > MOST_BANDS
        else tuple(_table(variant, of[variant], len(variants) > 1, metric) for variant in variants),
        notes=tuple(notes),
        configuration=json.dumps(configuration, indent=2, ensure_ascii=False),
    )


def _explain(interval: str, rows: Sequence[dict], many: bool) -> str:
    """Say what lines, bars, bands and hollow markers are."""
    hollow = any(row["uncounted"] for row in rows)
    return (_EXPLANATION.format(interval=interval) + _BAND * (not many) + _HOLLOW * hollow).strip()


def _voltages(rows: Sequence[dict]) -> Callable[[dict], str]:
    """Return a function that formats voltages with as many digits as the finest of them needs, to align them."""
    known = [f"{row['voltage']:.4g}" for row in rows if row["voltage"] is not None]
    digits = max((len(text.partition(".")[2]) for text in known if "e" not in text), default=0)
    return lambda row: DASH if row["voltage"] is None else f"{row['voltage']:.{digits}f}"


def _text(metric: Metric, value: float | None, unit: bool = True) -> str:
    """Format a value of the metric; a dash for what is not known, or infinite."""
    if metric.fraction and unit:
        return format_share(value)
    return DASH if value is None else metric.text(value).replace("-", MINUS)


def _shown(metric: Metric, value: float | None) -> float | None:
    """Return a value for an axis: a fraction in percent."""
    return 100 * value if metric.fraction and value is not None else value


def _hover(row: dict, several: bool, metric: Metric) -> tuple[str, ...]:
    low, high = row["ci95_low"], row["ci95_high"]
    place = "no voltage" if row["voltage"] is None else f"voltage {row['voltage']:.4g}"
    lines = [
        f"{row['variant']}, {place}" if several else place,
        f"bit error rate: {format_error_rate(row['bit_error_rate'])}",
        f"{metric.name}: {_text(metric, row['mean'], False)} ± {_text(metric, row['std'])}",
    ]
    if low is not None and high is not None:
        lines.append(f"95 % interval: {_text(metric, low, False)} to {_text(metric, high)}")
    lines.append(f"worst to best chip: {_text(metric, row['worst'], False)} to {_text(metric, row['best'])}")
    if row["energy_per_access"] is not None:
        lines.append(f"energy per access: {row['energy_per_access']:.3f} of Vmin's")
    if row["energy_saving"] is not None:
        most = "at most " if row["uncounted"] else ""
        lines.append(f"energy saving: {most}{format_share(row['energy_saving'], 1)}")
    if row["uncounted"]:
        lines.append(f"not counted: {row['uncounted']}")
    return tuple(lines)


def _series(of: dict[str, list[dict]], x, y, metric: Metric, *, uncertain: bool) -> tuple[Series, ...]:
    found = []
    for style, (variant, rows) in zip(choose_styles(list(of)), of.items(), strict=True):
        points = []
        for row in rows:
            interval = _range_between(metric, row, "ci95_low", "ci95_high") if uncertain else None
            spread = (
                _range_between(metric, row, "worst", "best") if uncertain and len(of) <= MOST_BANDS else None
            )
            if y(row) is not None:  # what is infinite has no place on an axis
                hover = _hover(row, len(of) > 1, metric)
                points.append(Point(x(row), y(row), hover, interval=interval, spread=spread))
        found.append(
            Series(variant, tuple(points), hollow=any(row["uncounted"] for row in rows), style=style)
        )
    return tuple(found)


def _range_between(metric: Metric, row: dict, one: str, other: str) -> tuple[float, float] | None:
    """Return two values of a row for an axis, the smaller first; None where one is not known."""
    ends = [value for name in (one, other) if (value := _shown(metric, row[name])) is not None]
    return (min(ends), max(ends)) if len(ends) == 2 else None


def _scale(configuration: dict) -> str:
    """Return the label of a voltage axis."""
    try:
        return label_voltage(VoltageCurve(**configuration["curve"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return "supply voltage"


def _accuracy(of: dict[str, list[dict]], by_voltage: bool, scale: str, metric: Metric) -> Chart:
    first = next(iter(of.values()))
    top: tuple[tuple[float, str], ...] = ()
    if by_voltage:
        known = sorted({row["voltage"]: row["bit_error_rate"] for row in first}.items())
        apart = (known[-1][0] - known[0][0]) / 7
        for voltage, errors in known:
            if not top or voltage - top[-1][0] >= apart:
                top += ((voltage, format_error_rate(errors)),)
    return Chart(
        title=f"{_capital(metric)} against {'supply voltage' if by_voltage else 'bit error rate'}",
        x_label=scale if by_voltage else "bit error rate (share of failing cells)",
        y_label=_axis(metric),
        series=_series(
            of,
            lambda row: row["voltage"] if by_voltage else row["bit_error_rate"],
            lambda row: _shown(metric, row["mean"]),
            metric,
            uncertain=True,
        ),
        x_log=not by_voltage,
        y_range=_range(metric),
        top=top,
        top_label="bit error rate" if top else "",
    )


def _capital(metric: Metric) -> str:
    return metric.name[:1].upper() + metric.name[1:]


def _axis(metric: Metric) -> str:
    return metric.label if metric.counts else f"{metric.label}, {metric.arrow}"


def _range(metric: Metric) -> tuple[float | None, float | None]:
    return (0, 103) if metric.fraction else (None, None)


def _accuracy_energy(of: dict[str, list[dict]], metric: Metric) -> Chart:
    return Chart(
        title=f"{_capital(metric)} against energy",
        x_label="weight memory energy (% of unprotected at Vmin)",
        y_label=_axis(metric),
        series=_series(
            of, compute_energy_used, lambda row: _shown(metric, row["mean"]), metric, uncertain=True
        ),
        y_range=_range(metric),
        size="wide" if len(of) > MOST_BANDS else "half",
    )


def _energy(of: dict[str, list[dict]], scale: str, metric: Metric) -> Chart:
    return Chart(
        title="Energy against supply voltage",
        x_label=scale,
        y_label="weight memory energy (%)",
        series=_series(of, lambda row: row["voltage"], compute_energy_used, metric, uncertain=False),
        y_range=(0, None),
        size="wide" if len(of) > MOST_BANDS else "half",
    )


def _tiles(rows: Sequence[dict], several: bool, metric: Metric) -> list[Tile]:
    """Show what was measured with the fewest errors, and the least energy at nearly that accuracy."""
    name = f"{rows[0]['variant']}: " if several else ""
    first = min(rows, key=lambda row: row["bit_error_rate"])
    tiles = [
        Tile(
            _text(metric, first["mean"]),
            f"{name}{metric.name} at a bit error rate of {format_error_rate(first['bit_error_rate'])}",
        )
    ]
    if not metric.counts:  # how much of another metric may be lost is the reader's to say
        return tiles
    good = [row for row in rows if row["mean"] >= first["mean"] - KEPT and row["energy_saving"] is not None]
    if good:
        best = max(good, key=lambda row: row["energy_saving"])
        saving = best["energy_saving"]
        value = format_share(saving, 1) if saving >= 0 else f"+{format_share(-saving, 1)}"
        what = "energy saved" if saving >= 0 else "energy, against unprotected at Vmin,"
        tiles.append(
            Tile(value, f"{name}{what} at voltage {best['voltage']:.4g}, at most 1 point of accuracy lost")
        )
    return tiles


def _table(variant: str, rows: Sequence[dict], several: bool, metric: Metric) -> Table:
    shown = []
    voltage = _voltages(rows)
    for row in rows:
        low, high, access = row["ci95_low"], row["ci95_high"], row["energy_per_access"]
        cells = (
            voltage(row),
            format_error_rate(row["bit_error_rate"]),
            DASH if access is None else f"{access:.3f}",
            format_share(row["energy_saving"], 1),
            f"{_text(metric, row['mean'], False)} ± {_text(metric, row['std'], False)}",
            DASH if None in (low, high) else f"{_text(metric, low, False)} to {_text(metric, high, False)}",
            _text(metric, row["worst"], False),
            _text(metric, row["best"], False),
        )
        shown.append(Row(cells))
    columns = ("voltage", "bit errors", "energy per access", "energy saving", metric.label, "95 % interval")
    counts, images = [row["chips"] for row in rows], rows[0]["images"]
    chips = f"{max(counts)} chip{'s' if max(counts) != 1 else ''}"
    if min(counts) < max(counts):
        chips = f"{min(counts)} to {chips}"
    return Table(
        f"All points{', ' + variant if several else ''}",
        (*columns, "worst chip", "best chip"),
        tuple(shown),
        notes=(
            f"{_capital(metric)}{'' if metric.counts else f' ({metric.arrow})'}: mean ± population standard deviation "
            f"over {chips}, {images:,} images each. Bit errors: share of failing "
            "cells. Energy per access: relative to Vmin. Saving: weight memory energy of one inference, against the "
            "unprotected model at Vmin.",
        ),
    )


def _facts(configuration: dict, information: dict, metric: Metric) -> tuple[tuple[str, str], ...]:
    chips = configuration.get("chips")
    placement = format_value(look_up(configuration, "faults.memory.placement"))
    stored, weights = (look_up(information, f"memory.{name}") for name in ("stored", "weights"))
    most = "" if configuration.get("precision") is None else "at most "
    known = all(isinstance(count, int) for count in (stored, weights))  # not in runs of older versions
    facts = (
        ("Model", format_value(look_up(configuration, "model"))),
        ("Training recipe", format_value(look_up(configuration, "trained.recipe.name"))),
        ("Data set", format_value(look_up(configuration, "dataset"))),
        ("Images", format_value(look_up(configuration, "images"))),
        ("Metric", "" if metric == ACCURACY else f"{metric.name}, {metric.arrow}"),
        ("Generator", format_value(look_up(configuration, "generator.name"))),
        ("Faults", format_value(look_up(configuration, "faults.kind"))),
        ("Placement", placement),
        ("Faulty memory", f"{stored:,} of {weights:,} weights" if known else ""),
        ("Voltage curve", format_value(look_up(configuration, "curve.name"))),
        ("Chips", f"{most}{len(chips)}" if isinstance(chips, list) else ""),
        ("Precision", format_value(look_up(configuration, "precision"))),
        ("Seed", format_value(look_up(configuration, "seed"))),
    )
    return tuple((name, text) for name, text in facts if text) + list_origin(information)
