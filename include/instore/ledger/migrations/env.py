"""Alembic's entry: the caller hands over an open transaction, see Ledger.migrate."""

from __future__ import annotations

from alembic import context

from include.instore.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
