"""Do studies on workers end in the same bytes as in one process: sweeps of every kind, comparisons, evaluations?"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import faultsim
from faultsim import (
    ActivationMemory,
    Domain,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    SweepResult,
    evaluation_chips,
    save_weights,
)
from faultsim.cluster.workers import Workers
from faultsim.io.run_directory import format_csv
from faultsim.models import resolve
from faultsim.studies.cascade import ask_first
from faultsim.studies.comparison import MITIGATIONS
from faultsim.studies.entries import replace_base
from faultsim.studies.sweep_result import Variant
from faultsim.studies.voltage_sweep import FILES
from neuralfuse.bundled import GENERATORS
from neuralfuse.entries import classify_alone, classify_first, look_up
from neuralfuse.files import read_generator
from neuralfuse.patterns import save_patterns
from neuralfuse.stage_files import create_classifier
from neuralfuse.subject_protection import evaluate_subject

POINTS = {"bit_error_rates": [0.0, 0.02, 0.05]}


def text(result: SweepResult) -> tuple[str, str]:
    """What a sweep's results.csv and summary.csv say."""
    chips, rows = result.chip_rows(), result.rows()
    return format_csv(list(chips[0]), chips), format_csv(list(rows[0]), rows)


def compute_both(client, run, *arguments, **options) -> None:
    """Compute with workers and without."""
    assert text(run(*arguments, **options, client=client)) == text(run(*arguments, **options))


def test_worker_processes_end_in_the_same_files(processes, subject, tmp_path, monkeypatch):
    monkeypatch.setattr(SweepResult, "plot", lambda self, path: path.write_bytes(b"a picture"))
    generator = read_generator(GENERATORS["DigitsNet"].weights)
    transform = generator.create_variant(subject.device, subject.dataset.input_shape)
    for name, client in (("here", None), ("workers", processes)):
        faultsim.sweep_subject(subject, 9, **POINTS, transform=transform, out=tmp_path / name, client=client)
    for name in ("results.csv", "summary.csv"):
        assert (tmp_path / "workers" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    tmp_path /= "workers"
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, ".lock", "jobs.jsonl"}
    lines = [json.loads(line) for line in (tmp_path / "jobs.jsonl").read_text().splitlines() if line]
    who = {line["worker"]: line for line in lines if "processor" in line}
    assert {line["worker"] for line in lines} == set(who) != set()
    assert all(line["host"] and line["processor"] for line in who.values())


