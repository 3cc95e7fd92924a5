"""Are weights and training states that are damaged or hold no numbers refused, and is the model as it was?"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from faultsim import bundled, load_weights, models
from faultsim.checkpoint import read_file
from faultsim.training.state import load_state, save_state
from neuralfuse import bundled as shipped
from tests.fuzz.refusals import faultsim, refused

# -- weights ---------------------------------------------------------------------------------------------------


def with_metadata(path: Path, source: Path, metadata: str | dict) -> Path:
    tensors, known = read_file(source)
    text = metadata if isinstance(metadata, str) else json.dumps({**known, **metadata})
    save_file(tensors, path, {"faultsim": text})
    return path


@pytest.mark.parametrize(
    "metadata", ["[" * 100_000, '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}", '{"format": NaN}']
)
def test_metadata_of_weights(tmp_path, metadata):
    path = with_metadata(tmp_path / "a.safetensors", bundled.WEIGHTS, metadata)
    refused(
        lambda: read_file(path),
        f"weight file {path} was written by another version of faultsim or is damaged",
    )


@pytest.mark.parametrize("classes", [True, 10**12, 0, -1, 10.0, "ten", [], 11])
def test_numbers_of_classes(tmp_path, capfd, classes):
    path = with_metadata(tmp_path / "a.safetensors", bundled.WEIGHTS, {"num_classes": classes})
    line = faultsim(capfd, "sweep-voltage", "--weights", path, "--out", tmp_path / "out")
    assert f"says that it has {classes!r} classes: it has no weights for so many" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [[], {}, None, 7, "ConvXXL"])
def test_names_of_generators(tmp_path, capfd, name):
    path = with_metadata(tmp_path / "a.safetensors", shipped.WEIGHTS, {"generator": name})
    assert "holds no generator: its metadata must name one of" in faultsim(
        capfd, "sweep-voltage", "--generator", path, "--out", tmp_path / "out"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("kind", ["bias", "weight.scale", "running_mean", "running_var"])
def test_numbers_that_are_none_in_weights(tmp_path, kind, value):
    tensors = load_file(bundled.WEIGHTS)
    name = next(name for name in tensors if name.endswith(kind))
    tensors[name].view(-1)[0] = value
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    model = models.create("DigitsNet")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    refused(lambda: load_weights(model, path), repr(name))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_negative_variances_and_scales(tmp_path):
    for kind in ("running_var", "weight.scale"):
        tensors = load_file(bundled.WEIGHTS)
        name = next(name for name in tensors if name.endswith(kind))
        tensors[name].view(-1)[0] = -0.5
        save_file(tensors, tmp_path / "a.safetensors")
        refused(lambda: load_weights(models.create("DigitsNet"), tmp_path / "a.safetensors"), repr(name))


def test_infinite_buffers_may_be_meant(tmp_path):
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.register_buffer("mask", torch.full((3,), -torch.inf))

    save_file(Masked().state_dict(), tmp_path / "a.safetensors")
    load_weights(Masked(), tmp_path / "a.safetensors")


# -- training states ----------------------------------------------------------------------------------------------


def put(name: str, value: torch.Tensor | None) -> Callable[[dict], object]:
    return lambda tensors: tensors.pop(name) if value is None else tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("optimizer.x.y", torch.zeros(1)), "'x' is no integer"),
        (put("optimizer.0", torch.zeros(1)), "'optimizer.0' is no state"),
        (put("optimizer.2.step", torch.zeros([])), "'optimizer.2.step' is no state"),
        (put("optimizer." + "9" * 5000 + ".step", torch.zeros([])), "is no integer"),
        (put("optimizer.0.exp_avg", torch.zeros(7)), "[7], not as its parameter"),
        (put("optimizer.0.exp_avg", torch.zeros([])), "[], not as its parameter"),
        (put("optimizer.0.exp_avg", None), "isn't exp_avg, exp_avg_sq, step"),
        (put("optimizer.0.more", torch.zeros(2, 3)), "isn't exp_avg, exp_avg_sq, step"),
        (put("optimizer.0.exp_avg_sq", torch.full((2, 3), -1.0)), "what no step leaves there"),
        (put("optimizer.0.step", torch.tensor(1e38)), "what no step leaves there"),
        (put("optimizer.0.exp_avg", torch.full((2, 3), torch.inf)), "what no step leaves there"),
        (put("model.weight", torch.full((2, 3), torch.nan)), "holds NaN"),
        (put("model.weight", None), "Missing key"),
    ],
)
def test_training_states(tmp_path, change, complaint):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "state.safetensors"
    save_state(path, {"model": model}, optimizer, {"done": 1})
    assert load_state(path, {"model": model}, optimizer) == {"done": 1}
    tensors, metadata = read_file(path)
    change(tensors)
    save_file(tensors, path, {"faultsim": json.dumps(metadata)})
    refused(lambda: load_state(path, {"model": model}, optimizer), complaint)
