"""docs/codes.md and the table of docs/runbook.md, made from the registry of codes.

``PYTHONPATH=. python docs/codes_docs.py`` fails where they are not what the code says; ``--write`` makes them so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from docs.configuration_docs import told_apart
from include.instore.model.codes import CODES, COMMAND, RECOVERED, Code, Kind, Told
from include.instore.runs.alerts import anchor

PAGE = Path(__file__).with_name("codes.md")
RUNBOOK = Path(__file__).with_name("runbook.md")
_HEADS, _LAST = "| the alert says | code | urgent? | section |", "| nothing, though a run is red |"

_HEAD = f"""\
# Codes

Made from the code by `make docs`; `make lint` fails where it is not up to date. Change the code, not this page.

Reports, alerts, logs and the lists of the commands name these codes; a message's dead-letter reason is one of them.
Each has what it means, its likely cause, and what is done about it: a command is typed behind `{COMMAND}`,
and says with `--dry-run` what it would do. ID and PATH are what the command's `list` shows.
"""


def page() -> str:
    """The whole page of codes."""
    return "\n".join([_HEAD, *(line for kind in Kind for line in _part(kind))]).rstrip() + "\n"


def runbook() -> str:
    """The runbook with its table of alerts made anew."""
    before, _, rest = RUNBOOK.read_text().partition(_HEADS)
    rows = [_HEADS, "|---|---|---|---|"]
    alerts = [code for code in CODES.values() if code.alert is code and code is not RECOVERED]
    for code in sorted(alerts, key=lambda code: not code.urgent.startswith("yes")):
        rows.append(f"| {code.heading} | `{code}` | {code.urgent} | [below](#{anchor(code.heading)}) |")
    return before + "\n".join(rows) + "\n" + _LAST + rest.partition(_LAST)[2]


def _part(kind: Kind) -> Iterator[str]:
    yield from (f"## {kind.value}", "")
    for code in (each for each in CODES.values() if each.kind is kind):
        yield from (f"### {code}", "", f"**{code.heading}.** {code.meaning}", "")
        yield f"* Likely cause: {code.cause}"
        yield f"* Told by: {_told(code)}."
        for when, command in code.remedies:
            yield f"* Remedy{f', {when}' if when else ''}{f': `{command}`' if command else ''}."
        yield ""


def _told(code: Code) -> str:
    if code.alert is None or code.alert is code:
        assert isinstance(code.told, Told)  # noqa: S101  what tells of itself, or is counted
        return code.told.value
    return f"[{code.alert}](#{code.alert})"


def main(arguments: list[str]) -> int:
    """Write both pages, or compare them; the exit code."""
    return max(told_apart(PAGE, page(), arguments), told_apart(RUNBOOK, runbook(), arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
