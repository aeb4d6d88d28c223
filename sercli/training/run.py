"""From a corpus to a model folder: fit, save, evaluate, and write the card."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.config import APART, SHARED, UNKNOWN, EvalConfig, Split
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import MAX_NAMED, Corpus, class_indices
from sercli.datasets.facts import load_facts
from sercli.datasets.labelling import canonical_label
from sercli.datasets.matching import is_published
from sercli.datasets.notes import Notes, join_notes
from sercli.datasets.protocols import find_protocol, fold_by_speaker
from sercli.errors import DatasetError
from sercli.evaluation.caveats import find_limits
from sercli.evaluation.measurement import ClassifiedClips, measure
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.run import Evaluation, describe_model, evaluate
from sercli.labels import EMOTIONS
from sercli.registry.description import CARD_FILE, HELD_OUT_FILE, MANIFEST_FILE
from sercli.registry.store import load_model, save_model
from sercli.reporting.cards import write_card
from sercli.reporting.folder import REPORT_FILES, write_evaluation
from sercli.text import format_count
from sercli.training.config import AdapterConfig
from sercli.training.folds import check_labels
from sercli.training.networks.history import HISTORY_FILES
from sercli.training.teachers import encode_held_out
from sercli.training.trainer import AnyTrainer, Learned, Prepared


@dataclass(frozen=True, eq=False)
class Training:
    """A trained model and its evaluation.

    Parameters
    ----------
    classifier
        The model, as loaded from its folder.
    evaluation
        Evaluation on clips that the model was not trained on; None if not requested or if there
        are no such clips.
    failed
        Error of each clip, for training or testing, and of each recording without labels that
        could not be decoded, by path.
    notes
        Notes on recordings that were repaired or are not read in full, by their paths.
    """

    classifier: Classifier
    evaluation: Evaluation | None
    failed: dict[str, str]
    notes: Mapping[str, Notes] = field(default_factory=dict)


def choose_training_labels(corpus: Corpus, wanted: Collection[str] = ()) -> tuple[str, ...]:
    """Return the labels of a corpus to learn: the canonical emotions first, then by name.

    By default, these are the canonical emotions of published corpora and all labels of the user's
    own, including those that labels of published corpora are mapped to; all labels of all corpora
    if these are fewer than two.

    Parameters
    ----------
    corpus
        One or several corpora.
    wanted
        The labels to learn instead, in any spelling that a corpus may use.

    Raises
    ------
    DatasetError
        If the corpus lacks a wanted label, or there are fewer than two.
    """
    found = {clip.emotion for clip in corpus.clips}
    if len(found) == 1:
        raise DatasetError(
            f"{corpus.name}: all {len(corpus.clips)} clips are labelled {found.pop()}; expected "
            "two or more labels"
        )
    chosen = {label if label in found else canonical_label(label) or label for label in wanted}
    if not wanted:
        chosen = {clip.emotion for clip in corpus.clips if not _is_extra(clip)}
        chosen = chosen if len(chosen) > 1 else found
    known = f"{corpus.name}: has the labels {', '.join(sorted(found))}; expected"
    if missing := chosen - found:
        raise DatasetError(
            f"{known} two or more of them in --emotions and no others, but it has no clips of "
            f"{', '.join(sorted(missing))}; name labels that it has, or rename its labels with "
            "--map THEIRS=OURS"
        )
    if len(chosen) < 2:
        raise DatasetError(
            f"{known} two or more of them in --emotions, found only {', '.join(chosen)}"
        )
    ours = tuple(label for label in EMOTIONS if label in chosen)
    return (*ours, *sorted(chosen.difference(ours)))


def _is_extra(clip: Clip) -> bool:
    """Return whether a published corpus itself gives a clip a label that is no canonical one."""
    own = load_facts("labels").get(clip.corpus, {}) if is_published(clip) else {}
    return clip.emotion not in EMOTIONS and clip.emotion in own.values()


def _list_labels(corpus: Corpus) -> tuple[str, ...]:
    """Return all labels of a corpus, in the order of `choose_training_labels`."""
    return choose_training_labels(corpus, {clip.emotion for clip in corpus.clips})


def train_on_splits(
    corpus: Corpus,
    folder: Path,
    trainer: AnyTrainer,
    *,
    fit_on: Sequence[Split] = ("train",),
    test: bool = True,
    details: Mapping[str, Any] = {},
) -> Training:
    """Train a model on some splits of a corpus, and evaluate it on the ``test`` clips.

    Parameters
    ----------
    corpus
        Corpus in which every clip has a split; see `sercli.datasets.protocols`. Its clips must have
        the labels to be learned, and no others.
    folder
        Path of the model folder; created if missing.
    trainer
        Trainer of the family.
    fit_on
        Splits to train on. If ``dev`` is not among them and the family uses development clips, the
        model is chosen and calibrated on them.
    test
        Whether to evaluate the model, if there are ``test`` clips that are not trained on.
    details
        Facts to add to ``training`` in ``model.json``.

    Returns
    -------
    Training

    Raises
    ------
    DatasetError
        If a split is empty, or the clips do not suffice.
    """
    clips = tuple(clip for split in fit_on for clip in corpus.select(split))
    held_out = tuple(clip for clip in corpus.clips if clip.split == "test")
    uses_dev = trainer.uses_dev and "dev" not in fit_on
    dev = tuple(clip for clip in corpus.clips if clip.split == "dev") if uses_dev else ()
    labels = _list_labels(corpus)
    trainer.check_fit(clips, labels, dev)
    trainer.check_held_out((*dev, *held_out))
    trainer.begin(folder)
    parts = trainer.prepare([clips, dev] if dev else [clips])
    _tell_contradictions(parts, corpus, trainer)
    if n_copies := _count_copies(parts):
        trainer.say(f"warning: {_explain_copies(n_copies)}")
    found, *others = parts
    learned = _learn(found, labels, folder, trainer, *others)
    # The model also knows the development speakers, by whom it is chosen.
    record = {"splits": list(fit_on), "protocol": find_protocol((*clips, *dev), held_out)}
    saved = _save(learned, found, corpus, folder, trainer, {**record, **details}, *others)
    evaluation = None
    if test and not held_out:
        trainer.say("no clips in the split test: nothing is measured")
    if test and held_out and "test" not in fit_on:
        trainer.say(f"measuring on {len(held_out)} clips that were not used in training")
        config = EvalConfig(seed=trainer.config.seed, jobs=trainer.config.jobs)
        evaluation = evaluate(saved, corpus, "test", config)
    return _finish(saved, evaluation, parts, folder, trainer)


def cross_validate(
    corpus: Corpus,
    folder: Path,
    trainer: AnyTrainer,
    n_folds: int,
    *,
    details: Mapping[str, Any] = {},
) -> Training:
    """Train a model on all clips, and evaluate models of its kind by cross-validation.

    The clips of each fold are scored by a model whose settings, weights and calibration come from
    the other folds alone. The saved model is trained on all folds.

    Parameters
    ----------
    corpus
        Corpus whose clips have the labels to be learned, and no others.
    folder
        Path of the model folder; created if missing.
    trainer
        Trainer of the family.
    n_folds
        Number of folds, at least 2; every speaker is in one fold.
    details
        As for `train_on_splits`.

    Returns
    -------
    Training

    Raises
    ------
    DatasetError
        If speakers are unknown or fewer than folds, or the clips do not suffice.
    """
    labels = _list_labels(corpus)
    folds = fold_by_speaker(corpus.clips, n_folds)
    protocol = _check_folds(corpus.clips, folds, labels, trainer)
    trainer.check_fit(corpus.clips, labels)
    trainer.check_held_out(corpus.clips)
    trainer.begin(folder)
    # The augmentation mixes clips into the background of others; so clips are prepared fold by
    # fold, to keep voices of one fold out of the others.
    parts = trainer.prepare([[corpus.clips[i] for i in fold] for fold in folds])
    _tell_contradictions(parts, corpus, trainer)
    probabilities = _classify_folds(parts, labels, folder, trainer)
    found = type(parts[0]).join(parts)
    trainer.say("fitting on all clips")
    learned = _learn(found, labels, folder, trainer)
    split = f"{n_folds} folds"
    n_copies = _count_copies(parts)
    unknown = trainer.make_manifest(found).explain_unknown()
    protocol = _find_worst(
        {protocol, SHARED if n_copies else protocol, UNKNOWN if unknown else protocol}
    )
    record = {"splits": ["all"], "protocol": f"{protocol}, {split}", **details}
    saved = _save(learned, found, corpus, folder, trainer, record)
    predictions = Predictions(saved.name, labels, found.clips, probabilities, found.hashes)
    classified = ClassifiedClips(predictions, {}, found.failed, notes=found.notes)
    figures = {
        **describe_model(saved),
        "target": "intended",
        "adapt": "none",
        "precision": "fp32",  # whatever that of the saved model: `classify` converts nothing
        "corpus": corpus.name,
        "split": split,
        "protocol": protocol,
        "overlap": {"speakers": [], "clips": n_copies},
        "warnings": [
            "The figures are those of the models of the folds, not of this model.",
            *([_explain_copies(n_copies)] if n_copies else []),
            *([unknown] if unknown else []),
            *find_limits(classified),
        ],
        "labels_left_out": {"model": [], "corpus": {}},
        "left_out": corpus.count_skipped(),
        **measure(classified, EvalConfig(seed=trainer.config.seed)),
    }
    return _finish(saved, Evaluation(predictions, figures), (found,), folder, trainer)


def _check_folds(
    clips: tuple[Clip, ...],
    folds: Sequence[Sequence[int]],
    labels: Sequence[str],
    trainer: AnyTrainer,
) -> str:
    """Check the clips of every fold before any is decoded, and return the worst protocol."""
    classes = np.array(class_indices(clips, labels))
    protocols = set()
    for fold in folds:
        others = np.delete(np.arange(len(clips)), fold)
        rest = [clips[i] for i in others]
        check_labels(classes[others], labels, "speaker")
        trainer.check_fit_fold(rest, labels)
        protocols.add(find_protocol(rest, [clips[i] for i in fold]))
    return _find_worst(protocols)


def _classify_folds(
    parts: Sequence[Any], labels: Sequence[str], folder: Path, trainer: AnyTrainer
) -> DoubleArray:
    """Return probabilities of the clips of all folds, each by a model of the other folds."""
    probabilities = []
    for number, part in enumerate(parts, 1):
        trainer.say(f"fold {number} of {len(parts)}")
        rest = type(part).join([other for other in parts if other is not part])
        model = trainer.fit_fold(rest, labels, folder, number)
        probabilities.append(trainer.classify(model, part))
    return np.concatenate(probabilities)


def _find_worst(protocols: Collection[str]) -> str:
    """Return the worst protocol of several parts: `SHARED`, then `UNKNOWN`, then `APART`."""
    return next(one for one in (SHARED, UNKNOWN, APART) if one in protocols)


def _tell_contradictions(parts: Sequence[Prepared], corpus: Corpus, trainer: AnyTrainer) -> None:
    """Warn of clips with the same audio and different labels."""
    labelled: dict[str, dict[str, str]] = {}
    for part in parts:
        for clip, audio in zip(part.clips, part.hashes, strict=True):
            if audio:
                labelled.setdefault(audio, {}).setdefault(clip.emotion, corpus.find_name(clip))
    doubts = [
        " and ".join(f"{name} ({label})" for label, name in names.items())
        for names in labelled.values()
        if len(names) > 1
    ]
    if doubts:
        trainer.say(
            f"warning: {format_count(len(doubts), 'recording')} with several labels, such as "
            f"{'; '.join(doubts[:MAX_NAMED])}: correct the labels, or leave copies out"
        )


def _count_copies(parts: Sequence[Prepared]) -> int:
    """Return the number of clips whose audio is identical to that of a clip in another part."""
    n_parts = Counter(audio for part in parts for audio in {*part.hashes} - {""})
    return sum(n_parts[audio] > 1 for part in parts for audio in part.hashes)


def _explain_copies(n_clips: int) -> str:
    clips = format_count(n_clips, "clip")
    return (
        f"{clips} with the same audio as clips in another split or fold: the models were trained "
        "on what they are scored on, and the figures are too good. Leave copies out."
    )


def _learn(
    found: Prepared, labels: Sequence[str], folder: Path, trainer: AnyTrainer, *dev: Prepared
) -> Learned:
    """Train a model and, if that is asked for and there is something to train it on, an adapter."""
    learned = trainer.fit(found, labels, folder, *dev)
    if trainer.adapter and learned.held_out:
        from sercli.training.adapters.adaptation import add_adapter
        from sercli.training.adapters.groups import Examples

        examples = Examples.gather(found.clips, labels, *learned.held_out)
        config = AdapterConfig(seed=trainer.config.seed)
        add_adapter(learned.classifier, examples, config, trainer.say)
    return learned


def _save(
    learned: Learned,
    found: Prepared,
    corpus: Corpus,
    folder: Path,
    trainer: AnyTrainer,
    details: dict[str, Any],
    *chosen_by: Prepared,
) -> Classifier:
    """Write all files of a model; an earlier model in the folder is intact until this call."""
    classifier, held_out = learned
    manifest = trainer.make_manifest(found)
    for dev in chosen_by:
        manifest = manifest.choose_by(dev.clips, dev.hashes)
    facts = {"corpus": corpus.name, "licence": corpus.licence, **details}
    training = trainer.record(facts, classifier.spec.training)
    training["manifest_sha256"] = manifest.digest()
    # Also those of a teacher, a base or members, whose speakers are in the manifest, too.
    training["corpora"] = sorted({*manifest.corpora, *corpus.name.split("+")})
    classifier.spec = replace(classifier.spec, training=training)
    # Of an earlier model in this folder; those of this one come later.
    told: dict[str, bytes | None] = dict.fromkeys(
        (CARD_FILE, *REPORT_FILES, *HISTORY_FILES.values(), HELD_OUT_FILE)
    )
    told[MANIFEST_FILE] = manifest.encode()
    if held_out:
        told[HELD_OUT_FILE] = encode_held_out(found.hashes, classifier.spec.labels, held_out[0])
    # Together, or a process that is killed in between leaves what another model said.
    save_model(classifier, folder, told)
    return load_model(folder, getattr(trainer.config, "device", "auto"))


def _finish(
    classifier: Classifier,
    evaluation: Evaluation | None,
    parts: Sequence[Prepared],
    folder: Path,
    trainer: AnyTrainer,
) -> Training:
    """Write what else belongs into a model's folder, and gather what is to be told.

    Parameters
    ----------
    parts
        What it learned from and was chosen by.
    """
    write_card(classifier.spec, folder, evaluation.figures if evaluation else None)
    if evaluation is not None:
        write_evaluation(evaluation, folder)
    trainer.finish(folder)  # when all is written, or nothing could be resumed
    failed = {place: error for part in parts for place, error in part.failed.items()}
    failed |= {place: error for one in trainer.speech for place, error in one.failed.items()}
    told = [part.notes for part in (*parts, *trainer.speech)]
    if evaluation is not None:
        failed |= evaluation.figures["failed"]
        told.append(evaluation.notes)
    return Training(classifier, evaluation, failed, join_notes(told))
