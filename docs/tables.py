"""`make tables`: writes the tables that are made from data into the Markdown files, each between its markers.

The data are results/ and benchmarks/results/ beside this folder; published values, energies and recipes come
from the packages. All tables are made before the first file is written: whatever is wrong with data or a document
leaves every document as it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from textwrap import fill

from energy.saving import energy_saving, weight_memory
from faultsim import models
from faultsim.cli.accuracy_table import HEADINGS, our_cells, published_cells, spread
from faultsim.errors import FaultsimError
from faultsim.io.checkpoint import read_file
from faultsim.io.files import write_text
from faultsim.training.classifier import RECIPES, Recipe
from faultsim.voltage import VoltageCurve
from neuralfuse import bundled, generators
from neuralfuse.paper.cells import FAULTS, cells
from neuralfuse.paper.computed import VOLTAGE, accesses
from neuralfuse.paper.result import TRAINING_IMAGES, Result, obtained
from neuralfuse.paper.rows import Line, lines

ROOT = Path(__file__).resolve().parents[1]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """A table. Its first `words` columns are aligned left, the others right; what a row lacks at its end is empty."""
    marks = ["---"] * words + ["---:"] * (len(head) - words)
    texts = [
        "|" + "|".join(f" {cell} " if cell else " " for cell in [*row, *[""] * (len(head) - len(row))]) + "|"
        for row in (head, *rows)
    ]
    return "\n".join([texts[0], "|" + "|".join(marks) + "|", *texts[1:]])


def remarked(table: str, remarks: Iterable[str]) -> str:
    """A table with remarks below it, as wide as the documents."""
    items = [fill(f"- {remark}", 120, subsequent_indent="  ", break_on_hyphens=False) for remark in remarks]
    return "\n".join([table, "", *items]).rstrip()


class Notes:
    """Numbered remarks below a table; equal ones share a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"

    def below(self, table: str) -> str:
        return remarked(table, [f"[{i}] {text}" for i, text in enumerate(self.texts, 1)])


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Damaged data become one line that says which."""
    try:
        yield
    except FaultsimError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FaultsimError(f"{what}: damaged, or of another version ({error!r})") from None


# Accuracies


def results() -> Path:
    """The folder of accuracies."""
    return ROOT / "results"


def table1() -> list[Line]:
    """The cells of Table 1, each with everything that was obtained of it."""
    return lines(cells("table1"), results(), shipped=False)


def of_base(result: Result) -> str:
    """Recipe, batch and epochs of the base model."""
    recipe = result.configuration["base"]["recipe"]
    return f"{recipe['name'].split(',')[0]}, {recipe['batch_size']}, {recipe['epochs']}"


def of_generator(result: Result) -> str:
    """Trainer, N, batch and epochs of the generator; of staged training, those of its last stage."""
    generator = result.configuration["generator"]
    training = generator["training"]
    return f"{result.trainer}, {training['n_models']}, {training['batch_size']}, {generator['epochs']}"


def passes(result: Result) -> str:
    """Through the base model in training the generator, in millions."""
    return f"{result.base_passes / 1e6:.2f}"


def energy(result: Result) -> str:
    """Of the weight memory's reads, base model at the voltage of its bit error rate and generator at Vmin, in percent
    of the base model at Vmin."""
    cell, curve = result.cell, VoltageCurve.default()
    base, generator = (accesses(name, "closed-form") for name in (cell.base, cell.generator.name))
    saving = energy_saving(base, curve, curve.voltage(cell.bit_error_rate), generator)
    return f"{100 - 100 * saving:.1f}"


def classifier(result: Result) -> str:
    """The generator's encoder with a linear head, alone at Vmin, where it was trained so: accuracy and energy, both in
    percent, the latter of the base model at Vmin."""
    found = result.configuration["generator"].get("classifier")
    if found is None:
        return ""
    share = found["accesses"] / accesses(result.cell.base, "closed-form")
    return f"{100 * found['accuracy']:.2f} at {100 * share:.1f}"


def settings(result: Result) -> str:
    """What else a generator's training may differ in."""
    training = result.configuration["generator"]["training"]
    names = ("precision", "learning_rate", "schedule", "average", "loss", "divided", "weight")
    usual = {"average": 0, "loss": "cross_entropy", "divided": False, "weight": 5.0}
    told = ", ".join(
        f"{name.replace('_', ' ')} {training[name]}"
        for name in names
        if training.get(name, usual.get(name)) != usual.get(name)
    )
    if "stages" in training:
        epochs = {
            name: stage["epochs"] for name, stage in training["stages"].items() if isinstance(stage, dict)
        }
        told += "; " + ", ".join(f"{name} {count} epochs" for name, count in epochs.items())
    if (start := result.configuration["generator"].get("start")) is None:
        return told
    before = start["training"]
    errors = f"N = {before['n_models']}" if "n_models" in before else f"{before['flips']} chosen flips"
    return (
        f"{told}; begun with one of {errors}, batch {before['batch_size']}, {start['epochs']} epochs, "
        f"learning rate {before['learning_rate']}, on {start['device']}"
    )


