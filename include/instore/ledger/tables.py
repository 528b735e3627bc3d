"""The ledger's tables and the words in their columns."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator


def kept_text(text: str) -> str:
    """Foreign text as every database takes it: a message id may hold NUL, a file name what is not Unicode."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")[:1024]


def origin_of(reference: str) -> str:
    """The message id or the file that a reference names, without the number or the line behind it."""
    return re.sub(r"[#:]\d+$", "", kept_text(reference))[:256]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment. SQLite keeps no offset, so it is stored in UTC and comes back aware on both databases."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(timezone.utc)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, _dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)
RunId = sa.String(512)  # with the id of its DAG, unless that is the pipeline's own

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("key", sa.String(512), primary_key=True),  # which orders are the same: model/order_keys.py
    sa.Column("order_number", sa.String(64), nullable=False, index=True),
    sa.Column("number_root", sa.String(64), nullable=False, index=True),  # the number without its leading zeros
    sa.Column("store_id", sa.String(64), nullable=False),
    sa.Column("day", sa.String(10), nullable=False),  # in the store's time zone: 2017-06-05
    sa.Column("event_id", sa.String(36), nullable=False, unique=True),  # of its first edition at the Profile Store
    sa.Column("order_type", sa.String(8), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),  # topic, extract
    sa.Column("reference", sa.String(1024), nullable=False),  # where in the source it came from
    sa.Column("origin", sa.String(256), nullable=False, index=True),  # the message's id or the file of that
    sa.Column("order_time", UtcDateTime, nullable=False, index=True),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("received_run", RunId, nullable=False, index=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),  # of its content: was the same order changed later?
    sa.Column("content_at", UtcDateTime),  # when the source published this content; null: nobody knows
    sa.Column("payload", sa.Text, nullable=False),  # JSON as it goes out
    sa.Column("loyalty_card", sa.String(64)),
    sa.Column("email", sa.String(254)),  # the order's own, or the customer's once the card is matched
    sa.Column("card_hash", sa.String(64), index=True),  # keyed, as in suppressions
    sa.Column("email_hash", sa.String(64), index=True),
    sa.Column("status", sa.String(12), nullable=False),
    sa.Column("reason", sa.String(1024)),
    sa.Column("look_ups", sa.Integer, nullable=False, default=0),  # rounds of asking that found no customer
    sa.Column("next_attempt", UtcDateTime),  # when an unmatched order is asked for again; null: never
    sa.Column("claim_run", RunId),
    sa.Column("claim_batch", sa.Integer),
    sa.Column("planned_run", RunId, index=True),  # the run that claimed it last
    sa.Column("resolved_run", RunId, index=True),  # the run that found, or did not find, its customer last
    sa.Column("pruned_at", UtcDateTime),  # since then only what it is known again by is kept of it
    sa.Index(None, "status", "next_attempt", "received_at", "reason"),  # what is undelivered is counted by it alone
    sa.Index(None, "day", "store_id", "source", "status", "reason"),  # and what came
    sa.Index(None, "claim_run", "claim_batch", "status"),
)

destinations = sa.Table(
    "destinations",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("since", UtcDateTime, nullable=False),  # what was received before goes there by a backfill only
    sa.Column("is_on", sa.Boolean, nullable=False),
)

deliveries = sa.Table(
    "deliveries",  # one order at one destination in one edition
    metadata,
    sa.Column("key", sa.String(512), primary_key=True),
    sa.Column("destination", sa.String(32), primary_key=True),
    sa.Column("edition", sa.Integer, primary_key=True),  # more than 1: sent again under an event id of its own
    sa.Column("is_latest", sa.Boolean, nullable=False),
    sa.Column("event_id", sa.String(36), nullable=False, unique=True),
    sa.Column("status", sa.String(12), nullable=False),
    sa.Column("reason", sa.String(1024)),
    # What it carries, and for whom, from its first leaving on; null: what the order has now.
    sa.Column("fingerprint", sa.String(64)),
    sa.Column("email", sa.String(254)),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),  # times it left for the destination
    sa.Column("sending_at", UtcDateTime),
    sa.Column("left_seq", sa.BigInteger, index=True),  # its place among all that left, in the order of their commits
    sa.Column("waited_seq", sa.BigInteger),  # what left after this place left ``verify_after`` later; null: not waited
    sa.Column("sent_at", UtcDateTime),
    sa.Column("outcome_run", RunId, index=True),  # the run in which it became sent, rejected, held or suppressed
    sa.Index(None, "status", "is_latest"),
)

