"""Tables of benchmarks, from the reports in benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tools.tables.text import commit_and_date, markdown, reading, remarked


def measured(root: Path, name: str) -> dict | None:
    """A report in benchmarks/results/; None where nothing was measured."""
    path = root / "benchmarks" / "results" / f"{name}.json"
    if not path.exists():
        return None
    with reading(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def reports(root: Path, benchmark: str) -> list[tuple[str, dict | None]]:
    """(kind of device, report of a benchmark there, or None). A GPU's is a part of what `make gpu-check` wrote."""
    check = measured(root, "gpu-check")
    gpu = None
    if check is not None:
        with reading("gpu-check.json"):
            if benchmark in check:
                gpu = {**check[benchmark], "driver": check["driver"]}
    return [("CPU", measured(root, f"{benchmark}-cpu")), ("GPU", gpu)]


def measured_by(report: dict) -> str:
    driver = f"driver {report['driver']}; " if "driver" in report else ""
    return driver + commit_and_date(report)


NOT_MEASURED = "{}: not measured"


def kernel(root: Path) -> str:
    """Ratios of the fault kernel, on each path of each device."""
    columns: list[tuple[str, dict[tuple, str]]] = []
    remarks = []
    for kind, report in reports(root, "kernel"):
        if report is None:
            columns.append((NOT_MEASURED.format(kind), {}))
            continue
        with reading(f"the {kind}'s report of the kernel"):
            paths: dict[str, dict[tuple, str]] = {}
            sizes = [row["weights"] for row in report["rows"]]
            usual = max(sizes, key=sizes.count)
            for row in report["rows"]:
                path = "" if row["path"] == "cuda" else f": {row['path']} on {row['threads']}"
                size = "" if row["weights"] == usual else f"{row['weights']:,} weights: "
                key = (size + row["operation"], row["beside"], row["bit_error_rate"])
                paths.setdefault(report["device"] + path, {})[key] = f"{row['ratio']:.2f}"
            columns += paths.items()
            remarks.append(f"{kind}: {usual:,} weights; {measured_by(report)}")
    keys = list(dict.fromkeys(key for _, ratios in columns for key in ratios))
    rates = list(dict.fromkeys(rate for *_, rate in keys))
    rows = []
    for operation in dict.fromkeys(key[:2] for key in keys):
        of_columns = [[ratios.get((*operation, rate), "") for rate in rates] for _, ratios in columns]
        rows.append([*operation, *(" / ".join(of) if any(of) else "" for of in of_columns)])
    table = markdown(["operation", "beside", *(name for name, _ in columns)], rows, 2)
    at = " / ".join(f"{rate:g}" for rate in rates)
    return remarked(table, [f"bit error rates: {at}", *remarks])


def formats(root: Path) -> str:
    """Reads of each format on each device: the ratio to a copy, and times of a weight and of a byte of memory."""
    columns: list[tuple[str, dict[tuple, list[str]]]] = []
    remarks = []
    for kind, report in reports(root, "formats"):
        if report is None:
            columns.append((NOT_MEASURED.format(kind), {}))
            continue
        with reading(f"the {kind}'s report of formats"):
            found = {}
            sizes = [row["weights"] for row in report["rows"]]
            usual = max(sizes, key=sizes.count)
            for row in report["rows"]:
                size = "" if row["weights"] == usual else ", twice as many weights"
                key = (row["operation"] + size, row["format"], row["output"])
                per = [1e9 * row["milliseconds"] / row[what] for what in ("weights", "stored_bytes")]
                found[key] = [f"{row['ratio']:.2f}", *(number(picoseconds) for picoseconds in per)]
            columns.append((f"{report['device']}: {report['rows'][0]['path']}", found))
            rate = f"bit error rate {report['bit_error_rate']:g}"
            remarks.append(f"{kind}: {usual:,} weights, {rate}; {measured_by(report)}")
    keys = list(dict.fromkeys(key for _, found in columns for key in found))
    rows = [[*key, *(" / ".join(found[key]) if key in found else "" for _, found in columns)] for key in keys]
    return remarked(markdown(["", "format", "result", *(name for name, _ in columns)], rows, 3), remarks)


