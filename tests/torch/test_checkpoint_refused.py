"""Weight files: is what doesn't fit or cannot be written refused, and are the model and the old file as they were?"""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from faultsim import FaultsimError, load_weights, models, prepare_qat, save_weights
from faultsim.checkpoint import read_file
from tests.torch.small_networks import Shared, TwoNames, bits, network, unchanged

# -- what doesn't fit --------------------------------------------------------------------------------------------

State = dict[str, torch.Tensor]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def without(name: str) -> Callable[[State], None]:
    return lambda state: state.pop(name)


def put(name: str, value: torch.Tensor) -> Callable[[State], None]:
    return lambda state: state.update({name: value})


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("2.weight"), "holds no '2.weight', which the model needs"),
        (without("0.bias"), "holds no '0.bias', which the model needs"),
        (without("1.running_var"), "holds no '1.running_var', which the model needs"),
        (without("4.weight.scale"), "'4.weight.scale' must hold 1 or 5 float32 numbers"),
        (put("4.weight.scale", torch.ones(4)), "'4.weight.scale' must hold 1 or 5 float32 numbers"),
        (put("2.weight.scale", torch.ones(4)), "'2.weight.scale' must hold 1 or 2 float32 numbers"),
        (put("4.weight.scale", torch.ones(1).double()), "must hold 1 or 5 float32 numbers"),
        (
            put("4.weight", torch.zeros(5, 99, dtype=torch.int8)),
            "'4.weight' is [5, 99], the model's is [5, 98]",
        ),
        (
            put("4.weight", torch.zeros(5, 98, dtype=torch.int32)),
            "'4.weight' is torch.int32; weights are int8",
        ),
        (put("4.bias", torch.zeros(6)), "'4.bias' is [6], the model's is [5]"),
        (
            put("4.bias", torch.zeros(5, dtype=torch.int64)),
            "'4.bias' is torch.int64, the model's is torch.float32",
        ),
        (put("5.weight", torch.zeros(3)), "holds '5.weight', which the model has not"),
        (put("0.weight.scale2", torch.zeros(3)), "holds '0.weight.scale2', which the model has not"),
    ],
)
def test_misfits_name_the_tensor_and_change_nothing(path, change, complaint, aware):
    save_weights(path, network())
    tensors, _ = read_file(path)
    change(tensors)
    save_file(tensors, path)
    model = network(1)
    if aware:
        prepare_qat(model)
    before = bits(model)
    with pytest.raises(FaultsimError) as error:
        load_weights(model, path)
    assert str(error.value).startswith(f"weight file {path} doesn't fit the model: ")
    assert complaint in str(error.value)
    assert unchanged(model, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_float_weights_that_are_no_numbers_change_nothing(path, bad):
    state = {name: value.clone() for name, value in network().state_dict().items()}
    state["4.weight"][2, 3] = bad
    save_file(state, path)
    model = network(1)
    before = bits(model)
    with pytest.raises(FaultsimError, match=r"'4\.weight'.* NaN"):
        load_weights(model, path)
    assert unchanged(model, before)


def test_different_weights_for_layers_that_share_one(path):
    state = {name: value.clone() for name, value in Shared().state_dict().items()}
    state["write.weight"] += 1
    save_file(state, path)
    model = Shared(1)
    before = bits(model)
    with pytest.raises(FaultsimError, match=r"'read\.weight' differs from another weight"):
        load_weights(model, path)
    assert unchanged(model, before)


def test_a_shared_bias_that_differs_is_refused(path):
    model = TwoNames()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["two.bias"] += 1
    save_file(state, path)
    before = bits(model)
    with pytest.raises(FaultsimError, match=r"bias' differs from another"):
        load_weights(model, path)
    assert unchanged(model, before)


def test_another_models_file(path):
    save_weights(path, models.create("DigitsNet"))
    model = network()
    before = bits(model)
    with pytest.raises(FaultsimError, match=r"holds no '0\.weight'"):
        load_weights(model, path)
    assert unchanged(model, before)


# -- files that are none -----------------------------------------------------------------------------------------


def refused(path: Path, complaint: str) -> None:
    model = network(1)
    before = bits(model)
    with pytest.raises(FaultsimError) as error:
        load_weights(model, path)
    message = str(error.value)
    assert str(path) in message
    assert complaint in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(path))
    assert unchanged(model, before)


def test_every_truncation_is_refused(path):
    save_weights(path, network())
    whole = path.read_bytes()
    for size in {*range(0, len(whole), 97), 1, 7, 8, 9, len(whole) - 1}:
        path.write_bytes(whole[:size])
        refused(path, "is truncated or no safetensors file")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x80\x02}q\x00.",
        b"PK\x03\x04" + bytes(200),
        bytes(4096),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{" * 100,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
        struct.pack("<Q", 67) + b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,1]}}',
        b"\x89HDF\r\n\x1a\n" + bytes(100),
    ],
    ids=["empty", "json", "pickle", "zip", "zeros", "huge", "long", "list", "no text", "overflow", "hdf5"],
)
def test_foreign_files_are_refused(path, content):
    path.write_bytes(content)
    refused(path, "is truncated or no safetensors file")


def test_pickles_are_not_opened(tmp_path):
    trap = tmp_path / "was_run"

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    for name in ("model.pt", "model.pth", "model.bin", "model.pkl"):
        torch.save({"x": Trap()}, tmp_path / name)
        refused(tmp_path / name, "is a pickled file, which is never opened here: save it with safetensors")
    torch.save({"x": Trap()}, tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "is truncated or no safetensors file")
    assert not trap.exists()


def test_missing_files_and_folders(tmp_path):
    refused(tmp_path / "none.safetensors", "does not exist")
    refused(tmp_path, "is truncated or no safetensors file")


@pytest.mark.parametrize("metadata", ["[]", "no json", '{"format": 2}', '{"format": "x"}', "7"])
def test_foreign_metadata(path, metadata):
    save_file({"a": torch.zeros(1)}, path, {"faultsim": metadata})
    refused(path, "was written by another version of faultsim")


# -- writing -----------------------------------------------------------------------------------------------------


def test_unwritable_target_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FaultsimError, match=r"cannot write .*: .*/file is not a folder"):
        save_weights(tmp_path / "file" / "model.safetensors", network())
    (tmp_path / "folder").mkdir()
    with pytest.raises(FaultsimError, match=r"cannot write .*: Is a directory"):
        save_weights(tmp_path / "folder", network())
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["file", "folder"]


def test_models_that_cannot_be_stored_leave_the_old_file(path):
    save_weights(path, network())
    before = path.read_bytes()
    broken = network()
    with torch.no_grad():
        broken[4].weight[0, 0] = float("nan")
    with pytest.raises(FaultsimError, match="layer 4: weights with NaN"):
        save_weights(path, broken)
    with pytest.raises(FaultsimError, match="no weights to store"):
        save_weights(path, nn.ReLU())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
