"""What `ser train` has for networks: their options, and what these mean."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sercli.cli.calm import find_calm, spell_calm
from sercli.cli.members import ADAPTER, FUSION
from sercli.cli.options import device_option, is_given
from sercli.errors import ConfigError, OutputError
from sercli.training.config import NEURAL_CONFIGS, NeuralConfig, TransformerConfig

if TYPE_CHECKING:
    from sercli.training.course import Course
    from sercli.training.watcher import Watcher

DEFAULT_BASE = "openai/whisper-base"
SVM, CNN, TRANSFORMER = "svm", "cnn", "transformer"
# Of the upper layers of an encoder that learn: without any, they would do nothing.
TUNING = ("tuning_epochs", "tuning_rate", "layer_decay", "lora")
# Families that have some options: with another, these would do nothing.
FAMILIES_OF = {
    ("epochs", "batch_size", "learning_rate", "patience", "votes"): (*NEURAL_CONFIGS,),
    ("teacher", "unlabelled", "resume"): (*NEURAL_CONFIGS,),
    ("device",): (*NEURAL_CONFIGS, FUSION, ADAPTER),
    ("cache",): (*NEURAL_CONFIGS, FUSION, ADAPTER, SVM),
    ("calm", "calm_speakers"): (SVM, *NEURAL_CONFIGS),
    ("base", "revision", "hearing_epochs", "layers", *TUNING): (TRANSFORMER,),
    ("members",): (FUSION, ADAPTER),
}
# Those of all networks that decide what the model is.
DECIDING = ("epochs", "batch_size", "learning_rate", "patience", "device")


def _tell_defaults(name: str) -> str:
    """Return what is taken where an option is not given, of each family of networks."""
    values = {family: getattr(config, name) for family, config in NEURAL_CONFIGS.items()}
    if len(set(values.values())) == 1:
        return f"  [default: {values[CNN]:g}]"
    return f"  [default: {', '.join(f'{value:g} ({key})' for key, value in values.items())}]"


def neural_options(function: Any) -> Any:
    """Add the options of neural networks."""
    options = (
        click.option(
            "--base",
            metavar="NAME|DIR",
            default=DEFAULT_BASE,
            help="Pre-trained speech encoder: a name on the hub, or a folder, which may be that of "
            "a transformer that `ser train` made (transformer).",
        ),
        click.option("--revision", help="Of the encoder on the hub (transformer)."),
        click.option(
            "--layers",
            type=int,
            default=TransformerConfig.layers,
            metavar="N",
            help="Upper layers of the encoder that learn, too, after the head (transformer).",
        ),
        click.option(
            "--tuning-epochs",
            type=int,
            default=TransformerConfig.tuning_epochs,
            help="Passes over the clips in which they learn (with --layers).",
        ),
        click.option(
            "--tuning-rate",
            type=float,
            default=TransformerConfig.tuning_rate,
            help="Learning rate of the uppermost, at its highest (with --layers).",
        ),
        click.option(
            "--layer-decay",
            type=float,
            default=TransformerConfig.layer_decay,
            metavar="FACTOR",
            help="Of the learning rate, from each layer to the one below (with --layers).",
        ),
        click.option(
            "--lora",
            type=int,
            default=TransformerConfig.lora,
            metavar="RANK",
            help="They learn by low-rank matrices, which become part of the weights at the end; "
            "needs the extra sercli[lora]; 0: all their weights learn (with --layers).",
        ),
        click.option(
            "--hearing-epochs",
            type=int,
            default=TransformerConfig.hearing_epochs,
            help="Passes over the calm speech in which the encoder first learns to make of it in "
            "other rooms, noise and lines what it makes of it as it is (transformer, with --calm).",
            show_default=True,
        ),
        click.option(
            "--epochs",
            type=int,
            help="Passes over the clips; with development clips, the best of them counts "
            f"(networks).{_tell_defaults('epochs')}",
        ),
        click.option(
            "--batch-size",
            type=int,
            help=f"Clips per step (networks).{_tell_defaults('batch_size')}",
        ),
        click.option(
            "--learning-rate",
            type=float,
            help=f"At its highest (networks).{_tell_defaults('learning_rate')}",
        ),
        click.option(
            "--patience",
            type=int,
            default=NeuralConfig.patience,
            metavar="EPOCHS",
            help="End after so many without a better development UAR; 0: never (networks).",
        ),
        click.option(
            "--votes",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Learn from listeners, too: a CSV file with the columns clip and one per label "
            "(networks).",
        ),
        click.option(
            "--teacher",
            metavar="NAME|DIR",
            help="Learn from a model's probabilities, too (networks).",
        ),
        click.option(
            "--unlabelled",
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="PATH",
            help="Learn the teacher's probabilities of speech that nobody labelled, too: files "
            "and directories, several times for several (with --teacher).",
        ),
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Where decoded audio is kept for the next training (networks, fusion, adapter).  "
            "[default: ser/audio in your cache folder]",
        ),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with a training that was interrupted; give all else as then (networks).",
        ),
        device_option(),
    )
    for option in reversed(options):
        function = option(function)
    return function


def refuse_other_families(family: str) -> None:
    """Refuse options that are given and would do nothing with a model of this family.

    Parameters
    ----------
    family
        That is trained.

    Raises
    ------
    UsageError
        With the families that they go with.
    """
    for names, families in FAMILIES_OF.items():
        for name in names:
            if is_given(name) and family not in families:
                raise click.UsageError(f"{_spell(name)} goes with --model {' or '.join(families)}.")


def refuse_idle(options: dict[str, Any]) -> None:
    """Refuse options that would do nothing without another, or with it.

    Parameters
    ----------
    options
        Of the command line.

    Raises
    ------
    UsageError
        With the other option.
    """
    for name in TUNING:
        if is_given(name) and not options["layers"]:
            raise click.UsageError(f"{_spell(name)} goes with --layers N.")
    if options["unlabelled"] and not options["teacher"]:
        raise click.UsageError("--unlabelled goes with --teacher MODEL.")
    if options["calm_speakers"] and not options["calm"]:
        raise click.UsageError("--calm-speakers goes with --calm PATH.")
    if options["hearing_epochs"] and not options["calm"]:
        raise click.UsageError("--hearing-epochs goes with --calm PATH.")
    if options["calm"] and options["layers"]:
        raise click.UsageError("--calm and --layers do not go together.")
    if options["calm"] and options["family"] == CNN and not options["teacher"]:
        raise click.UsageError(
            f"--calm goes with --model {SVM} or {TRANSFORMER}, or with --teacher MODEL that "
            "learned from it."
        )
    if is_given("cache") and options["family"] == SVM and not options["calm"]:
        others = " or ".join(one for one in FAMILIES_OF["cache",] if one != SVM)
        raise click.UsageError(f"--cache goes with --model {others}, or with --calm PATH.")


def check_checkpoints(options: dict[str, Any]) -> None:
    """Refuse to resume what was never begun, and to begin anew what was interrupted."""
    folder, found = options["folder"], has_checkpoints(options["folder"])
    if options["resume"] and not found:
        raise ConfigError(
            f"{folder}: has no checkpoint to resume from; start without --resume, or name another "
            "folder"
        )
    if found and not (options["resume"] or options["overwrite"]):
        raise OutputError(
            f"{folder}: holds a training that was interrupted; go on with --resume, or give "
            "another name or --overwrite"
        )


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a training into a model folder was interrupted, and can go on."""
    from sercli.training import neural

    return neural.has_checkpoints(folder)


