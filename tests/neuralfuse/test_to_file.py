"""Trainings to a file, from Python: do they continue to the same weights, and log each epoch once?"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import neuralfuse
from faultsim import FaultsimError
from faultsim.checkpoint import read_file
from faultsim.data import Dataset, load
from faultsim.studies.subject import Subject, load_subject
from faultsim.training.classifier import Recipe
from faultsim.training.epoch_log import EpochLog, Progress
from faultsim.training.loop import OutOfTime, Pace
from faultsim.training.to_file import measure_accuracy, train_classifier_to_file

TRAINING = neuralfuse.Training(bit_error_rate=0.02, n_models=2, batch_size=32, max_epochs=2)


@pytest.fixture(scope="module")
def images() -> Dataset:
    return load("digits", "train").subset(torch.arange(64))


@pytest.fixture(scope="module")
def base() -> Subject:
    return load_subject("DigitsNet", images=20)


def tensors(path: Path) -> dict[str, list]:
    return {name: value.tolist() for name, value in read_file(path)[0].items()}


def test_a_generator_continues_to_the_same_weights(images: Dataset, base: Subject, tmp_path: Path):
    whole, short = tmp_path / "whole.safetensors", tmp_path / "short.safetensors"
    lines: list[str] = []
    metadata = neuralfuse.train(whole, "ConvXS", [base], TRAINING, data=images, report=lines.append)
    with pytest.raises(OutOfTime):
        neuralfuse.train(short, "ConvXS", [base], TRAINING, data=images, pace=Pace(deadline=0.0))
    assert not short.exists()
    neuralfuse.train(short, "ConvXS", lambda: [base], TRAINING, data=images)
    assert tensors(short) == tensors(whole)
    assert metadata["base"]["model"] == "DigitsNet"
    assert metadata["epochs"] == 2
    assert read_file(whole)[1].items() >= json.loads(json.dumps(metadata)).items()
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    logs = [path.with_suffix(".log.jsonl").read_text().splitlines() for path in (whole, short)]
    ours, theirs = ([{**json.loads(line), "seconds": 0} for line in log] for log in logs)
    assert ours == theirs
    assert isinstance(neuralfuse.load(whole), neuralfuse.NeuralFuse)
    with pytest.raises(FaultsimError, match="other options"):
        neuralfuse.train(short, "ConvXS", [base], replace(TRAINING, weight=4.0), data=images)


def test_nothing_but_the_weight_file_where_that_is_wanted(images: Dataset, base: Subject, tmp_path: Path):
    once = replace(TRAINING, max_epochs=1)
    neuralfuse.train(tmp_path / "g.safetensors", "ConvXS", [base], once, data=images, resumable=False)
    recipe = Recipe("test", 1, 32)
    train_classifier_to_file(tmp_path / "b.safetensors", "DigitsNet", images, images, recipe, resumable=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.safetensors", "g.safetensors"]


def test_a_base_model_continues_to_the_same_weights(images: Dataset, tmp_path: Path):
    whole, short = tmp_path / "whole.safetensors", tmp_path / "short.safetensors"
    recipe = Recipe("test", 2, 32, 0.05)
    test = images.subset(torch.arange(20))
    metadata = train_classifier_to_file(whole, "DigitsNet", images, test, recipe)
    with pytest.raises(OutOfTime):
        train_classifier_to_file(short, "DigitsNet", images, test, recipe, pace=Pace(deadline=0.0))
    train_classifier_to_file(short, "DigitsNet", images, test, recipe)
    assert tensors(short) == tensors(whole)
    subject = load_subject(None, whole, images=20)
    assert measure_accuracy(subject.model, test) == metadata["test_accuracy"]
    assert metadata["num_classes"] == 10
    with pytest.raises(FaultsimError, match=r"must end in \.safetensors"):
        train_classifier_to_file(tmp_path / "x.pt", "DigitsNet", images, test, recipe)
    few = replace(test, class_names=tuple("ab"), labels=test.labels % 2)
    with pytest.raises(FaultsimError, match="the training data have 10 classes, the test data 2"):
        train_classifier_to_file(tmp_path / "x.safetensors", "DigitsNet", images, few, recipe)


def test_a_log_drops_what_is_not_before(tmp_path: Path):
    path = tmp_path / "t.log.jsonl"
    path.write_text('{"epoch": 1, "loss": 1.0}\nnot JSON\n[1]\n{"epoch": 2}\n{"epoch": true}\n{"epoch": 3}\n')
    entry = EpochLog(path).add({"epoch": 2, "loss": 0.5})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]
    assert entry.keys() == {"epoch", "loss", "seconds"}
    staged = EpochLog(path, ("first", "second"))
    for stage, epoch in (("first", 1), ("first", 2), ("second", 1)):
        staged.add({"stage": stage, "epoch": epoch})
    EpochLog(path, ("first", "second")).add({"stage": "second", "epoch": 2})
    assert len(path.read_text().splitlines()) == 4, "entries of earlier stages stay"
    EpochLog(path, ("first", "second")).add({"stage": "first", "epoch": 2})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


def test_progress_by_hand():
    progress = Progress({"": 10})
    first = progress.format(
        {"epoch": 3, "loss": 0.5, "test_accuracy": 0.25, "seconds": 60.0, "world_size": 1}
    )
    assert first == "epoch 3/10: loss 0.5000, test accuracy 0.2500, at most 7 min left"
    second = progress.format({"epoch": 4, "loss": 0.5, "seconds": 120.0})
    assert second == "epoch 4/10: loss 0.5000, at most 6 min left"
    staged = Progress({"classifier": 5, "eopm": 2}).format(
        {"stage": "eopm", "epoch": 1, "loss": 2.0, "seconds": 1}
    )
    assert staged == "stage 2/2, eopm, epoch 1/2: loss 2.0000"
