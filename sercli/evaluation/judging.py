"""What models say of clips, as `ser annotate` would: as they are, under stress, by baselines."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, FloatArray
from sercli.audio.reading import SAMPLE_RATE
from sercli.classifiers.base import Classifier
from sercli.config import Adaptation, EvalConfig, Precision
from sercli.datasets.base import Clip
from sercli.datasets.decoding import Waveforms, cut_equally, order_by_source
from sercli.datasets.extraction import ClipFeatures, Cut, Progress, extract_clip_features
from sercli.datasets.matching import join_voices
from sercli.evaluation.measurement import Judgement
from sercli.evaluation.mixes import measure_mixes
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.stress import apply_condition, condition_rng, needs_talkers

CLEAN: Final = "clean"

# People in the background: of so many clips, so many seconds each, all of which is in memory.
MAX_TALKERS: Final = 1_200
TALK_S: Final = 6.0


def renormalise(
    probabilities: DoubleArray, labels: Sequence[str], wanted: Sequence[str]
) -> DoubleArray:
    """Return the probabilities of some labels, given that it is one of them.

    Parameters
    ----------
    probabilities
        Shape (n_segments, n_labels), in the order of `labels`.
    labels
        All labels.
    wanted
        Some of them.
    """
    # What is too small to matter must not be lost in 0 / 0.
    chosen = probabilities[:, [list(labels).index(label) for label in wanted]] + 1e-300
    result: DoubleArray = chosen / chosen.sum(axis=1, keepdims=True)
    return result


def judge_clips(
    classifiers: Sequence[Classifier],
    clips: Sequence[Clip],
    labels: tuple[str, ...],
    config: EvalConfig,
    progress: Progress | None,
) -> list[Judgement]:
    """Judge clips under every condition with models that share their features.

    Parameters
    ----------
    classifiers
        Models with one front end.
    clips
        What is heard. Those of other labels are not scored, but are in their groups' baselines, as
        they are for who does not know the labels.
    labels
        That are scored.
    config
        What is judged besides the clips as they are.
    progress
        As for `sercli.evaluation.run.evaluate_all`.

    Returns
    -------
    list of Judgement
        In the order of the models.
    """
    to_score = [clip for clip in clips if clip.emotion in labels]

    def extract(condition: str, model: Classifier = classifiers[0]) -> ClipFeatures:
        pool = Pool(to_score, config.seed) if needs_talkers(condition) else None
        cut = partial(_cut, condition, config.seed, pool)
        if model.in_workers:
            hear = partial(_hear, model, cut)
            return extract_clip_features(clips, hear, jobs=config.jobs, progress=progress)
        return extract_clip_features(
            clips, cut, embed=model.extract_features, jobs=config.jobs, progress=progress
        )

    def judge(classifier: Classifier, features: Sequence[FloatArray]) -> DoubleArray:
        scores = classifier.score(np.concatenate(features))
        pieces = classifier.spec.find_calibration(config.target).probabilities(scores)
        adapt = choose_adaptation(classifier, config, clips)
        if adapt != "none":
            adapter = classifier.find_adapter(config.target)
            names = name_groups(clean.clips, adapt)
            groups = np.repeat(names, [len(rows) for rows in features])
            for name in np.unique(groups):
                pieces[groups == name] = adapter.adapt(pieces[groups == name])
        # Pieces of a clip are of one length, and count alike: their sum becomes their mean.
        sums = np.add.reduceat(pieces, np.cumsum([0, *map(len, features)])[:-1])
        means: DoubleArray = (sums / sums.sum(axis=1, keepdims=True))[scored]
        return means

    def judge_scored(classifier: Classifier, features: Sequence[FloatArray]) -> DoubleArray:
        return renormalise(judge(classifier, features), classifier.spec.labels, labels)

    clean = extract(CLEAN)
    scored = [row for row, clip in enumerate(clean.clips) if clip.emotion in labels]
    measured = clean.select(scored)
    places = {clip.place for clip in to_score}
    failed = {place: error for place, error in clean.failed.items() if place in places}
    stressed: list[dict[str, DoubleArray]] = [{} for _ in classifiers]
    for condition in config.stress:
        # One condition at a time, so that memory does not grow with their number.
        features = clean.features if condition == CLEAN else extract(condition).features
        for classifier, found in zip(classifiers, stressed, strict=True):
            found[condition] = judge_scored(classifier, features)
    converted: list[dict[str, DoubleArray]] = [{} for _ in classifiers]
    for classifier, found in zip(classifiers, converted, strict=True):
        for precision in config.precisions:
            with multiplying(classifier, precision):
                found[precision] = judge_scored(classifier, extract(CLEAN, classifier).features)
    n_alone = 0
    if any(map(needs_talkers, config.stress)):
        voices = {clip.voice for clip in draw_talkers(to_score, config.seed)}
        n_alone = sum(not find_strangers(clip, voices) for clip in measured.clips)
    judgements = []
    for one, under_stress, in_other in zip(classifiers, stressed, converted, strict=True):
        own = one.spec.labels
        written = Predictions(one.name, own, measured.clips, judge(one, clean.features))
        probabilities = renormalise(written.probabilities, own, labels)
        judgements.append(
            Judgement(
                Predictions(one.name, labels, measured.clips, probabilities, measured.hashes),
                under_stress,
                failed,
                _measure_mixes(one, measured, labels, config.seed) if config.mixes else None,
                in_other,
                written,
                n_alone,
            )
        )
    return judgements


@contextmanager
def multiplying(classifier: Classifier, precision: Precision) -> Iterator[None]:
    """Let a model multiply another number type within the block.

    Parameters
    ----------
    classifier
        The model.
    precision
        The number type.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    before = classifier.precision
    try:
        classifier.use_precision(precision)
        yield
    finally:
        classifier.use_precision(before)


