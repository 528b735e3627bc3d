"""The pages say what is there: links, paths, tests, sections, tables, states and folders that they name."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

from docs.configuration_docs import FOLDER, PAGES
from include.instore.ledger.tables import metadata
from include.instore.model.settings import PREFIX, SECTION_OF, YOURS
from include.instore.model.states import ContentState, DeliveryStatus, ExtractState, Status
from include.instore_airflow.cli import app
from sandbox import week

ROOT = Path(__file__).parents[2]
FOLDERS = ("dags", "demo", "docs", "include", "plugins", "sandbox", "tests")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*/?(?:\.(?:py|md|toml|txt|yaml|json|csv)|/)|[\w.-]+(?:/[\w.*-]+)+")
_TEST = re.compile(r"([\w./-]+)::(test_[\w*]+)")
_REFERENCE = re.compile(
    r"([\w-]+\.md)\b(?:,? (?:(sections?|points?|invariants?) ([\d, to]+(?:and \d+)?)|\"([^\"]+)\"))?"
)


def files(*patterns: str) -> list[Path]:
    found = {path for folder in FOLDERS for pattern in patterns for path in (ROOT / folder).rglob(pattern)}
    return sorted(found | {path for pattern in patterns for path in ROOT.glob(pattern)})


PAGES_OF_TEXT = files("*.md")
TEXTS = {path: path.read_text() for path in PAGES_OF_TEXT}


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def headings(text: str) -> list[str]:
    return [line.lstrip("#").strip() for line in _FENCE.sub("", text).splitlines() if re.match(r"#+ ", line)]


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


@pytest.mark.parametrize("page", PAGES_OF_TEXT, ids=shown)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", TEXTS[page])):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(TEXTS[there]), target


def is_there(name: str, page: Path) -> bool:
    """A path from the top or from the page's folder; a bare name anywhere."""
    name = name.rstrip("/")
    if "/" not in name:
        return any(True for _ in files(name))
    return any(True for base in (ROOT, page.parent) for _ in base.glob(name))


@pytest.mark.parametrize("page", PAGES_OF_TEXT, ids=shown)
def test_every_path_is_there(page: Path) -> None:
    named = [
        code
        for code in _CODE.findall(_FENCE.sub("", TEXTS[page]))
        if _PATH.fullmatch(code) and (code.split("/")[0] in FOLDERS or code.endswith((".py", ".md")))
    ]
    assert [name for name in named if not is_there(name, page)] == []


TESTS = {path: set(re.findall(r"def (test_\w+)", path.read_text())) for path in files("test_*.py")}


@pytest.mark.parametrize("page", PAGES_OF_TEXT, ids=shown)
def test_every_test_that_is_named_is_there(page: Path) -> None:
    for module, name in _TEST.findall(TEXTS[page]):
        stem = Path(module).name.removesuffix(".py")
        inside = {path: names for path, names in TESTS.items() if path.stem == stem}
        if "/" in module:
            inside = {path: names for path, names in inside.items() if shown(path) == module}
        pattern = re.compile(name.replace("*", r"\w*"))
        assert any(pattern.fullmatch(each) for names in inside.values() for each in names), f"{module}::{name}"
    for module in re.findall(r"`(test_\w+)`", TEXTS[page]) if page.parent == FOLDER else ():
        assert any(path.stem == module or module in names for path, names in TESTS.items()), module


def references() -> Iterator[tuple[Path, re.Match[str]]]:
    """Each place of the code, comments and docstrings included, where a page is named."""
    for path in files("*.py", "*.toml", "*.yaml", "Makefile", "Dockerfile"):
        if path == Path(__file__):
            continue
        # Without the line breaks of a comment or docstring in the middle of a reference.
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text())
        yield from ((path, match) for match in _REFERENCE.finditer(text))


def page_named(name: str) -> Path | None:
    return next((path for path in (ROOT / "docs" / name, ROOT / name) if path.exists()), None)


def test_the_code_names_pages_and_sections_that_are_there() -> None:
    wrong = []
    for path, match in references():
        page = page_named(match[1])
        if page is None:
            wrong += [f"{shown(path)}: {match[0]}"] if not is_there(match[1], path) else []
            continue
        text = TEXTS[page]
        if match[4] and match[4] not in headings(text):
            wrong.append(f"{shown(path)}: {match[0]}")
        kinds = {"section": r"^## {}\. ", "point": r"^\* \*\*Point {},", "invariant": r"^\| {} \|"}
        kind = kinds.get((match[2] or "").rstrip("s"))
        for number in re.findall(r"\d+", match[3] or ""):
            if kind and not re.search(kind.format(number), text, re.MULTILINE):
                wrong.append(f"{shown(path)}: {match[0]}")
    assert wrong == []


