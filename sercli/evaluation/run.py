"""Evaluation of models on a corpus: each clip is one segment, classified as `ser annotate` does.

Clips of more than 30 s are cut into equal pieces, whose probabilities are averaged.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sercli.classifiers.base import Classifier
from sercli.config import EvalConfig, Split
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import Corpus
from sercli.datasets.extraction import Progress
from sercli.datasets.notes import Notes
from sercli.datasets.reading import read_corpus
from sercli.datasets.votes import Votes, find_unknown
from sercli.errors import DatasetError
from sercli.evaluation.caveats import find_caveats, refuse_known
from sercli.evaluation.classification import (
    CLEAN,
    choose_adaptation,
    classify_clips,
    using_precision,
)
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.measurement import ClassifiedClips, measure, refuse_idle_votes
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.stress import check_condition
from sercli.files import AnyPath
from sercli.registry.store import load_model
from sercli.text import format_count
from sercli.version import __version__

# Version of the layout of metrics.json, `sercli/data/metrics.schema.json`.
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's predictions for a corpus, and the figures computed from them.

    Parameters
    ----------
    predictions
        Predictions for the clean clips.
    figures
        The content of ``metrics.json``; its layout is described in
        ``sercli/data/metrics.schema.json``.
    notes
        Notes on recordings that were repaired or are not read in full, by their paths.
    """

    predictions: Predictions = field(repr=False)
    figures: dict[str, Any] = field(repr=False)
    notes: Mapping[str, Notes] = field(default_factory=dict, repr=False)


