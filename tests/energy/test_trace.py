"""From a model to its layers: shapes worked out by hand, real arithmetic as the judge, and clear refusals."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from energy import POLICIES, EnergyError, Layer, trace_layers, trace_model

EXACT = POLICIES["exact"]


class Runs(nn.Module):
    """A model whose forward pass is `function(self, x)`."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], **members: object) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def test_convolutions_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Conv2d(8, 16, (3, 5), stride=(2, 1), padding=(1, 2), groups=4),
        nn.Flatten(),
        nn.Linear(16 * 4 * 8, 10),
    )
    assert trace_layers(model, (3, 16, 16)) == [
        Layer("0", 18, 18, 3, 3, 3, 8),
        Layer("1", 18, 18, 3, 3, 1, 1, 2, 2, repeats=8),
        Layer("2", 10, 12, 3, 5, 2, 4, 2, 1, repeats=4),
        Layer("4", 1, 1, 1, 1, 512, 10),
    ]


def test_one_dimensional_layers_lie_in_a_row() -> None:
    model = nn.Sequential(nn.Conv1d(3, 8, 5, stride=2, padding=2), nn.ConvTranspose1d(8, 4, 4, 2, 1))
    assert trace_layers(model, (3, 20), EXACT) == [
        Layer("0", 1, 23, 1, 5, 3, 8, 2, 2),  # 10 outputs: the last column of the padded 24 is never read
        Layer("1", 1, 23, 1, 4, 8, 4),  # 20 outputs over the 19 zero-inserted ones and their borders
    ]


def test_a_linear_layer_on_a_sequence_has_a_pixel_per_position() -> None:
    assert trace_layers(nn.Linear(8, 4), (5, 8)) == [Layer("Linear", 5, 1, 1, 1, 8, 4)]


def test_output_sizes_are_rounded_up_by_the_paper_and_down_by_the_framework() -> None:
    stride_2 = nn.Conv2d(4, 4, 1, stride=2)
    (paper,), (exact,) = (trace_layers(stride_2, (4, 8, 8), POLICIES[p]) for p in ("paper", "exact"))
    assert (paper.output_height, paper.output_width) == (5, 5)  # ceil((8 - 1 + 2) / 2)
    assert (exact.output_height, exact.output_width) == (4, 4)


def test_transposed_convolution_by_hand() -> None:
    up = nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1)  # 8x8 -> 16x16
    assert trace_layers(up, (128, 8, 8)) == [Layer("ConvTranspose2d", 18, 18, 4, 4, 64, 128)]
    assert trace_layers(up, (128, 8, 8), EXACT) == [Layer("ConvTranspose2d", 19, 19, 4, 4, 128, 64)]


def test_the_generators_are_counted_with_padding() -> None:
    last = nn.Conv2d(16, 3, 1)
    (layer,) = trace_layers(last, (16, 32, 32), POLICIES["paper-generator"])
    assert (layer.output_height, layer.output_width) == (34, 34)
    (layer,) = trace_layers(last, (16, 32, 32), POLICIES["paper"])
    assert (layer.output_height, layer.output_width) == (32, 32)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, int, int]]:
    groups = draw(st.integers(1, 3))
    kernel, stride, dilation = (draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(3))
    dilation = tuple(1 + d % 2 for d in dilation)
    padding = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    arguments = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    if draw(st.booleans()):
        more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        module = nn.ConvTranspose2d(inputs, outputs, output_padding=more, groups=groups, **arguments)
    else:
        module = nn.Conv2d(inputs, outputs, groups=groups, **arguments)
    size = tuple(d * k + draw(st.integers(0, 6)) for d, k in zip(dilation, kernel, strict=True))
    return module, (inputs, *size)


@given(convolutions())
def test_exact_layers_have_the_real_outputs_and_weights(case: tuple[nn.Module, tuple[int, int, int]]) -> None:
    module, shape = case
    (layer,) = trace_layers(module, shape, EXACT)
    with torch.no_grad():
        output = module(torch.zeros(1, *shape))
    assert output.shape[2:] == (layer.output_height, layer.output_width)
    assert layer.weights * layer.repeats == module.weight.numel()
    assert layer.filters * layer.repeats == module.out_channels
    assert layer.channels * layer.repeats == module.in_channels


@given(st.integers(1, 4), st.integers(1, 3), st.data())
def test_a_transposed_convolution_is_the_convolution_over_its_zero_inserted_input(
    kernel: int, stride: int, data: st.DataObject
) -> None:
    padding = data.draw(st.integers(0, kernel - 1))
    module = nn.ConvTranspose2d(2, 3, kernel, stride, padding, bias=False).double()
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    (layer,) = trace_layers(module, (2, 5, 4), EXACT)
    wide = torch.zeros(1, 2, 4 * stride + 1, 3 * stride + 1, dtype=torch.float64)
    wide[..., ::stride, ::stride] = x
    wide = functional.pad(wide, [kernel - 1 - padding] * 4)
    assert wide.shape[2:] == (layer.input_height, layer.input_width)
    weight = module.weight.flip(2, 3).transpose(0, 1)
    assert weight.shape == (layer.filters, layer.channels, layer.kernel_height, layer.kernel_width)
    with torch.no_grad():
        torch.testing.assert_close(functional.conv2d(wide, weight), module(x))


def test_layers_are_listed_as_often_as_they_run() -> None:
    model = Runs(lambda m, x: m.a(m.a(x)), a=nn.Conv2d(3, 3, 3), never=nn.Conv2d(3, 3, 3))
    assert [layer.name for layer in trace_layers(model, (3, 8, 8))] == ["a", "a#2"]


