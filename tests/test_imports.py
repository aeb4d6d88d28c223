"""Tests of how the modules depend on each other."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import sercli

ROOT = Path(sercli.__file__).parent
README = Path(__file__).parent.parent / "README.md"


def name_module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_imports(path: Path, known: set[str]) -> set[str]:
    """Return what a module imports of the package, at once or later, but not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in for_types and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inside or {node.module} & known
    return found


def test_the_package_names_the_same_for_types_and_at_run_time() -> None:
    tree = ast.parse(Path(sercli.__file__).read_text(encoding="utf-8"))
    (block,) = (one for one in tree.body if isinstance(one, ast.If))
    for_types = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_types == {name: f"sercli.{home}" for name, home in sercli._HOMES.items()}
    assert set(sercli.__all__) == {"__version__", *for_types}
    assert all(getattr(sercli, name).__name__ == name for name in for_types)


def read_ranks() -> dict[str, int]:
    """Return the place of each package in the order that the README states."""
    found = re.search(
        r"Imports point one way, .*?: (.*?)\.\s", README.read_text(encoding="utf-8"), re.S
    )
    assert found
    layers = [re.findall(r"`(\w+)`", layer) for layer in found[1].split("→")]
    return {name: rank for rank, layer in enumerate(layers) for name in layer}


def reach(packages: dict[str, set[str]], start: str) -> set[str]:
    """Return what a package imports, directly or through others."""
    found = set(packages[start])
    while more := {one for name in found for one in packages[name]} - found:
        found |= more
    return found


def test_imports_point_one_way() -> None:
    modules = {name_module(path): path for path in ROOT.rglob("*.py")}
    # The package itself names what its modules have, and loads none of them.
    graph = {
        name: find_imports(path, {*modules}) - {"sercli"}
        for name, path in modules.items()
        if name != "sercli"
    }
    assert len(graph["sercli.annotation.annotator"]) > 10
    assert "sercli.training.creation" in graph["sercli.training.plan"]  # within a function
    order = list(TopologicalSorter(graph).static_order())  # fails by a cycle
    packages: dict[str, set[str]] = {}
    for name, imports in graph.items():
        mine = name.split(".")[1]
        packages.setdefault(mine, set()).update({one.split(".")[1] for one in imports} - {mine})
    assert len(packages["training"]) > 10
    list(TopologicalSorter(packages).static_order())
    ranks = read_ranks()
    assert ranks.keys() <= packages.keys()
    assert (ranks["cli"], ranks["errors"]) == (0, 9)
    for package, rank in ranks.items():
        above = {one for one in reach(packages, package) if ranks.get(one, rank) < rank}
        assert not above, f"{package} imports {above}, and the README has the opposite order"
    assert order.index("sercli.annotation.annotator") < order.index("sercli.cli.annotate")
    # What computes knows nothing of the command line.
    assert not [
        name
        for name, imports in graph.items()
        if not name.startswith(("sercli.cli", "sercli.__main__"))
        and any(one.startswith("sercli.cli") for one in imports)
    ]
