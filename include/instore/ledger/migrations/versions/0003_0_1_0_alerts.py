"""Which alert of which run and cause was given, and what is still to be told."""

import sqlalchemy as sa
from alembic import op

from include.instore.ledger.tables import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("run", sa.String(length=250), nullable=False),
        sa.Column("cause", sa.String(length=300), nullable=False),
        sa.Column("begun_at", UtcDateTime(), nullable=False),
        sa.Column("ordinary", sa.Boolean(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("ended_run", sa.String(length=250), nullable=True),
        sa.PrimaryKeyConstraint("run", "cause", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_ended_run"), "alerts", ["ended_run"], unique=False)
