"""Groups of the elements of arrays, and number types of weights."""

import numpy as np
import pytest

from sercli.arrays import split_by, store_weights


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


@pytest.mark.parametrize(
    ("weights", "type_"),
    [
        ([[1.0, -65_504.0]], np.float16),
        ([[1.0, -70_000.0]], np.float32),  # or it would be infinite
        ([1.0, 2.0], np.float32),
        (np.zeros((0, 3)), np.float16),
    ],
)
def test_weights_are_stored_in_half_precision_if_it_holds_them(
    weights: list[list[float]], type_: type
) -> None:
    stored = store_weights(np.array(weights, np.float64))
    assert stored.dtype == type_
    np.testing.assert_array_equal(stored, weights)
