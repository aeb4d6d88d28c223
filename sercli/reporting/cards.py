"""Model cards: what a user should know before using a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sercli.classifiers.base import ModelSpec
from sercli.evaluation.resampling import FIGURES
from sercli.files import write_bytes
from sercli.registry.catalogue import CARD_FILE
from sercli.text import format_count, format_duration

# Value of ``calibration_on`` in `ModelSpec.training` where speakers were held out to calibrate a
# network.
DEVELOPMENT_SPEAKERS = "the development speakers"

_CARD = """\
# {name}

{introduction}, for segments of
0.1 to 30 s. It returns a calibrated probability for each of {labels}.

## Training

| | |
|---|---|
| corpus | {corpus} ({licence}) |
{left_out}| trained on | {n_clips:,} clips of {n_speakers} speakers; splits: {splits} |
| protocol | {protocol} |
{settings}
| calibration | {calibration}, fitted on {calibrated_on} |
| seed | {seed} |
| command | `{command}` |

{folds}`manifest.csv` holds a hash of each clip and speaker that the
model was trained on, so that `ser eval` can warn when it is evaluated on any of them.

## Figures

{judged}; one training run:

| clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
{held_out}
{measured}{adapter}
## Limits

{corpus_limits}
- Rooms, noise and telephone lines were simulated; real ones are harder.
- The model knows only the studios of its training data. On other recordings it often reports too
  much emotion. Check it on a sample of your own recordings.
- A label describes how speech sounds, not what a person feels. Do not base decisions about people
  on it.
"""

# Limits of models trained on CREMA-D, and of all others.
_CREMAD_LIMITS = """\
- Emotions in such corpora are mostly acted; in CREMA-D, by North American actors, in English. How
  well the model generalises to spontaneous speech and to other languages, ages and cultures is not
  known.
- All speakers of CREMA-D say the same 12 sentences, so the sentences of the test speakers were also
  in the training data. Expect lower figures on other texts."""
_OTHER_LIMITS = """\
- How well the model generalises to other speech (spontaneous speech, other languages, ages and
  cultures) is not known. Acted emotions differ from spontaneous ones. If all speakers of the corpus
  say the same texts, expect lower figures on other texts."""

_MEASURED = """
On {n_segments:,} clips of {corpus}, split `{split}` ({speakers}; {protocol}), with {level:.0%}
bootstrap intervals over {resampled}; one training run. More figures are in `metrics.json` and
`report.md`.

| UAR | accuracy | macro-F1 | ECE | NLL | Brier |
|---|---|---|---|---|---|
| {figures} |
| {intervals} |

On this many clips, perfectly calibrated probabilities would have an ECE of {exact} by chance.

| emotion | precision | recall | F1 | clips |
|---|---|---|---|---|
{classes}
{precisions}"""
_PRECISIONS = """
On the same clips, with number types other than {precision}. Rounding depends on the CPU or GPU that
was used:

| number type | UAR (difference) | labels that stay the same | largest change in a probability |
|---|---|---|---|
{rows}
"""
_ADAPTER = """
## With a baseline

`--adapt` compares each segment with a baseline estimated from its group, if the group has {least}
segments or more{asked}. The adapter for this was trained on random groups of clips of one
speaker{source}.

These figures are from cross-validation: each speaker was scored by a model and an adapter that were
not trained on any of their clips; one training run. The ECE is with the baseline.

| mix | segments | figure | without baseline | with baseline (difference, 95% interval) | ECE |
|---|---|---|---|---|---|
{rows}
"""
_AUGMENTED = "augmented with another voice, room, microphone or noise"
_FIGURE_NAMES: Final = {"uar": "UAR", "accuracy": "accuracy"}


@dataclass(frozen=True)
class _Parts:
    """The texts of a card that depend on the model family.

    Parameters
    ----------
    introduction
        Kind of model.
    settings
        Rows of the table of training settings, by name.
    calibrated_on
        Scores that the calibration was fitted on.
    judged
        How the figures in ``training["held_out"]`` were obtained.
    folds
        What the folds keep together, as a sentence and a space; empty if there are no folds.
    """

    introduction: str
    settings: Mapping[str, str]
    calibrated_on: str
    judged: str
    folds: str = ""


def _describe_svm(spec: ModelSpec) -> _Parts:
    training = spec.training
    n_varied, n_moved = map(training["versions"].count, ("varied", "transposed"))
    moved = f", and {n_moved} transposed to the voices of other speakers" if n_moved else ""
    group = training["group_by"]
    return _Parts(
        introduction="An RBF support vector machine on spectral statistics of speech below "
        f"{spec.band_limit:.0f} Hz",
        settings={
            **_tell_calm(training, n_moved / len(training["versions"])),
            "versions of each clip": f"the original, {n_varied} {_AUGMENTED}{moved}",
            "settings": f"C {training['chosen']['C']:g}, gamma {spec.settings['gamma']:.4g}: the "
            f"best of {len(training['search'])} in {training['folds']}-fold cross-validation",
        },
        calibrated_on="the held-out scores of the folds",
        judged=f"From cross-validation on the training clips: each {group} was scored and "
        "calibrated by models that\nwere not trained on it",
        folds=f"No {group} is in two folds. ",
    )


def _describe_cnn(spec: ModelSpec) -> _Parts:
    training, config = spec.training, spec.training["config"]
    return _describe_network(
        training,
        "A convolutional neural network of seven layers on log-mel spectrograms of speech below\n"
        f"{spec.band_limit:.0f} Hz, with {training['parameters']:,} parameters",
        {
            "auxiliary task": f"prediction of up to {config['guide_components']} principal "
            "components of the spectral statistics of the clip before augmentation"
            if config["guide_weight"]
            else "none",
            "augmentation": f"{_tell_versions(config)}; crops of up to {config['max_crop']:g} s",
        },
        "Muon for the convolutions, AdamW for all other weights"
        if config["optimiser"] == "muon"
        else "AdamW",
    )


def _describe_transformer(spec: ModelSpec) -> _Parts:
    training, config = spec.training, spec.training["config"]
    return _describe_network(
        training,
        f"The pre-trained encoder of {training['base']} with a small head on statistics over time "
        f"of all its\nlayers, for speech below {spec.band_limit:.0f} Hz, with "
        f"{training['parameters']:,} parameters",
        {
            **_tell_calm(training, config.get("calm_share", 0.0)),
            "trained": f"the head, then the head and the upper {config['layers']} layers"
            f"{_tell_lora(config)}, for up to {config['tuning_epochs']} epochs with a peak "
            f"learning rate of {config['tuning_rate']:g}"
            if config["layers"]
            else f"the head; {_tell_hearing(config)}",
            "versions of each clip": f"the original, and {config['versions']} drawn at random: "
            f"{_tell_versions(config)}",
        },
        "AdamW",
    )


def _tell_hearing(config: Mapping[str, Any]) -> str:
    epochs = config.get("hearing_epochs")
    if not epochs:
        return "the encoder is unchanged"
    return (
        "before that, the encoder, to produce the same output for calm speech with random rooms, "
        f"noise and lines as for the clean speech: {format_count(epochs, 'epoch')} with a peak "
        f"learning rate of {config['hearing_rate']:g}"
    )


def _tell_lora(config: Mapping[str, Any]) -> str:
    return f" by low-rank matrices of rank {config['lora']}" if config.get("lora") else ""


def _describe_fusion(spec: ModelSpec) -> _Parts:
    training, members = spec.training, spec.settings["members"]
    names = [member["name"] for member in members]
    group = training["group_by"]
    return _Parts(
        introduction="The weighted mean of the calibrated probabilities of "
        f"{', '.join(names[:-1])} and {names[-1]}",
        settings={
            f"member {member['name']}": f"weight {member['weight']:.3f}; alone, on the same clips: "
            + ", ".join(
                f"{name.upper()} {value:.3f}"
                for name, value in training["members"][member["name"]].items()
            )
            for member in members
        },
        calibrated_on="the weighted mean of the members' probabilities for clips that they were "
        "not trained on",
        judged=f"From cross-validation on the training clips: each {group} was scored with weights "
        "and a calibration\nfitted on the others, and by members that were not trained on the clip",
        folds=f"No {group} is in two folds. Members are searched for beside this folder, then by "
        "name, and must\nbe the ones that the fusion was fitted with. Their training data count as "
        "its own:\n",
    )


def _tell_versions(config: Mapping[str, Any]) -> str:
    clean = f"{config['clean_share']:.0%} without augmentation"
    if config["voice_share"]:
        clean += f" (but {config['voice_share']:.0%} of these in another voice)"
    return f"{clean}, the others {_AUGMENTED}"


def _describe_network(
    training: Mapping[str, Any], introduction: str, learned: Mapping[str, str], optimiser: str
) -> _Parts:
    config = training["config"]
    calibrated_on, epoch = training["calibration_on"], training["best_epoch"]
    # Without development speakers, the epoch could not be selected.
    chosen = calibrated_on == DEVELOPMENT_SPEAKERS
    return _Parts(
        introduction=introduction,
        settings={
            "epochs": f"{epoch}, the best of up to {config['epochs']}" if chosen else f"{epoch}",
            "optimiser": optimiser,
            "batch size": f"{config['batch_size']} clips",
            "learning rate": f"{config['learning_rate']:g} at its peak",
            "votes": _tell_votes(training["votes"], config),
            **(
                {
                    "teacher": f"{training['teacher']}; its probabilities make up "
                    f"{config['teacher_weight']:.0%} of each target"
                }
                if training.get("teacher")
                else {}
            ),
            **_tell_unlabelled(training),
            **learned,
        },
        calibrated_on=f"the scores of {calibrated_on}",
        judged="On the development speakers, who were also used to choose the epoch, so these "
        "figures are a little\ntoo good"
        if chosen
        else f"On {calibrated_on}, each scored by a network that was not trained on it"
        + _tell_teaching(training),
    )


def _tell_left_out(labels: Mapping[str, int]) -> str:
    """Return the table row on labels of the corpus that the model does not learn, if any."""
    counts = ", ".join(f"{format_count(n, 'clip')} of {label}" for label, n in labels.items())
    return f"| labels left out | {counts} |\n" if counts else ""


def _tell_unlabelled(training: Mapping[str, Any]) -> dict[str, str]:
    """Return the table row on unlabelled speech; empty if none was used."""
    unlabelled = training.get("unlabelled")
    if not unlabelled:
        return {}
    # Models of earlier versions have none of these two.
    prosodies, ratio = unlabelled.get("prosodies"), unlabelled.get("ratio", 1)
    varied = (
        f"and {format_count(prosodies, 'version')} of each with other pitch, tempo and voice "
        "quality, "
        if prosodies
        else ""
    )
    often = "" if ratio == 1 else f"{ratio:g} times "
    return {
        "unlabelled speech": f"{unlabelled['clips']:,} segments, "
        f"{format_duration(unlabelled['seconds'])}, {varied}with the teacher's probabilities as "
        f"targets; drawn {often}as often as the clips of one label"
    }


def _tell_calm(training: Mapping[str, Any], share: float) -> dict[str, str]:
    """Return the table row on calm speech of other speakers; empty if none was used.

    `share` is the share of the training data that was transposed to these speakers.
    """
    calm = training.get("calm")
    if not calm:
        return {}
    return {
        "calm speech": f"{calm['clips']:,} unlabelled segments of {calm['recordings']:,} "
        f"recordings, {format_duration(calm['seconds'])}: {share:.0%} of the training examples are "
        "clips transposed to these voices (`transposed`)"
    }


def _tell_teaching(training: Mapping[str, Any]) -> str:
    """Return a note on cross-validated figures of models that learned from a teacher."""
    if not training.get("teacher"):
        return ""
    if training.get("substitutes"):
        return ",\nand whose teacher, trained for this fold, was not either"
    return (
        ". The\nteacher was trained on these clips, too, and what it learned from them is in its "
        "probabilities for\nothers: the figures are a little too good"
    )


def _tell_votes(voted: bool, config: Mapping[str, Any]) -> str:
    if voted and config["perceived_weight"]:
        return "learned, for `--target perceived`"
    return "not used"


_FAMILIES: Final[Mapping[str, Callable[[ModelSpec], _Parts]]] = {
    "svm": _describe_svm,
    "cnn": _describe_cnn,
    "transformer": _describe_transformer,
    "fusion": _describe_fusion,
}


def write_card(spec: ModelSpec, folder: Path, figures: Mapping[str, Any] | None = None) -> None:
    """Write a model's card as ``README.md`` into its folder.

    Parameters
    ----------
    spec
        Specification of a model that `sercli.training.run` made.
    folder
        The model folder, whose name is the model's.
    figures
        Figures on clips that it was not trained on, if it was evaluated; see
        `sercli.evaluation.run`.

    Raises
    ------
    OutputError
        If the card cannot be written.
    """
    text = _render(spec, folder.resolve().name, figures)
    write_bytes(folder / CARD_FILE, text.encode())


def _render(spec: ModelSpec, name: str, figures: Mapping[str, Any] | None) -> str:
    training: dict[str, Any] = dict(spec.training)
    held_out = "\n".join(
        f"| {version} | {row['uar']:.3f} | {row['accuracy']:.3f} "
        f"| {row['macro_f1']:.3f} | {row['ece']:.3f} |"
        for version, row in training["held_out"].items()
    )
    parts = _FAMILIES[spec.family](spec)
    return _CARD.format(
        name=name,
        introduction=parts.introduction,
        labels=", ".join(spec.labels),
        corpus=training["corpus"],
        licence=training["licence"] or "licence unknown",
        corpus_limits=(
            _CREMAD_LIMITS if "cremad" in training["corpus"].split("+") else _OTHER_LIMITS
        ),
        left_out=_tell_left_out(training.get("labels_left_out", {})),
        n_clips=training["clips"],
        n_speakers=training["speakers"] or "unknown",
        splits=" and ".join(f"`{split}`" for split in training["splits"]),
        protocol=training["protocol"],
        settings="\n".join(f"| {row} | {text} |" for row, text in parts.settings.items()),
        calibration=spec.calibration.method,
        calibrated_on=parts.calibrated_on,
        seed=training["seed"],
        command=training.get("command", "").replace("NAME", name) or "none: trained from Python",
        folds=parts.folds,
        judged=parts.judged,
        held_out=held_out,
        measured=_render_measured(figures) if figures else "",
        adapter=_render_adapter(training["adapter"], name) if "adapter" in training else "",
    )


def _render_adapter(record: Mapping[str, Any], name: str) -> str:
    command = record.get("command", "").replace("NAME", name)
    return _ADAPTER.format(
        least=record["least"],
        asked=""
        if record["safe"]
        else ".\n`--adapt auto` uses no baseline, since it makes some mixes of emotions worse",
        source=f", by\n`{command}`" if command else "",
        rows="\n".join(
            f"| {row['mix']} | {row['mean_size']:g} | {_FIGURE_NAMES[row['figure']]} "
            f"| {row['alone'][row['figure']]:.3f} | {row['adapted'][row['figure']]:.3f} "
            f"({_tell_interval(row['interval'])}) "
            f"| {row['adapted']['ece']:.3f} |"
            for row in record["mixes"]
        ),
    )


def _tell_interval(limits: Sequence[float] | None) -> str:
    return "-" if limits is None else f"{limits[0]:+.3f} to {limits[1]:+.3f}"


def _render_measured(figures: Mapping[str, Any]) -> str:
    intervals = figures["intervals"]
    return _MEASURED.format(
        n_segments=figures["n_segments"],
        split=figures["split"],
        corpus=figures["corpus"],
        speakers=(
            format_count(len(figures["speakers"]), "speaker")
            if figures["speakers"]
            else "unknown speakers"
        ),
        protocol=figures["protocol"],
        level=intervals["level"],
        resampled=intervals["resampled"],
        figures=" | ".join(f"{figures[name]:.3f}" for name in FIGURES),
        intervals=" | ".join(
            "-" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"
            for limits in (intervals["figures"][name] for name in FIGURES)
        ),
        exact="{:.3f} ({:.3f} to {:.3f})".format(
            figures["exact_ece"]["mean"], *figures["exact_ece"]["interval"]
        ),
        classes="\n".join(
            f"| {label} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
            f"| {row['support']} |"
            for label, row in figures["classes"].items()
        ),
        precisions=_render_precisions(figures) if figures.get("precisions") else "",
    )


def _render_precisions(figures: Mapping[str, Any]) -> str:
    return _PRECISIONS.format(
        precision=figures["precision"],
        rows="\n".join(
            # Adding 0.0 turns -0.0 into 0.0.
            f"| {name} | {row['uar']:.3f} ({round(-row['drop'], 3) + 0.0:+.3f}) "
            f"| {row['unchanged']:.1%} | {row['change']:.3f} |"
            for name, row in figures["precisions"].items()
        ),
    )
