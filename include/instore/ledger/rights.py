"""What the ledger's own login may do: all that the pipeline does there, and not much more."""

from __future__ import annotations

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import metadata


def use_all_rights(ledger: Ledger) -> None:
    """Read, add, change and delete in every table, though no row of it. :raises RetriableError: one is not allowed."""
    with ledger.write() as connection:
        for table in metadata.sorted_tables:
            nothing = sa.select(table).where(sa.false())
            first = table.columns[0]
            connection.execute(sa.insert(table).from_select(table.columns.keys(), nothing))
            connection.execute(sa.update(table).where(sa.false()).values({first: first}))
            connection.execute(sa.delete(table).where(sa.false()))


def is_superuser(ledger: Ledger) -> bool:
    """Whether it may do everything on the whole server, which only PostgreSQL knows."""
    if ledger.engine.dialect.name != "postgresql":
        return False
    with ledger.read() as connection:
        return bool(connection.scalar(sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")))