def number(value: float) -> str:
    """Three digits that count, and none that don't: 0.0129, 2.81, 347; whole numbers from 1,000 on."""
    return f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{value:,.0f}"


EOPM = {
    "a step, s": "eopm",
    "its parts, s": "parts",
    "the naive formulation, s": "naive",
    "step / parts": "over_parts",
    "naive / step": "naive_over",
    "naive / parts": "naive_over_parts",
}


def eopm(root: Path) -> str:
    """A training step of a generator on each device."""
    return by_device(
        root,
        "eopm",
        EOPM,
        lambda r: (
            f"{r['model']}, {r['generator']}, batch {r['batch_size']}, N = {r['n_models']}, {r['precision']}"
        ),
    )


EVALUATION = {"on all chips, s": "evaluation", "the plain model, s": "plain", "ratio": "over_plain"}


def evaluation(root: Path) -> str:
    """An evaluation on many chips on each device."""
    return by_device(
        root,
        "evaluation",
        EVALUATION,
        lambda r: f"{r['model']}, {r['chips']} chips, {r['images']:,} images in batches of {r['batch_size']}",
    )


ACTIVATIONS = {
    "faulty / quantized": "faulty_over_quantized",
    "faulty / fake": "faulty_over_fake",
    "faulty / float": "faulty_over_float",
    "spread": "spread",
}


def activations(root: Path) -> str:
    """An inference with faults in its activations, against the same one without."""
    report = measured(root, "activations-cpu")
    if report is None:
        return NOT_MEASURED.format("CPU")
    with reading("the report of activations"):
        rows = [
            [
                f"{row['model']}, batch {row['batch']}, {row['kind']}",
                *(number(row[key]) for key in ACTIVATIONS.values()),
            ]
            for row in report["results"]
        ]
        about = f"{report['device']}, bit error rate {report['bit_error_rate']:g}; {measured_by(report)}"
    return remarked(markdown(["", *ACTIVATIONS], rows, 1), [about])


def scale(root: Path) -> str:
    """What a study of a million jobs costs, computed from what a chip and the engine take."""
    report = measured(root, "cluster-cpu")
    if report is None:
        return NOT_MEASURED.format("CPU")
    with reading("the report of the cluster"):
        by_job: dict[float, dict[int, dict]] = {}
        for row in report["scale"]:
            by_job.setdefault(row["seconds_per_job"], {})[row["workers"]] = row
        counts = sorted(next(iter(by_job.values())))
        rows = []
        for seconds, of_job in by_job.items():
            cells = [
                f"{of_job[n]['hours']:,.2f} h ({100 * of_job[n]['share_of_ideal']:.0f} %)" for n in counts
            ]
            rows.append([f"{number(seconds)} s", *cells, f"{int(of_job[counts[0]]['most_workers']):,}"])
        processes, chip, many, rate = (report[part] for part in ("processes", "chip", "overhead", "rate"))
        one, two = (median(rate["chips_per_second"][count]) for count in ("1", "2"))
        remarks = [
            f"a chip: {number(1e3 * chip['processor_seconds_per_chip'])} ms of processor time ({chip['model']}, "
            f"{chip['images']} images, one thread)",
            f"client and scheduler: {number(processes['processor_ms_per_job'])} ms of processor time and "
            f"{processes['bytes_per_job']:,.0f} bytes a job, to and from two worker processes: "
            f"{report['scale'][0]['gigabytes']:.1f} GB in all",
            f"client, scheduler and {many['workers']} workers in one process: "
            f"{number(many['processor_ms_per_job'])} ms a job; {many['jobs']:,} jobs that sleep, {many['lost']} lost",
            f"sweeps of {rate['chips']} chips on one worker process of one thread: {one:.1f} chips a second, on two "
            f"processes {two:.1f}: {rate['ratio_of_medians']:.2f} times as many (medians of {rate['repeats']} sweeps)",
            f"{report['device']}; {measured_by(report)}",
        ]
        head = [
            "a job takes",
            *(f"{n:,} worker{'s' * (n > 1)}" for n in counts),
            "workers that it keeps busy",
        ]
    return remarked(markdown(head, rows, 0), remarks)


