"""Parameters and MACs by hand, usual and by the convention of Table 8."""

import pytest
from torch import Tensor, nn

from energy import EnergyError, count_costs, trace_layers
from faultsim import models
from neuralfuse import generators
from neuralfuse.network_energy import create_shapes


def test_convolution_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
    )
    costs = count_costs(model, (3, 16, 16))
    pixels = 16 * 16
    assert costs.parameters == 3 * 8 * 9 + 8 + 16
    assert costs.macs == pixels * 3 * 8 * 9
    # bias 1, normalization 2, ReLU 1, pooling 1 and upsampling 1, each on 8 x 16 x 16 elements
    assert costs.table8_macs - costs.macs == 6 * 8 * pixels


def test_transposed_convolution_by_hand() -> None:
    costs = count_costs(nn.ConvTranspose2d(4, 3, 2, stride=2, bias=False), (4, 5, 5))
    assert costs.macs == 25 * 4 * 3 * 4  # each input meets the whole kernel
    assert costs.table8_macs == 100 * 4 * 3 * 4  # as if each output did


def test_fully_connected_groups_and_free_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 1, groups=4, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(16, 10)
    )
    costs = count_costs(model, (4, 2, 2))
    assert costs.macs == 4 * 4 + 160
    assert costs.table8_macs == costs.macs + 10


def test_a_shared_tensor_is_counted_once_and_used_twice() -> None:
    layer = nn.Linear(8, 8, bias=False)
    costs = count_costs(nn.Sequential(layer, layer), (8,))
    assert (costs.parameters, costs.macs) == (64, 128)


@pytest.mark.parametrize("name", [*models.NAMES, *generators.KNOWN])
def test_a_run_on_the_cpu_counts_what_a_run_without_data_counts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create_shapes(name)
    with monkeypatch.context() as patch:
        patch.setattr("energy.dry_run.FlopCounterMode", None)  # so that nothing but the CPU can count
        found = count_costs(model, (3, 32, 32)), trace_layers(model, (3, 32, 32))
    monkeypatch.setattr("energy.dry_run._SMALL", 0)
    monkeypatch.setattr("energy.dry_run.PlainFlops", None)
    assert (count_costs(model, (3, 32, 32)), trace_layers(model, (3, 32, 32))) == found


class Attends(nn.Module):
    """Attention, which CPUs run as one operation without a formula, after a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_attention_is_counted_by_hand() -> None:
    assert count_costs(Attends(), (2, 5, 8)).macs == 2 * (5 * 8 * 8 + 2 * 5 * 5 * 8)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
    weights = sum(p.numel() for n, p in encoder.named_parameters() if p.dim() == 2)
    assert count_costs(encoder, (5, 8)).macs == 5 * weights + 2 * 5 * 5 * 8


def test_bad_input_is_refused() -> None:
    with pytest.raises(EnergyError, match="input shape"):
        count_costs(nn.Linear(8, 8), (0,))
    with pytest.raises(EnergyError, match="can't be traced"):
        count_costs(nn.Linear(8, 8), (9,))
