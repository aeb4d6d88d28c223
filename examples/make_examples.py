"""Make the recordings of this folder: `python examples/make_examples.py`.

All voices are synthesised by espeak-ng (https://github.com/espeak-ng/espeak-ng), which has to be
installed. They exercise the annotator, but express no real emotions.
"""

import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

HERE = Path(__file__).parent
PHONE_RATE = 8_000

# Voice, words per minute, pitch from 0 to 99, and text.
Line = tuple[str, int, int, str]

AGENT = "en-gb"
CALLER = "en-us+f3"
CALL: tuple[Line, ...] = (
    (AGENT, 160, 45, "Good morning, you are through to the parcel service. How can I help you?"),
    (CALLER, 190, 70, "My parcel should have been here on Monday. I have been waiting for a week!"),
    (AGENT, 150, 45, "I am sorry to hear that. May I have the number of your order, please?"),
    (CALLER, 150, 60, "Yes, wait a moment. It is four, seven, one, one, zero, eight."),
    (AGENT, 155, 45, "Thank you. I can see it here. It was sent back, since nobody was at home."),
    (
        CALLER,
        210,
        80,
        "That cannot be true! I was at home the whole day, and nobody rang the bell!",
    ),
    (AGENT, 150, 40, "I will have it sent to you again today, and you will not be charged."),
    (CALLER, 155, 55, "Well, all right then. Thank you very much for your help. Goodbye."),
)
STATEMENT: tuple[Line, ...] = (
    ("en-us", 150, 50, "The meeting is at eleven o'clock. Nobody has told me what it is about."),
    ("en-us", 200, 85, "We won! I cannot believe that we really won this time!"),
)
MEMO: tuple[Line, ...] = (
    ("de+f2", 140, 45, "Der Lappen liegt auf dem Eisschrank. Das will sie am Mittwoch abgeben."),
)


def speak(line: Line, sample_rate: int) -> NDArray[np.float32]:
    """Return a synthesised line at a sample rate in Hz, shape (n_samples,)."""
    voice, speed, pitch, text = line
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.wav"
        subprocess.run(
            ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(path), text],
            check=True,
        )
        waveform, own_rate = sf.read(path, dtype="float32")
    resampled: NDArray[np.float32] = soxr.resample(waveform, own_rate, sample_rate)
    return 0.5 * resampled


def make_call(path: Path) -> None:
    """Write a call of one minute: agent left, caller right, with pauses and line noise."""
    rng = np.random.default_rng(0)
    call = 0.0005 * rng.standard_normal((60 * PHONE_RATE, 2)).astype(np.float32)
    position = PHONE_RATE
    for line in CALL:
        waveform = speak(line, PHONE_RATE)
        channel = 0 if line[0] == AGENT else 1
        call[position : position + len(waveform), channel] += waveform
        position += len(waveform) + int(rng.uniform(0.8, 2.5) * PHONE_RATE)
    sf.write(path, call, PHONE_RATE, subtype="ULAW")


def make_monologue(path: Path, lines: tuple[Line, ...]) -> None:
    """Write lines one after another, separated by one second of silence."""
    pause = np.zeros(16_000, np.float32)
    parts = [part for line in lines for part in (pause, speak(line, 16_000))]
    sf.write(path, np.concatenate((*parts, pause)), 16_000)


def make_memo(path: Path) -> None:
    """Write a voice memo as phones record it: AAC in an m4a file."""
    sample_rate = 44_100
    waveform = np.concatenate([speak(line, sample_rate) for line in MEMO])
    with av.open(path, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate = sample_rate
        for piece in (frame, None):
            for packet in stream.encode(piece):
                container.mux(packet)


def main() -> None:
    """Write all recordings."""
    make_call(HERE / "call.wav")
    make_monologue(HERE / "statement.flac", STATEMENT)
    make_memo(HERE / "memo.m4a")
    sf.write(HERE / "silence.wav", np.zeros(2 * PHONE_RATE, np.float32), PHONE_RATE)


if __name__ == "__main__":
    main()
