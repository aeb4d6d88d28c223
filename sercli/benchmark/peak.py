"""Number of multiply-adds that a network needs, and this machine's peak rate of them."""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sercli.audio import SAMPLE_RATE
from sercli.classifiers.neural import NetworkClassifier

# Size of the square matrices, large enough to occupy every core, and how long to multiply them.
MATRIX_SIZE = 2048
SECONDS = 1.0
# Number of products that a GPU gets at once, so that it never waits for the CPU.
GPU_PRODUCTS = 16
# Lengths of segments are rounded to the nearest multiple of this many samples.
STEP = SAMPLE_RATE // 5


def _count_attention(
    query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    count: Any = sdpa_flop_count
    return int(count(query, key, value))


# Operations that PyTorch does not count by itself.
_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_attention,
    torch.ops.aten._scaled_dot_product_attention_math_for_mps: _count_attention,
}


def count_multiply_adds(classifier: NetworkClassifier, durations: Sequence[float]) -> float:
    """Return how many multiply-adds a network needs for segments, each in a batch of its own.

    Matrix products, convolutions and attention are counted, without padding. The count is made in
    float32, since shapes are rounded up for other number types.

    Parameters
    ----------
    classifier
        Classifier with the network, which is run once for every distinct length.
    durations
        Durations of the segments, in seconds.
    """
    lengths, counts = np.unique(
        [max(1, round(duration * SAMPLE_RATE / STEP)) * STEP for duration in durations],
        return_counts=True,
    )
    exact = copy.copy(classifier)
    exact.use_precision("fp32")
    total = 0.0
    for length, count in zip(lengths, counts, strict=True):
        with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
            exact.score(exact.extract_features([np.ones(length, np.float32)]))
        total += count * counter.get_total_flops() / 2
    return total


def measure_peak(classifier: NetworkClassifier, n_workers: int) -> float:
    """Return the multiply-adds per second in products of large matrices, of all devices together.

    Parameters
    ----------
    classifier
        Classifier whose devices and number type are used.
    n_workers
        Number of workers that multiply at the same time on a CPU, each with the number of threads
        that `torch` is set to.
    """
    # Each alone: several GPUs do not slow each other down.
    return sum(
        _measure_device(device, classifier.precision, n_workers) for device in classifier.devices
    )


def _measure_device(device: torch.device, precision: str, n_workers: int) -> float:
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    matrix: Any = torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device)
    multiply: Any = torch.mm
    if precision == "int8":
        matrix, multiply = matrix.to(torch.int8), torch._int_mm
    else:
        matrix = matrix.to(types.get(precision, torch.float32))

    at_once = 1 if device.type == "cpu" else GPU_PRODUCTS

    def work(_: int) -> float:
        multiply(matrix, matrix)
        _wait(device)
        n_products, start = 0, perf_counter()
        while (spent := perf_counter() - start) < SECONDS:
            for _ in range(at_once):
                multiply(matrix, matrix)
            _wait(device)
            n_products += at_once
        return n_products * float(MATRIX_SIZE) ** 3 / spent

    n_threads = n_workers if device.type == "cpu" else 1
    with ThreadPoolExecutor(n_threads) as pool:
        return sum(pool.map(work, range(n_threads)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
