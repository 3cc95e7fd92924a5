"""ReLUs that write over their input: the same bits in any network, only where nobody else reads, and all given back."""

import copy
import operator

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from faultsim import StoredWeights, models
from faultsim.inference.fold import folded
from faultsim.inference.in_place import overwriting

SHARED = ("shared relu", "shared pool")
KINDS = ("conv", "norm", "relu", "relu6", "pool", "dropout", "identity", "add", "iadd", *SHARED)


def build_layer(kind: str) -> nn.Module:
    layers = {
        "conv": lambda: nn.Conv2d(3, 3, 1),
        "norm": lambda: nn.BatchNorm2d(3),
        "pool": lambda: nn.MaxPool2d(3, 1, 1),
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "dropout": nn.Dropout,
    }
    return layers.get(kind.removeprefix("shared "), nn.Identity)()


class Network(nn.Module):
    """Steps that read any of the maps so far: (kind, index of a map, index of another one)."""

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        shared = {kind: build_layer(kind) for kind in SHARED}
        self.steps = steps
        self.layers = nn.ModuleList(shared.get(kind) or build_layer(kind) for kind, _, _ in steps)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for (kind, first, second), layer in zip(self.steps, self.layers, strict=True):
            one, other = maps[first % len(maps)], maps[second % len(maps)]
            if kind == "iadd" and one is not x:
                maps.append(operator.iadd(one, other))
            else:
                maps.append(one + other if kind in ("add", "iadd") else layer(one))
        return maps[-1] * 1


def run(model: nn.Module, images: Tensor, gradient: bool) -> list[Tensor]:
    if not gradient:
        with torch.inference_mode():
            return [model(images)]
    leaf = images.clone().requires_grad_()
    answer = model(leaf)
    answer.square().sum().backward()
    return [answer.detach(), leaf.grad]


@settings(max_examples=50, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@example([("conv", 0, 0), ("relu", 1, 0), ("pool", 2, 0), ("add", 3, 2)], False)  # two read the ReLU's output
@example(
    [("conv", 0, 0), ("relu", 1, 0), ("shared pool", 2, 0), ("conv", 3, 0), ("shared pool", 4, 0)], False
)
@example(
    [("conv", 0, 0), ("iadd", 1, 1), ("relu", 2, 0), ("add", 3, 1)], False
)  # += gives the map that it writes into
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=9
    ),
    st.booleans(),
)
def test_any_network_computes_the_same_bits(steps: list[tuple[str, int, int]], recent: bool):
    """Whatever reads whatever: a map that is needed later must not be overwritten, nor the images."""
    if recent:  # chains, as networks are: a step reads the map before, sometimes another one too
        steps = [(kind, at, second) for at, (kind, _, second) in enumerate(steps)]
    torch.manual_seed(0)
    model, images = Network(steps), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        model.train()(images.clone())
    model.eval().requires_grad_(False)
    before, state = images.clone(), copy.deepcopy(vars(model))
    for gradient in (False, True):
        if gradient and any(kind == "iadd" for kind, _, _ in steps):
            continue  # torch refuses some of their gradients, with and without
        expected = run(model, images, gradient)
        with overwriting(model):
            found = run(model, images, gradient)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert torch.equal(images, before)
    assert str(state) == str(vars(model))
    assert not any("forward" in vars(layer) for layer in model.modules())


@pytest.mark.parametrize("name", ["DigitsNet", "VGG11", "ResNet18"])
def test_folded_models_overwrite_every_map_and_compute_the_same_bits(name: str):
    torch.manual_seed(0)
    model, images = models.create(name).eval(), torch.randn(2, 3, 32, 32)
    relus = [layer for layer in model.modules() if isinstance(layer, nn.ReLU)]
    assert relus
    with folded(model, StoredWeights.of(model)):
        expected = run(model, images, True)
        with overwriting(model):
            found = run(model, images, True)
            assert all(relu.inplace for relu in relus)
        assert not any(relu.inplace or "forward" in vars(relu) for relu in relus)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def find_overwriting(model: nn.Module) -> list[bool]:
    with overwriting(model):
        return [layer.inplace for layer in model.modules() if isinstance(layer, nn.ReLU)]


class Hooked(nn.Module):
    """Sets a hook for the time of its pass that keeps what its convolution gave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        handle = self.conv.register_forward_hook(lambda module, inputs, output: kept.append(output))
        answer = self.relu(self.conv(x))
        handle.remove()
        return answer + kept[0]


class Own(nn.ReLU):
    """A ReLU of the user's."""


def test_only_relus_whose_input_nobody_else_sees_write_over_it():
    conv = nn.Conv2d(3, 3, 1)
    assert find_overwriting(nn.Sequential(conv, nn.ReLU())) == [True]
    assert find_overwriting(nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2))) == [True]
    assert find_overwriting(nn.Sequential(nn.ReLU(), conv)) == [False]  # the images
    assert find_overwriting(nn.Sequential(nn.Dropout(), nn.ReLU(), conv)) == [False]  # the images, passed on
    assert find_overwriting(nn.Sequential(conv, nn.Sigmoid(), nn.ReLU())) == [
        False
    ]  # its gradient needs them
    assert find_overwriting(nn.Sequential(conv, Own())) == [False]
    assert find_overwriting(Hooked()) == [False]
    relu = nn.ReLU()
    assert find_overwriting(nn.Sequential(conv, relu, conv, relu)) == [True]
    assert find_overwriting(nn.Sequential(conv, relu, nn.Dropout(), relu)) == [False]  # one of two
    assert find_overwriting(nn.Sequential(conv, relu, nn.MaxPool2d(2), conv, relu)) == [False]
    hooked = nn.Sequential(conv, nn.ReLU())
    hooked[1].register_forward_hook(lambda *_: None)
    assert find_overwriting(hooked) == [False]


def test_the_model_is_given_back_after_an_error():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 1), nn.ReLU())
    with pytest.raises(RuntimeError), overwriting(model):
        model(torch.randn(1, 4, 4, 4))
    assert not any("forward" in vars(layer) or getattr(layer, "inplace", False) for layer in model)
