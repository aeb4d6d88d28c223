"""Voice activity detection: the probability of speech for every 32 ms of a stream.

The detector is Silero VAD, rewritten to process many frames per call with the same probabilities as
its frame-by-frame model. It runs in ONNX Runtime: the package itself is not imported, since that
would load torch.
"""

import os
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.speech.silero import build_network

if TYPE_CHECKING:
    import onnxruntime

# Fixed by the model: frames of 32 ms, each preceded by the last 4 ms before it as context.
FRAME_LENGTH = 512
CONTEXT_LENGTH = 64
FRAME_S = FRAME_LENGTH / SAMPLE_RATE
STATE_SIZE = 128


class SpeechFrames(NamedTuple):
    """Output of the detector for consecutive frames.

    Parameters
    ----------
    probabilities
        Probabilities of speech in ``[0, 1]``, shape (n_frames,).
    energies
        Mean squares of the samples, shape (n_frames,).
    """

    probabilities: FloatArray
    energies: FloatArray


@cache
def open_detector() -> "onnxruntime.InferenceSession":
    """Return the detector's network, which all streams of a process share.

    Called before the first stream, it raises errors early.

    Raises
    ------
    ModelError
        If the package that ships the detector's weights is not installed.
    """
    # Official builds send events to Microsoft, and keep an identifier of the device in the user's
    # cache, unless this is set before the import; and others may have imported it before.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    # The network is too small to gain from threads.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        build_network(), options, providers=["CPUExecutionProvider"]
    )


class SpeechStream:
    """Speech detector of one channel.

    A waveform gives the same frames in pieces as in one call.
    """

    def __init__(self) -> None:
        self._session = open_detector()
        # Context of the next frame, followed by samples that do not fill a frame yet.
        self._pending = np.zeros(CONTEXT_LENGTH, np.float32)
        self._hidden = np.zeros((1, 1, STATE_SIZE), np.float32)
        self._cell = np.zeros((1, 1, STATE_SIZE), np.float32)

    def push(self, waveform: FloatArray) -> SpeechFrames:
        """Return the frames that this piece completes.

        Parameters
        ----------
        waveform
            Next samples at 16 kHz, shape (n_samples,), any number of them.
        """
        samples = np.concatenate((self._pending, waveform))
        n_frames = (len(samples) - CONTEXT_LENGTH) // FRAME_LENGTH
        self._pending = samples[n_frames * FRAME_LENGTH :]
        if not n_frames:
            return SpeechFrames(np.empty(0, np.float32), np.empty(0, np.float32))
        used = samples[: CONTEXT_LENGTH + n_frames * FRAME_LENGTH]
        windows = np.lib.stride_tricks.sliding_window_view(used, CONTEXT_LENGTH + FRAME_LENGTH)
        frames = np.ascontiguousarray(windows[::FRAME_LENGTH])
        probabilities, self._hidden, self._cell = self._session.run(
            ["speech_probs", "hn", "cn"], {"input": frames, "h": self._hidden, "c": self._cell}
        )
        energies = np.square(frames[:, CONTEXT_LENGTH:]).mean(axis=1)
        return SpeechFrames(probabilities.reshape(-1), energies)

    def finish(self) -> SpeechFrames:
        """Return the last frame, padded with zeros, if samples are left over."""
        left = len(self._pending) - CONTEXT_LENGTH
        padding = FRAME_LENGTH - left if left else 0
        return self.push(np.zeros(padding, np.float32))
