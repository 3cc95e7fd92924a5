"""The accelerator: the paper's one, and what it refuses."""

import pytest

from energy import PAPER, Accelerator, Dataflow, EnergyError
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
        ({"word_bits": 60}, "60 bits can't hold whole 8-bit weights"),
        ({"weight_bits": 128}, "can't hold whole 128-bit weights"),
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