PAPER_PASSES = {
    dataset: f"{150 * images * (1 + 10) / 1e6:.1f}" for dataset, images in TRAINING_IMAGES.items()
}
"""The paper trains for 150 epochs with N = 10 (the full paper, arXiv 2306.16869 v3)."""


def commit_and_date(provenance: dict) -> str:
    return f"{provenance['commit'] or 'an installed copy'}, {provenance['date'][:10]}"


def origin(result: Result) -> str:
    """How much a result rests on; and of each of its parts device, commit and date."""
    whole = result.provenance
    parts = {"base model": whole["base"], "P.A.": whole["unprotected"], "generator": whole["generator"]}
    devices: dict[str, dict[str, list[str]]] = {}
    for part, provenance in {**parts, "P.A.+N.F.": whole}.items():
        commits = devices.setdefault(provenance["device"], {})
        commits.setdefault(commit_and_date(provenance), []).append(part)
    where = [
        f"{device}: " + "; ".join(f"{', '.join(names)} at {commit}" for commit, names in commits.items())
        for device, commits in devices.items()
    ]
    chips = len(result.correct["perturbed"])
    return f"{chips} chips, {result.images:,} images; generator: {settings(result)}. {'. '.join(where)}."


def accuracies() -> str:
    """What was obtained of Table 1: the paper's row, and below it one for each result."""
    notes, rows = Notes(), []
    for cell, pair in groupby(
        table1(), key=lambda line: (line.cell.dataset, line.cell.base, line.cell.generator)
    ):
        of_pair = list(pair)
        name = f"{cell[0]}, {cell[1]}, {cell[2].name}"
        if any(line.results for line in of_pair):
            rows.append(
                [name, "the paper", *published_cells(of_pair[0].published), "", PAPER_PASSES[cell[0]]]
            )
        for line in of_pair:
            for result in line.results:
                with reading(f"a result of {name}"):
                    how = [of_base(result), of_generator(result), notes.number(origin(result))]
                    how = [energy(result), passes(result), classifier(result), *how]
                rows.append(["", f"`{line.cell.faults}`", *our_cells(result), *how])
    head = ["", "", *HEADINGS, "energy, %", "passes, M", "classifier alone"]
    head += ["base model: recipe, batch, epochs", "generator: trainer, N, batch, epochs", ""]
    return notes.below(markdown(head, rows, 2))


