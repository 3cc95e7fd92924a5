"""The six generators of the paper and ours: their size, their shapes and their range."""

import math

import pytest
import torch
from torch import nn

from faultsim.errors import FaultsimError
from neuralfuse import generators, published
from neuralfuse.generators import NeuralFuse, create

PUBLISHED = {row["model"]: row for row in published.read_table("model_costs") if row["kind"] == "generator"}


def test_all_six_are_there_and_ours_is_not_among_them() -> None:
    assert set(generators.NAMES) == set(PUBLISHED)
    assert set(generators.KNOWN) == {*PUBLISHED, "ConvXS", "ConvQ", "ConvQS"}


@pytest.mark.parametrize("name", generators.NAMES)
def test_parameters_are_those_of_table_8(name: str) -> None:
    parameters = sum(parameter.numel() for parameter in create(name).parameters())
    assert parameters == int(PUBLISHED[name]["parameters"])


@pytest.mark.parametrize("name", generators.KNOWN)
def test_the_perturbation_has_the_shape_of_the_image(name: str) -> None:
    generator = create(name).eval()
    for height, width in ((32, 32), (8, 24)):
        with torch.no_grad():
            assert generator(torch.zeros(2, 3, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize("name", generators.KNOWN)
def test_transformed_images_stay_in_range_and_learn(name: str) -> None:
    torch.manual_seed(1)
    fuse = NeuralFuse(create(name))
    with torch.no_grad():
        for parameter in fuse.parameters():
            parameter.mul_(3)  # far enough for the clamp to matter
    x = 2 * torch.rand(4, 3, 32, 32) - 1
    y = fuse(x)
    assert y.min() >= -1
    assert y.max() <= 1
    torch.testing.assert_close(y, (x + fuse.generator(x)).clamp(-1, 1))
    y.square().sum().backward()
    assert all(math.isfinite(p.grad.abs().sum()) for p in fuse.parameters() if p.grad is not None)
    assert any(p.grad.abs().sum() > 0 for p in fuse.parameters() if p.grad is not None)


@pytest.mark.parametrize(("name", "side"), [("ConvQ", 32), ("ConvQS", 28)])
def test_ours_see_nearly_the_whole_image_at_each_place(name: str, side: int) -> None:
    """Else they could not draw a class's pattern there: how much of the image decides the first pixel that is drawn."""
    torch.manual_seed(2)
    generator = create(name).double().eval()
    x = torch.rand(64, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(generator(x)[:, :, 0, 0].sum(), x)
    seen = gradient.abs().sum((0, 1))
    assert (seen > 0).nonzero().amax(0).tolist() == [side - 1, side - 1]
    assert all(seen[row, column] > 0 for row in (0, side - 1) for column in (0, side - 1))


def test_the_encoders_of_ours_end_before_the_map_is_drawn() -> None:
    for name, channels, side in (("ConvXS", 16, 8), ("ConvQ", 24, 4), ("ConvQS", 12, 4)):
        encoder = generators.Encoder(create(name))
        assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, channels, side, side)
        assert encoder.channels == channels


@pytest.mark.parametrize("name", ["ConvL", "ConvS", "DeConvL", "DeConvS", "ConvXS", "ConvQ", "ConvQS"])
def test_tanh_bounds_the_perturbation(name: str) -> None:
    generator = create(name)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(50)
        assert generator(torch.randn(2, 3, 32, 32)).abs().max() <= 1


def test_the_identity_generator_changes_nothing() -> None:
    class Zero(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

    x = 2 * torch.rand(2, 3, 8, 8) - 1
    assert torch.equal(NeuralFuse(Zero())(x), x)


def test_bad_input_is_refused() -> None:
    with pytest.raises(FaultsimError, match="unknown generator 'ConvXL': it can be ConvL, ConvS"):
        create("ConvXL")
    with pytest.raises(FaultsimError, match="multiples of 8, not 30x32"):
        NeuralFuse(create("ConvS"))(torch.zeros(1, 3, 30, 32))
