"""Tables of accuracies: what was obtained of the paper's Tables 1 and 9 and of its transfers, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from energy.saving import compute_saving
from faultsim.voltage import VoltageCurve
from neuralfuse.paper.cells import FAULTS, select_cells
from neuralfuse.paper.computed import count_accesses
from neuralfuse.paper.result import JOINED, TRAINING_IMAGES, Result, read_results
from neuralfuse.paper.rows import Line, collect_lines
from neuralfuse.paper.words import HEADINGS, format_published, format_rate, format_result, format_spread
from tools.tables.text import Notes, commit_and_date, markdown, reading


def table1(root: Path) -> list[Line]:
    """The cells of Table 1, each with everything that was obtained of it."""
    return _collect("table1", root)


def _collect(name: str, root: Path) -> list[Line]:
    return collect_lines(select_cells(name), root / "results", kept=False)


def of_base(result: Result) -> str:
    """Recipe, batch and epochs of the base model."""
    recipe = result.configuration["base"]["recipe"]
    return f"{recipe['name'].split(',')[0]}, {recipe['batch_size']}, {recipe['epochs']}"


def of_generator(result: Result) -> str:
    """Trainer, N, batch and epochs of the generator; in stages, those of its last stage."""
    generator = result.configuration["generator"]
    training = generator["training"]
    last = training["stages"]["patterns"] if result.trainer == "lookup" else training
    return f"{result.trainer}, {training['n_models']}, {last['batch_size']}, {generator['epochs']}"


def passes(result: Result) -> str:
    """Through the base model in training the generator, in millions."""
    return f"{result.base_passes / 1e6:.2f}"


def kept_share(clean: float | None, fused: float | None) -> str:
    """P.A.+N.F. in percent of C.A.: base models are not equally good without errors."""
    return f"{100 * fused / clean:.1f}" if clean and fused is not None else ""


def energy(result: Result) -> str:
    """Of the weight memory's reads, base model at the voltage of its bit error rate and generator at Vmin, in percent
    of the base model at Vmin."""
    cell, curve = result.cell, VoltageCurve.default()
    base = count_accesses(cell.base, "closed-form")
    generator = result.configuration["generator"].get("accesses")
    if generator is None:  # those of look-ups do not follow from the name
        generator = count_accesses(cell.spec.name, "closed-form")
    saving = compute_saving(base, curve, curve.voltage(cell.bit_error_rate), generator)
    return f"{100 - 100 * saving:.1f}"


def classifier(result: Result) -> str:
    """The generator's encoder with a linear head, alone at Vmin, where it was trained so: accuracy and energy, both in
    percent, the latter of the base model at Vmin."""
    found = result.configuration["generator"].get("classifier")
    if found is None:
        return ""
    share = found["accesses"] / count_accesses(result.cell.base, "closed-form")
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
    computed = f", in {compute}" if (compute := result.configuration.get("compute")) else ""
    return f"{chips} chips, {result.images:,} images{computed}; generator: {settings(result)}. {'. '.join(where)}."


def accuracies(root: Path) -> str:
    """What was obtained of Table 1."""
    return _show(table1(root))


def half_percent(root: Path) -> str:
    """What was obtained of Table 9."""
    return _show(_collect("table9", root))


def transfers(root: Path) -> str:
    """What was obtained with generators that were trained for other models, whether the paper has it or not."""
    cells = [
        result.cell
        for result in read_results(root / "results")
        if result.cell.spec.source != result.cell.base
    ]
    alike = {
        replace(cell, faults=faults, generator=replace(cell.spec, trainer=None))
        for cell in cells
        for faults in FAULTS
    }
    order = sorted(
        alike,
        key=lambda cell: (cell.base, -cell.bit_error_rate, cell.spec.name, cell.spec.source, cell.faults),
    )
    return _show(collect_lines(order, root / "results", kept=False))


def _show(lines: Sequence[Line]) -> str:
    """Show the paper's row of each pair, where it has one, and below it one for each result."""
    notes, rows = Notes(), []
    for cell, pair in groupby(lines, key=lambda line: replace(line.cell, faults="")):
        of_pair = list(pair)
        name = f"{cell.dataset}, {cell.base}, {cell.spec.name}"
        if cell.transferred:
            rate = format_rate(cell.bit_error_rate)
            name = f"{cell.base} at {rate}, {cell.spec.name} of {cell.spec.source.replace(JOINED, ' and ')}"
        if any(line.results for line in of_pair):
            theirs = of_pair[0].published
            known = format_published(theirs) or [""] * len(HEADINGS)
            known.append(kept_share(theirs.clean, theirs.perturbed_fused) if theirs else "")
            # how long the paper trains with two models is not said
            known_passes = any(known) and len(cell.spec.sources) == 1
            rows.append(
                [
                    name,
                    "the paper" if theirs else "not in the paper",
                    *known,
                    "",
                    PAPER_PASSES[cell.dataset] if known_passes else "",
                ]
            )
        for line in of_pair:
            for result in line.results:
                with reading(f"a result of {name}"):
                    how = [of_base(result), of_generator(result), notes.number(origin(result))]
                    how = [energy(result), passes(result), classifier(result), *how]
                    how.insert(0, kept_share(result.mean("clean"), result.mean("perturbed_fused")))
                rows.append(["", f"`{line.cell.faults}`", *format_result(result), *how])
    head = ["", "", *HEADINGS, "of C.A., %", "energy, %", "passes, M", "classifier alone"]
    head += ["base model: recipe, batch, epochs", "generator: trainer, N, batch, epochs", ""]
    return notes.below(markdown(head, rows, 2))


