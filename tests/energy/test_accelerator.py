"""The accelerator: the paper's one, and what it refuses."""

import pytest

from energy import PAPER, Accelerator, Dataflow, EnergyError, Layer, count
from energy.accelerator import parse_array, parse_dataflow


def test_paper_accelerator_is_the_default() -> None:
    assert Accelerator() == PAPER == Accelerator.paper()
    assert (PAPER.rows, PAPER.columns, PAPER.dataflow) == (32, 32, Dataflow.OUTPUT_STATIONARY)
    assert PAPER.weight_sram_kib == 256
    assert PAPER.weights_per_access == 8  # 64-bit words of int8 weights


def test_dataflow_is_understood_in_any_case() -> None:
    # SCALE-Sim runs output-stationary when it is told "WS"; here it is weight-stationary
    assert Accelerator(dataflow="WS").dataflow is Dataflow.WEIGHT_STATIONARY
    assert parse_dataflow("Is") is Dataflow.INPUT_STATIONARY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows of an accelerator has to be a positive integer, not 0"),
        ({"columns": -4}, "columns"),
        ({"rows": 3.0}, "rows"),
        ({"rows": True}, "rows"),
        ({"weight_sram_kib": 0}, "weight_sram_kib"),
        ({"dataflow": "rs"}, "unknown dataflow 'rs': it can be os"),
        ({"dataflow": None}, "unknown dataflow"),
        ({"word_bits": 7}, "7 bits can't hold a weight of 8 bits"),
        ({"weight_bits": 128}, "can't hold a weight of 128 bits"),
    ],
)
def test_bad_accelerators_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(EnergyError, match=message):
        Accelerator(**arguments)


def test_array_text() -> None:
    assert parse_array("32x16") == (32, 16)
    assert parse_array(" 4 X 64 ") == (4, 64)
    for text in ("", "32", "32x", "x32", "32x32x32", "a x b", "-4x4", "4.5x4"):
        with pytest.raises(EnergyError, match="write ROWSxCOLUMNS"):
            parse_array(text)


@pytest.mark.parametrize(("bits", "weights"), [(2, 32), (3, 21), (4, 16), (5, 12), (7, 9), (16, 4), (32, 2)])
def test_a_word_holds_whole_weights(bits: int, weights: int) -> None:
    assert Accelerator(weight_bits=bits).weights_per_access == weights


@pytest.mark.parametrize("engine", ["closed-form", "scalesim"])
def test_accesses_follow_the_width_by_hand(engine: str) -> None:
    """A 1x1 convolution of 4 to 6 channels on 5x8 pixels: 24 weights, read for each of the 2 folds of 32 pixels."""
    layer = Layer("one", 5, 8, 1, 1, 4, 6)
    for bits, accesses in ((8, 6), (4, 3), (3, 3), (2, 2), (16, 12), (32, 24)):
        found = count([layer], Accelerator(weight_bits=bits), engine)
        assert found.total.filter_reads == 48
        assert found.weight_memory_accesses == accesses  # 48 over the weights in a word, rounded up
