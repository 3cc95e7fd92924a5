"""Batch normalization folded into convolutions: the same function, the same int8 values, and everything given back."""

import copy

import pytest
import torch
from torch import Tensor, nn

from faultsim import Chip, FaultModel, StoredWeights, models, prepare_qat
from faultsim.inference.fold import folded

RATE = 0.01
ROUNDINGS = 16  # of a term of a sum, a product and what follows; measured: 1 to 4


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with statistics and gains as after training, some of them negative."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                module.weight.data.normal_(generator=generator)
                module.bias.data.normal_(generator=generator)
    return model.eval()


def smooth(model: nn.Module) -> nn.Module:
    """Without the kinks of ReLU and the jumps of max pooling, where a rounding can change a gradient as a whole: so the
    condition of the sums says how far two ways to compute the same may differ."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    return model


def outputs(
    model: nn.Module, stored: StoredWeights, images: Tensor, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and the gradient of their square with respect to the images, on chip 7; with a seed, each weight is off by
    one rounding."""
    leaf = images.clone().requires_grad_()
    weights = stored.read_chips([Chip(7)], RATE, None, FaultModel())
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        signs = [torch.randint(0, 2, w.shape, generator=generator) * 2 - 1 for w in weights]
        weights = [w * (1 + torch.finfo(w.dtype).eps * sign) for w, sign in zip(weights, signs, strict=True)]
    with stored.replaced([w[0] for w in weights]):
        logits = model(leaf)
        logits.square().sum().backward()
    return logits.detach(), leaf.grad


def close(model: nn.Module, stored: StoredWeights, images: Tensor, ours: tuple[Tensor, Tensor]) -> None:
    """Whether two ways to compute the same differ by no more than their roundings can make them. How much that is
    follows from the condition of all the sums: the same function is computed with each weight off by one rounding (in
    either direction, by chance), a few times; the largest such change, and a factor for the roundings of the sums'
    terms, bounds the difference."""
    theirs, allowed = outputs(model, stored, images), [0.0, 0.0]
    for seed in range(4):
        moved = outputs(model, stored, images, seed)
        allowed = [max(a, float((m - t).norm())) for a, m, t in zip(allowed, moved, theirs, strict=True)]
    for mine, other, bound in zip(ours, theirs, allowed, strict=True):
        assert float(other.norm()) > 1e3 * bound > 0  # a wrong gain or shift is far beyond it
        assert float((mine - other).norm()) <= ROUNDINGS * bound


class Branches(nn.Module):
    """Convolutions of each sort: (a) and (t) can be folded, the others have a reason not to be."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, affine=False)
        self.t, self.nt = nn.ConvTranspose2d(4, 6, 2, stride=2), nn.BatchNorm2d(6)
        self.twice, self.ntwice = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)  # its output goes elsewhere too
        self.late, self.nlate = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)  # something lies between
        self.shared = nn.BatchNorm2d(6)  # behind two convolutions
        self.s1, self.s2 = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.batch, self.nbatch = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)
        self.hooked, self.nhooked = nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5)
        self.nhooked.register_forward_hook(lambda module, inputs, output: output + inputs[0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.nt(self.t(self.na(self.a(x)).relu())).relu()
        y = self.twice(x)
        x = self.ntwice(y) + y
        x = self.nlate(self.late(x).relu())
        x = self.shared(self.s1(x)) + self.shared(self.s2(x))
        return self.nhooked(self.hooked(self.nbatch(self.batch(x)))).mean((2, 3))


def normalized_alone(model: nn.Module) -> set[str]:
    """Names of the batch normalizations that still compute something."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and "forward" not in vars(module)
    }


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("name", ["DigitsNet", "VGG11", "ResNet18"])
def test_a_folded_model_computes_the_same(name, per_channel):
    torch.manual_seed(0)
    model, images = smooth(lively(models.create(name))), torch.randn(3, 3, 32, 32)
    stored = StoredWeights.of(model, per_channel)
    plain = outputs(model, stored, images)
    with folded(model, stored) as memory:
        assert normalized_alone(model) == set()
        assert all(
            ours.values is theirs.values for ours, theirs in zip(memory.layers, stored.layers, strict=True)
        )
        folded_outputs = outputs(model, memory, images)
    close(model, stored, images, folded_outputs)
    torch.testing.assert_close(outputs(model, stored, images), plain, rtol=0, atol=0)


def test_only_what_can_be_folded_is():
    torch.manual_seed(0)
    model, images = lively(Branches()), torch.randn(3, 3, 8, 8)
    stored = StoredWeights.of(model)
    with folded(model, stored) as memory:
        assert normalized_alone(model) == {"ntwice", "nlate", "shared", "nbatch", "nhooked"}
        folded_outputs = outputs(model, memory, images)
    close(model, stored, images, folded_outputs)


def test_quantization_aware_models_are_folded():
    torch.manual_seed(0)
    model, images = smooth(lively(prepare_qat(models.create("DigitsNet")))), torch.randn(2, 3, 32, 32)
    stored = StoredWeights.of(model)
    with folded(model, stored) as memory:
        assert normalized_alone(model) == set()
        folded_outputs = outputs(model, memory, images)
    close(model, stored, images, folded_outputs)


@pytest.mark.parametrize("failing", [False, True])
def test_the_model_is_given_back(failing):
    model = lively(models.create("DigitsNet"))
    before, biases = copy.deepcopy(model.state_dict()), [id(p) for p in model.parameters()]
    everything = normalized_alone(model)

    def use() -> None:
        with folded(model, StoredWeights.of(model)):
            assert normalized_alone(model) == set()
            if failing:
                raise KeyError

    if failing:
        with pytest.raises(KeyError):
            use()
    else:
        use()
    assert normalized_alone(model) == everything
    assert [id(p) for p in model.parameters()] == biases
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


class Branching(nn.Module):
    """What it computes depends on numbers: torch.fx cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return self.normalization(x if x.sum() > 0 else -x)


@pytest.mark.parametrize(
    "model", [Branching(), models.create("DigitsNet").double()], ids=["untraceable", "float64"]
)
def test_other_models_stay_as_they_are(model):
    stored = StoredWeights.of(lively(model))
    with folded(model, stored) as memory:
        assert memory.layers == stored.layers
        assert normalized_alone(model)
