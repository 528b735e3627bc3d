"""Orders by their key; contents, destinations, deliveries, editions, arrivals; whose ledger it is; other DAGs' runs."""

import json
from collections.abc import Callable
from datetime import datetime, timezone

import sqlalchemy as sa
from alembic import context, op

from include.instore.ledger.tables import UtcDateTime, origin_of
from include.instore.model.identifiers import identity, number_root
from include.instore.model.order_keys import day_of

revision = "0004"
down_revision = "0003"

_CHUNK = 1000
_NEW = (
    ("key", 512), ("number_root", 64), ("store_id", 64), ("day", 10), ("origin", 256), ("card_hash", 64),
    ("email_hash", 64),
)  # fmt: skip
_MAY_LACK = ("card_hash", "email_hash")
_RUN_IDS = {
    "orders": ("received_run", "claim_run", "planned_run", "resolved_run"),
    "quarantine": ("run",),
    "extracts": ("run",),
    "alerts": ("run", "ended_run"),
    "runs": ("run_id",),
}


def upgrade() -> None:
    for name, length in _NEW:
        op.add_column("orders", sa.Column(name, sa.String(length=length), nullable=True))
    attributes = context.config.attributes
    _fill(op.get_bind(), attributes.get("store_timezone", "UTC"), attributes["keyed_hash"])
    with op.batch_alter_table("orders") as orders:
        for name, length in _NEW:
            if name not in _MAY_LACK:
                orders.alter_column(name, existing_type=sa.String(length=length), nullable=False)
        orders.drop_constraint("pk_orders", type_="primary")
        orders.create_primary_key("pk_orders", ["key"])
    _make_deliveries()
    op.create_table(
        "claims",
        sa.Column("run", sa.String(length=512), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("alive_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("run", "batch", name=op.f("pk_claims")),
    )
    op.execute(
        "INSERT INTO claims (run, batch, alive_at) SELECT claim_run, claim_batch, max(claim_time) FROM orders"
        " WHERE claim_run IS NOT NULL AND claim_batch IS NOT NULL AND claim_time IS NOT NULL"
        " GROUP BY claim_run, claim_batch"
    )
    op.drop_index(op.f("ix_orders_claim_run_claim_batch"), table_name="orders")
    with op.batch_alter_table("orders") as orders:
        orders.drop_column("claim_time")
        orders.add_column(sa.Column("pruned_at", UtcDateTime(), nullable=True))
    op.create_index(
        op.f("ix_orders_claim_run_claim_batch_status"), "orders", ["claim_run", "claim_batch", "status"], unique=False
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_index(op.f("ix_orders_order_number"), "orders", ["order_number"], unique=False)
    op.create_index(op.f("ix_orders_number_root"), "orders", ["number_root"], unique=False)
    for columns in (
        ["origin"],
        ["status", "next_attempt", "received_at", "reason"],
        ["day", "store_id", "source", "status", "reason"],
    ):
        op.create_index(op.f(f"ix_orders_{'_'.join(columns)}"), "orders", columns, unique=False)
    op.drop_index(op.f("ix_orders_status_next_attempt"), table_name="orders")
    op.create_index(
        op.f("ix_quarantine_state_reason_received_at"), "quarantine", ["state", "reason", "received_at"], unique=False
    )
    op.create_index(op.f("ix_runs_started_at"), "runs", ["started_at"], unique=False)
    op.create_index(op.f("ix_orders_card_hash"), "orders", ["card_hash"], unique=False)
    op.create_index(op.f("ix_orders_email_hash"), "orders", ["email_hash"], unique=False)
    op.create_table(
        "suppressions",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("learnt_from", sa.String(length=64), nullable=False),
        sa.Column("cause", sa.String(length=64), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("hash", "source", "learnt_from", name=op.f("pk_suppressions")),
    )
    _suppress(op.get_bind(), attributes["keyed_hash"])
    with op.batch_alter_table("extracts") as extracts:
        extracts.add_column(sa.Column("state", sa.String(length=16), nullable=False, server_default="loaded"))
        extracts.add_column(sa.Column("detail", sa.String(length=1024), nullable=True))
        extracts.add_column(sa.Column("digest", sa.String(length=64), nullable=True))
        extracts.add_column(sa.Column("feed", sa.String(length=1024), nullable=True))
    op.create_index(op.f("ix_extracts_feed"), "extracts", ["feed"], unique=False)
    op.create_table(
        "feeds",
        sa.Column("feed", sa.String(length=1024), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.Column("changed_run", sa.String(length=512), nullable=True),
        sa.PrimaryKeyConstraint("feed", name=op.f("pk_feeds")),
    )
    op.create_table(
        "stores",
        sa.Column("store_id", sa.String(length=64), nullable=False),
        sa.Column("first_run", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("store_id", name=op.f("pk_stores")),
    )
    op.execute("INSERT INTO stores (store_id, first_run) SELECT DISTINCT store_id, '' FROM orders")
    op.add_column("quarantine", sa.Column("adapter", sa.String(length=70), nullable=True))
    # What stood before the fault was loaded at the time, and the rest is in quarantine.
    op.execute(sa.text("UPDATE extracts SET detail = 'broken' WHERE broken = :yes").bindparams(yes=True))
    with op.batch_alter_table("extracts") as extracts:
        extracts.drop_column("broken")
        extracts.alter_column("state", existing_type=sa.String(length=16), server_default=None)
    op.create_table(
        "contents",
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("reference", sa.String(length=1024), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("loyalty_card", sa.String(length=64), nullable=True),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("run", sa.String(length=512), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", "fingerprint", name=op.f("pk_contents")),
    )
    op.create_index(op.f("ix_contents_run"), "contents", ["run"], unique=False)
    op.create_index(op.f("ix_contents_state"), "contents", ["state"], unique=False)
    op.create_table(
        "resends",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("made_at", UtcDateTime(), nullable=False),
        sa.Column("made_by", sa.String(length=64), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resends")),
    )
    op.create_table(
        "resend_events",
        sa.Column("resend", sa.String(length=36), nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("resend", "event_id", name=op.f("pk_resend_events")),
    )
    op.create_table(
        "editions",
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("destination", sa.String(length=32), nullable=False),
        sa.Column("ordered_by", sa.String(length=512), nullable=False),
        sa.Column("edition", sa.Integer(), nullable=False),
        sa.Column("made_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", "destination", "ordered_by", name=op.f("pk_editions")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("who", sa.String(length=64), nullable=False),
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("detail", sa.String(length=1024), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "pipeline",
        sa.Column("setting", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=1024), nullable=False),
        sa.PrimaryKeyConstraint("setting", name=op.f("pk_pipeline")),
    )
    op.create_table(
        "arrivals",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("store_id", sa.String(length=64), nullable=False),
        sa.Column("orders", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "source", "store_id", name=op.f("pk_arrivals")),
    )
    op.add_column("services", sa.Column("last_answer", sa.String(length=250), nullable=True))
    for table, names in _RUN_IDS.items():
        with op.batch_alter_table(table) as changed:
            for name in names:
                changed.alter_column(name, existing_type=sa.String(length=250), type_=sa.String(length=512))
    with op.batch_alter_table("runs") as runs:
        runs.alter_column("changed_duplicates", new_column_name="corrections", existing_type=sa.Integer())
        for name in ("corrected_after_sent", "lines_do_not_add_up", "cards_as_numbers"):
            runs.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
        runs.add_column(sa.Column("drain", sa.String(length=16), nullable=True))
        for name in ("not_drained", "locked_elsewhere", "deferred", "mapping_cards"):
            runs.add_column(sa.Column(name, sa.Integer(), nullable=True))
    with op.batch_alter_table("runs") as runs:
        for name in ("corrected_after_sent", "lines_do_not_add_up", "cards_as_numbers"):
            runs.alter_column(name, existing_type=sa.Integer(), server_default=None)


def _make_deliveries() -> None:
    """Until now an order had one destination, and its row said how far it had come there."""
    table = op.create_table(
        "destinations",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_destinations")),
    )
    since = datetime(1970, 1, 1, tzinfo=timezone.utc)
    op.bulk_insert(table, [{"name": "profile_store", "since": since, "is_on": True}])
    op.create_table(
        "deliveries",
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("destination", sa.String(length=32), nullable=False),
        sa.Column("edition", sa.Integer(), nullable=False),
        sa.Column("is_latest", sa.Boolean(), nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("sending_at", UtcDateTime(), nullable=True),
        sa.Column("left_seq", sa.BigInteger(), nullable=True),
        sa.Column("waited_seq", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.Column("outcome_run", sa.String(length=512), nullable=True),
        sa.PrimaryKeyConstraint("key", "destination", "edition", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("event_id", name=op.f("uq_deliveries_event_id")),
    )
    # What was sent again until now went out under the id it had: that is edition 1 still. What is in doubt stays so,
    # and left before everything that leaves from now on.
    op.execute(
        sa.text(
            "INSERT INTO deliveries (key, destination, edition, is_latest, event_id, status, reason, fingerprint,"
            " email, attempts, sending_at, left_seq, sent_at, outcome_run) SELECT key, 'profile_store', 1, :latest,"
            " event_id, status, reason, CASE WHEN status = 'ready' AND attempts = 0 THEN NULL ELSE fingerprint END,"
            " CASE WHEN status = 'ready' AND attempts = 0 THEN NULL ELSE email END, attempts, sending_at,"
            " CASE WHEN status = 'sending' THEN 0 END, sent_at, outcome_run FROM orders"
            " WHERE status IN ('ready', 'sending', 'sent', 'rejected')"
        ).bindparams(latest=True)
    )
    op.execute(
        "UPDATE orders SET status = 'matched', reason = NULL WHERE status IN ('ready', 'sending', 'sent', 'rejected')"
    )
    for columns in (["left_seq"], ["outcome_run"], ["status", "is_latest"]):
        op.create_index(op.f(f"ix_deliveries_{'_'.join(columns)}"), "deliveries", columns, unique=False)
    op.drop_index(op.f("ix_orders_outcome_run"), table_name="orders")
    with op.batch_alter_table("orders") as orders:
        for name in ("sends", "attempts", "sending_at", "sent_at", "outcome_run"):
            orders.drop_column(name)


def _suppress(connection: sa.Connection, keyed_hash: Callable[[str], str]) -> None:
    """Whom the last loyalty answers said nothing may be sent for: the card, and the addresses on its orders."""
    found = connection.execute(
        sa.text(
            "SELECT c.loyalty_card, c.asked_at, o.email_hash FROM customers c LEFT JOIN orders o"
            " ON o.loyalty_card = c.loyalty_card AND (SELECT count(DISTINCT p.loyalty_card) FROM orders p"
            " WHERE p.email_hash = o.email_hash) <= 5 WHERE c.outcome = 'suppressed'"
        ).columns(asked_at=UtcDateTime)
    ).all()
    rows = {}
    for card, since, email_hash in found:
        by = keyed_hash(card)
        for person in filter(None, (by, email_hash)):
            row = {"hash": person, "source": "loyalty", "learnt_from": by, "cause": "suppressed", "since": since}
            rows[person, by] = row
    if rows:
        names = ("hash", "source", "learnt_from", "cause")
        table = sa.table("suppressions", *map(sa.column, names), sa.column("since", UtcDateTime))
        connection.execute(sa.insert(table), list(rows.values()))


def _fill(connection: sa.Connection, store_timezone: str, keyed_hash: Callable[[str], str]) -> None:
    """Until now an order's number alone was its key; its event id stays as it is, and is not computed anew."""
    orders = sa.table("orders", *(sa.column(name) for name in ("key", "order_number", "order_type", "payload", "day")))
    for name in (
        "store_id", "number_root", "card_hash", "email_hash", "loyalty_card", "email", "reference", "origin",
    ):  # fmt: skip
        orders.append_column(sa.column(name))
    update = (
        sa.update(orders)
        .where(orders.c.order_number == sa.bindparam("number"))
        .values({name: sa.bindparam(f"new_{name}") for name, _ in _NEW})
    )
    taken: set[str] = set()
    after = ""
    while rows := connection.execute(
        sa.select(
            orders.c.order_number,
            orders.c.order_type,
            orders.c.payload,
            orders.c.loyalty_card,
            orders.c.email,
            orders.c.reference,
        )
        .where(orders.c.order_number > after)
        .order_by(orders.c.order_number)
        .limit(_CHUNK)
    ).all():
        filled = []
        for number, order_type, payload, card, email, reference in rows:
            document = json.loads(payload)
            key = json.dumps([identity(number), order_type], ensure_ascii=False)
            # Two spellings of one number were two orders until now, and both may have been sent: both stay.
            key = key if key not in taken else json.dumps([number, "", order_type], ensure_ascii=False)
            taken.add(key)
            filled.append(
                {
                    "number": number,
                    "new_key": key,
                    "new_number_root": number_root(number),
                    "new_store_id": document["storeId"],
                    "new_origin": origin_of(reference),
                    "new_card_hash": keyed_hash(card) if card else None,
                    "new_email_hash": keyed_hash(email) if email else None,
                    "new_day": day_of(datetime.fromisoformat(document["date"].replace("Z", "+00:00")), store_timezone),
                }
            )
        connection.execute(update, filled)
        after = rows[-1].order_number
