"""What all workers know of an outside service, and what a quarantined record needs to be read again."""

import sqlalchemy as sa
from alembic import op

from include.instore.ledger.tables import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "services",
        sa.Column("service", sa.String(length=250), nullable=False),
        sa.Column("next_turn", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("service", name=op.f("pk_services")),
    )
    op.add_column("quarantine", sa.Column("heading", sa.LargeBinary(), nullable=True))
    op.add_column("orders", sa.Column("content_at", UtcDateTime(), nullable=True))
