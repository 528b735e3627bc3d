"""Talks to stand-ins that run already: finds them by their state folder, asks for counts, turns fault knobs."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FILE = "sandbox.json"
_TIMEOUT_SECONDS = 10


class NotReachableError(RuntimeError):
    """No such stand-in answers; the message is one sentence for a person."""


class ChangeRefusedError(ValueError):
    """The stand-in does not take these settings; the message says why."""


def read_running(state: Path) -> dict[str, Any]:
    """Return what `up` said when it was ready. Raises NotReachableError."""
    path = state / FILE
    if not path.exists():
        raise NotReachableError(f"No sandbox has been started with the state folder {state}.")
    running: dict[str, Any] = json.loads(path.read_text())
    return running


def call(url: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON that a stand-in's /sandbox/* answers. Raises NotReachableError and ChangeRefusedError."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(method, path, None if body is None else json.dumps(body).encode())
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        raise NotReachableError(f"No stand-in answers at {url}.") from None
    finally:
        connection.close()
    if response.status == 400:
        problems = [f"{problem['setting']}: {problem['problem']}" for problem in answer.get("problems", ())]
        raise ChangeRefusedError("; ".join(problems) or answer.get("error", "The settings are not valid."))
    return answer


def change_faults(url: str, changes: dict[str, Any], *, clear: bool) -> dict[str, Any]:
    """Change fault knobs and return them all.

    clear: begin from the defaults instead of from what is set now.
    """
    now = {} if clear else call(url, "GET", "/sandbox/faults")
    settings: dict[str, Any] = call(url, "PUT", "/sandbox/faults", {**now, **changes})
    return settings


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """Return the settings in texts such as `share=0.1` and `answers=[503,"lost"]`; what is not JSON is a string.

    Raises ChangeRefusedError.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ChangeRefusedError("A setting is written as name=value.")
        try:
            changes[name.strip().replace("-", "_")] = json.loads(value)
        except ValueError:
            changes[name.strip().replace("-", "_")] = value
    return changes
