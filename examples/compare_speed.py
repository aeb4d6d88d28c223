"""Compare the speed of `ser annotate` with other ways to get the same or similar labels.

    pip install -e '.[compare]'
    python examples/compare_speed.py RECORDINGS [--runs 5] [--only NAME]

Of `ser`, `sercli.Annotator.annotate` is timed, from the first file to the last result and, for the
second ratio, only in the stages `features` and `model`; loading the model and writing rows are left
out, and the start of the processes of the SVM is part of `features`. The others get the segments
that it found, already decoded; the slow ones get a sample, and their time is scaled up to all
segments. The pipeline of `transformers` pads each segment to 30 s; it is timed with the number type
and the batch size, of 1, 4 and 8, that are fastest on a trial. Runs of both sides alternate, so
that both meet the same load of the machine. Ratios are ratios of medians.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sercli
from sercli.annotation.recording import Recording
from sercli.annotation.timing import Stopwatch
from sercli.config import SegmentConfig, count_cores
from sercli.errors import AudioError

SAMPLE_RATE = 16_000

FloatArray = NDArray[np.float32]
Classify = Callable[[list[FloatArray]], Any]


class Way(NamedTuple):
    """Another way to labels, and the settings that were chosen for it."""

    classify: Classify
    settings: dict[str, Any]


class Comparison(NamedTuple):
    """A shipped model, and another way to labels that it is compared with."""

    name: str
    model: str
    create: Callable[[], Way]
    sample: int  # number of segments that the other way is timed on; 0 for all
    package: str = "sercli"  # what it needs


def create_pipeline() -> Way:
    """Return the pipeline of `transformers` with the encoder of the shipped transformer."""
    import torch
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForAudioClassification,
        pipeline,
    )

    from sercli.neural.devices import choose_precision

    model: Any = sercli.load_model("transformer", "cpu", precision="fp32")
    encoder = dict(model.spec.settings["encoder"])
    encoder.pop("model_type")
    labels = dict(enumerate(model.spec.labels))
    plain = WhisperForAudioClassification(WhisperConfig(**encoder, id2label=labels))
    plain.encoder.load_state_dict(model.network.encoder.model.state_dict())
    extractor: Any = WhisperFeatureExtractor()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        extractor.save_pretrained(folder)
        pipelines: dict[tuple[str, int], Any] = {
            (str(type_), size): pipeline(
                "audio-classification",
                model=folder,
                feature_extractor=folder,
                batch_size=size,
                dtype=type_,
                device="cpu",
            )
            # bfloat16 is faster only on processors that multiply it in hardware.
            for type_ in {torch.float32, choose_precision(torch.device("cpu"))}
            for size in (1, 4, 8)
        }
    trial = [np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)] * 8
    times = {}
    for setting, classify in pipelines.items():
        _consume(classify, trial[:1])
        times[setting] = measure(partial(_consume, classify, trial))
    best = min(times, key=lambda setting: times[setting])
    print("transformers.pipeline is fastest in {}, at batch size {}".format(*best), file=sys.stderr)
    settings = dict(zip(("dtype", "batch_size"), best, strict=True))
    return Way(lambda waveforms: list(pipelines[best](list(waveforms))), settings)


def _consume(work: Callable[[list[Any]], Any], given: list[Any]) -> None:
    for _ in work(list(given)):
        pass


def create_clip_by_clip() -> Way:
    """Return the shipped transformer, called for one segment at a time."""
    return Way(_call_clip_by_clip(sercli.load_model("transformer", "cpu")), {})


def _call_clip_by_clip(model: Any) -> Classify:
    return lambda waveforms: [model.predict_proba([waveform]) for waveform in waveforms]


def create_librosa_cnn() -> Way:
    """Return the shipped CNNs with a mel front end of librosa, called for one segment at a time."""
    import librosa
    import torch

    model: Any = sercli.load_model("cnn", "cpu")

    class LibrosaFrames(torch.nn.Module):
        def __init__(self, replaced: Any) -> None:
            super().__init__()
            self.settings, self.spread = replaced.settings, replaced.SPREAD_DB

        def forward(self, waveforms: torch.Tensor, _: torch.Tensor) -> tuple[Any, Any]:
            mel = librosa.feature.melspectrogram(
                y=waveforms[0].numpy(),
                sr=SAMPLE_RATE,
                n_fft=1 << (self.settings.win_length - 1).bit_length(),
                win_length=self.settings.win_length,
                hop_length=self.settings.hop_length,
                n_mels=self.settings.n_mels,
                fmin=self.settings.f_min,
                fmax=self.settings.f_max,
                htk=True,
                norm=None,
                pad_mode="constant",
            )
            levels = librosa.power_to_db(mel, top_db=self.settings.floor)
            frames = torch.from_numpy((levels - levels.mean()) / self.spread)[None]
            return frames, torch.ones(1, frames.shape[2])

    for member in model.members:
        member.network.front_end = LibrosaFrames(member.network.front_end)
    return Way(_call_clip_by_clip(model), {})


def _extract_functionals(waveforms: list[FloatArray]) -> list[Any]:
    import opensmile

    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    return [smile.process_signal(waveform, SAMPLE_RATE).to_numpy() for waveform in waveforms]


def create_opensmile() -> Way:
    """Return the extraction of eGeMAPS functionals by opensmile-python, in a process per core."""
    n_processes = count_cores()
    pool = multiprocessing.get_context("spawn").Pool(n_processes)
    pool.map(_extract_functionals, [[np.zeros(SAMPLE_RATE, np.float32)]] * 2 * n_processes)

    def classify(waveforms: list[FloatArray]) -> list[Any]:
        shares = [waveforms[first :: 4 * n_processes] for first in range(4 * n_processes)]
        return pool.map(_extract_functionals, shares, chunksize=1)

    return Way(classify, {})


COMPARISONS = (
    Comparison("transformers.pipeline", "transformer", create_pipeline, 32),
    Comparison("transformer clip by clip", "transformer", create_clip_by_clip, 0),
    Comparison("librosa and CNN clip by clip", "cnn", create_librosa_cnn, 0, "librosa"),
    Comparison("opensmile eGeMAPS", "svm", create_opensmile, 0, "opensmile"),
)


def measure(work: Callable[[], Any]) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def find_segments(paths: list[Path]) -> list[FloatArray]:
    """Return the audio of all segments that `ser annotate` classifies.

    Raises
    ------
    AudioError
        If a recording cannot be read in full, or there are none with speech.
    """
    found: list[FloatArray] = []
    failed: list[str] = []
    for one in sercli.find_inputs(paths):
        recording = Recording(one, "mix", SegmentConfig(), Stopwatch())
        for part in recording.listen():
            found += part.waveforms
        failed += [recording.result.error] if recording.result.error else []
    if failed:
        raise AudioError(f"{'; '.join(failed)}; expected recordings that can be read in full")
    if not found:
        raise AudioError(f"{', '.join(map(str, paths))}: found no recording with speech")
    return found


def compare(
    one: Comparison, paths: list[Path], segments: list[FloatArray], runs: int
) -> dict[str, Any]:
    """Return the times of both sides and the ratios of their medians."""
    classifier = sercli.load_model(one.model, "cpu")
    classify, settings = one.create()
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(segments))[: one.sample or None]
    sample = [segments[index] for index in chosen]
    # A pipeline pads all segments to one length: its time depends on their number.
    scale = len(segments) / len(sample)
    inputs = list(sercli.find_inputs(paths))
    ours, in_model, theirs = [], [], []
    for number in range(runs + 1):  # the first run warms up
        annotator = sercli.Annotator(classifier, SegmentConfig())
        seconds = measure(partial(_consume, annotator.annotate, inputs))
        others = measure(lambda: classify(sample)) * scale
        spent = annotator.stopwatch.seconds
        if number:
            ours.append(seconds)
            in_model.append((spent["features"] + spent["model"]) / annotator.effort.n_workers)
            theirs.append(others)
    return {
        "compared": one.name,
        "model": one.model,
        "precision": classifier.precision,
        "their_settings": settings,
        "seconds": ours,
        "model_seconds": in_model,
        "their_seconds": theirs,
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "model_ratio": statistics.median(theirs) / statistics.median(in_model),
    }


def main() -> None:
    """Run the comparisons and print a line for each, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=[one.name for one in COMPARISONS])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.runs < 1:
        parser.error(f"--runs is {given.runs}; expected 1 or more")
    chosen = [one for one in COMPARISONS if given.only in (None, one.name)]
    for one in chosen:
        if find_spec(one.package) is None:
            parser.error(
                f"{one.name} needs {one.package}, which is not installed; install it by "
                "pip install -e '.[compare]', or name another comparison by --only"
            )
    try:
        segments = find_segments(given.paths)
    except AudioError as error:
        parser.error(str(error))
    found = []
    for one in chosen:
        found.append(compare(one, given.paths, segments, given.runs))
        if not given.json:
            last = found[-1]
            print(
                f"{last['model']}: {last['ratio']:.1f} times as fast as {last['compared']}, "
                f"{last['model_ratio']:.1f} times in features and model"
            )
    if given.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
