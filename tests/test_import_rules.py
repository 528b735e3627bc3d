"""The import rules of design.md, "Folders": who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RULES = {
    # folder: (prefixes it must not import, the exceptions)
    "dags": (("include", "plugins"), ("include.instore_airflow",)),
    "include/instore": (("airflow", "instore_provider", "include"), ("include.instore",)),
    "sandbox": (("airflow", "instore_provider", "include"), ("sandbox",)),
    "plugins/instore_provider": (("include", "dags"), ()),
}


ENTRY_POINTS = {
    # `python -m include.instore` needs Airflow's connections, so this one line leads to the glue.
    ("include/instore/__main__.py", "include.instore_airflow.cli.app"),
}


def imports_of(path: Path) -> Iterator[str]:
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module.split(".") if node.module else ())))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


@pytest.mark.parametrize("folder", RULES)
def test_a_folder_imports_only_what_is_beneath_it(folder: str) -> None:
    forbidden, allowed = RULES[folder]
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports_of(path)
        if any(within(name, prefix) for prefix in forbidden)
        and not any(within(name, prefix) for prefix in allowed)
        and (str(path.relative_to(ROOT)), name) not in ENTRY_POINTS
    ]
    assert broken == []


def test_the_rules_see_a_relative_import() -> None:
    """The check itself can fail: the sandbox's own files import each other relatively."""
    assert any(within(name, "sandbox") for name in imports_of(ROOT / "sandbox/up.py"))