def configure(options: dict[str, Any], common: dict[str, Any]) -> NeuralConfig:
    """Return how a network is trained: the defaults of its family, and what was given.

    Parameters
    ----------
    options
        Of the command line.
    common
        What all families have.
    """
    transformers = options["family"] == TRANSFORMER
    names = (*DECIDING, "hearing_epochs", "layers", *TUNING) if transformers else DECIDING
    given = {name: options[name] for name in names if options[name] is not None}
    return replace(NEURAL_CONFIGS[options["family"]], **common, **given)


def create_course(
    config: NeuralConfig, cache: Path, options: dict[str, Any], watcher: "Watcher | None"
) -> "Course":
    """Return what the networks of a training have in common.

    Parameters
    ----------
    config
        How to train.
    cache
        Of decoded audio.
    options
        Of the command line.
    watcher
        Told how far it is, if anybody is.
    """
    from sercli.datasets.votes import read_votes
    from sercli.training.teachers import Teacher
    from sercli.training.unlabelled import Unlabelled
    from sercli.training.watcher import Listener, Nobody

    watcher = watcher or Nobody()
    unlabelled = None
    if options["unlabelled"]:
        unlabelled = Unlabelled(
            options["unlabelled"], cache, jobs=config.jobs, report=watcher.search
        )
    calm = find_calm(options, cache, config.jobs, watcher.search)
    votes = read_votes(options["votes"]) if options["votes"] else None
    loop: dict[str, Any] = {"resume": options["resume"], "watcher": watcher}
    common: dict[str, Any] = {"votes": votes, "unlabelled": unlabelled, **loop}
    rows = cache / "rows"
    if options["teacher"]:
        from sercli.training.substitutes import find_substitute

        teacher = Teacher.load(options["teacher"], config.device)
        common["teacher"] = teacher
        common["substitute"] = find_substitute(
            teacher, config, votes, calm, rows=rows, **loop | {"watcher": Listener(watcher)}
        )
        learned = teacher.classifier.spec.training.get("calm")
        if calm is not None and not learned and not isinstance(config, TransformerConfig):
            raise ConfigError(
                f"--calm: the teacher {teacher.name} did not learn from calm speech, so that it "
                "would do nothing; leave it out"
            )
    if not isinstance(config, TransformerConfig):
        from sercli.training.cnn import CnnCourse

        return CnnCourse(config, **common)

    from sercli.training.origins import find_origin
    from sercli.training.transformer import TransformerCourse

    origin = find_origin(options["base"], options["revision"])
    common |= {"base": origin.base, "limit": origin.limit, "before": origin.manifest}
    return TransformerCourse(config, rows=rows, calm=calm, **common)


def find_cache() -> Path:
    """Return the folder of decoded audio if none is named."""
    from platformdirs import user_cache_path

    return user_cache_path("ser", appauthor=False) / "audio"


def spell_network(options: dict[str, Any]) -> list[str]:
    """Return the options that make this network, without the user's own paths."""
    parts = ["--votes", "FILE"] if options["votes"] else []
    if options["teacher"]:
        parts += ["--teacher", find_name(options["teacher"])]
    parts += ["--unlabelled", "PATH"] * len(options["unlabelled"])
    parts += spell_calm(options)
    names: tuple[str, ...] = DECIDING
    if options["family"] == TRANSFORMER:
        parts += ["--base", find_name(options["base"])]
        parts += ["--revision", options["revision"]] if options["revision"] else []
        parts += ["--layers", str(options["layers"])] if options["layers"] else []
        names = ("hearing_epochs", *TUNING, *DECIDING)
    for name in names:
        default = getattr(NEURAL_CONFIGS[options["family"]], name)
        if options[name] not in (None, default):
            parts += [_spell(name), str(options[name])]
    return parts


def _spell(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def find_name(given: str) -> str:
    """Return a name as it is, and of a path the last part.

    Parameters
    ----------
    given
        On the command line.
    """
    return Path(given).resolve().name if Path(given).is_dir() else given
