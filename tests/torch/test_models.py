"""The base models: their size, their shapes, and how a model is named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from faultsim import models
from faultsim.errors import FaultsimError
from neuralfuse import published

PUBLISHED = {row["model"]: row for row in published.read_table("model_costs") if row["kind"] == "base"}


@pytest.mark.parametrize("name", models.BASE_MODELS)
def test_parameters_are_those_of_table_8(name: str) -> None:
    assert set(PUBLISHED) == set(models.BASE_MODELS)
    with torch.device("meta"):
        model = models.create(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == int(PUBLISHED[name]["parameters"])


def test_our_own_networks_are_small() -> None:
    for name, count in (("DigitsNet", 63_258), ("DigitsVGG", 540_850), ("VGG7", 1_978_026)):
        assert sum(parameter.numel() for parameter in models.create(name).parameters()) == count


@pytest.mark.parametrize("name", models.NAMES)
def test_logits_for_any_number_of_classes(name: str) -> None:
    with torch.device("meta"):
        for classes in (10, 43, 100):
            logits = models.create(name, classes)(torch.empty(2, 3, 32, 32))
            assert logits.shape == (2, classes)


@pytest.mark.parametrize("name", ["DigitsNet", "DigitsVGG", "ResNet18", "VGG11", "VGG7"])
def test_forward_is_finite_and_differentiable(name: str) -> None:
    torch.manual_seed(1)
    model = models.create(name)
    loss = nn.functional.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2]))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_test.py").write_text(
        "from torch import nn\n"
        "def network(): return nn.Linear(4, 2)\n"
        "def needs(argument): return nn.Linear(4, 2)\n"
        "def broken(): raise RuntimeError('no weights here')\n"
        "def nothing(): return None\n"
        "constant = 3\n"
    )
    (tmp_path / "half_for_test.py").write_text("import surely_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(models.resolve("mine_for_test:network"), nn.Linear)
    for spec, message in (
        ("mine_for_test:absent", "module 'mine_for_test' has no 'absent'"),
        ("mine_for_test:constant", "'constant' is of type int; give a function that returns a model"),
        ("mine_for_test:needs", r"calling needs\(\) failed .* it has to work without arguments"),
        ("mine_for_test:broken", "RuntimeError: no weights here"),
        ("mine_for_test:nothing", r"returned a NoneType, not a torch.nn.Module"),
        ("half_for_test:network", "importing 'half_for_test' failed .*surely_not_there"),
        ("surely_not_there:network", "importing 'surely_not_there' failed"),
        (":network", "incomplete; write package.module:function"),
        ("mine_for_test:", "incomplete; write package.module:function"),
    ):
        with pytest.raises(FaultsimError, match=message):
            models.resolve(spec)


def test_registered_names() -> None:
    assert isinstance(models.resolve("DigitsNet", 3), nn.Module)
    for call in (models.create, models.resolve):
        with pytest.raises(
            FaultsimError, match=r"unknown model 'LeNet': it can be ResNet18, .*package.module:function"
        ):
            call("LeNet")
    with pytest.raises(FaultsimError, match="at least one class, not 0"):
        models.create("VGG11", 0)
