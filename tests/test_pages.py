"""The front page, and the pages that it leads to, name only what exists."""

import re
from pathlib import Path

import click
import pytest

from sercli.cli import main

ROOT = Path(__file__).parent.parent
OTHERS = sorted((ROOT / "examples").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *OTHERS]
# An option of every command.
HELP = "--help"


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def find_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", read(page))
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), f"{page.name} links to {link}"
        assert not anchor or anchor in find_anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_are_those_of_the_commands(page: Path) -> None:
    known = {
        option
        for command in main.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", read(page)))
    assert named
    assert named <= known | {HELP}


def test_every_page_is_found_from_the_front_page() -> None:
    text = read(ROOT / "README.md")
    assert all(f"]({page.relative_to(ROOT).as_posix()})" in text for page in PAGES[1:])
