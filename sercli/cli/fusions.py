"""What `ser train` has for fusions of models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sercli.config import FusionConfig
from sercli.errors import ConfigError

if TYPE_CHECKING:
    from sercli.training.fusion import FusionTrainer

FUSION = "fusion"


def members_option(function: Any) -> Any:
    """Add the option that says which models are put together."""
    return click.option(
        "--members",
        metavar="NAME|DIR,...",
        help="Models of which the weighted mean is fitted, two or more (fusion).",
    )(function)


def check_members(options: dict[str, Any]) -> None:
    """Refuse a fusion of nothing, before any corpus is read."""
    if not split_members(options["members"]):
        raise ConfigError(
            f"--model {FUSION} puts models together, and none are named; expected two or more, "
            "such as --members cnn,svm"
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
) -> "FusionTrainer":
    """Return what fits a fusion.

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
    from sercli.training.fusion import FusionTrainer, load_members

    config = FusionConfig(device=options["device"], **common)
    members = load_members(split_members(options["members"]), config.device)
    return FusionTrainer(config, members, cache, **told)
