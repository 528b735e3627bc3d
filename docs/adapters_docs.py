"""docs/adapters.md and docs/adapter.schema.json, made from the declaration's model and the examples in adapters/.

``PYTHONPATH=. python docs/adapters_docs.py`` fails where they are not what the code says; ``--write`` makes them so.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from typer.testing import CliRunner

from docs.configuration_docs import told_apart
from include.instore.model.declarations import LINE_FIELDS, ORDER_FIELDS, REQUIRED, Dates, Declaration, Numbers
from include.instore_airflow.cli import app

PAGE = Path(__file__).with_name("adapters.md")
SCHEMA = Path(__file__).with_name("adapter.schema.json")
_EXAMPLES = Path(__file__).parents[1] / "adapters"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_HEAD = f"""\
# Adapters: any ERP's orders

Made from the code by `make docs`; `make lint` fails where it is not up to date. Change the code, not this page.

An adapter is one YAML file that declares how what an ERP writes becomes the order document: the pipeline's code is not
touched. It is strict. A column that is not there, a number or a date that is written in another way than declared, a
path that leads nowhere: the order is refused, or the file waits, with line, field and code. Nothing is guessed.

From a sample file to the first run:

1. `python -m include.instore check FILE` says what each order of it would become as it is.
2. `make adapter NAME=acme` makes `adapters/acme` with a declaration, a sample and what its orders are to be; put your
   sample there. `python -m include.instore check FILE --suggest` proposes a declaration for it, and says how sure it is
   of each column. It is a proposal: read each line of it.
3. `python -m include.instore check FILE --adapter adapters/acme/acme.yaml` until each order is what it should be; with
   `--show` field by field (personal data). The exit code is 0 where all are orders, and 1 where something is refused;
   the codes are in [codes.md](codes.md).
   `--message` takes the files for message bodies; `check --topic` peeks at the messages that wait on the subscription.
4. Name it in `INSTORE_EXTRACT_ADAPTERS` (by the names of the files) or `INSTORE_TOPIC_ADAPTER`. A wrong declaration
   ends every task in one sentence a fault.

What exports are like, and what reads them:

| the export has | the declaration has |
|---|---|
| an envelope: CloudEvents, MassTransit, OData | `orders: data`, `orders: message`, `orders: value` |
| a message that only names the blob with the order | `blob` |
| `1.234,50`, `1'234.50`, `(12.00)`, `€ 5-` | `numbers`: `decimal`, `thousands`, `negative`, `currency_signs` |
| the date and the time of day in two columns | `time`; in XML and JSON a path such as `join('', [day, time])` |
| the date as `Nov 24, 2026 9:50:26 AM` | `dates`: `formats: ["%b %d, %Y %I:%M:%S %p"]` and a `zone` |
| titles above the columns' names, a row of sums at the end | `title_lines`, `trailer` |
| no store, or no currency | `constants` |
| orders in one file and their lines in another | `lines_file` and `key`; both files come in one .zip |
| its own words for sales and returns | `values` |
| an XML element that may come once or more | `lists`; attributes have an @, and quotes: `"@order-no"` |
| anything else | `code` |

`tests/cli/foreign` has eleven exports in the style of shops and tills, each with its declaration.

A record in quarantine remembers by which adapter it was read, and a redrive reads it by that one as it is then.

Message bodies need no declaration for what they are wrapped in: gzip, UTF-16, strings and bytes of .NET's
DataContractSerializer, JSON in a JSON string, dates as `/Date(1571234567890+0200)/`. A body may be an array of orders:
each lands or is set aside alone, and the message is completed. Newtonsoft's `$ref` and `$values` are refused.

An editor that knows JSON schemas checks a declaration while you write it:
[adapter.schema.json](adapter.schema.json).

Fields of an order: {_names(ORDER_FIELDS)}.
Required are {_names(REQUIRED)}.
Fields of a line: {_names(LINE_FIELDS)}.
"""


def page() -> str:
    """The whole page."""
    parts = [
        _HEAD,
        *_fields("The declaration", Declaration),
        *_fields("`numbers`", Numbers),
        *_fields("`dates`", Dates),
    ]
    for folder in sorted({each.parent for each in _EXAMPLES.glob("*/*.yaml")}):
        parts += _example(folder)
    parts += _cut_in_half()
    return "\n".join(parts).rstrip() + "\n"


def schema() -> str:
    """The JSON schema of a declaration."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Declaration.model_json_schema()}
    properties = made["properties"]
    for name, fields in (("order", ORDER_FIELDS), ("constants", ORDER_FIELDS), ("values", ORDER_FIELDS)):
        properties[name]["propertyNames"] = {"enum": list(fields)}
    properties["lines"]["propertyNames"] = {"enum": list(LINE_FIELDS)}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _fields(heading: str, model: type[BaseModel]) -> Iterator[str]:
    yield from (f"## {heading}", "", "| name | default | meaning |", "|---|---|---|")
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        choices = [str(each) for each in get_args(field.annotation) if isinstance(each, str) and each]
        one_of = f" One of {_names(choices)}." if choices else ""
        yield f"| `{name}` | {default} | {(field.description or '').replace('|', chr(92) + '|')}{one_of} |"
    yield ""


def _default(value: Any) -> str:
    if value in (None, "", (), {}):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(value) if isinstance(value, tuple) else value}`"


def _example(folder: Path) -> Iterator[str]:
    declared = folder / f"{folder.name}.yaml"
    (sample,) = (each for each in folder.glob("*.*") if each.suffix not in (".yaml", ".py") and each.stem != "expected")
    where = f"adapters/{folder.name}"
    yield from (f"## Example: {folder.name}", "", f"`{where}/{declared.name}`:", "")
    yield from ("```yaml", declared.read_text(encoding="utf-8").rstrip(), "```", "")
    for option in (f"--adapter={where}/{declared.name}", "--suggest"):
        told = CliRunner().invoke(app, ["check", str(sample), option.replace("adapters/", f"{_EXAMPLES}/", 1)])
        command = f"$ python -m include.instore check {where}/{sample.name} {option}"
        yield from ("```console", command, told.stdout.rstrip(), "```", "")


def _cut_in_half() -> Iterator[str]:
    """What is said of a .gz of which the second half is missing; stored, so that it is the same everywhere."""
    where = "adapters/shopify_export"
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "half.csv.gz"
        whole = gzip.compress((_EXAMPLES / "shopify_export/orders.csv").read_bytes(), compresslevel=0, mtime=0)
        sample.write_bytes(whole[: len(whole) // 2])
        declared = f"{_EXAMPLES}/shopify_export/shopify_export.yaml"
        told = CliRunner().invoke(app, ["check", str(sample), f"--adapter={declared}"])
    yield from ("## A file that breaks off", "", "A .gz of the Shopify export, cut in half on its way:", "")
    command = f"$ python -m include.instore check half.csv.gz --adapter={where}/shopify_export.yaml; echo $?"
    yield from ("```console", command, told.stdout.rstrip(), str(told.exit_code), "```", "")


def main(arguments: list[str]) -> int:
    """Write both, or compare them; the exit code."""
    return max(told_apart(PAGE, page(), arguments), told_apart(SCHEMA, schema(), arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
