"""Do the tables in the documents say what the data files say, and does `make tables` leave a document whole?"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tools import tables
from tools.tables.speed import number

ROOT = Path(__file__).parents[2]
SUMMARY, ALL_CELLS, SPEED = "docs/results.md", "docs/table1.md", "docs/benchmarks.md"
DOCUMENTS = ("README.md", SUMMARY, ALL_CELLS, SPEED, "docs/scale.md")
RESULT = "results/result-UNetL-VGG11-cifar10-modern-neuralfuse_2022-0.01.json"
SHIPPED = "results/shipped/evaluate-0.03.json"
ENERGY = "83.0"  # 100 - 17.05: the saving of VGG11 with UNetL at 1 % in the paper's Table 7
KERNEL = "benchmarks/results/kernel-cpu.json"


def module(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def tree(tmp_path):
    """A copy of the documents and their data."""
    for folder in ("results", "benchmarks/results"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.py[co]", "models"))
    (tmp_path / "docs").mkdir()
    for name in DOCUMENTS:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def texts(root):
    return {name: (root / name).read_text(encoding="utf-8") for name in DOCUMENTS}


def change(path, edit):
    """Edits a JSON file's content in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def rows(text, table):
    """The cells of each row of a table, its head first."""
    body = re.search(f"<!-- table {table}:.*?-->(.*)<!-- end of table {table} -->", text, re.S).group(1)
    lines = [line for line in body.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_documents_are_what_the_command_writes(tree):
    before = texts(tree)
    done = subprocess.run(
        [sys.executable, "-m", "tools.tables", tree], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"run `make tables` and commit: {done.stdout}"
    assert texts(tree) == before


def test_a_changed_result_changes_both_documents(tree, capsys):
    change(tree / RESULT, lambda result: result["correct"].update(perturbed_fused=[4321] * 10))
    assert tables.main(tree) == 0
    assert capsys.readouterr().out.split() == ["written:", SUMMARY, "written:", ALL_CELLS]
    changed = texts(tree)
    assert "| 43.21 ± 0.00 |" in changed[SUMMARY]
    assert "| 43.21 ± 0.00 |" in changed[ALL_CELLS]
    assert tables.main(tree) == 0
    assert capsys.readouterr().out == ""
    assert texts(tree) == changed


def test_a_changed_ratio_changes_the_document(tree):
    def edit(report):
        report["rows"][0]["ratio"] = 98.765
        report["device"] = "Another Processor, 3 threads"

    change(tree / KERNEL, edit)
    assert tables.main(tree) == 0
    head, *found = rows((tree / SPEED).read_text(encoding="utf-8"), "kernel")
    assert head[2].startswith("Another Processor, 3 threads")
    assert found[0][2].startswith("98.77 / ")


def test_small_times_keep_their_digits():
    assert [number(x) for x in (0.012929, 7.4849, 0.8, 561.4, 20.04)] == [
        "0.0129",
        "7.48",
        "0.800",
        "561",
        "20.0",
    ]


def test_another_size_has_a_row_of_its_own(tree):
    def edit(report):
        first = [row for row in report["rows"] if row["operation"] == "corrupt, flip"][:3]
        report["rows"] = [row | {"weights": 10**9, "ratio": 7.5} for row in first] + report["rows"]

    change(tree / KERNEL, edit)
    before = rows((tree / SPEED).read_text(encoding="utf-8"), "kernel")
    assert tables.main(tree) == 0
    _, *found = rows((tree / SPEED).read_text(encoding="utf-8"), "kernel")
    assert {tuple(row[:2]): row[2] for row in found} == {tuple(row[:2]): row[2] for row in before[1:]} | {
        ("1,000,000,000 weights: corrupt, flip", "copy"): "7.50 / 7.50 / 7.50"
    }


def test_a_peer_that_does_not_end_says_so(tree):
    slow = {"peer": "Slow", "version": "1.0", "over_seconds": 400.0}
    change(tree / "benchmarks/results/peers-cpu.json", lambda report: report["rows"].append(slow))
    assert tables.main(tree) == 0
    found = rows((tree / SPEED).read_text(encoding="utf-8"), "peers")
    assert found[-1] == ["Slow", "1.0", "over 400,000", "", ""]


def test_base_models_alone(tree):
    """A base model that was measured without a generator has a row, and one that was measured with some has one too."""
    for path in (tree / "results").glob("*.json"):
        if path != tree / RESULT:
            path.unlink()
    alone = tree / "results/unprotected-VGG16-cifar10-paper-iid_flips-0.01.json"
    shutil.copy(tree / RESULT, alone)

    def edit(result):
        result["cell"] |= {"base": "VGG16", "generator": None, "faults": "iid_flips"}
        result["correct"] = {"clean": [9000], "perturbed": [2000, 4000]}
        del result["configuration"]["generator"], result["provenance"]["generator"]
        del result["provenance"]["unprotected"]

    change(alone, edit)
    assert tables.main(tree) == 0
    _, *found = rows((tree / ALL_CELLS).read_text(encoding="utf-8"), "bases")
    assert [row[1] for row in found] == ["VGG11", "VGG16"]
    assert found[1][:8] == ["cifar10", "VGG16", "0.01", "90.31", "35.70 ± 7.90", "90.00", "", "30.00 ±10.00"]
    assert "2 chips, 10,000 images" in (tree / ALL_CELLS).read_text(encoding="utf-8")


def test_a_generator_that_began_with_another_says_so(tree):
    def edit(result):
        generator = result["configuration"]["generator"]
        before = {**generator["training"], "n_models": 10, "batch_size": 64, "learning_rate": 0.25}
        generator["start"] = {"training": before, "epochs": 9, "device": "Some GPU", "weights": "0" * 64}

    change(tree / RESULT, edit)
    assert tables.main(tree) == 0
    text = " ".join((tree / ALL_CELLS).read_text(encoding="utf-8").split())
    assert "begun with one of N = 10, batch 64, 9 epochs, learning rate 0.25, on Some GPU" in text


def test_several_results_of_one_cell(tree):
    """Two recipes of the base model, and one of them under both fault models: each row says which it is."""
    for path in (tree / "results").glob("result-*.json"):
        if path != tree / RESULT:
            path.unlink()
    name = str(tree / RESULT).replace("modern", "paper_short")
    short, short_iid = Path(name), Path(name.replace("neuralfuse_2022", "iid_flips"))
    for path in (short, short_iid):
        shutil.copy(tree / RESULT, path)

    def first(result):
        base, generator = (result["configuration"][key] for key in ("base", "generator"))
        base["recipe"] |= {"name": "modern, 12 epochs", "batch_size": 256, "epochs": 12}
        generator["training"] |= {"n_models": 5, "batch_size": 64, "max_epochs": 2}
        generator["epochs"] = 2
        result["correct"] |= {"clean": [9000], "perturbed": [6000] * 10}
        result["correct"] |= {"clean_fused": [8500], "perturbed_fused": [7000] * 10}

    def second(result):
        first(result)
        result["configuration"]["base"]["recipe"] |= {"name": "paper_short", "batch_size": 128}
        result["configuration"]["base"]["weights"] = "0" * 64
        result["configuration"]["generator"]["training"] |= {"n_models": 3, "batch_size": 32}
        result["correct"] |= {"clean": [7500], "perturbed": [5000] * 10}
        result["provenance"] |= {"device": "Another Processor", "commit": None, "date": "2026-12-01T00:00"}

    def third(result):
        second(result)
        result["cell"]["faults"] = "iid_flips"
        result["correct"]["perturbed"] = [2500] * 10

    for path, edit in ((tree / RESULT, first), (short, second), (short_iid, third)):
        change(path, edit)
    assert tables.main(tree) == 0
    changed = texts(tree)
    found = rows(changed[SUMMARY], "accuracies")[1:]
    assert [(row[0], row[1], row[3], *row[7:]) for row in found] == [
        ("cifar10, VGG11, UNetL", "the paper", "42.20 ±11.60", "94.6", "", "82.5", "", "", "", ""),
        # 50,000 images, twice, through the clean and N perturbed models
        (
            "",
            "`neuralfuse_2022`",
            "60.00 ± 0.00",
            "77.8",
            ENERGY,
            "0.60",
            "",
            "modern, 256, 12",
            "eopm, 5, 64, 2",
            "[1]",
        ),
        (
            "",
            "`neuralfuse_2022`",
            "50.00 ± 0.00",
            "93.3",
            ENERGY,
            "0.40",
            "",
            "paper_short, 128, 12",
            "eopm, 3, 32, 2",
            "[2]",
        ),
        (
            "",
            "`iid_flips`",
            "25.00 ± 0.00",
            "93.3",
            ENERGY,
            "0.40",
            "",
            "paper_short, 128, 12",
            "eopm, 3, 32, 2",
            "[2]",
        ),
    ]
    note = "Another Processor: P.A.+N.F. at an installed copy, 2026-12-01."
    for name in (SUMMARY, ALL_CELLS):
        assert " ".join(changed[name].split()).count(note) == 1

    def in_full():
        text = (tree / ALL_CELLS).read_text(encoding="utf-8")
        found = rows(text, "table1")
        start = next(i for i, row in enumerate(found) if row[0] == "VGG11")
        base = [row for row in found[start : start + 3] if row[0] == "VGG11"]
        fused = [row for row in found[start : start + 12] if row[0] == "+ UNetL"]
        return base, fused

    base, fused = in_full()
    assert [(row[4], row[5], row[7], row[8], row[10]) for row in base] == [
        ("90.00", "60.00 ± 0.00", "", "", "modern, 256, 12 [1]"),
        ("75.00", "50.00 ± 0.00", "75.00", "25.00 ± 0.00", "paper_short, 128, 12 [2]"),
    ]
    assert [(row[3], row[6], row[9], row[10]) for row in fused] == [
        ("+41.40", "+10.00", "", "modern, 256, 12; eopm, 5, 64, 2 [1]"),
        ("+41.40", "+20.00", "+45.00", "paper_short, 128, 12; eopm, 3, 32, 2 [2]"),
    ]

    change(short_iid, lambda r: r["configuration"]["generator"]["training"].update(schedule="linear"))
    assert tables.main(tree) == 0
    base, fused = in_full()
    assert len(base) == 2
    assert [(row[6], row[9], row[10]) for row in fused[1:]] == [
        ("+20.00", "", "paper_short, 128, 12; eopm, 3, 32, 2 [2]"),
        ("", "+45.00", "paper_short, 128, 12; eopm, 3, 32, 2 [3]"),
    ]


def test_every_cell_has_a_row_and_is_empty_without_a_result(tree):
    from neuralfuse import published

    for path in (tree / "results").glob("result-*.json"):
        path.unlink()
    assert tables.main(tree) == 0
    changed = texts(tree)
    assert len(rows(changed[SUMMARY], "accuracies")) == 1  # the head
    shown, base = {}, None
    sections = re.split(r"^### (\w+)$", changed[ALL_CELLS], flags=re.M)
    for dataset, section in zip(sections[1::2], sections[2::2], strict=True):
        for name, clean, perturbed, won, *ours in rows(
            f"<!-- table x: -->{section}<!-- end of table x -->", "x"
        ):
            if name.startswith("+ "):
                shown[dataset, base, name[2:]] = (clean, perturbed, won)
                assert ours == [""] * 7
            else:
                base = name
    known = [row for row in published.read_table("relaxed_access") if row["table"] == "table1"]
    assert len(shown) == len(known) == 90
    for row in known:
        clean, perturbed, won = shown[row["dataset"], row["base_model"], row["generator"]]
        assert float(clean) == pytest.approx(float(row["clean_acc_nf"]), abs=0.005)
        assert float(perturbed.split("±")[0]) == pytest.approx(float(row["perturbed_acc_nf"]), abs=0.005)
        assert (float(won) if won else None) == (float(row["improvement"]) if row["improvement"] else None)


def bench(*words):
    """What a benchmark of faultsim prints as JSON, measured here and now with as little work as it can be."""
    from faultsim.cli import app

    done = CliRunner().invoke(app, ["bench", *words, "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def eopm_report():
    return bench("eopm", "--batch-size", "2", "--n-models", "1", "--rounds", "1")


def test_eopm_where_it_was_measured(tree, eopm_report):
    assert tables.main(tree) == 0
    (tree / "benchmarks/results/eopm-cpu.json").unlink(missing_ok=True)
    assert tables.main(tree) == 0
    head, *found = rows((tree / SPEED).read_text(encoding="utf-8"), "eopm")
    assert head[1] == "CPU: not measured"
    assert {row[1] for row in found} == {""}
    (tree / "benchmarks/results/eopm-cpu.json").write_text(eopm_report, encoding="utf-8")
    assert tables.main(tree) == 0
    text = (tree / SPEED).read_text(encoding="utf-8")
    report, (head, *found) = json.loads(eopm_report), rows(text, "eopm")
    assert head[1] == report["device"]
    times = ("eopm", "parts", "naive", "over_parts", "naive_over", "naive_over_parts")
    assert [row[1] for row in found] == [number(report[key]) for key in times]
    assert "VGG11, ConvS, batch 2, N = 1, float32" in " ".join(text.split())


def test_a_gpu_has_a_column_of_its_own(tree, eopm_report):
    """As tools/gpu_check.py writes it, from benchmarks that a CPU stands in for."""
    check = module("tools/gpu_check.py")
    shutil.copy(tree / KERNEL, tree / "kernel.json")
    (tree / "eopm.json").write_text(eopm_report, encoding="utf-8")

    def on_a_gpu(report):
        report["device"] = "Some GPU"
        if "rows" in report:
            first = {key: report["rows"][0][key] for key in ("path", "threads")}
            report["rows"] = [
                row | {"path": "cuda"} for row in report["rows"] if first.items() <= row.items()
            ]

    change(tree / "kernel.json", on_a_gpu)
    change(tree / "eopm.json", on_a_gpu)
    path = tree / "benchmarks/results/gpu-check.json"
    path.unlink(missing_ok=True)
    assert tables.main(tree) == 0
    head, *found = rows((tree / SPEED).read_text(encoding="utf-8"), "kernel")
    assert head[-1] == "GPU: not measured"
    assert {row[-1] for row in found} == {""}

    def written(*parts):
        check.perform(parts, {"device": "Some GPU", "driver": "1.2.3", "commit": "abc"}, path)
        assert tables.main(tree) == 0
        return texts(tree)

    kernel = check.Part("kernel", ("cat", str(tree / "kernel.json")), 60, check.kernel_speed)
    eopm = check.Part("eopm", ("cat", str(tree / "eopm.json")), 60, check.eopm_speed)
    changed = written(kernel, eopm)
    head, *found = rows(changed[SPEED], "kernel")
    assert head[-1] == "Some GPU"
    assert found[0][-1] == found[0][2] != ""
    assert "driver 1.2.3; abc, 2026-11-23" in " ".join(changed[SPEED].split())
    head, *found = rows(changed[SPEED], "eopm")
    assert head[2] == "Some GPU"
    assert found[3][2] == number(json.loads(eopm_report)["over_parts"])

    broken = check.Part("kernel", ("false",), 60, check.kernel_speed)
    changed = written(broken, eopm)
    assert rows(changed[SPEED], "kernel")[0][-1] == "GPU: not measured"
    assert rows(changed[SPEED], "eopm")[0][2] == "Some GPU"


def mark(name):
    return f"<!-- table {name}: written by make tables -->", f"<!-- end of table {name} -->"


DAMAGES = {
    "no begin": lambda text: text.replace(mark("eopm")[0], ""),
    "no end": lambda text: text.replace(mark("eopm")[1], ""),
    "begin twice": lambda text: text + mark("eopm")[0],
    "the wrong way round": lambda text: text.replace(mark("eopm")[0], "").replace(
        mark("eopm")[1], "\n".join(reversed(mark("eopm")))
    ),
    "one in the other": lambda text: text.replace(mark("eopm")[0], "").replace(
        mark("kernel")[0], "\n".join([mark("kernel")[0], mark("eopm")[0]])
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_missing_marker_leaves_all_documents(tree, capsys, damage):
    change(
        tree / KERNEL, lambda report: report["rows"][0].update(ratio=98.765)
    )  # the first document would change
    text = (tree / SPEED).read_text(encoding="utf-8")
    (tree / SPEED).write_text(DAMAGES[damage](text), encoding="utf-8")
    before = texts(tree)
    assert tables.main(tree) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert str(tree / SPEED) in said.err
    assert "eopm" in said.err
    assert texts(tree) == before


def without(*keys):
    def edit(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return edit


def ratio_in_words(report):
    report["rows"][5]["ratio"] = "fast"


@pytest.mark.parametrize(
    ("name", "edit", "named"),
    [
        (SHIPPED, None, SHIPPED),
        (SHIPPED, lambda report: report["accuracy"].pop(3), SHIPPED),
        (RESULT, None, RESULT),
        (RESULT, without("correct", "perturbed"), RESULT),
        (RESULT, without("configuration", "base", "recipe"), "cifar10, VGG11, UNetL"),
        (RESULT, without("provenance", "generator"), "cifar10, VGG11, UNetL"),
        (KERNEL, None, KERNEL),
        (KERNEL, without("rows"), "CPU"),
        (KERNEL, lambda report: report.update(rows=[]), "CPU"),
        (KERNEL, without("commit"), "CPU"),
        (KERNEL, ratio_in_words, "CPU"),
    ],
)
def test_damaged_data_leave_all_documents(tree, capsys, name, edit, named):
    if edit is None:
        content = (tree / name).read_bytes()
        (tree / name).write_bytes(content[: len(content) // 2])
    else:
        change(tree / name, edit)
    before = texts(tree)
    assert tables.main(tree) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert named in said.err
    assert texts(tree) == before
