"""The members of a fusion, as its description lists them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, Final

from sercli.errors import ModelError

MIN_MEMBERS = 2
# Key of the settings that says that the members are in the fusion's own folder.
INSIDE: Final = "inside"


@dataclass(frozen=True)
class Member:
    """A member of a fusion, as listed in the fusion's ``settings``.

    Parameters
    ----------
    name
        Name of its folder.
    sha256
        SHA-256 of its ``model.json``, which in turn holds those of its weights.
    weight
        Weight in the mean, in ``[0, 1]``.
    """

    name: str
    sha256: str
    weight: float


def read_members(settings: Mapping[str, Any]) -> tuple[Member, ...]:
    """Return the members that the settings of a fusion list.

    Parameters
    ----------
    settings
        ``settings`` of the fusion's `ModelSpec`.

    Raises
    ------
    ModelError
        If there are not two or more members with different names and weights that sum to 1.
    """
    try:
        listed = settings.get("members")
        if not isinstance(listed, list):
            raise ValueError(f"members is {shorten(listed)}")
        members = tuple(Member(**one) for one in listed)
        names = {member.name for member in members}
        if len(names) < max(len(members), MIN_MEMBERS):
            raise ValueError(f"found {len(members)} members of {len(names)} names")
        for member in members:
            # A plain folder name, not a path that leads elsewhere.
            is_name = Path(member.name).name == member.name and member.name not in ("", "..")
            if not is_name or not isinstance(member.sha256, str):
                raise ValueError(f"found the member {member.name!r}")
            if not 0 <= member.weight <= 1:
                raise ValueError(f"the weight of {member.name} is {member.weight!r}")
        total = sum(member.weight for member in members)
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"their weights sum to {total:g}")
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"its settings do not list its members: {error}; expected two or more of different "
            "names, each with name, sha256 and weight, the weights summing to 1"
        ) from error
    return members


def list_inside(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the members that are in a fusion's own folder, all or none of them.

    Parameters
    ----------
    settings
        ``settings`` of a model's specification, of any family.

    Raises
    ------
    ModelError
        As for `read_members`; also if it is not said whether they are.
    """
    inside = settings.get(INSIDE, False)
    if not isinstance(inside, bool):
        raise ModelError(f"its settings have {INSIDE} {shorten(inside)}; expected true or false")
    return tuple(one.name for one in read_members(settings)) if inside else ()
