"""Groups of the elements of arrays."""

import numpy as np
import pytest

from sercli.arrays import split_by


@pytest.mark.parametrize(
    ("keys", "groups"),
    [
        (["b", "a", "b", "c", "a"], [[1, 4], [0, 2], [3]]),
        (["a"], [[0]]),
        ([], []),
    ],
)
def test_split_by(keys: list[str], groups: list[list[int]]) -> None:
    assert [places.tolist() for places in split_by(np.array(keys, str))] == groups