KINDS = {
    "domains": lambda s: {
        "faults": FaultModel(domains=(Domain.top_bits(2), Domain("fc", ("classifier*",), voltage=0.9)))
    },
    "published placement": lambda s: {"faults": FaultModel.preset("neuralfuse_2022")},
    "transient": lambda s: {"faults": FaultModel("transient", read_error=0.3)},
    "top5": lambda s: {"metric": "top5"},
    "cross entropy": lambda s: {"metric": "cross_entropy"},
    "activations": lambda s: {"sites": "both", "activations": ActivationMemory(s.calibrate(), "int4")},
    "another curve": lambda s: {
        "curve": faultsim.VoltageCurve(
            "mine", (1.2, 1.1, 1.0), (0.0, 1e-3, 0.05), (3.0, 2.5, 2.0), picojoules=True
        ),
        "bit_error_rates": None,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sweep(in_process, subject, kind):
    compute_both(in_process, faultsim.sweep_subject, subject, 3, **{**POINTS, **KINDS[kind](subject)})


def test_other_formats(in_process):
    subject = faultsim.load_subject(images=40, format="int4")
    compute_both(in_process, faultsim.sweep_subject, subject, 3, **POINTS)


def test_measured_chips(in_process, subject):
    maps = [faultsim.map_chip(chip, [0.9, 0.8], arrays=16) for chip in evaluation_chips(0, 2)]
    chips = [MeasuredChip(one, f"chip{number}") for number, one in enumerate(maps)]
    compute_both(in_process, faultsim.sweep_subject, subject, chips, voltages=[0.9, 0.8])


def test_a_sweep_that_stops_when_it_is_precise_enough(in_process, subject):
    options = {"bit_error_rates": [0.0, 0.01], "precision": 0.08}
    compute_both(in_process, faultsim.sweep_subject, subject, 60, **options)


def test_all_mitigations(processes, subject):
    compute_both(
        processes, faultsim.compare, subject, [*MITIGATIONS, "fault-aware"], chips=2, voltages=[0.95, 0.8]
    )


@pytest.mark.filterwarnings("ignore:without bit errors")  # the models are untrained
def test_other_models_of_a_comparison(processes, subject, tmp_path):
    torch.manual_seed(0)
    save_weights(
        tmp_path / "other.safetensors", resolve("DigitsNet"), {"model": "DigitsNet", "num_classes": 10}
    )
    small = create_classifier("ConvXS", 10)
    save_weights(tmp_path / "small.safetensors", small, {"classifier": "ConvXS", "num_classes": 10})
    save_patterns(tmp_path / "patterns.safetensors", torch.rand(10, 3, 32, 32), {})
    entries = [
        replace_base(tmp_path / "other.safetensors"),
        classify_alone(tmp_path / "small.safetensors"),
        classify_first(tmp_path / "small.safetensors", 0.2),
        ask_first(tmp_path / "other.safetensors", 0.2),
        look_up(tmp_path / "small.safetensors", tmp_path / "patterns.safetensors", 0.2),
    ]
    compute_both(processes, faultsim.compare, subject, entries, chips=2, voltages=[0.95, 0.8])


def test_vulnerabilities(in_process, subject):
    found = [
        faultsim.vulnerability_of_subject(subject, 2, bit_error_rate=0.02, client=client).rows()
        for client in (in_process, None)
    ]
    assert found[0] == found[1]


def test_evaluations_with_a_generator(in_process, subject):
    generator = read_generator(GENERATORS["DigitsNet"].weights)
    front = generator.create_variant(subject.device, subject.dataset.input_shape)
    faults = FaultModel(domains=(Domain("fc", ("classifier*",), voltage=0.9),)).resolve()
    reports = []
    found = [
        evaluate_subject(
            subject, evaluation_chips(0, 5), bit_error_rate=0.03, faults=faults, generator=front, **given
        ).protection
        for given in ({}, {"client": in_process, "report": reports.append})
    ]
    assert found[0] == found[1]
    assert reports[-1] == found[1].perturbed_fused


def test_workers_take_several_studies(in_process, subject):
    with Workers(in_process) as workers:
        found = [text(faultsim.sweep_subject(subject, n, **POINTS, client=workers)) for n in (3, 2, 3)]
    assert found[0] == found[2] != found[1]


def test_a_model_that_no_worker_can_make_is_refused(in_process, subject):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with pytest.raises(FaultsimError, match="workers cannot make this model anew"):
        faultsim.sweep(model, subject.data, [1, 2], **POINTS, client=in_process)
    variant = Variant("halved", nn.Identity(), 0, "x")
    with pytest.raises(FaultsimError, match="halved cannot be sent to workers"):
        faultsim.sweep_subject(subject, 2, **POINTS, variants=[variant], client=in_process)


def test_a_metric_that_no_worker_can_import_is_refused(in_process, subject):
    def mine(answers, targets):
        return torch.ones(len(answers))

    mine.higher_is_better = True
    with pytest.raises(FaultsimError, match="metric mine cannot be sent to workers"):
        faultsim.sweep_subject(subject, 2, **POINTS, metric=mine, client=in_process)


def test_a_metric_of_a_module_is_imported_by_workers(in_process, subject, tmp_path, monkeypatch):
    (tmp_path / "own_margin.py").write_text(
        "def margin(answers, targets):\n    return answers.max(1).values - answers.mean(1)\n\n"
        "margin.higher_is_better = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_margin

    found = [
        faultsim.sweep_subject(subject, 2, **POINTS, metric=own_margin.margin, client=client)
        for client in (in_process, None)
    ]
    assert [one.evaluation.scores for one in found[0]] == [one.evaluation.scores for one in found[1]]


def test_errors_of_workers_are_one_line(in_process, subject):
    data = [(torch.zeros(2, 3, 32, 32), torch.tensor([0, 99]))]
    with pytest.raises(FaultsimError) as error:
        faultsim.sweep(
            subject.model, data, [1], **POINTS, client=in_process, architecture=subject.architecture
        )
    with pytest.raises(FaultsimError) as here:
        faultsim.sweep(subject.model, data, [1], **POINTS)
    assert str(error.value) == str(here.value)


def test_weights_and_images_are_shared_memory(processes, subject):
    """Both worker processes map the same file: none of them has the images in memory of its own."""
    with Workers(processes) as workers:
        faultsim.sweep_subject(subject, 4, **POINTS, client=workers)
        maps = processes.run(lambda: Path("/proc/self/maps").read_text())
    files = [
        {line.split()[-2] for line in text.splitlines() if line.endswith("(deleted)")}
        for text in maps.values()
    ]
    shared = set.intersection(*files)
    assert any("jobs" in path for path in shared), files
