"""Arrays by the number that they hold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Waveforms, features and weights.
FloatArray = NDArray[np.float32]
# Scores and probabilities.
DoubleArray = NDArray[np.float64]
# Of either number.
RealArray = NDArray[np.floating[Any]]
# Indices of classes, rows or groups.
IntArray = NDArray[np.integer[Any]]
