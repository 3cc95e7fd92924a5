"""Tables 1, 9 and 10: are their rows, plans and results the paper's, and are mistakes told in one line?"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from faultsim import FaultsimError
from neuralfuse import published
from neuralfuse.paper.cells import FAULTS, NAMES, make_relaxed_cell, select_cells
from neuralfuse.paper.plan import Kind, find_missing, locate_file, plan_steps
from neuralfuse.paper.result import ALONE, Cell, GeneratorSpec, Result, read, read_results
from neuralfuse.paper.rows import find_published

RELAXED = ("table1", "table9", "table10")


def result(generator: str | None = "ConvS", **changed: object) -> Result:
    """A result made up for a test: 100 images, 2 chips."""
    correct = {"clean": [90], "perturbed": [40, 60], "clean_fused": [88], "perturbed_fused": [70, 75]}
    values = {
        "cell": Cell(
            "cifar10", "VGG11", generator and GeneratorSpec(generator, "VGG11", 0.01), "iid_flips", 0.01
        ),
        "images": 100,
        "correct": correct if generator else {part: correct[part] for part in ALONE},
        "configuration": {
            "base": {"recipe": {"name": "modern, 5 epochs", "epochs": 5}},
            "generator": {"training": {"n_models": 3, "precision": "float32"}, "epochs": 7},
        },
        "provenance": {
            "commit": "0123456789ab",
            "device": "a machine",
            "date": "2026-01-02T03:04:05+00:00",
            "memory": {"stored": 1000, "weights": 2000, "share": 0.5},
            "generator": {"device": "another machine"},
        },
    }
    return Result(**(values | changed))


# -- the paper's rows ------------------------------------------------------------------------------------------------


def test_every_published_row_has_its_cells():
    rows = published.read_table("relaxed_access")
    for name in RELAXED:
        ours = [row for row in rows if row["table"] == name]
        found = select_cells(name)
        assert len(found) == 2 * len(ours) > 0
        assert {cell.faults for cell in found} == set(FAULTS)
        for row in ours:
            key = (row["dataset"], row["base_model"], row["generator"], float(row["bit_error_rate"]))
            of_row = [c for c in found if (c.dataset, c.base, c.generator.name, c.bit_error_rate) == key]
            assert [cell.faults for cell in of_row] == list(FAULTS)
            for cell in of_row:
                known = find_published(cell)
                assert known.clean_fused == float(row["clean_acc_nf"])
                assert known.perturbed_fused == float(row["perturbed_acc_nf"])
                assert known.improvement == float(row["improvement"])


def test_a_row_that_everybody_can_look_up():
    """Table 1, CIFAR-10, VGG11 with ConvS."""
    row = find_published(make_relaxed_cell("cifar10", "VGG11", "ConvS", 0.01))
    assert (row.clean, row.perturbed, row.perturbed_std) == (88.35, 42.2, 11.6)
    assert (row.clean_fused, row.perturbed_fused, row.perturbed_fused_std) == (84.9, 66.3, 7.5)
    assert row.improvement == 24.1
    assert find_published(make_relaxed_cell("cifar10", "VGG19", "ConvS", 0.01)).perturbed_std is None
    assert find_published(make_relaxed_cell("digits", "DigitsNet", "ConvS", 0.01)) is None


def test_the_tables_differ_in_their_bit_error_rate_and_data_sets():
    rates = {name: {cell.bit_error_rate for cell in select_cells(name)} for name in RELAXED}
    assert rates == {"table1": {0.01}, "table9": {0.005}, "table10": {0.0035}}
    assert {cell.dataset for cell in select_cells("table10")} == {"cifar100"}
    assert list(dict.fromkeys(cell.dataset for cell in select_cells("table1"))) == [
        "cifar10",
        "gtsrb",
        "cifar100",
    ]


# -- the plan --------------------------------------------------------------------------------------------------------


def test_any_subset():
    found = select_cells("table1", ["cifar10", "gtsrb"], ["VGG11"], ["ConvS", "UNetS"])
    assert len(found) == 2 * 2 * len(FAULTS)
    assert {cell.base for cell in found} == {"VGG11"}


def test_what_several_rows_need_is_planned_once(tmp_path: Path):
    planned = plan_steps(
        select_cells("table1", ["cifar10"], ["VGG11"], ["ConvS", "UNetS"]), "modern", tmp_path
    )
    kinds = [step.kind for step in planned]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    assert counts == {Kind.BASE: 1, Kind.UNPROTECTED: 2, Kind.GENERATOR: 4, Kind.RESULT: 4}
    assert len({step.file for step in planned}) == len(planned)
    for step in planned:
        if step.kind is Kind.RESULT:
            before = [other.file for other in planned[: planned.index(step)]]
            assert {step.sibling(kind) for kind in (Kind.BASE, Kind.UNPROTECTED, Kind.GENERATOR)} <= set(
                before
            )


def test_what_is_there_is_not_planned_again(tmp_path: Path):
    wanted = select_cells("table1", ["cifar10"], ["VGG11"], ["ConvS"])
    planned = plan_steps(wanted, "modern", tmp_path)
    assert find_missing(planned) == planned
    locate_file(Kind.BASE, wanted[0], "modern", tmp_path).touch()
    assert find_missing(planned) == planned[1:]
    locate_file(Kind.RESULT, wanted[0], "modern", tmp_path).touch()
    assert {step.cell.faults for step in find_missing(planned)} == {wanted[1].faults}
    locate_file(Kind.RESULT, wanted[1], "modern", tmp_path).touch()
    assert find_missing(planned) == []
    assert find_missing(plan_steps(wanted, "paper", tmp_path)), "results of another recipe are no substitute"


def test_a_plan_does_nothing(run: Callable, tmp_path: Path):
    end = run("table1", "--dataset", "cifar10", "--base", "VGG11", "--plan", "--out", tmp_path / "run")
    assert end.status == 0
    assert "0 of 27 steps are done, 27 are missing" in end.err
    assert not (tmp_path / "run").exists()


# -- results ---------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_result():
    found = result()
    assert (found.mean("clean"), found.mean("clean_fused")) == (90, 88)
    assert (found.mean("perturbed"), found.std("perturbed")) == (50, 10)  # population: sample would be 14.1
    assert (found.mean("perturbed_fused"), found.std("perturbed_fused")) == (72.5, 2.5)
    assert found.improvement == 72.5 - 50


def test_a_result_is_read_as_it_was_written(tmp_path: Path):
    for number, made in enumerate((result(), result(None))):
        (tmp_path / f"result-{number}.json").write_text(made.text(), encoding="utf-8")
    assert read_results(tmp_path) == [result(), result(None)]
    assert read_results(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[1]",
        lambda text: text.replace('"perturbed_fused"', '"other"'),
        lambda text: text.replace("90", "101"),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"images"', '"pictures"'),
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, damage: Callable[[str], str]):
    file = tmp_path / "result-a.json"
    file.write_text(damage(result().text()), encoding="utf-8")
    with pytest.raises(FaultsimError, match=r"result-a\.json"):
        read(file)


def test_results_that_come_with_faultsim_belong_to_the_tables():
    known = [cell for name in NAMES for cell in select_cells(name)]
    for found in read_results():
        # no paper has these surrogates at once
        assert any(found.is_of(cell) for cell in known) or found.cell.spec.source == "ResNet18+VGG7"
        assert len(found.correct["perturbed"]) >= 10
        assert "dirty" not in (found.provenance["commit"] or "")


def test_shown_beside_the_find_published(run: Callable, tmp_path: Path):
    (tmp_path / "result-a.json").write_text(result().text(), encoding="utf-8")
    chosen = ("table1", "--dataset", "cifar10", "--base", "VGG11", "--generator", "ConvS,UNetS", "--show")
    shown = run(*chosen, "--out", tmp_path)
    assert shown.status == 0
    assert max(map(len, shown.out.splitlines())) <= 80
    text = " ".join(shown.out.split())
    assert "the paper 88.35 42.20 ±11.60 84.90 66.30 ± 7.50 +24.10" in text
    assert "iid_flips 90.00 50.00 ±10.00 88.00 72.50 ± 2.50 +22.50" in text
    assert (
        "base recipe modern, 5 epochs; N = 3, 7 epochs, float32, 1.40 M passes; "
        "a machine (trained on another machine); 0123456789ab; 2026-01-02; 1,000 of 2,000 weights in the faulty memory"
    ) in text

    rows = json.loads(run(*chosen, "--out", tmp_path, "--json").out)["rows"]
    assert len(rows) == 4
    ours = next(row for row in rows if (row["generator"]["name"], row["faults"]) == ("ConvS", "iid_flips"))
    assert ours["published"]["perturbed_fused"] == 66.3
    assert [found["improvement"] for found in ours["results"] if found["device"] == "a machine"] == [22.5]


def test_a_generator_that_began_with_another_says_so(run: Callable, tmp_path: Path):
    made = result()
    generator = made.configuration["generator"] | {"start": {"epochs": 9}}
    again = result(configuration=made.configuration | {"generator": generator})
    (tmp_path / "result-a.json").write_text(again.text(), encoding="utf-8")
    chosen = ("table1", "--dataset", "cifar10", "--base", "VGG11", "--generator", "ConvS", "--show")
    text = " ".join(run(*chosen, "--out", tmp_path).out.split())
    assert "N = 3, 7 epochs after 9 of another training, float32" in text


def test_the_largest_table_fits_the_screen(run: Callable):
    shown = run("table1", "--show")
    assert shown.status == 0
    assert max(map(len, shown.out.splitlines())) <= 80
    assert sum("the paper" in line for line in shown.out.splitlines()) == 90


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("table1", "add --out RUN_DIR, or --show"),
        ("", "which table or figure?"),
        ("all --dataset cifar10 --out run", "--dataset cannot be combined with all"),
        ("table1 --out run --faults mine", "unknown fault model 'mine'"),
        ("table1 --out run --budget soon", "--budget 'soon': write a time like 90s, 30m or 2h"),
        ("table1 --out run --budget 0m", "--budget '0m': write a time"),
        ("table1 --out run --plan --budget 1m", "--budget cannot be combined with --plan"),
        ("--status table1", "--status is about all tables"),
        ("--status --epochs 3", "--epochs cannot be combined with --status"),
        ("--status --out nowhere", "nowhere is no run directory"),
        ("table1 --smoke --out run --batch-size 0", "batch-size 0: at least 1 is needed"),
        (
            "table1 --show --dataset imagenet",
            "table1 has no dataset 'imagenet'; it has cifar10, gtsrb, cifar100",
        ),
        ("table1 --show --base VGG12", "table1 has no base model 'VGG12'; it has ResNet18, ResNet50, VGG11"),
        ("table9 --show --generator ConvM", "table9 has no generator 'ConvM'; it has ConvL, ConvS, DeConvL"),
        ("table10 --out run --dataset cifar10", "table10 has no dataset 'cifar10'; it has cifar100"),
        ("table1 --show --base VGG11,", "--base: an empty name"),
        ("table1 --show --dataset digits", "table1 has no dataset 'digits'"),
        ("table1 --smoke --out run --base VGG11", "--base cannot be combined with --smoke"),
        ("table1 --smoke --show --epochs 3", "--epochs cannot be combined with --show"),
        ("table1 --show --out nowhere", "nowhere is no run directory"),
        (
            "table1 --smoke --out run --recipe best",
            "unknown recipe 'best': it can be paper, paper_short, modern",
        ),
        ("table1 --smoke --out run --epochs 0", "epochs 0: at least 1 is needed"),
        ("table1 --smoke --out run --base-epochs 0", "0 epochs: at least 1 is needed"),
        ("table1 --smoke --out run --n-models 0", "n-models 0: at least 1 is needed"),
        ("table1 --smoke --out run --precision half", "unknown precision 'half'"),
        ("table1 --smoke --out run --seed -1", "seed -1: it must be from 0"),
        ("table1 --smoke --out run --device tpu", "device 'tpu': it can be"),
        ("table1 --smoke --out run --data-dir here", "the digits come with scikit-learn"),
        ("table6 --out run", "--out cannot be combined with table6"),
        ("table8 --smoke", "--smoke cannot be combined with table8"),
        ("table99", "it can be table1, table2, table5"),
    ],
)
def test_mistakes_get_one_line(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
):
    monkeypatch.chdir(tmp_path)
    end = run(*arguments.split())
    assert (end.status, end.out) == (2, "")
    last = end.err.splitlines()[-1]
    assert last.startswith("faultsim: error: ")
    assert message in last
    if "--data-dir" not in arguments:  # found when the data are loaded, after the plan is told
        assert len(end.err.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []
