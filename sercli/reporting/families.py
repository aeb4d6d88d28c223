"""The texts of model cards that depend on the model family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sercli.classifiers.base import ModelSpec
from sercli.classifiers.members import INSIDE
from sercli.text import format_count, format_duration

# Value of ``calibration_on`` in `ModelSpec.training` where speakers were held out to calibrate a
# network.
DEVELOPMENT_SPEAKERS = "the development speakers"

_AUGMENTED = "augmented with another voice, room, microphone or noise"


@dataclass(frozen=True)
class FamilyTexts:
    """The texts of a card that depend on the model family.

    Parameters
    ----------
    introduction
        Kind of model.
    settings
        Rows of the table of training settings, by name.
    calibrated_on
        Scores that the calibration was fitted on.
    scored
        How the figures in ``training["held_out"]`` were obtained.
    folds
        What the folds keep together, as a sentence and a space; empty if there are no folds.
    """

    introduction: str
    settings: Mapping[str, str]
    calibrated_on: str
    scored: str
    folds: str = ""


def _describe_svm(spec: ModelSpec) -> FamilyTexts:
    training = spec.training
    n_varied, n_moved = map(training["versions"].count, ("varied", "transposed"))
    moved = f", and {n_moved} transposed to the voices of other speakers" if n_moved else ""
    group = training["group_by"]
    return FamilyTexts(
        introduction="An RBF support vector machine on spectral statistics of speech below "
        f"{spec.band_limit:.0f} Hz",
        settings={
            **_tell_calm(training, n_moved / len(training["versions"])),
            "versions of each clip": f"the original, {n_varied} {_AUGMENTED}{moved}",
            "settings": f"C {training['chosen']['C']:g}, gamma {spec.settings['gamma']:.4g}: the "
            f"best of {len(training['search'])} in {training['folds']}-fold cross-validation",
        },
        calibrated_on="the held-out scores of the folds",
        scored=f"From cross-validation on the training clips: each {group} was scored and "
        "calibrated by models that\nwere not trained on it",
        folds=f"No {group} is in two folds. ",
    )


def _describe_cnn(spec: ModelSpec) -> FamilyTexts:
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


def _describe_transformer(spec: ModelSpec) -> FamilyTexts:
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
            else f"the head; {_describe_robustness(config)}",
            "versions of each clip": f"the original, and {config['versions']} drawn at random: "
            f"{_tell_versions(config)}",
        },
        "AdamW",
    )


def _describe_robustness(config: Mapping[str, Any]) -> str:
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


def _describe_fusion(spec: ModelSpec) -> FamilyTexts:
    training, members = spec.training, spec.settings["members"]
    names = [member["name"] for member in members]
    group = training["group_by"]
    is_equal = len({member["weight"] for member in members}) == 1
    mean = "mean" if is_equal else "weighted mean"
    places = (
        "Members are in the folders of their names inside this one, each\nwith its own card."
        if spec.settings.get(INSIDE)
        else "Members are searched for beside this folder, then by name, and must\n"
        "be the ones that the fusion was fitted with."
    )
    return FamilyTexts(
        introduction=f"The {mean} of the calibrated probabilities of its members "
        f"{', '.join(names[:-1])} and {names[-1]}",
        settings={
            f"member {member['name']}": f"weight {member['weight']:.3f}; alone, on the same clips: "
            + ", ".join(
                f"{name.upper()} {value:.3f}"
                for name, value in training["members"][member["name"]].items()
            )
            for member in members
        },
        calibrated_on=f"the {mean} of the members' probabilities for clips that they were not "
        "trained on",
        scored="From cross-validation on the training clips: each "
        f"{group} was scored with {'a' if is_equal else 'weights and a'} calibration\n"
        "fitted on the others, and by members that were not trained on the clip",
        folds=f"No {group} is in two folds. {places} Their training data count as its own:\n",
    )


def _tell_versions(config: Mapping[str, Any]) -> str:
    clean = f"{config['clean_share']:.0%} without augmentation"
    if config["voice_share"]:
        clean += f" (but {config['voice_share']:.0%} of these in another voice)"
    return f"{clean}, the others {_AUGMENTED}"


def _describe_network(
    training: Mapping[str, Any], introduction: str, learned: Mapping[str, str], optimiser: str
) -> FamilyTexts:
    config = training["config"]
    calibrated_on, epoch = training["calibration_on"], training["best_epoch"]
    # Without development speakers, the epoch could not be selected.
    chosen = calibrated_on == DEVELOPMENT_SPEAKERS
    return FamilyTexts(
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
        scored="On the development speakers, who were also used to choose the epoch, so these "
        "figures are a little\ntoo good"
        if chosen
        else f"On {calibrated_on}, each scored by a network that was not trained on it"
        + _tell_teaching(training),
    )


def _tell_unlabelled(training: Mapping[str, Any]) -> dict[str, str]:
    """Return the table row on unlabelled speech; empty if none was used."""
    unlabelled = training.get("unlabelled")
    if not unlabelled:
        return {}
    prosodies, ratio = unlabelled["prosodies"], unlabelled["ratio"]
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


# The texts of a card that depend on the model family, by its name.
FAMILY_TEXTS: Final[Mapping[str, Callable[[ModelSpec], FamilyTexts]]] = {
    "svm": _describe_svm,
    "cnn": _describe_cnn,
    "transformer": _describe_transformer,
    "fusion": _describe_fusion,
}
