"""The sandbox's keys: random, made once per state folder, readable by their owner only."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, fields
from pathlib import Path

FILE = "keys.json"
_PRIVATE = 0o600


@dataclass(frozen=True)
class Keys:
    """What callers of the stand-ins must show. Each can be given as SANDBOX_ and its name in capitals."""

    loyalty_api_key: str
    loyalty_client_id: str
    loyalty_client_secret: str
    profile_store_key: str
    service_bus_key: str


def load_keys(state: Path) -> Keys:
    """Return the keys of a state folder, made on first use. The environment (SANDBOX_LOYALTY_API_KEY, …) wins."""
    path = state / FILE
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    missing = [field.name for field in fields(Keys) if field.name not in kept]
    if missing:
        kept.update({name: secrets.token_urlsafe(24) for name in missing})
        write_private(path, json.dumps(kept, indent=2))
    given = {field.name: os.environ.get(f"SANDBOX_{field.name.upper()}") for field in fields(Keys)}
    return Keys(**{name: value or kept[name] for name, value in given.items()})


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read. It is whole or not there, whoever else writes it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    passing.unlink(missing_ok=True)
    with os.fdopen(os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w") as file:
        file.write(text)
    passing.replace(path)