def test_no_page_is_named_that_the_repository_does_not_have() -> None:
    gone = re.compile(r"(?<![\w-])(airflow|servicebus|style)\.md")
    found = [shown(path) for path in files("*.py", "*.md", "*.toml", "Makefile") if path != Path(__file__)]
    assert [name for name in found if gone.search((ROOT / name).read_text())] == []


@pytest.mark.parametrize("page", PAGES_OF_TEXT, ids=shown)
def test_every_setting_that_is_named_is_one(page: Path) -> None:
    known = {f"{PREFIX}{name}".upper() for name in SECTION_OF}
    assert set(re.findall(rf"(?<!AIRFLOW_CONN_){PREFIX}[A-Z_]*[A-Z]\b(?!_?\*)", TEXTS[page])) - known == set()


def test_the_settings_that_a_newcomer_sets_are_those_the_readme_starts_with() -> None:
    table = TEXTS[ROOT / "README.md"].partition("Start with these:")[2].partition("In containers")[0]
    assert set(re.findall(rf"`{PREFIX}([A-Z_]+)`", table)) == {name.upper() for name in YOURS}


@pytest.mark.parametrize("page", PAGES_OF_TEXT, ids=shown)
def test_every_command_that_is_named_is_one(page: Path) -> None:
    commands = set(paths_of(typer.main.get_command(app)))
    for typed in re.findall(r"python -m include\.instore((?: [a-z][a-z-]*)+)", TEXTS[page]):
        words = tuple(typed.split())
        assert any(command == words[: len(command)] for command in commands), typed


def paths_of(command: Any, *before: str) -> Iterator[tuple[str, ...]]:
    """The words of every command, those of its groups before them."""
    for name, each in getattr(command, "commands", {}).items():
        yield from paths_of(each, *before, name)
    if not hasattr(command, "commands"):
        yield before


def test_the_examples_of_connections_have_the_product_s_own_types() -> None:
    own = {"instore_service_bus": "service_bus", "instore_loyalty": "loyalty", "instore_profile_store": "profile_store"}
    examples = [*PAGES_OF_TEXT, ROOT / "docker-compose.yaml"]
    named = {
        pair for each in examples for pair in re.findall(r'"(instore_\w+)": {"conn_type": "(\w+)"', each.read_text())
    }
    assert own.items() <= named
    assert {(name, kind) for name, kind in named if name in own} == own.items()


def test_every_table_of_the_ledger_is_explained() -> None:
    section = TEXTS[ROOT / "docs/design.md"].partition("## The ledger")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(metadata.tables)


def test_the_diagrams_have_the_states_of_the_code() -> None:
    text = TEXTS[ROOT / "docs/design.md"]
    diagrams = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", text, re.DOTALL)
    drawn = [set(re.findall(r"\w+(?= -->)|(?<=--> )\w+", diagram)) for diagram in diagrams]
    assert drawn == [{str(state) for state in states} for states in (Status, DeliveryStatus, ExtractState)]
    assert all(f"`{state}`" in text for state in ContentState)


def test_the_folder_table_of_the_readme_has_every_folder_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?/`) \|", TEXTS[ROOT / "README.md"].partition("## The folders")[2], re.MULTILINE)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`(.+?)`", row)}
    # A clone may have other folders beside them, such as a virtual environment.
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    names = tracked.splitlines() or [f"{path.name}/" for path in ROOT.iterdir() if path.is_dir()]
    top = {name.split("/")[0] for name in names if "/" in name and not name.startswith((".", "_"))}
    core = {f"include/instore/{path.parent.name}" for path in (ROOT / "include/instore").glob("*/__init__.py")}
    assert named == top - {"include"} | {"include/instore", "include/instore_airflow"} | core


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_code_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name]()


def test_the_order_schema_takes_the_sample_week_and_the_contract_s_example() -> None:
    schema = jsonschema.Draft202012Validator(json.loads((FOLDER / "order.schema.json").read_text()))
    example = re.search(r"```json\n(.*?)```", TEXTS[FOLDER / "contracts.md"], re.DOTALL)
    assert example
    documents = [json.loads(example[1]), *(json.loads(message.body) for message in list(week.messages())[:500])]
    assert [error.message for document in documents for error in schema.iter_errors(document)] == []
    for name in ("orderNumber", "date", "storeId", "currency", "total"):
        assert not schema.is_valid({key: value for key, value in documents[0].items() if key != name}), name


def test_airflow_s_quirks_are_those_of_the_pinned_version() -> None:
    pinned = re.search(r"^apache-airflow==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    page = TEXTS[FOLDER / "airflow-quirks.md"]
    assert f"What Airflow {pinned[1]} does" in page
    for quirk in page.split("\n## ")[1:]:
        told = re.findall(r"\*\*(Since|Issue|Here|Can go)\*\*", quirk)
        assert told == ["Since", "Issue", "Here", "Can go"], quirk.splitlines()[0]
