"""Is the seed of a chip an integer, of Python or of NumPy, and nothing else?"""

import numpy as np
import pytest

from faultsim.errors import FaultsimError
from faultsim.faults import Chip


def test_seeds_of_numpy_are_integers():
    assert Chip(np.int64(3)) == Chip(3)
    assert type(Chip(np.uint8(3)).seed) is int


@pytest.mark.parametrize("seed", [True, np.bool_(True), 3.0, "3", None, -1])
def test_nothing_else_is_a_seed(seed: object):
    with pytest.raises(FaultsimError, match="chip seed"):
        Chip(seed)
