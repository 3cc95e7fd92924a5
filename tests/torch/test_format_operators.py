"""corrupt_decode: an image as chips read it, decoded in the same pass."""

import pytest
import torch

from faultsim import FaultModel, FaultsimError
from faultsim.faults import FaultKind
from faultsim.formats import Format
from faultsim.kernel import ops
from faultsim.sram import SRAM, Placement

CALL = torch.ops.faultsim
NAMES = ["int8", "int4", "int3", "int5-unpacked", "uint8-asymmetric", "uint6", "int2-asymmetric",
         "float32", "float16-zero", "bfloat16", "bfloat16-clamp", "float8_e4m3fn", "float8_e5m2-scaled"]  # fmt: skip


def common(device, chips=(1, 2), rate=0.02, model=None, base=64):
    model = model or FaultModel()
    return (
        ops.encode_chips(chips, device),
        ops.encode_rate(rate, device),
        ops.encode_kind(model),
        ops.encode_addresses(model, base),
    )


def stored(name: str, shape, device, axis=-1):
    """A format, a random weight's image and its grid."""
    torch.manual_seed(len(name))
    made = Format.parse(name)
    codes, grid = made.encode(torch.randn(shape, device=device), axis)
    return made, made.pack(codes), grid


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.int8), b.contiguous().view(torch.int8))


@pytest.mark.parametrize("dtype", ops.FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_one_pass_gives_the_bits_of_three(engine, name, dtype):
    """More than one block, cut off at either end; per tensor and per channel, in the first and the last dimension."""
    shape = [37, 11, 53]
    has_scale = Format.parse(name).width <= 8 and name != "float8_e4m3fn"
    for axis in (-1, 0, 2) if has_scale else (-1,):
        made, image, grid = stored(name, shape, engine.device, axis)
        arguments = common(engine.device, (1, 2, 3, 4, 5, 6))
        read = CALL.corrupt(image.view(torch.int8), *arguments)
        want = made.decode(made.unpack(read, shape), grid, dtype)
        got = CALL.corrupt_decode(image, name, shape, dtype, grid.scale, grid.center, axis, *arguments)
        assert same(got, want), (axis, (got != want).sum())


@pytest.mark.parametrize("kind", FaultKind)
@pytest.mark.parametrize("placement", Placement)
@pytest.mark.parametrize("name", ["int3", "bfloat16", "float32-zero"])
def test_every_kind_and_placement(engine, name, kind, placement):
    """At rates with few hits in a block, where a read is a copy with repairs, and with many."""
    model = FaultModel(kind, SRAM(placement, 8192))
    made, image, grid = stored(name, [30_001], engine.device)
    for rate in (2e-4, 0.05):
        arguments = common(engine.device, rate=rate, model=model, base=4096 - 8)
        read = CALL.corrupt(image.view(torch.int8), *arguments)
        want = made.decode(made.unpack(read, [30_001]), grid)
        got = CALL.corrupt_decode(
            image, name, [30_001], torch.float32, grid.scale, grid.center, -1, *arguments
        )
        assert same(got, want)


@pytest.mark.parametrize("name", ["int3", "int8", "uint8-asymmetric", "float32", "float8_e5m2"])
@pytest.mark.parametrize("shape", [[], [0], [1], [3], [2, 0]])
def test_small_tensors(engine, name, shape):
    made, image, grid = stored(name, shape, engine.device)
    arguments = common(engine.device, rate=0.0)
    got = CALL.corrupt_decode(image, name, shape, torch.float32, grid.scale, grid.center, -1, *arguments)
    assert got.shape == (2, *shape)
    for read in got:
        assert torch.equal(read, made.decode(made.unpack(image, shape), grid))
    nobody = common(engine.device, ())
    assert CALL.corrupt_decode(
        image, name, shape, torch.float16, grid.scale, grid.center, -1, *nobody
    ).shape == (0, *shape)


def test_nothing_is_written_behind_the_output(engine):
    """Weights that end inside a word: the image is longer than the output, which still has room behind it."""
    for name in ("bfloat16", "float32", "int5", "int8"):
        _, image, grid = stored(name, [13], engine.device)
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        room = torch.full([2 * 13 + 64], 7.0, dtype=dtype, device=engine.device)
        out = room[:26].view(2, 13)
        CALL.corrupt_decode.out(image, name, grid.scale, None, -1, *common(engine.device, rate=1.0), out=out)
        assert (room[26:] == 7).all()
        assert not (out == 7).any()


@pytest.mark.parametrize("name", ["int3", "uint8-asymmetric", "bfloat16-clamp"])
def test_opcheck(device, name):
    axis = 0 if name[0] != "b" else -1
    _, image, grid = stored(name, [5, 7], device, axis)
    arguments = common(device)
    head = (image, name, [5, 7])
    tail = (grid.scale, grid.center, axis, *arguments)
    torch.library.opcheck(CALL.corrupt_decode.default, (*head, torch.float32, *tail))
    out = torch.empty(2, 5, 7, dtype=torch.bfloat16, device=device)
    torch.library.opcheck(CALL.corrupt_decode.out, (image, name, *tail), {"out": out})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"format": "int9"}, FaultsimError, "unknown format"),
        ({"shape": [4, 9]}, ValueError, r"image of 36 weights is uint8 \[24\], not torch.uint8 \[16\]"),
        ({"image": torch.zeros(16, dtype=torch.int8)}, ValueError, "not torch.int8"),
        ({"dtype": torch.float64}, TypeError, "float32, bfloat16 or float16"),
        ({"scale": torch.ones(3)}, ValueError, "scale has 3 numbers, it needs 1"),
        ({"scale": torch.tensor(1.0).double()}, TypeError, "scale must be float32"),
        ({"axis": 2}, ValueError, "axis 2 of weights with 2 dimensions"),
        ({"axis": 0}, ValueError, "scale has 1 numbers, it needs 4"),
        ({"center": torch.tensor(0.0)}, ValueError, "int4 has no center"),
        ({"format": "int4-asymmetric"}, ValueError, "int4-asymmetric needs a center"),
        ({"place": [4, 0, 16, 1]}, ValueError, "base address 4 is no multiple of 8"),
    ],
)
def test_bad_arguments(change, error, words):
    chips, table, rule, place = common("cpu")
    given = {
        "image": torch.zeros(16, dtype=torch.uint8), "format": "int4", "shape": [4, 8], "dtype": torch.float32,
        "scale": torch.tensor(1.0), "center": None, "axis": -1, "chips": chips, "table": table, "rule": rule,
        "place": place,
    }  # fmt: skip
    assert CALL.corrupt_decode(*given.values()).shape == (2, 4, 8)
    with pytest.raises(error, match=words) as caught:
        CALL.corrupt_decode(*{**given, **change}.values())
    assert "\n" not in str(caught.value)


def test_out_of_another_shape():
    _, image, grid = stored("int4", [4, 8], "cpu")
    tail = (grid.scale, None, -1, *common("cpu"))
    for out in (torch.empty(3, 4, 8), torch.empty(2, 8, 4).transpose(1, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"out must be a contiguous tensor \[2, ...\]"):
            CALL.corrupt_decode.out(image, "int4", *tail, out=out)
