"""What a person did to the ledger: who, when, by which command, to how many records."""

from __future__ import annotations

import getpass
from dataclasses import asdict, dataclass
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


def note_done(ledger: Ledger, what: str, records: int, detail: str = "", who: str = "") -> None:
    """Write down what a person has just done.

    :param detail: nothing of a customer. :param who: empty: the person at this terminal.
    """
    done_by = kept_text(who or person_here())[:64]
    row = Done(datetime.now(timezone.utc), done_by, what, records, kept_text(detail))
    with ledger.write() as connection:
        connection.execute(sa.insert(audit).values(asdict(row)))


def done(ledger: Ledger, limit: int) -> list[Done]:
    """What was done last."""
    wanted = sa.select(audit.c.at, audit.c.who, audit.c.what, audit.c.records, audit.c.detail)
    with ledger.read() as connection:
        return [Done(*row) for row in connection.execute(wanted.order_by(audit.c.id.desc()).limit(limit))]


def person_here() -> str:
    """Whose terminal this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return "unknown"
