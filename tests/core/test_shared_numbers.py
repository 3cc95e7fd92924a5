"""Do the kernel and Python mean the same block, and is a seed an integer?"""

import numpy as np
import pytest

from faultsim import hit_table
from faultsim.errors import FaultsimError
from faultsim.faults import Chip
from faultsim.native import native
from faultsim.sram import BLOCK_BYTES, ArrayGeometry


def test_a_block_is_the_same_for_the_kernel_the_table_and_the_papers_array():
    assert native().BLOCK_BYTES == BLOCK_BYTES == ArrayGeometry().bytes
    assert 8 * BLOCK_BYTES == hit_table.CELLS


def test_seeds_of_numpy_are_integers():
    assert Chip(np.int64(3)) == Chip(3)
    assert type(Chip(np.uint8(3)).seed) is int


@pytest.mark.parametrize("seed", [True, np.bool_(True), 3.0, "3", None, -1])
def test_nothing_else_is_a_seed(seed: object):
    with pytest.raises(FaultsimError, match="chip seed"):
        Chip(seed)