def test_keywords_batches_and_parametrized_weights() -> None:
    keyword = Runs(lambda m, x: m.c(input=x), c=nn.Conv2d(3, 4, 3))
    assert trace_layers(keyword, (3, 8, 8)) == [Layer("c", 8, 8, 3, 3, 3, 4)]
    folded = Runs(lambda m, x: m.c(x.reshape(3, 1, 8, 8)), c=nn.Conv2d(1, 4, 3))
    assert trace_layers(folded, (3, 8, 8)) == [Layer("c", 8, 8, 3, 3, 1, 4, repeats=3)]
    normed = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)))
    assert trace_layers(normed, (3, 8, 8)) == [Layer("0", 8, 8, 3, 3, 3, 4)]


def test_scales_are_no_layers() -> None:
    model = nn.Sequential(nn.LayerNorm([3, 8, 8]), nn.GroupNorm(1, 3), nn.PReLU(3), nn.Conv2d(3, 4, 1))
    assert [layer.name for layer in trace_layers(model, (3, 8, 8))] == ["3"]


def test_a_model_that_looks_at_its_data_runs_on_zeros() -> None:
    model = Runs(lambda m, x: m.c(x) if x.sum().item() == 0 else x, c=nn.Conv2d(3, 4, 3))
    assert [layer.name for layer in trace_layers(model, (3, 8, 8))] == ["c"]


def test_the_model_is_unchanged_afterwards() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_layers(model, (3, 8, 8))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model[0].weight.device.type == "cpu"


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Sequential(nn.Conv3d(3, 4, 3)), (3, 8, 8, 8), r"layer '0' \(Conv3d\) can't be counted"),
        (nn.Sequential(nn.Linear(8, 8), nn.LSTM(8, 8)), (4, 8), r"layer '1' \(LSTM\) can't be counted"),
        (nn.Sequential(nn.Embedding(4, 8)), (8,), r"layer '0' \(Embedding\)"),
        (nn.TransformerEncoderLayer(8, 2), (4, 8), r"layer 'self_attn' \(MultiheadAttention\)"),
        (nn.Sequential(nn.Bilinear(3, 3, 3)), (3,), r"layer '0' \(Bilinear\)"),
        (nn.Sequential(nn.LazyConv2d(3, 3)), (3, 8, 8), "layer '0' has no shape yet"),
        (
            nn.Sequential(
                Runs(lambda m, x: functional.conv2d(x, m.w), w=nn.Parameter(torch.zeros(4, 3, 3, 3)))
            ),
            (3, 8, 8),
            r"layer '0' \(Runs\) holds weights of its own, w of shape \(4, 3, 3, 3\)",
        ),
        (
            nn.Sequential(Runs(lambda m, x: functional.conv2d(x, m.c.weight), c=nn.Conv2d(3, 4, 3))),
            (3, 8, 8),
            r"layer '0' \(Runs\) multiplies matrices in its own forward pass \(3,888 multiply-acc",
        ),
        (Runs(lambda m, x: x @ x.transpose(-1, -2)), (3, 8, 8), r"'Runs' \(Runs\) multiplies matrices"),
        (
            nn.Conv2d(4, 4, 3),
            (3, 8, 8),
            r"Conv2d can't be traced: it fails on one input of shape \(3, 8, 8\)",
        ),
        (nn.Conv2d(3, 4, 9), (3, 8, 8), "Kernel size can't be greater than actual input size"),
        (nn.Conv2d(3, 4, 3), (3, 0, 8), r"input shape has to be positive integers .* not \(3, 0, 8\)"),
        (nn.Conv2d(3, 4, 3), (), "input shape has to be positive integers"),
        (Runs(lambda m, x: 1 / 0), (3, 8, 8), "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_counted_is_refused(model: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(EnergyError, match=message):
        trace_layers(model, shape)


class Mixed(nn.Module):
    """What can be counted and what can't, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 4), nn.Linear(4, 3)
        self.mix = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0]) @ self.mix


def test_what_can_be_counted_is_counted_and_the_rest_is_named() -> None:
    found = trace_model(Mixed(), (5, 8))
    assert [(layer.name, layer.weights, layer.output_pixels) for layer in found.layers] == [("fc", 12, 5)]
    assert found.read == {"fc.weight"}
    weights = [("mix",), ("fc.weight", "again.weight"), ("lstm.weight_hh_l0",), ("lstm.weight_ih_l0",)]
    assert found.uncounted(weights) == ["mix", "lstm.weight_hh_l0", "lstm.weight_ih_l0"]
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert list(trace_model(whole, (3, 8, 8)).layers) == trace_layers(whole, (3, 8, 8))


def test_a_model_of_tokens_runs_on_integers() -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 3))
    found = trace_model(model, (7,))
    assert [(layer.name, layer.output_pixels) for layer in found.layers] == [("1", 7)]
    assert found.uncounted([("0.weight",), ("1.weight",)]) == ["0.weight"]


def test_sizes_may_be_integers_of_numpy_and_nothing_else() -> None:
    conv = nn.Conv2d(3, 4, 3)
    assert trace_layers(conv, np.array([3, 8, 8])) == trace_layers(conv, (3, 8, 8))
    for shape in ((3, True, 8), (3, 8.0, 8), (3, "8", 8)):
        with pytest.raises(EnergyError, match="input shape has to be positive integers"):
            trace_layers(conv, shape)