def accuracies_in_full(root: Path) -> str:
    """All of Table 1: of each data set the base models alone, and below each its generators."""
    notes, sections = Notes(), []
    heads = [f"{whose}: C.A. | P.A. | IP".split(" | ") for whose in ("the paper", *FAULTS)]
    head = ["", *(column for three in heads for column in three), "how"]
    for dataset, of_dataset in groupby(table1(root), key=lambda line: line.cell.dataset):
        rows = []
        for base, group in groupby(of_dataset, key=lambda line: line.cell.base):
            whole = list(group)
            rows += side_by_side(base, whole, lambda values: [*values[:2], ""], base_model, notes)
            for generator, pair in groupby(whole, key=lambda line: line.cell.spec.name):
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


def base_models(root: Path) -> str:
    """Base models without a generator, one row for each training of them: the paper's accuracies beside ours."""
    found: dict[tuple, dict[str, Result]] = {}
    for result in [*read_results(root / "results", "unprotected"), *read_results(root / "results")]:
        cell = result.cell
        if cell.bits is not None:
            continue
        with reading(f"a result of {cell.dataset}, {cell.base}"):
            key = (cell.dataset, cell.base, result.configuration["base"]["weights"], cell.bit_error_rate)
        found.setdefault(key, {}).setdefault(cell.faults, result)
    published = {
        (line.cell.dataset, line.cell.base, line.cell.bit_error_rate): format_published(line.published)[:2]
        for line in table1(root)
    }
    notes, rows = Notes(), []
    for (dataset, base, _, rate), of_faults in sorted(found.items(), key=lambda item: item[0][:2]):
        first, *_ = of_faults.values()
        with reading(f"a result of {dataset}, {base}"):
            how = [of_base(first), notes.number(origin_of_base(first))]
        ours = [of_faults.get(faults) for faults in FAULTS]
        perturbed = [format_spread(r.mean("perturbed"), r.std("perturbed")) if r else "" for r in ours]
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
            with reading(f"a result of {line.cell.dataset}, {line.cell.base}, {line.cell.spec.name}"):
                key, note = way(result), notes.number(origin(result))
            ours = shown(format_result(result))
            of_key = (row for other, row in found if other == key)
            row = next((row for row in of_key if row.get(line.cell.faults, (ours,))[0] == ours), None)
            if row is None:
                row = {}
                found.append((key, row))
            row.setdefault(line.cell.faults, (ours, note))
    empty = [""] * 3
    known = shown(format_published(of_row[0].published) or [""] * len(HEADINGS))
    return [
        [
            name,
            *known,
            *(cell for faults in FAULTS for cell in row.get(faults, (empty,))[0]),
            " ".join([words, *dict.fromkeys(note for _, note in row.values())]),
        ]
        for (words, *_), row in found or [(("",), {})]
    ]
