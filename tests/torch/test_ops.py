"""Are the operators good torch citizens: schemas, fake kernels, torch.compile, and the kernel's own numbers?"""

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from faultsim.errors import FaultsimError
from faultsim.faults import FaultKind, FaultModel
from faultsim.hit_table import CELLS
from faultsim.kernel import ops, reference
from faultsim.kernel.native import native
from faultsim.sram import BLOCK_BYTES
from tests.torch.operator_calls import CALL, arguments, numbers, weights_of


@pytest.mark.parametrize(
    ("kind", "shape", "extra"),
    [
        (FaultKind.FLIP, (5, 6, 3), False),
        (FaultKind.STUCK_AT_RANDOM, (40, 130), True),
        (FaultKind.TRANSIENT, (0, 4), True),
        (FaultKind.STUCK_AT_1, (), False),
    ],
)
def test_opcheck(device, kind, shape, extra):
    """Schema (mutation, aliasing), fake kernels and tracing with dynamic shapes, by torch's own checker."""
    weights = weights_of(*shape, device=device)
    common = arguments(device, model=FaultModel(kind)) + (numbers(device) if extra else ())
    single = arguments(device, [1], model=FaultModel(kind)) + (numbers(device) if extra else ())
    axis = len(shape) - 1
    scale = torch.rand(shape[axis] if shape else 1, device=device)
    torch.library.opcheck(CALL.corrupt.default, (weights, *common))
    torch.library.opcheck(CALL.corrupt_.default, (weights, *single))
    torch.library.opcheck(CALL.fault_mask.default, (weights, *common))
    for dtype in ops.FLOATS:
        torch.library.opcheck(CALL.corrupt_dequantize.default, (weights, scale, axis, dtype, *common))
        out = torch.empty(2, *shape, dtype=dtype, device=device)
        torch.library.opcheck(CALL.corrupt_dequantize.out, (weights, scale, axis, *common), {"out": out})


def test_opcheck_of_strided_weights(device):
    image = weights_of(4, 6, 5, 7, device=device).to(memory_format=torch.channels_last)
    for weights in (image, image.transpose(0, 3), image[:, ::2]):
        torch.library.opcheck(CALL.corrupt.default, (weights, *arguments(device)))
        torch.library.opcheck(CALL.corrupt_.default, (weights.clone(), *arguments(device, [1])))
        torch.library.opcheck(CALL.fault_mask.default, (weights, *arguments(device)))


def faulty_sum(weights, scale, chips, table, rule, place):
    """All operators in one function; `rule` and `place` are numbers, so a compiler treats them as constants."""
    read = CALL.corrupt(weights, chips, table, rule, place)
    copy = weights.clone()
    CALL.corrupt_(copy, chips[:1], table, rule, place)
    floats = CALL.corrupt_dequantize(weights, scale, 0, torch.float32, chips, table, rule, place)
    out = torch.empty_like(floats)
    CALL.corrupt_dequantize.out(weights, scale, 0, chips, table, rule, place, out=out)
    failing, states = CALL.fault_mask(weights, chips, table, rule, place)
    return read + 1, copy, floats + 1, out * 2, failing ^ states


@pytest.mark.parametrize(
    ("backend", "dynamic"),
    [("eager", False), ("eager", True), ("aot_eager", False), ("aot_eager", True), ("inductor", True)],
)
def test_compiled_is_eager(device, backend, dynamic, monkeypatch, tmp_path):
    """No graph break, the same results; with dynamic shapes one graph serves other shapes and chip counts. inductor is
    kept from trying which vector instructions the C++ compiler knows: what is added to our operators needs none."""
    from torch._inductor import cpu_vec_isa

    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", list, raising=False)
    # the headers in the common folder are compiled for such instructions
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if backend == "inductor" and device == "cuda":
        pytest.importorskip("triton", reason="inductor needs it on GPUs")
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend(backend)
    compiled = torch.compile(faulty_sum, backend=graphs, fullgraph=True, dynamic=dynamic)
    for rows, columns, chips in [(6, 700, 2), (9, 801, 3), (4, 5000, 5)]:
        weights, scale = weights_of(rows, columns, device=device), torch.rand(rows, device=device)
        common = arguments(device, range(chips))
        for got, want in zip(
            compiled(weights, scale, *common), faulty_sum(weights, scale, *common), strict=True
        ):
            assert torch.equal(got, want)
    assert graphs.frame_count == 1 if dynamic else graphs.frame_count <= 3


