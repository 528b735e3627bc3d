"""What a person did to the ledger: who, when, by which command, to how many records."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from datetime import datetime, timezone

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import audit, kept_text


@dataclass(frozen=True)
class Done:
    """One thing that a person did."""

    at: datetime
    who: str
    what: str
    records: int
    detail: str


def note_done(ledger: Ledger, what: str, records: int, detail: str = "") -> None:
    """Write down what the person at this terminal has just done. :param detail: nothing of a customer."""
    row = {"at": datetime.now(timezone.utc), "who": kept_text(_who())[:64], "what": what, "records": records}
    with ledger.write() as connection:
        connection.execute(sa.insert(audit).values(row | {"detail": kept_text(detail)}))


def done(ledger: Ledger, limit: int) -> list[Done]:
    """What was done last."""
    wanted = sa.select(audit.c.at, audit.c.who, audit.c.what, audit.c.records, audit.c.detail)
    with ledger.read() as connection:
        return [Done(*row) for row in connection.execute(wanted.order_by(audit.c.id.desc()).limit(limit))]


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return "unknown"