contents = sa.Table(
    "contents",  # what is known of an order beside the content it has now
    metadata,
    sa.Column("key", sa.String(512), primary_key=True),
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),  # see ContentState
    sa.Column("published_at", UtcDateTime),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("reference", sa.String(1024), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("loyalty_card", sa.String(64)),
    sa.Column("email", sa.String(254)),
    sa.Column("run", RunId, nullable=False, index=True),
    sa.Column("received_at", UtcDateTime, nullable=False),
)

editions = sa.Table(
    "editions",  # which run ordered which, where a run says resend
    metadata,
    sa.Column("key", sa.String(512), primary_key=True),
    sa.Column("destination", sa.String(32), primary_key=True),
    sa.Column("ordered_by", RunId, primary_key=True),  # without the number of its try: once a run, whatever is cleared
    sa.Column("edition", sa.Integer, nullable=False),
    sa.Column("made_at", UtcDateTime, nullable=False),
)

resends = sa.Table(
    "resends",  # lists of events that are sent again once a person has approved the list
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("made_at", UtcDateTime, nullable=False),
    sa.Column("made_by", sa.String(64), nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # sha256 of the event ids, sorted, a line each
)

resend_events = sa.Table(
    "resend_events",
    metadata,
    sa.Column("resend", sa.String(36), primary_key=True),
    sa.Column("event_id", sa.String(36), primary_key=True),  # of the edition that is sent again by another
)

customers = sa.Table(
    "customers",
    metadata,
    sa.Column("loyalty_card", sa.String(64), primary_key=True),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("email", sa.String(254)),
    sa.Column("asked_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
)

suppressions = sa.Table(
    "suppressions",  # persons nothing may be sent for
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),  # keyed, of a card or an email
    sa.Column("source", sa.String(16), primary_key=True),
    sa.Column("learnt_from", sa.String(64), primary_key=True),  # hash of the card that an answer was about
    sa.Column("cause", sa.String(64), nullable=False),
    sa.Column("since", UtcDateTime, nullable=False),
)

arrivals = sa.Table(
    "arrivals",  # orders that came, new or not, by the hour in which their source published them
    metadata,
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),  # since 1970
    sa.Column("source", sa.String(16), primary_key=True),
    sa.Column("store_id", sa.String(64), primary_key=True),
    sa.Column("orders", sa.Integer, nullable=False),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column(
        "id", sa.String(64), primary_key=True
    ),  # sha256 of source, reference and raw: a second copy is the same row
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("reference", sa.String(1024), nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("detail", sa.String(1024), nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("heading", sa.LargeBinary),  # the line with a CSV's column names, without which its rows say nothing
    sa.Column("adapter", sa.String(70)),  # by which it is read again
    sa.Column("run", RunId, nullable=False, index=True),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # quarantined, redriven, discarded
    sa.Index(None, "state", "reason", "received_at"),
)

extracts = sa.Table(
    "extracts",
    metadata,
    sa.Column("path", sa.String(1024), primary_key=True),
    sa.Column("version", sa.String(256), nullable=False),  # size and modified time or etag: changed means loaded again
    sa.Column("orders", sa.Integer, nullable=False),
    sa.Column("bad_rows", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # see ExtractState
    sa.Column("detail", sa.String(1024)),  # of a file that could not be read to its end: where and why
    sa.Column("digest", sa.String(64)),  # of its bytes and of all that decides what they become
    sa.Column("feed", sa.String(1024), index=True),  # its name without numbers: those of the same are much alike
    sa.Column("run", RunId, nullable=False, index=True),
    sa.Column("loaded_at", UtcDateTime, nullable=False),
)

feeds = sa.Table(
    "feeds",  # what the orders of files of one kind, or of the topic, are like
    metadata,
    sa.Column("feed", sa.String(1024), primary_key=True),
    sa.Column("fields", sa.Text, nullable=False),  # JSON: in which share of them each field was
    sa.Column("changed_run", RunId),  # the last one that found others than before
)

stores = sa.Table(
    "stores",
    metadata,
    sa.Column("store_id", sa.String(64), primary_key=True),
    sa.Column("first_run", RunId, nullable=False),  # that landed an order of it; empty: before this was kept
)

pipeline = sa.Table(
    "pipeline",  # whose ledger this is; under other settings it is not opened
    metadata,
    sa.Column("setting", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(1024), nullable=False),
)

audit = sa.Table(
    "audit",  # what a person did
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("what", sa.String(64), nullable=False),  # the command, such as "deliveries settle"
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("detail", sa.String(1024), nullable=False),
)

claims = sa.Table(
    "claims",  # who is at work on a batch; the batch's orders point to it
    metadata,
    sa.Column("run", RunId, primary_key=True),
    sa.Column("batch", sa.Integer, primary_key=True),
    sa.Column("alive_at", UtcDateTime, nullable=False),  # last sign of life
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

services = sa.Table(
    "services",
    metadata,
    sa.Column("service", sa.String(250), primary_key=True),  # connection, and the API behind it
    sa.Column("next_turn", sa.BigInteger, nullable=False),  # microseconds since 1970: nobody calls before
    sa.Column("opened_at", sa.BigInteger),  # milliseconds since 1970: left alone since then; null: it is well
    sa.Column("last_answer", sa.String(250)),  # of the last call that failed before it was left alone
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("run", RunId, primary_key=True),  # with #1 where it was cleared once: begun anew, told anew
    sa.Column("cause", sa.String(300), primary_key=True),  # task_failed:drain_topic, dead_letters, recovered
    sa.Column("begun_at", UtcDateTime, nullable=False),
    sa.Column("ordinary", sa.Boolean, nullable=False),  # of the hourly stream, whose next good run is its recovery
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),  # waiting, told, nobody (there was no channel)
    sa.Column("ended_run", RunId, index=True),  # the run that found the cause gone
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", RunId, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("window_start", UtcDateTime),
    sa.Column("window_end", UtcDateTime),
    sa.Column("started_at", UtcDateTime, nullable=False, index=True),
    sa.Column("ended_at", UtcDateTime),
    # Counted where they happen, in the commit that makes them happen: no row remembers them.
    sa.Column("received", sa.Integer, nullable=False, default=0),
    sa.Column("duplicates", sa.Integer, nullable=False, default=0),
    sa.Column("corrections", sa.Integer, nullable=False, default=0),
    sa.Column("corrected_after_sent", sa.Integer, nullable=False, default=0),
    sa.Column("lines_do_not_add_up", sa.Integer, nullable=False, default=0),
    sa.Column("dates_without_offset", sa.Integer, nullable=False, default=0),
    sa.Column("cards_as_numbers", sa.Integer, nullable=False, default=0),
    sa.Column("mapping_cards", sa.Integer),  # of the mapping file; null: there was none, or it was not read
    sa.Column("claimed", sa.Integer, nullable=False, default=0),
    sa.Column("batches", sa.Integer, nullable=False, default=0),
    sa.Column("looked_up", sa.Integer, nullable=False, default=0),
    sa.Column("cache_hits", sa.Integer, nullable=False, default=0),
    sa.Column("truncated", sa.Integer, nullable=False, default=0),
    sa.Column("drain", sa.String(16)),  # what ended it: drained, count, time, not known; none where it had none
    sa.Column("not_drained", sa.Integer),
    sa.Column("locked_elsewhere", sa.Integer),
    sa.Column("deferred", sa.Integer),
    sa.Column("counts", sa.Text),  # the report, as JSON
)
