"""Is each wrong argument of an operator refused with a clear message, before anything is written?"""

from functools import partial

import pytest
import torch

from faultsim.kernel.native import native
from tests.torch.operator_calls import CALL, arguments, weights_of


def broken(name: str):
    """(operator, arguments) with one thing wrong."""
    weights, (chips, table, rule, place) = weights_of(4, 6), arguments()
    scale, out = torch.ones(1), torch.zeros(2, 4, 6)
    dequantize = [weights, scale, -1, torch.float32]
    common = [chips, table, rule, place]
    match name:
        case "float weights":
            return CALL.corrupt, [weights.float(), *common]
        case "float weights in place":
            return CALL.corrupt_, [weights.float(), chips[:1], *common[1:]]
        case "uint8 weights":
            return CALL.fault_mask, [weights.to(torch.uint8), *common]
        case "chips of 32 bits":
            return CALL.corrupt, [weights, chips.int(), *common[1:]]
        case "chips in two dimensions":
            return CALL.corrupt, [weights, chips[None], *common[1:]]
        case "float table":
            return CALL.corrupt, [weights, chips, table.double(), rule, place]
        case "no table":
            return CALL.corrupt, [weights, chips, table[:1], rule, place]
        case "two offsets":
            return CALL.corrupt, [weights, *common, torch.tensor([1, 2])]
        case "access of 32 bits":
            return CALL.corrupt, [weights, *common, None, torch.tensor([1], dtype=torch.int32)]
        case "two chips in place":
            return CALL.corrupt_, [weights, *common]
        case "scale count":
            return CALL.corrupt_dequantize, [weights, torch.ones(5), 1, torch.float32, *common]
        case "scale dtype":
            return CALL.corrupt_dequantize, [weights, scale.double(), -1, torch.float32, *common]
        case "axis too large":
            return CALL.corrupt_dequantize, [weights, scale, 2, torch.float32, *common]
        case "axis too small":
            return CALL.corrupt_dequantize, [weights, scale, -2, torch.float32, *common]
        case "output dtype":
            return CALL.corrupt_dequantize, [*dequantize[:3], torch.float64, *common]
        case "out shape":
            return partial(CALL.corrupt_dequantize.out, out=out[:1]), [*dequantize[:3], *common]
        case "out strides":
            return partial(CALL.corrupt_dequantize.out, out=torch.zeros(2, 6, 4).mT), [
                *dequantize[:3],
                *common,
            ]
        case "out dtype":
            return partial(CALL.corrupt_dequantize.out, out=out.to(torch.int8)), [*dequantize[:3], *common]
        case "unknown kind":
            return CALL.corrupt, [weights, chips, table, [3, 0], place]
        case "probability above one":
            return CALL.corrupt, [weights, chips, table, [1, 2**33 + 1], place]
        case "word":
            return CALL.corrupt, [weights, chips, table, rule, [0, 1, 24, 2]]
        case "negative base":
            return CALL.corrupt, [weights, chips, table, rule, [-1, 0, 1, 1]]
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("float weights", TypeError, "weights must be int8, not torch.float32"),
        ("float weights in place", TypeError, "weights must be int8"),
        ("uint8 weights", TypeError, "weights must be int8, not torch.uint8"),
        ("chips of 32 bits", TypeError, "chips must be int64, not torch.int32"),
        ("chips in two dimensions", ValueError, "chips"),
        ("float table", TypeError, "table must be int64"),
        ("no table", ValueError, "table"),
        ("two offsets", ValueError, "offset"),
        ("access of 32 bits", TypeError, "access must be int64"),
        ("two chips in place", ValueError, "one chip only, not 2"),
        ("scale count", ValueError, "scale has 5 numbers, axis 1 needs 6"),
        ("scale dtype", TypeError, "scale must be float32, not torch.float64"),
        ("axis too large", ValueError, "axis 2 of weights with 2 dimensions"),
        ("axis too small", ValueError, "axis -2"),
        ("output dtype", TypeError, "float64 must be float32, bfloat16 or float16"),
        ("out shape", ValueError, r"out must be a contiguous tensor \[2, 4, 6\]"),
        ("out strides", ValueError, "out must be a contiguous tensor"),
        ("out dtype", TypeError, "int8 must be float32, bfloat16 or float16"),
        ("unknown kind", ValueError, "unknown fault kind"),
        ("probability above one", ValueError, "above one"),
        ("word", ValueError, "divisor of the block's 4096"),
        ("negative base", (ValueError, TypeError), "base|incompatible"),
    ],
)
def test_wrong_arguments(name, error, message):
    """A clear message, and nothing written."""
    call, arguments = broken(name)
    tensors = [x for x in arguments if isinstance(x, torch.Tensor)]
    before = [x.clone() for x in tensors]
    with pytest.raises(error, match=message):
        call(*arguments)
    assert all(
        torch.equal(
            a,
            b,
        )
        for a, b in zip(tensors, before, strict=True)
    )


def job(**changed: int) -> object:
    """The kernel's job of nothing, with some arguments changed."""
    names = (
        "source output value weights chips type scales scale_count scale_run table thresholds kind ones base blocks "
        "word repeat seeds block_offset access"
    )
    return native().Job(**{**dict.fromkeys(names.split(), 0), "scale_run": 1, "repeat": 1, **changed})


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("weights", -1),
        ("weights", 2**40 + 1),
        ("chips", 2**32),
        ("base", -5),
        ("blocks", 2**64),
        ("kind", 3),
        ("type", 5),
        ("ones", 1),  # of flips, which have no values
        ("repeat", 0),
        ("source", -(2**70)),
    ],
)
def test_numbers_that_the_kernel_refuses_are_one_line(name, number):
    job()
    with pytest.raises(ValueError, match=rf"^{name} is {number}; it must be from \d+ to \d+$"):
        job(**{name: number})


def test_a_cuda_error_says_what_failed():
    if torch.cuda.is_available():
        pytest.skip("there is no such error on a machine with a GPU")
    with pytest.raises(RuntimeError, match=r"^(cudaGetDevice on CUDA device 0: cudaError|this build)"):
        native().launch_cuda(
            job(source=1, output=1, weights=1, chips=1, table=1, seeds=1), device=0, stream=0
        )


@pytest.mark.cuda
def test_tensors_of_different_devices_are_refused():
    weights = weights_of(9, device="cuda")
    chips, table, rule, place = arguments("cuda")
    for wrong in ([chips.cpu(), table], [chips, table.cpu()]):
        with pytest.raises(ValueError, match=r"is on cpu, the weights are on cuda"):
            CALL.corrupt(weights, *wrong, rule, place)
    with pytest.raises(ValueError, match="scale is on cpu"):
        CALL.corrupt_dequantize(weights, torch.ones(1), -1, torch.float32, chips, table, rule, place)
    with pytest.raises(ValueError, match="out must be"):
        CALL.corrupt_dequantize.out(
            weights, torch.ones(1, device="cuda"), -1, chips, table, rule, place, out=torch.empty(2, 9)
        )
