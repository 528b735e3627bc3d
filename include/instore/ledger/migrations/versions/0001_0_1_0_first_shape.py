"""The ledger's first shape: orders, customers, quarantine, extracts, runs."""

import sqlalchemy as sa
from alembic import op

from include.instore.ledger.tables import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("loyalty_card", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("loyalty_card", name=op.f("pk_customers")),
    )
    op.create_table(
        "extracts",
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("orders", sa.Integer(), nullable=False),
        sa.Column("bad_rows", sa.Integer(), nullable=False),
        sa.Column("broken", sa.Boolean(), nullable=False),
        sa.Column("run", sa.String(length=250), nullable=False),
        sa.Column("loaded_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_extracts")),
    )
    op.create_index(op.f("ix_extracts_run"), "extracts", ["run"], unique=False)
    op.create_table(
        "orders",
        sa.Column("order_number", sa.String(length=64), nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("order_type", sa.String(length=8), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("reference", sa.String(length=1024), nullable=False),
        sa.Column("order_time", UtcDateTime(), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("received_run", sa.String(length=250), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("loyalty_card", sa.String(length=64), nullable=True),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=True),
        sa.Column("look_ups", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("next_attempt", UtcDateTime(), nullable=True),
        sa.Column("claim_run", sa.String(length=250), nullable=True),
        sa.Column("claim_batch", sa.Integer(), nullable=True),
        sa.Column("claim_time", UtcDateTime(), nullable=True),
        sa.Column("planned_run", sa.String(length=250), nullable=True),
        sa.Column("resolved_run", sa.String(length=250), nullable=True),
        sa.Column("sending_at", UtcDateTime(), nullable=True),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.Column("outcome_run", sa.String(length=250), nullable=True),
        sa.PrimaryKeyConstraint("order_number", name=op.f("pk_orders")),
        sa.UniqueConstraint("event_id", name=op.f("uq_orders_event_id")),
    )
    op.create_index(op.f("ix_orders_claim_run_claim_batch"), "orders", ["claim_run", "claim_batch"], unique=False)
    op.create_index(op.f("ix_orders_order_time"), "orders", ["order_time"], unique=False)
    op.create_index(op.f("ix_orders_outcome_run"), "orders", ["outcome_run"], unique=False)
    op.create_index(op.f("ix_orders_planned_run"), "orders", ["planned_run"], unique=False)
    op.create_index(op.f("ix_orders_received_run"), "orders", ["received_run"], unique=False)
    op.create_index(op.f("ix_orders_resolved_run"), "orders", ["resolved_run"], unique=False)
    op.create_index(op.f("ix_orders_status_next_attempt"), "orders", ["status", "next_attempt"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("reference", sa.String(length=1024), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.String(length=1024), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("run", sa.String(length=250), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_run"), "quarantine", ["run"], unique=False)
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=True),
        sa.Column("window_end", UtcDateTime(), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("received", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("changed_duplicates", sa.Integer(), nullable=False),
        sa.Column("dates_without_offset", sa.Integer(), nullable=False),
        sa.Column("claimed", sa.Integer(), nullable=False),
        sa.Column("batches", sa.Integer(), nullable=False),
        sa.Column("looked_up", sa.Integer(), nullable=False),
        sa.Column("cache_hits", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Integer(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