def accuracies_in_full() -> str:
    """All of Table 1: of each data set the base models alone, and below each its generators."""
    notes, sections = Notes(), []
    heads = [f"{whose}: C.A. | P.A. | IP".split(" | ") for whose in ("the paper", *FAULTS)]
    head = ["", *(column for three in heads for column in three), "how"]
    for dataset, of_dataset in groupby(table1(), key=lambda line: line.cell.dataset):
        rows = []
        for base, group in groupby(of_dataset, key=lambda line: line.cell.base):
            whole = list(group)
            rows += side_by_side(base, whole, lambda values: [*values[:2], ""], base_model, notes)
            for generator, pair in groupby(whole, key=lambda line: line.cell.generator.name):
                rows += side_by_side(f"+ {generator}", list(pair), lambda values: values[2:], both, notes)
        sections.append(f"### {dataset}\n\n{markdown(head, rows, 1)}")
    return notes.below("\n\n".join(sections))


def base_model(result: Result) -> tuple[str, ...]:
    """(what the table says of it, what else tells it from others)."""
    return of_base(result), result.configuration["base"]["weights"]


def both(result: Result) -> tuple[str, ...]:
    """The same of base model and generator."""
    name, weights = base_model(result)
    return f"{name}; {of_generator(result)}", weights, settings(result)


def base_models() -> str:
    """Base models without a generator, one row for each training of them: the paper's accuracies beside ours."""
    found: dict[tuple, dict[str, Result]] = {}
    for result in [*obtained(results(), "unprotected"), *obtained(results())]:
        cell = result.cell
        with reading(f"a result of {cell.dataset}, {cell.base}"):
            key = (cell.dataset, cell.base, result.configuration["base"]["weights"], cell.bit_error_rate)
        found.setdefault(key, {}).setdefault(cell.faults, result)
    published = {
        (line.cell.dataset, line.cell.base, line.cell.bit_error_rate): published_cells(line.published)[:2]
        for line in table1()
    }
    notes, rows = Notes(), []
    for (dataset, base, _, rate), of_faults in sorted(found.items(), key=lambda item: item[0][:2]):
        first, *_ = of_faults.values()
        with reading(f"a result of {dataset}, {base}"):
            how = [of_base(first), notes.number(origin_of_base(first))]
        ours = [of_faults.get(faults) for faults in FAULTS]
        perturbed = [spread(r.mean("perturbed"), r.std("perturbed")) if r else "" for r in ours]
        theirs = published.get((dataset, base, rate), ["", ""])
        rows.append([dataset, base, f"{rate:g}", *theirs, f"{first.mean('clean'):.2f}", *perturbed, *how])
    head = ["", "", "bit error rate", "the paper: C.A.", "P.A.", "C.A."]
    head += [*(f"{faults}: P.A." for faults in FAULTS), "recipe, batch, epochs", ""]
    return notes.below(markdown(head, rows, 2))


def origin_of_base(result: Result) -> str:
    """Of a base model and its accuracies: how much they rest on, device, commit and date."""
    whole = result.provenance
    trained, measured = whole["base"], whole.get("unprotected", whole)
    chips = len(result.correct["perturbed"])
    return (
        f"{chips} chips, {result.images:,} images. {trained['device']}: base model at {commit_and_date(trained)}. "
        f"{measured['device']}: P.A. at {commit_and_date(measured)}."
    )


def side_by_side(
    name: str,
    of_row: Sequence[Line],
    shown: Callable[[list[str]], list[str]],
    way: Callable[[Result], tuple[str, ...]],
    notes: Notes,
) -> list[list[str]]:
    """Rows of the full table: the paper's values and ours under each fault model, one row for each `way` of training;
    an empty one where there is no result. `shown` chooses three of HEADINGS."""
    found: list[tuple[tuple[str, ...], dict[str, tuple[list[str], str]]]] = []
    for line in of_row:
        for result in line.results:
            with reading(f"a result of {line.cell.dataset}, {line.cell.base}, {line.cell.generator.name}"):
                key, note = way(result), notes.number(origin(result))
            ours = shown(our_cells(result))
            of_key = (row for other, row in found if other == key)
            row = next((row for row in of_key if row.get(line.cell.faults, (ours,))[0] == ours), None)
            if row is None:
                row = {}
                found.append((key, row))
            row.setdefault(line.cell.faults, (ours, note))
    empty = [""] * 3
    known = shown(published_cells(of_row[0].published) or [""] * len(HEADINGS))
    return [
        [
            name,
            *known,
            *(cell for faults in FAULTS for cell in row.get(faults, (empty,))[0]),
            " ".join([words, *dict.fromkeys(note for _, note in row.values())]),
        ]
        for (words, *_), row in found or [(("",), {})]
    ]