def test_fake_tensors_tell_shapes_without_data():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        weights = mode.from_tensor(weights_of(3, 5))
        common = [mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments()]
        scale = torch.ones(5)
        assert CALL.corrupt(weights, *common).shape == (2, 3, 5)
        floats = CALL.corrupt_dequantize(weights, scale, 1, torch.bfloat16, *common)
        assert floats.shape == (2, 3, 5)
        assert floats.dtype == torch.bfloat16
        assert [mask.dtype for mask in CALL.fault_mask(weights, *common)] == [torch.uint8] * 2
        with pytest.raises(TypeError, match="int8"):
            CALL.corrupt(weights.float(), *common)
        # what the real kernels refuse
        chips, table, rule, place = common
        for odd, place_, message in (
            ([3, 0], place, "unknown fault kind"),
            ([1, 2**33 + 1], place, "above one"),
            ([1], place, "a kind and a probability"),
            (rule, [-1, 0, 1, 1], "base address -1"),
            (rule, [0, -1, 1, 1], "blocks"),
            (rule, [0, 0, 24, 2], "divisor of the block's 4096"),
            (rule, [0, 0, 16, 5000], "repeat 5000"),
            (rule, [0, 0, 16], "base, blocks, word and repeat"),
        ):
            with pytest.raises(ValueError, match=message):
                CALL.corrupt(weights, chips, table, odd, place_)


def test_python_knows_the_kernels_numbers():
    """What Python repeats because lighter modules need it, and what the operators read."""
    kernel = native()
    assert kernel.BLOCK_BYTES == BLOCK_BYTES == CELLS // 8
    assert ops.BASE_END == kernel.MOST_BASE
    assert kernel.KINDS.keys() == {"flip", "stuck", "transient"}
    assert kernel.OUTPUTS.keys() == {
        "mask",
        "int8",
        *(str(dtype).removeprefix("torch.") for dtype in ops.FLOATS),
    }
    assert ops.encode_kind(FaultModel("stuck_at_1"))[1] == kernel.CERTAIN["stuck"]
    assert ops.encode_kind(FaultModel("transient", read_error=1))[1] == kernel.CERTAIN["transient"]
    for kind in FaultKind:
        assert ops.encode_kind(FaultModel(kind))[0] in kernel.KINDS.values()


@pytest.mark.parametrize("kind", ["flip", "stuck", "transient"])
def test_a_read_by_the_reference_is_that_of_a_hand_count(kind):
    """All six cases of (stored, fail, value) that exist, in one byte; the kernels are compared with the reference."""
    stored, fail, value = (np.array([bits], np.uint8) for bits in (0b101010, 0b111100, 0b110000))
    if kind == "flip":
        value = np.zeros(1, np.uint8)
    expected = {"flip": 0b010110, "stuck": 0b110010, "transient": 0b011010}[kind]
    assert reference.read_word(kind, stored.view(np.int8), fail, value).tolist() == [expected]


def test_a_cpu_path_is_chosen_for_a_block_of_code(monkeypatch):
    chosen = []

    class Kernel:
        def __getattr__(self, name):
            return getattr(native(), name)

        def launch_cpu(self, job, threads, path):
            chosen.append(path)
            native().launch_cpu(job, threads, path)

    monkeypatch.setattr(ops, "_KERNEL", Kernel())
    assert ops.list_cpu_paths()[-1] == "portable"
    with ops.use_cpu_path("portable"):
        CALL.corrupt(weights_of(9), *arguments())
        with pytest.raises(FaultsimError, match=r"no vector path 'sse9': it has .*portable"):
            ops.use_cpu_path("sse9").__enter__()
    CALL.corrupt(weights_of(9), *arguments())
    assert chosen == ["portable", ops.list_cpu_paths()[0]]
