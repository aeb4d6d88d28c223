"""The network of Silero VAD, rewritten as products of large matrices.

Silero VAD (https://github.com/snakers4/silero-vad, MIT) convolves over the four spectra of a frame,
frame by frame, and spends most of its time on thousands of tiny products. Here the same weights are
multiplied with all frames of a call at once, which takes less than a third of the time and gives
the same probabilities up to rounding.
"""

import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

from sercli.arrays import FloatArray
from sercli.errors import ModelError

_MODEL_FILE: Final = "silero_vad_16k_sequence.onnx"

# An input row is the 512 samples of a frame and the 64 before it. It is mirrored at its end to five
# blocks of 128 samples; each of the four STFT windows of 256 samples is a pair of adjacent blocks.
# The window function is symmetric about sample 128, so that the cosines are multiplied with the sum
# of both halves and the sines with their difference.
# A convolution over time is a matrix product with adjacent values in memory: a spectrum has 129
# values, the outputs of the layers have 128, 64, 64 and 128. The first two layers are padded with
# zeros in time; the last two have one output each, and their weights for padding are left out.
_GRAPH: Final = """
<ir_version: 8, opset_import: ["" : 16]>
silero (float[n, 576] input, float[1, 1, 128] h, float[1, 1, 128] c)
    => (float[n] speech_probs, float[1, 1, 128] hn, float[1, 1, 128] cn)
<
    int64[1] last = {-1}, int64[1] axis1 = {1}, int64[1] axis2 = {2}, int64[1] back = {-1},
    int64[1] at0 = {0}, int64[1] at1 = {1}, int64[1] at4 = {4}, int64[1] at5 = {5},
    int64[1] at127 = {127}, int64[1] at129 = {129}, int64[1] at255 = {255}, int64[1] at256 = {256},
    int64[1] at258 = {258}, int64[1] at384 = {384}, int64[1] at387 = {387}, int64[1] at516 = {516},
    int64[1] at640 = {640}, int64[1] at645 = {645}, int64[1] at774 = {774},
    int64[4] mirror = {0, 0, 0, 64}, int64[6] both_sides = {0, 1, 0, 0, 1, 0},
    int64[4] left_side = {0, 128, 0, 0}, int64[3] in_blocks = {-1, 5, 128},
    int64[2] by774 = {-1, 774}, int64[2] by387 = {-1, 387}, int64[2] by512 = {-1, 512},
    int64[2] by384 = {-1, 384}, int64[2] by128 = {-1, 128}
>
{
    mirrored = Pad <mode = "reflect"> (input, mirror)
    blocks = Reshape (mirrored, in_blocks)
    first_halves = Slice (blocks, at0, at4, axis1)
    second_halves = Slice (blocks, at1, at5, axis1)
    windows = Concat <axis = 2> (first_halves, second_halves)
    rising = Slice (windows, at1, at129, axis2)
    falling = Slice (windows, at255, at127, axis2, back)
    even = Add (rising, falling)
    odd = Sub (rising, falling)
    real = MatMul (even, cosines)
    imaginary = MatMul (odd, sines)
    real_power = Mul (real, real)
    imaginary_power = Mul (imaginary, imaginary)
    power = Add (real_power, imaginary_power)
    spectra = Sqrt (power)

    spectra_padded = Pad (spectra, both_sides)
    spectra_flat = Reshape (spectra_padded, by774)
    around0 = Slice (spectra_flat, at0, at387, axis1)
    around1 = Slice (spectra_flat, at129, at516, axis1)
    around2 = Slice (spectra_flat, at258, at645, axis1)
    around3 = Slice (spectra_flat, at387, at774, axis1)
    neighbours0 = Concat <axis = 1> (around0, around1, around2, around3)
    rows0 = Reshape (neighbours0, by387)
    sums0 = Gemm (rows0, weight0, bias0)
    outputs0 = Relu (sums0)

    outputs0_flat = Reshape (outputs0, by512)
    outputs0_padded = Pad (outputs0_flat, left_side)
    before = Slice (outputs0_padded, at0, at384, axis1)
    after = Slice (outputs0_padded, at256, at640, axis1)
    neighbours1 = Concat <axis = 1> (before, after)
    rows1 = Reshape (neighbours1, by384)
    sums1 = Gemm (rows1, weight1, bias1)
    outputs1 = Relu (sums1)

    rows2 = Reshape (outputs1, by128)
    sums2 = Gemm (rows2, weight2, bias2)
    outputs2 = Relu (sums2)
    sums3 = Gemm (outputs2, weight3, bias3)
    outputs3 = Relu (sums3)

    steps = Unsqueeze (outputs3, axis1)
    states, hn, cn = LSTM <hidden_size = 128> (
        steps, input_weight, state_weight, gate_bias, , h, c
    )
    states_flat = Reshape (states, by128)
    active = Relu (states_flat)
    logits = Gemm (active, output_weight, output_bias)
    probabilities = Sigmoid (logits)
    speech_probs = Reshape (probabilities, last)
}
"""


def build_network() -> bytes:
    """Return the serialised ONNX network, with the weights of the installed package silero-vad.

    Its inputs are ``input``, float32 of shape (n_frames, 576), the 64 samples before each frame and
    those of the frame; ``h`` and ``c``, the LSTM state before the frames, float32 of shape
    (1, 1, 128). Its outputs are ``speech_probs``, float32 of shape (n_frames,), and the state after
    the frames, ``hn`` and ``cn``.

    Raises
    ------
    ModelError
        If the package is not installed, or ships another network.
    """
    path = _find_model()
    stored = onnx.load(path).graph.initializer
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in stored}
    try:
        matrices = _arrange(weights)
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: is not the network of silero-vad 6.2 ({error}); "
            "run: pip install 'silero-vad~=6.2.3'"
        ) from error
    model = onnx.parser.parse_model(_GRAPH)
    for name, matrix in matrices.items():
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(matrix), name)
        model.graph.initializer.append(tensor)
    network: bytes = model.SerializeToString()
    return network


def _arrange(weights: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the matrices of the graph, made of the package's weights."""
    basis = weights["stft.forward_basis_buffer"].reshape(2, 129, 256)
    cosines, sines = basis[:, :, 1:129].transpose(0, 2, 1)
    cosines = cosines.copy()
    cosines[-1] /= 2  # the sample in the middle is its own counterpart
    matrices = {"cosines": cosines, "sines": sines}
    taps = (slice(0, 3), slice(0, 3), slice(1, 3), slice(1, 2))
    for layer, (tap, n_outputs) in enumerate(zip(taps, (128, 64, 64, 128), strict=True)):
        kernel = weights[f"encoder.{layer}.weight"][:, :, tap]  # outputs, inputs, time
        matrices[f"weight{layer}"] = kernel.transpose(2, 1, 0).reshape(-1, n_outputs)
        matrices[f"bias{layer}"] = weights[f"encoder.{layer}.bias"]
    return matrices | {
        "input_weight": weights["onnx::LSTM_209"],
        "state_weight": weights["onnx::LSTM_210"],
        "gate_bias": weights["onnx::LSTM_211"],
        "output_weight": weights["output.weight"].reshape(128, 1),
        "output_bias": weights["output.bias"],
    }


def _find_model() -> Path:
    package = importlib.util.find_spec("silero_vad")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "data" / _MODEL_FILE
        if path.is_file():
            return path
    raise ModelError(
        f"{_MODEL_FILE} of the package silero-vad is not installed; "
        "run: pip install 'silero-vad~=6.2.3'"
    )
