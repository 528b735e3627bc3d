"""The pages made from the code: configuration.md, order.schema.json, and the fields of the connection types.

``PYTHONPATH=. python docs/configuration_docs.py`` fails where one is not what the code says; ``--write`` makes it so.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from instore_provider.provider_info import get_provider_info
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import PREFIX, SECTIONS, YOURS
from include.instore_airflow import connections

FOLDER = Path(__file__).parent
PROVIDER = "../plugins/docs"

_HEAD = """\
# Configuration

Made from the code by `make docs`; `make lint` fails where it is not up to date. Change the code, not this page.

Secrets and endpoints are Airflow connections. Everything else is an environment variable of the workers (and of the
dag-processor and the triggerer, which tell alerts), all of them with the prefix `INSTORE_`. An unknown or wrong one
ends every task in one sentence that names it. "You will set this" marks those to look at before the first run.
"""
_YOURS = "**You will set this.** "


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_connections(), *_settings()]).rstrip() + "\n"


def _connections() -> Iterator[str]:
    yield from ("## Connections", "", "| connection | kind | needed |", "|---|---|---|")
    needed = {
        connections.SERVICE_BUS: "unless `INSTORE_USE_TOPIC` is off",
        connections.LOYALTY: "unless `INSTORE_USE_LOYALTY_API` is off",
        connections.EXTRACTS: "unless `INSTORE_USE_EXTRACTS` is off",
        connections.ALERTS: "no; without it nobody is notified, which is logged once a run",
    }
    for conn_id, kind in connections.CONNECTIONS.items():
        yield f"| `{conn_id}` | {_cell(kind)} | {needed.get(conn_id, 'always')} |"
    types = [each["connection-type"] for each in get_provider_info()["connection-types"]]
    pages = ", ".join(f"[{name}](../plugins/docs/{name.replace('_', '-')}.md)" for name in types)
    yield from ("", f"The fields of the provider's connection types: {pages}.", "")


def form_page(conn_type: str) -> str:
    """The page of a connection type, with the table of its fields made anew."""
    start, end = "<!-- fields -->\n\n", "\n<!-- /fields -->"
    before, _, rest = (FOLDER / PROVIDER / f"{conn_type.replace('_', '-')}.md").read_text().partition(start)
    table = "".join(f"{line}\n" for line in _form(conn_type))
    return f"{before}{start}{table}{end}{rest.partition(end)[2]}"


def _form(conn_type: str) -> Iterator[str]:
    forms = {each["connection-type"]: each for each in get_provider_info()["connection-types"]}
    behaviour = forms[conn_type]["ui-field-behaviour"]
    yield from ("| field | where | default | meaning |", "|---|---|---|---|")
    for name, label in behaviour["relabeling"].items():
        placeholder = behaviour["placeholders"].get(name, "")
        example = f"such as {placeholder}" if "://" in placeholder else placeholder
        yield f"| {label} | `{name}` | | {_cell(example)} |"
    for name, field in forms[conn_type]["conn-fields"].items():
        yield (
            f"| {field['label']} | extra `{name}` | {_default(field['schema'].get('default'))} | "
            f"{_cell(field.get('description', ''))} |"
        )


def _settings() -> Iterator[str]:
    yield from ("## Settings", "")
    for section in SECTIONS.values():
        heading = section.__doc__.partition(";")[0].rstrip(".")
        yield from (f"### {heading}", "", "| variable | type | default | meaning |", "|---|---|---|---|")
        for name, field in section.model_fields.items():
            default = _default(field.get_default(call_default_factory=True))
            meaning = _YOURS * (name in YOURS) + _cell(field.description or "")
            yield f"| `{PREFIX}{name.upper()}` | {_type(field)} | {default} | {meaning} |"
        yield ""


_TYPES: Mapping[Any, str] = {
    bool: "true or false", int: "whole number", float: "number", Decimal: "number", str: "text", Path: "path",
    date: "date",
}  # fmt: skip


def _type(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is dict:
        return "JSON object"
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    bounds = [
        f"{sign} {value:g}"
        for rule in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if (value := getattr(rule, attribute, None)) is not None
    ]
    return " ".join([_TYPES.get(kinds[0], str(kinds[0])), *([", ".join(bounds)] if bounds else [])])


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined or value == "" or value == {}:
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def order_schema() -> str:
    """The order document as a JSON schema, for whoever publishes orders."""
    schema = InStoreOrder.model_json_schema(by_alias=True)
    for part in (schema, *schema["$defs"].values()):
        for field in part["properties"].values():
            del field["title"]  # the name once more
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "In-store order"}
    return json.dumps(head | {name: value for name, value in schema.items() if name != "title"}, indent=2) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "configuration.md": page,
    "order.schema.json": order_schema,
    **{
        f"{PROVIDER}/{name.replace('_', '-')}.md": partial(form_page, name)
        for name in (each["connection-type"] for each in get_provider_info()["connection-types"])
    },
}


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them; the exit code."""
    return max([told_apart(FOLDER / name, made(), arguments) for name, made in PAGES.items()])


def told_apart(path: Path, made: str, arguments: list[str]) -> int:
    """Write a page, or say where it is not what the code says; the exit code."""
    if arguments == ["--write"]:
        path.write_text(made)
        return 0
    kept, name = path.read_text() if path.exists() else "", f"docs/{path.name}"
    lines = list(difflib.unified_diff(kept.splitlines(), made.splitlines(), name, "the code", "", "", 1, ""))
    if lines:
        print("\n".join(lines))  # noqa: T201
        print(f"{name} is not what the code says; run: make docs", file=sys.stderr)  # noqa: T201
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