def evaluate(
    model: Classifier | AnyPath,
    corpus: Corpus | AnyPath,
    split: Split | Literal["new"] | None = None,
    config: EvalConfig | None = None,
    *,
    votes: Votes | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model on one split of a corpus.

    Only labels that both the model and the clips have are scored, with the model's probabilities
    renormalised over them.

    Parameters
    ----------
    model
        Name or folder of a model, or a loaded model; see `sercli.load_model`.
    corpus
        Labelled clips, or the path of a corpus; see `sercli.read_corpus`.
    split
        Split to evaluate on; ``"new"``: clips of known speakers on whom no model was trained, nor
        chosen by them. None: ``test``, or all clips if the corpus has no ``test``.
    config
        Settings of the evaluation.
    votes
        Listeners' votes by name of the clip; clips without votes are left out of the comparison
        with listeners. Votes for labels that are not scored are wrong answers.
    progress
        Called with the number of newly finished clips, once for each condition and number type.

    Returns
    -------
    Evaluation

    Raises
    ------
    DatasetError
        If the corpus cannot be read, the split is empty or has no label of the model, speakers
        that `config` needs are unknown, or `EvalConfig.strict` is set and the model was trained
        on some of the clips or speakers.
    ModelError
        If the model cannot be loaded.
    ConfigError
        If the model does not support the target, adaptation or number types of `config`, or a
        stress condition is unknown.
    """
    classifier = model if isinstance(model, Classifier) else load_model(model)
    if not isinstance(corpus, Corpus):
        corpus = read_corpus(corpus)
    return evaluate_all([classifier], corpus, split, config, votes=votes, progress=progress)[0]


def evaluate_all(
    classifiers: Sequence[Classifier],
    corpus: Corpus,
    split: Split | Literal["new"] | None = None,
    config: EvalConfig | None = None,
    *,
    votes: Votes | None = None,
    progress: Progress | None = None,
    expect: Progress | None = None,
) -> list[Evaluation]:
    """Evaluate several models on the same clips and the labels that all of them have.

    Models with equal front ends share their features. The parameters are those of `evaluate`;
    `progress` counts each clip once for each condition and front end, and once for each number
    type of each model; before, `expect` is called with the number that it counts up to.

    Returns
    -------
    list of Evaluation
        The results, in the order of the models.
    """
    config, split = config or EvalConfig(), split or corpus.default_split
    found = _select_clips(classifiers, corpus, split)
    _check_settings(classifiers, found, config)
    clips, labels, left_out = choose_labels(classifiers, found)
    _check_clips(classifiers, clips, config, corpus.name, votes)
    # Baselines include clips of other labels, as in annotation, where labels are unknown.
    adapts = any(choose_adaptation(one, config, found) != "none" for one in classifiers)
    decoded = found if adapts else clips
    if expect is not None:
        expect(len(decoded) * _count_passes(classifiers, config))
    classified = _classify(classifiers, decoded, labels, config, progress)
    misspelt = _find_misspelt(votes or {}, classifiers, corpus)
    results = []
    for classifier, one in zip(classifiers, classified, strict=True):
        manifest = TrainingManifest.of(classifier)
        unused = [label for label in classifier.spec.labels if label not in labels]
        figures = {
            **describe_model(classifier),
            "target": config.target,
            "adapt": choose_adaptation(classifier, config, decoded),
            "precision": classifier.precision,
            "corpus": corpus.name,
            "split": split,
            **find_caveats(
                manifest, one, config.target, classifier.limits, has_votes=votes is not None
            ),
            "labels_left_out": {"model": unused, "corpus": left_out},
            "left_out": corpus.count_skipped(),
            **measure(one, config, votes),
        }
        figures["warnings"] += misspelt
        results.append(Evaluation(one.predictions, figures, one.notes))
    return results


def _check_settings(
    classifiers: Sequence[Classifier], clips: Sequence[Clip], config: EvalConfig
) -> None:
    """Raise if a model does not support the settings: at once, and not after an hour."""
    for condition in config.stress:
        check_condition(condition)
    for classifier in classifiers:
        classifier.spec.find_calibration(config.target)
        if choose_adaptation(classifier, config, clips) != "none" or config.mixes:
            classifier.find_adapter(config.target)
        for precision in config.precisions:
            with using_precision(classifier, precision):
                pass


def _check_clips(
    classifiers: Sequence[Classifier],
    clips: Sequence[Clip],
    config: EvalConfig,
    corpus: str,
    votes: Votes | None,
) -> None:
    """Raise before any decoding if the clips do not suffice for all figures.

    They do not if speakers are needed but unknown or, with `EvalConfig.strict`, known to a model,
    or if no clip has votes.
    """
    if votes is not None:
        refuse_idle_votes(votes, clips)
    if config.mixes and not all(clip.voice for clip in clips):
        raise DatasetError(
            f"{corpus}: speakers are unknown; expected a speaker for every clip, to draw groups of "
            "them (mixes)"
        )
    if config.adapt == "speaker" and not any(clip.voice for clip in clips):
        raise DatasetError(
            f"{corpus}: speakers are unknown, and adapt is 'speaker'; expected the speakers "
            "of some clips, or another adapt"
        )
    if config.strict:
        for classifier in classifiers:
            refuse_known(classifier, clips, ())


def _count_passes(classifiers: Sequence[Classifier], config: EvalConfig) -> int:
    """Return how often `_classify` takes the features of each clip."""
    n_conditions = 1 + sum(condition != CLEAN for condition in config.stress)
    n_front_ends = len({one.front_end for one in classifiers})
    return n_front_ends * n_conditions + len(classifiers) * len(config.precisions)


def _classify(
    classifiers: Sequence[Classifier],
    clips: Sequence[Clip],
    labels: tuple[str, ...],
    config: EvalConfig,
    progress: Progress | None,
) -> list[ClassifiedClips]:
    """Classify the clips with all models; those with equal front ends share their features."""
    found: dict[int, ClassifiedClips] = {}
    for front_end in dict.fromkeys(one.front_end for one in classifiers):
        members = [i for i, one in enumerate(classifiers) if one.front_end == front_end]
        some = classify_clips([classifiers[i] for i in members], clips, labels, config, progress)
        found |= dict(zip(members, some, strict=True))
    classified = [found[index] for index in range(len(classifiers))]
    if config.strict:  # now that the audio is known, too
        for classifier, one in zip(classifiers, classified, strict=True):
            refuse_known(classifier, one.predictions.clips, one.hashes)
    return classified


def _find_misspelt(votes: Votes, classifiers: Sequence[Classifier], corpus: Corpus) -> list[str]:
    """Return a warning about columns of the votes that are no labels, if there are any."""
    of_models = {label for one in classifiers for label in one.spec.labels}
    misspelt = find_unknown(votes, {*of_models, *(clip.emotion for clip in corpus.clips)})
    if not misspelt:
        return []
    return [
        f"The table of votes has columns that are not labels: {', '.join(misspelt)}. Votes for "
        "these count as wrong answers."
    ]


def _select_clips(
    classifiers: Sequence[Classifier], corpus: Corpus, split: Split | Literal["new"]
) -> tuple[Clip, ...]:
    """Return the clips of a split, see `evaluate`.

    Parameters
    ----------
    classifiers
        The models to evaluate.
    corpus
        Labelled clips.
    split
        Name of the split.

    Raises
    ------
    DatasetError
        If there are none.
    """
    if split != "new":
        try:
            return corpus.select(split)
        except DatasetError as error:
            raise DatasetError(f"{error}, or new: speakers that no model was trained on") from error
    if not any(clip.voice for clip in corpus.clips):
        raise DatasetError(
            f"{corpus.name}: speakers are unknown; expected those of some clips, to find who is "
            "new to the models; name them in a table, or choose another split"
        )
    manifests = (TrainingManifest.of(classifier) for classifier in classifiers)
    known = {
        voice
        for manifest in manifests
        if manifest is not None
        for voice in manifest.find_speakers(corpus.clips)
    }
    clips = tuple(clip for clip in corpus.clips if clip.voice and clip.voice not in known)
    if not clips:
        raise DatasetError(
            f"{corpus.name}: the models were trained on all "
            f"{format_count(len(known), 'named speaker')}; expected clips of other speakers"
        )
    return clips


def choose_labels(
    classifiers: Sequence[Classifier], clips: Sequence[Clip]
) -> tuple[tuple[Clip, ...], tuple[str, ...], dict[str, int]]:
    """Return the scored clips and labels, and the number of clips left out by label.

    The scored labels are those that all models and at least one clip have. If there is only one, it
    could not be confused with any other, so all labels that the models share are scored.

    Parameters
    ----------
    classifiers
        The models.
    clips
        Clips with any labels.

    Raises
    ------
    DatasetError
        If no clip has a label that all models have, or the models share fewer than two labels.
    """
    common = [
        label
        for label in classifiers[0].spec.labels
        if all(label in one.spec.labels for one in classifiers)
    ]
    counts = Counter(clip.emotion for clip in clips)
    shared = tuple(label for label in common if counts[label])
    if len(common) < 2 and len(classifiers) > 1:
        own = "; ".join(f"{one.name}: {', '.join(one.spec.labels)}" for one in classifiers)
        raise DatasetError(
            f"the models share fewer than two labels ({own}); evaluate each by itself"
        )
    if not shared or len(common) < 2:
        raise DatasetError(
            f"the clips have the labels {sorted(counts)}; expected some that "
            f"{'all models have' if len(classifiers) > 1 else 'the model has'}, {common}; map "
            "them with --map THEIRS=OURS"
        )
    left_out = {label: n for label, n in sorted(counts.items()) if label not in common}
    kept = tuple(clip for clip in clips if clip.emotion in common)
    return kept, shared if len(shared) > 1 else tuple(common), left_out


def describe_model(classifier: Classifier) -> dict[str, Any]:
    """Return how figures identify their model: schema and `ser` versions, name and hash.

    Parameters
    ----------
    classifier
        The model.
    """
    return {
        "schema": SCHEMA,
        "ser_version": __version__,
        "model": classifier.name,
        "sha256": classifier.sha256,
    }
