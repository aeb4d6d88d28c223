"""Facts about the corpora, from data files of the package."""

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

# Lowest age and name of each group, from the oldest to the youngest.
AGE_GROUPS = ((60, "60 and over"), (45, "45 to 59"), (30, "30 to 44"), (0, "under 30"))


@cache
def load_facts(name: str) -> Mapping[str, Any]:
    """Return the content of a data file of the package.

    Parameters
    ----------
    name
        Name of a corpus, or ``"labels"``.
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
        Facts about the speaker, of which ``sex``, ``age`` in years and ``language`` are used if
        they are known.

    Returns
    -------
    dict of str to str
        Traits ``sex``, ``language`` and ``age_group``, as far as known.
    """
    told = {key: person.get(key) for key in ("sex", "language")}
    traits = {key: str(value) for key, value in told.items() if is_known(value)}
    age = person.get("age")
    if isinstance(age, int | float) and not isinstance(age, bool) and 0 <= age < math.inf:
        traits["age_group"] = age_group(age)
    return traits


def is_known(value: Any) -> bool:
    """Return whether a value is known: a text that is not blank, or a number other than NaN."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and value == value  # false for NaN