def shipped() -> str:
    """What the shipped generator wins with the shipped model, as `faultsim evaluate --json` said it."""
    rows, remarks = [], []
    for path in sorted((results() / "shipped").glob("evaluate-*.json")):
        with reading(path):
            report = json.loads(path.read_text(encoding="utf-8"))
            found = {row["name"]: row for row in report["accuracy"]}
            values = [f"{100 * found[name]['mean']:.1f}" for name in ("P.A.", "P.A.+N.F.")]
            low, high = found["IP"]["interval"]
            won = f"{100 * found['IP']['mean']:+.1f} ({100 * low:.1f} to {100 * high:.1f})"
            how = report["configuration"]
            rows.append([f"{100 * how['bit_error_rate']:g} %", *values, won])
            remarks.append(
                f"{len(how['chips'])} chips, {how['images']} images of {how['dataset']}, {how['faults']['kind']}; "
                f"without errors {100 * found['C.A.']['mean']:.1f} and {100 * found['C.A.+N.F.']['mean']:.1f}; "
                f"{report['device']}; {commit_and_date(report)}"
            )
    head = ["bit errors", "alone, %", "behind ConvQ, %", "won, points (95 % interval)"]
    return remarked(markdown(head, rows, 1), [*dict.fromkeys(remarks), shipped_classifier()])


def shipped_classifier() -> str:
    """What the generator's encoder knows by itself, as its training measured it."""
    path = bundled.GENERATORS["DigitsVGG"].weights
    with reading(path):
        found = read_file(path)[1]["classifier"]
        share = found["accesses"] / weight_memory(models.create("DigitsVGG"), (3, 32, 32))
        return (
            f"ConvQ's encoder with a linear head, at Vmin, without DigitsVGG: {100 * found['accuracy']:.1f} %, for "
            f"{100 * share:.1f} % of DigitsVGG's energy at Vmin"
        )


# Recipes, energy


def recipes() -> str:
    """How base models are trained."""
    head = [field.name.replace("_", " ") for field in fields(Recipe)]
    rows = [[f"{getattr(recipe, field.name)}" for field in fields(Recipe)] for recipe in RECIPES.values()]
    return markdown(["recipe", *head[1:]], rows, 1)


def saving() -> str:
    """Table 7: energy saving in percent at 0.83 Vmin."""
    curve = VoltageCurve.default()
    counts = {name: accesses(name, "closed-form") for name in (*models.BASE_MODELS, *generators.NAMES)}
    rows = [
        [
            base,
            *(
                f"{100 * energy_saving(counts[base], curve, VOLTAGE, counts[name]):.2f}"
                for name in generators.NAMES
            ),
        ]
        for base in models.BASE_MODELS
    ]
    return markdown(["", *generators.NAMES], rows, 1)


# Speed


def measured(name: str) -> dict | None:
    """A report in benchmarks/results/; None where nothing was measured."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    if not path.exists():
        return None
    with reading(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def reports(benchmark: str) -> list[tuple[str, dict | None]]:
    """(kind of device, report of a benchmark there, or None). A GPU's is a part of what `make gpu-check` wrote."""
    check = measured("gpu-check")
    gpu = None
    if check is not None:
        with reading("gpu-check.json"):
            if benchmark in check:
                gpu = {**check[benchmark], "driver": check["driver"]}
    return [("CPU", measured(f"{benchmark}-cpu")), ("GPU", gpu)]


def measured_by(report: dict) -> str:
    driver = f"driver {report['driver']}; " if "driver" in report else ""
    return driver + commit_and_date(report)


NOT_MEASURED = "{}: not measured"


