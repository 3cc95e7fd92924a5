"""What travels to workers without a pickle: does any setting come back equal, and is what does not travel refused?"""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from faultsim import (
    SRAM,
    Chip,
    Domain,
    FaultMap,
    FaultModel,
    FaultsimError,
    Format,
    StoredWeights,
    VoltageCurve,
)
from faultsim.checkpoint import compute_fingerprint
from faultsim.cluster.networks import PackedNetwork, PackedWeights
from faultsim.cluster.values import Tensors, pack, unpack
from faultsim.models import resolve
from faultsim.network.architecture import Architecture
from faultsim.studies.comparison import MITIGATIONS
from faultsim.studies.entries import Setting
from faultsim.studies.entry_labels import as_entry, parse_entry


def travel(value: object) -> object:
    """What a worker gets of a value."""
    tensors = Tensors()
    packed = json.dumps(pack(value, tensors))
    return unpack(json.loads(packed), load(save(tensors)))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.integers()), inner, max_size=3)
    ),
)


@given(VALUES)
def test_plain_values_come_back(value):
    found = travel(value)
    assert (found, repr(found)) == (value, repr(value))  # 1 is not True, 0.0 is not -0.0


@pytest.mark.parametrize(
    "value",
    [
        FaultModel.preset("neuralfuse_2022"),
        FaultModel(domains=(Domain("top", bits=(7, 6), voltage=0.95), Domain("fc", ("fc*",)))),
        VoltageCurve.default(),
        SRAM("tiled_per_layer", capacity_bytes=64 * 1024),
        Format.parse("uint4-asymmetric"),
        Format.parse("float8_e4m3fn-scaled"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_settings_come_back(value):
    found = travel(value)
    assert (type(found), found) == (type(value), value)


def test_tensors_come_back_and_are_sent_once():
    a, b = torch.randn(3, 4), torch.arange(6, dtype=torch.int8).reshape(2, 3)
    tensors = Tensors()
    packed = pack([(a, {"mask": b.T}), a, np.arange(3, dtype=np.uint16), a[:2]], tensors)
    assert len(tensors) == 4  # a once; a[:2] begins at the same place and is another tensor
    (first, named), again, array, part = unpack(packed, load(save(tensors)))
    for found, wanted in ((first, a), (again, a), (named["mask"], b.T), (part, a[:2])):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    assert array.dtype == np.uint16


def test_a_fault_map_comes_back():
    cells = {"array": [0, 1], "row": [5, 6], "column": [7, 8], "stuck_at": [1, -1], "voltage": [0.8, 0.75]}
    given_map = FaultMap(
        **{name: np.array(values) for name, values in cells.items()}, arrays=2, source="bench"
    )
    assert travel(given_map) == given_map


@pytest.mark.parametrize("value", [nn.Linear(2, 2), {1, 2}, object(), b"bytes", print])
def test_anything_else_is_refused_in_one_line(value):
    with pytest.raises(FaultsimError, match="cannot be sent to workers"):
        pack([value], Tensors())


def test_a_class_that_workers_cannot_import_is_refused():
    @dataclass
    class Local:
        x: int

    with pytest.raises(FaultsimError, match="Local cannot be sent to workers"):
        pack(Local(1), Tensors())


@pytest.mark.parametrize("name", ["builtins:eval", "os:system", "torch.nn:Linear", "pathlib:Path"])
def test_only_dataclasses_are_made(name):
    with pytest.raises(FaultsimError, match="is no dataclass"):
        unpack({"$": "object", "of": name, "parts": {}}, {})


@pytest.mark.parametrize("format", ["int8", "int4", "uint8-asymmetric", "bfloat16"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_network_computes_with_the_same_bits(format, per_channel):
    if per_channel and format == "bfloat16":
        pytest.skip("bfloat16 has no scale")
    architecture = Architecture("faultsim.models:resolve", {"spec": "DigitsNet", "num_classes": 10})
    network = resolve("DigitsNet").eval()
    stored = StoredWeights.of(network, per_channel, format=format)
    packed = travel([PackedNetwork.of(architecture, network), PackedWeights.of(stored, network)])
    again = packed[0].build()
    assert compute_fingerprint(again, packed[1].store(again)) == compute_fingerprint(network, stored)


class Tied(nn.Module):
    """Its output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.output = nn.Linear(4, 8, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x):
        return self.output(self.embedding(x)).mean(1)


def test_shared_weights_stay_shared():
    network = Tied().eval()
    stored = StoredWeights.of(network)
    architecture = Architecture(f"{__name__}:Tied")
    packed = PackedNetwork.of(architecture, network)
    # importlib mode gives this file another name than workers would use; build here what it names
    again = Tied()
    again.load_state_dict(packed.state)
    assert again.output.weight is again.embedding.weight
    assert len(PackedWeights.of(stored, network).store(again)) == len(stored) == 1


@pytest.mark.parametrize("label", [*MITIGATIONS, "fault-aware"])
def test_mitigations_travel_with_their_weights(subject, label):
    setting = Setting(subject, (Chip(1),), VoltageCurve.default(), FaultModel())
    variant = as_entry(parse_entry(label))(setting)
    protected, model = variant.stored, variant.model or subject.model
    found = travel(PackedWeights.of(protected, model)).store(model)
    assert type(found) is type(protected)
    assert getattr(found, "mitigation", None) == getattr(protected, "mitigation", None)
    reads = [one.read_chips([Chip(1)], 0.02, 0.8, FaultModel()) for one in (found, protected)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*reads, strict=True))
