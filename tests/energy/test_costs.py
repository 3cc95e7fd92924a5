"""Parameters and MACs by hand, usual and by the convention of Table 8."""

import pytest
from torch import nn

from energy import EnergyError, count_costs


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


def test_bad_input_is_refused() -> None:
    with pytest.raises(EnergyError, match="input shape"):
        count_costs(nn.Linear(8, 8), (0,))
    with pytest.raises(EnergyError, match="can't be traced"):
        count_costs(nn.Linear(8, 8), (9,))