def choose_adaptation(
    classifier: Classifier, config: EvalConfig, clips: Sequence[Clip]
) -> Adaptation:
    """Return whose clips give baselines, where ``"auto"`` leaves it open.

    Parameters
    ----------
    classifier
        The model: it is judged by none if it would annotate by none.
    config
        What is measured.
    clips
        What is heard.
    """
    if config.adapt != "auto":
        return config.adapt
    if not classifier.adapts_unasked(config.target):
        return "none"
    if all(clip.voice is not None for clip in clips):
        return "speaker"
    apart = any(clip.channel is not None for clip in clips)
    return "channel" if apart else "recording"


def name_groups(clips: Sequence[Clip], adapt: Adaptation) -> NDArray[np.str_]:
    """Return by whose baseline each clip is judged.

    Parameters
    ----------
    clips
        The clips.
    adapt
        As in `EvalConfig`, but ``"none"`` and ``"auto"``.

    Returns
    -------
    ndarray of str, shape (n_clips,)
        A name of its group for each clip.
    """
    if adapt == "corpus":
        return np.full(len(clips), adapt)
    # Of whom it is not known who speaks, a recording is a group of its own.
    return np.array(
        [
            (voice if adapt == "speaker" else None)
            or (f"{clip.path}@{clip.channel}" if adapt == "channel" else str(clip.path))
            for voice, clip in zip(join_voices(clips), clips, strict=True)
        ]
    )


def _measure_mixes(
    classifier: Classifier, found: ClipFeatures, labels: tuple[str, ...], seed: int
) -> list[dict[str, Any]]:
    """Measure groups of clips, each clip by its first piece."""
    adapter, own = classifier.find_adapter(), classifier.spec.labels
    scores = classifier.score(np.stack([rows[0] for rows in found.features]))
    alone = classifier.spec.calibration.probabilities(scores)
    return measure_mixes(
        lambda group: renormalise(adapter.adapt(alone[group]), own, labels),
        renormalise(alone, own, labels),
        np.array([labels.index(clip.emotion) for clip in found.clips]),
        join_voices(found.clips),
        labels,
        seed,
    )


def _hear(classifier: Classifier, cut: Cut, clip: Clip, waveform: FloatArray) -> FloatArray:
    return classifier.extract_features(cut(clip, waveform))


def draw_talkers(clips: Sequence[Clip], seed: int) -> Sequence[Clip]:
    """Return the clips whose speakers may be heard behind others.

    Parameters
    ----------
    clips
        All that are judged; of very many, some are drawn.
    seed
        Of the draw.
    """
    if len(clips) <= MAX_TALKERS:
        return clips
    chosen = np.random.default_rng(seed).choice(len(clips), MAX_TALKERS, replace=False)
    return [clips[index] for index in sorted(chosen)]


def find_strangers(clip: Clip, voices: Iterable[str | None]) -> list[str]:
    """Return the voices that are known to be others than that of a clip.

    Parameters
    ----------
    clip
        Whose speaker need not be known: then nobody is known to be another.
    voices
        Of all talkers.
    """
    return [one for one in voices if clip.voice and one not in (None, clip.voice)]


class Pool:
    """Who may speak behind a clip, decoded once for all of them.

    Parameters
    ----------
    clips
        All that are judged; of very many, some are drawn.
    seed
        Of the draw.
    """

    def __init__(self, clips: Sequence[Clip], seed: int) -> None:
        clips = draw_talkers(clips, seed)
        self._by_voice: dict[str | None, list[int]] = {}
        for index, clip in enumerate(clips):
            self._by_voice.setdefault(clip.voice, []).append(index)
        self._names = [clip.name for clip in clips]
        order, waveforms = order_by_source(clips), Waveforms(clips)
        heard = [waveforms[index][: int(TALK_S * SAMPLE_RATE)] for index in order]
        # In one array, which goes to other processes once, not with every few clips.
        self._samples = np.concatenate(heard)
        starts = np.cumsum([0, *map(len, heard)])
        self._spans = {index: slice(*starts[i : i + 2].tolist()) for i, index in enumerate(order)}

    def find_talkers(self, clip: Clip) -> list[FloatArray]:
        """Return waveforms of other speakers; where none is known, of other clips or of any."""
        strangers = find_strangers(clip, self._by_voice)
        chosen = [index for voice in strangers for index in self._by_voice[voice]]
        if not chosen:
            everybody = [index for indices in self._by_voice.values() for index in indices]
            others = [index for index in everybody if self._names[index] != clip.name]
            chosen = others or everybody
        return [self._samples[self._spans[index]] for index in chosen]


def _cut(
    condition: str, seed: int, pool: Pool | None, clip: Clip, waveform: FloatArray
) -> list[FloatArray]:
    """Return a clip as it is heard under a condition, in equal pieces."""
    if condition != CLEAN:
        rng = condition_rng(seed, condition, clip.name)
        talkers = pool.find_talkers(clip) if pool is not None else ()
        waveform = apply_condition(waveform, condition, rng, talkers)
    return cut_equally(waveform)