def kernel(*, full: bool = False) -> str:
    """Ratios of the fault kernel: of each device the first path, which is the best, with independent flips; or all."""
    columns: list[tuple[str, dict[tuple, str]]] = []
    remarks = []
    for kind, report in reports("kernel"):
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
            columns += list(paths.items())[: None if full else 1]
            remarks.append(f"{kind}: {usual:,} weights; {measured_by(report)}")
    keys = list(dict.fromkeys(key for _, ratios in columns for key in ratios))
    rates = list(dict.fromkeys(rate for *_, rate in keys))
    rows = []
    for operation in dict.fromkeys(key[:2] for key in keys):
        if full or operation[0].endswith(", flip"):
            of_columns = [[ratios.get((*operation, rate), "") for rate in rates] for _, ratios in columns]
            rows.append([*operation, *(" / ".join(of) if any(of) else "" for of in of_columns)])
    table = markdown(["operation", "beside", *(name for name, _ in columns)], rows, 2)
    at = " / ".join(f"{rate:g}" for rate in rates)
    return remarked(table, [f"bit error rates: {at}", *remarks])


def kernel_in_full() -> str:
    return kernel(full=True)


def number(value: float) -> str:
    """Three digits that count, and none that don't: 0.0129, 2.81, 347."""
    return f"{value:#.3g}".rstrip(".")


EOPM = {
    "a step, s": "eopm",
    "its parts, s": "parts",
    "the naive formulation, s": "naive",
    "step / parts": "over_parts",
    "naive / step": "naive_over",
    "naive / parts": "naive_over_parts",
}


def eopm() -> str:
    """A training step of a generator on each device."""
    return by_device(
        "eopm",
        EOPM,
        lambda r: (
            f"{r['model']}, {r['generator']}, batch {r['batch_size']}, N = {r['n_models']}, {r['precision']}"
        ),
    )


EVALUATION = {"on all chips, s": "evaluation", "the plain model, s": "plain", "ratio": "over_plain"}


def evaluation() -> str:
    """An evaluation on many chips on each device."""
    return by_device(
        "evaluation",
        EVALUATION,
        lambda r: f"{r['model']}, {r['chips']} chips, {r['images']:,} images in batches of {r['batch_size']}",
    )


def by_device(benchmark: str, shown: dict[str, str], about: Callable[[dict], str]) -> str:
    """A benchmark's numbers, one column for each kind of device: what a row is called, and its key in the report."""
    columns, remarks = [], []
    for kind, report in reports(benchmark):
        if report is None:
            columns.append([NOT_MEASURED.format(kind), *[""] * len(shown)])
            continue
        with reading(f"the {kind}'s report of {benchmark}"):
            columns.append([report["device"], *(number(report[key]) for key in shown.values())])
            remarks.append(f"{kind}: {about(report)}, medians of {report['rounds']}; {measured_by(report)}")
    head, *rows = zip(["", *shown], *columns, strict=True)
    return remarked(markdown(head, rows, 1), remarks)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"shipped": shipped, "accuracies": accuracies, "saving": saving, "kernel": kernel},
    "results/README.md": {"recipes": recipes, "bases": base_models, "table1": accuracies_in_full},
    "benchmarks/README.md": {"kernel": kernel_in_full, "eopm": eopm, "evaluation": evaluation},
}


def filled(path: Path, tables: dict[str, Callable[[], str]]) -> str:
    """A document with its tables as they have to be. Raises FaultsimError unless each has its place."""
    with reading(path):
        text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- table {name}: written by make tables -->", f"<!-- end of table {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise FaultsimError(
                f"{path}: the table {name} needs one line {begin} and after it one line {end}"
            )
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table()}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    try:
        documents = {ROOT / name: filled(ROOT / name, tables) for name, tables in TABLES.items()}
        for path, text in documents.items():
            if text != path.read_text(encoding="utf-8"):
                write_text(path, text)
                print(f"written: {path.relative_to(ROOT)}")
    except FaultsimError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