def codecs(root: Path) -> str:
    """Reads of a protected memory, as multiples of a plain read of the same weights."""
    report = measured(root, "codecs-cpu")
    if report is None:
        return NOT_MEASURED.format("CPU")
    with reading("the report of codecs"):
        cells = {
            (row["mitigation"], row["path"], row["kind"], row["bit_error_rate"]): f"{row['ratio']:.2f}"
            for row in report["rows"]
        }
        rates = list(dict.fromkeys(rate for *_, rate in cells))
        columns = list(dict.fromkeys((path, kind) for _, path, kind, _ in cells))
        rows = [
            [name, *(" / ".join(cells[name, *column, rate] for rate in rates) for column in columns)]
            for name in dict.fromkeys(name for name, *_ in cells)
        ]
        about = [
            f"bit error rates: {' / '.join(f'{rate:g}' for rate in rates)}",
            f"{report['device']}; {report['weights']:,} weights to float32; {report['note']}; {measured_by(report)}",
        ]
    return remarked(markdown(["", *(", ".join(column) for column in columns)], rows, 1), about)


def inference(root: Path) -> str:
    """Passes through perturbed models, and gradients of training steps, as multiples of the model as it is written."""
    report = measured(root, "inference-cpu")
    if report is None:
        return NOT_MEASURED.format("CPU")
    with reading("the report of inference"):
        rows = []
        for row in report["results"]:
            if "passes" in row:
                images, *shape = row["batch"]
                what = f"{row['passes']}, a pass of {images} {'images' if shape[1:] else 'texts'}"
            else:
                how = ", divided" if row["divided"] else ""
                what = f"{row['model']}, a step of {row['step']}: {row['batch']} images, N = {row['n_models']}{how}"
            seconds = row["seconds"]
            ratios = [
                number(seconds["as written"] / seconds[rival]) if rival in seconds else ""
                for rival in ("naive", "float32", "bfloat16")
            ]
            rows.append([what, number(seconds["as written"]), *ratios])
        about = [f"medians of {report['rounds']}; {report['device']}; {measured_by(report)}"]
    head = ["", "as written, s", "naive", "float32", "bfloat16"]
    return remarked(markdown(head, rows, 1), about)


def peers(root: Path) -> str:
    """The same flips by other means, with the versions of the packages."""
    report = measured(root, "peers-cpu")
    if report is None:
        return NOT_MEASURED.format("CPU")
    with reading("the report of peers"):
        ours = next(row["milliseconds"] for row in report["rows"] if row["peer"] == "faultsim")
        rows = []
        for row in report["rows"]:
            if "over_seconds" in row:
                cells = [f"over {1e3 * row['over_seconds']:,.0f}", "", ""]
            else:
                cells = [number(row["milliseconds"]), number(row["milliseconds"] / ours)]
                cells.append(number(row["extra_mebibytes"]))
            rows.append([row["peer"], row["version"], *cells])
        about = [
            f"{report['weights']:,} int8 weights, {100 * report['bit_error_rate']:g} % of their bits flipped",
            f"{report['device']}, load {report['load']:.1f} on {report['processors']}; {measured_by(report)}",
        ]
    head = ["", "version", "time, ms", "times ours", "memory, MiB"]
    return remarked(markdown(head, rows, 2), about)


def by_device(root: Path, benchmark: str, shown: dict[str, str], about: Callable[[dict], str]) -> str:
    """A benchmark's numbers, one column for each kind of device: what a row is called, and its key in the report."""
    columns, remarks = [], []
    for kind, report in reports(root, benchmark):
        if report is None:
            columns.append([NOT_MEASURED.format(kind), *[""] * len(shown)])
            continue
        with reading(f"the {kind}'s report of {benchmark}"):
            columns.append([report["device"], *(number(report[key]) for key in shown.values())])
            remarks.append(f"{kind}: {about(report)}, medians of {report['rounds']}; {measured_by(report)}")
    head, *rows = zip(["", *shown], *columns, strict=True)
    return remarked(markdown(head, rows, 1), remarks)
