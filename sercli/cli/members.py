"""What `ser train` has for what is made of models that there are: fusions and adapters."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sercli.errors import ConfigError
from sercli.training.config import AdapterConfig, FusionConfig

if TYPE_CHECKING:
    from sercli.training.trainer import AnyTrainer

FUSION, ADAPTER = "fusion", "adapter"
FAMILIES = (FUSION, ADAPTER)


def members_option(function: Any) -> Any:
    """Add the option that says which models are meant."""
    return click.option(
        "--members",
        metavar="NAME|DIR,...",
        help="Models of which the weighted mean is fitted, two or more (fusion); the model that is "
        "to judge by baselines, too (adapter).",
    )(function)


def check_members(options: dict[str, Any]) -> None:
    """Refuse too few members or too many, before any corpus is read."""
    family, n_members = options["family"], len(split_members(options["members"]))
    if family == FUSION and not n_members:
        raise ConfigError(
            f"--model {FUSION} puts models together, and none are named; expected two or more, "
            "such as --members cnn,svm"
        )
    if family == ADAPTER and n_members != 1:
        raise ConfigError(
            f"--model {ADAPTER} teaches one model to judge by baselines, and {n_members} are "
            "named; expected one, such as --members my-cnn"
        )


def split_members(members: str | None) -> list[str]:
    """Return the names and folders of members; there may be none.

    Parameters
    ----------
    members
        As given, with commas between.
    """
    return [member.strip() for member in (members or "").split(",") if member.strip()]


def create_trainer(
    options: dict[str, Any], common: dict[str, Any], cache: Path, told: dict[str, Any]
) -> "AnyTrainer":
    """Return what fits a fusion or an adapter.

    Parameters
    ----------
    options
        Of the command line.
    common
        The settings that all families have.
    cache
        Of decoded audio.
    told
        Who is told what.
    """
    names, device = split_members(options["members"]), options["device"]
    if options["family"] == FUSION:
        from sercli.training.fusion import FusionTrainer, load_members

        members = load_members(names, device)
        return FusionTrainer(FusionConfig(device=device, **common), members, cache, **told)

    from sercli.training.adapter import AdapterTrainer
    from sercli.training.teachers import Teacher

    config = AdapterConfig(device=device, seed=common["seed"], jobs=common["jobs"])
    return AdapterTrainer(config, Teacher.load(names[0], device), cache, **told)
