"""What is known of the corpora: facts that come with the package as data."""

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

# First age of a group, and the group's name; from the oldest down.
AGE_GROUPS = ((60, "60 and over"), (45, "45 to 59"), (30, "30 to 44"), (0, "under 30"))


@cache
def load_facts(name: str) -> Mapping[str, Any]:
    """Return a data file of the package.

    Parameters
    ----------
    name
        Of a corpus, or ``"labels"``.
    """
    text = (files("sercli") / "data" / f"{name}.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def age_group(age: float) -> str:
    """Return the group that an age in years belongs to, such as ``"30 to 44"``."""
    return next(group for first, group in AGE_GROUPS if age >= first)


def person_traits(person: Mapping[str, Any]) -> dict[str, str]:
    """Return the traits of a speaker.

    Parameters
    ----------
    person
        ``sex``, ``age`` in years and ``language``, as far as they are known; what is none of these
        is left out.
    """
    told = {key: person.get(key) for key in ("sex", "language")}
    traits = {key: str(value) for key, value in told.items() if is_known(value)}
    age = person.get("age")
    if isinstance(age, int | float) and not isinstance(age, bool) and 0 <= age < math.inf:
        traits["age_group"] = age_group(age)
    return traits


def is_known(value: Any) -> bool:
    """Tell whether a fact is one: a text, or a number, and not what stands for a missing one."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and value == value  # as no NaN is
