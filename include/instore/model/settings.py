"""The settings: a class a section, environment variables ``INSTORE_*``, every field with its unit and default.

Secrets and endpoints are not here: they are Airflow connections (design.md, "Settings").
"""

from __future__ import annotations

import difflib
import os
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from include.instore.model.errors import ConfigurationError
from include.instore.model.identifiers import known_codec, known_zone
from include.instore.model.order_keys import key_fields

PREFIX = "INSTORE_"

NO_ADDRESS = ("not_found", "no_email", "inactive")
"""Final answers about a card that give no address."""


def _known_placeholders(template: str) -> str:
    try:
        template.format(customer_key="")
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise ValueError("the only placeholder is {customer_key}") from error
    return template


def _known_key(names: str) -> str:
    key_fields(names)
    return names


def _declared(path: str) -> str:
    return path and _each_declared({"": path})[""]


def _each_declared(paths: dict[str, str]) -> dict[str, str]:
    if not paths:
        return paths
    # Reading the DAG file reads the settings, and needs no order.
    from include.instore.model.declarations import load_declaration

    names = {path: load_declaration(path).name for path in paths.values()}
    if twice := [name for name in names.values() if list(names.values()).count(name) > 1]:
        raise ValueError(f"two adapters have the name {twice[0]}; give one of them another `name`")
    return paths


def _known_groups(pattern: str) -> str:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if set(found.groupindex) - {"count", "sum"} or (pattern and found.fullmatch("")):
        raise ValueError("can only have the groups (?P<count>…) and (?P<sum>…), and must not fit an empty line")
    return pattern


def _known_outcomes(names: str) -> str:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not set(chosen) <= set(NO_ADDRESS):
        raise ValueError(f"can only have {', '.join(NO_ADDRESS)}, with commas between them")
    return ",".join(chosen)


class _Section(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")


class RunSettings(_Section):
    """The runs."""

    pipeline: str = Field(
        "instore_orders",
        min_length=1,
        max_length=64,
        description="Name of this pipeline, written into its ledger: another brand's has another ledger.",
    )
    use_topic: bool = Field(
        True, description="Off: no run drains a topic; for retailers whose stores only export files."
    )
    use_extracts: bool = Field(True, description="Off: no run reads extracts; for retailers whose ERP only publishes.")
    max_bad_share: float = Field(
        0.02, ge=0, le=1, description="Share of a run's records quarantined or rejected above which the run is red."
    )
    share_minimum: int = Field(
        5,
        ge=1,
        description="Records that a share must be of to pass its limit, of every share: one bad message of three at "
        "night says nothing about the stream. It is told all the same.",
    )
    batch_orders: int = Field(500, ge=1, description="Orders per mapped batch; grown where 50 batches would not do.")
    claim_wait: float = Field(
        300, ge=0, description="Seconds a run of a window waits for orders that another run, alive, holds."
    )
    claim_minutes: float = Field(
        120, gt=0, description="Minutes after its last sign of life at which a dead run's orders go to another run."
    )


class BusSettings(_Section):
    """The topic."""

    topic: str = Field("orders", min_length=1, description="Service Bus topic the ERP publishes orders on.")
    subscription: str = Field("orderprocessing", min_length=1, description="Subscription of that topic to drain.")
    topic_adapter: Annotated[str, AfterValidator(_declared)] = Field(
        "",
        description="YAML file that declares how the topic's messages become orders (docs/adapters.md); empty: they "
        "are order documents already.",
    )
    drain_receivers: int = Field(
        4, ge=1, le=32, description="Peek-lock receivers that drain at the same time, each with its own connection."
    )
    drain_block: int = Field(200, ge=1, le=2000, description="Messages landed in one ledger commit, per receiver.")
    drain_max_messages: int = Field(
        100_000, ge=1, description="Messages one run takes at most; the rest stays on the bus for the next run."
    )
    drain_max_seconds: float = Field(
        900, gt=0, description="Seconds one run drains at most; the rest stays on the bus for the next run."
    )
    drain_wait: float = Field(1.0, gt=0, le=60, description="Seconds a receiver waits for a block's first message.")
    drain_empty_reads: int = Field(
        2, ge=1, description="Empty reads in a row after which a receiver takes the subscription for drained."
    )


class ExtractSettings(_Section):
    """The extracts."""

    extracts_url: str = Field(
        "",
        description="Folder or bucket with the ERP's extracts, such as abfs://extracts/orders; "
        "empty: the `path` extra of connection instore_extracts.",
    )
    extract_glob: str = Field("**/*", description="Which files below that folder are extracts, as a glob.")
    extract_adapters: Annotated[dict[str, str], AfterValidator(_each_declared)] = Field(
        default_factory=dict,
        description="YAML files that declare how extracts become orders (docs/adapters.md), by the names of the "
        'extracts, as JSON: {"shopify/*.csv": "/opt/instore/adapters/shopify.yaml"}. The first that fits counts.',
    )
    extract_encoding: Annotated[str, AfterValidator(known_codec)] = Field(
        "utf-8-sig", description="Text encoding of CSV and JSON Lines extracts without an adapter."
    )
    extract_columns: dict[str, str] = Field(
        default_factory=dict,
        description='Column map of extracts without an adapter, as JSON: {"Its heading": "order_number", ...}.',
    )
    three_decimals: Literal["refuse", "accept"] = Field(
        "refuse",
        description="What an amount such as 150.000 in a CSV is, in a currency without three decimals: refuse, since "
        "it may be thousands; accept, 150 of them.",
    )
    extract_row_lines: int = Field(
        20,
        ge=1,
        le=1000,
        description="Lines one row of a CSV may have, by line breaks within quotes; beyond them a quote is stray.",
    )
    extract_min_age: float = Field(
        60, ge=0, description="Seconds a file must have been left unchanged before it is read; younger: the next run."
    )
    extract_marker: str = Field(
        "",
        description="Name of a marker file (_SUCCESS) or suffix (.done) that must stand beside an extract before it is "
        "read; empty: no marker is asked for. One that holds SHA-256 sums, as sha256sum writes them (.sha256), is "
        "compared with the file.",
    )
    extract_trailer: Annotated[str, AfterValidator(_known_groups)] = Field(
        "",
        description="The line that ends each extract, as a regular expression such as "
        r"`EOF;(?P<count>\d+);(?P<sum>-?[\d.]+)`: count, of its rows or orders; sum, of the orders' totals or their "
        "lines'. A file that is not what it says, or lacks it, waits. Empty: there is none.",
    )
    max_extract_bytes: int = Field(
        4_000_000_000,
        ge=1024,
        description="Bytes of the largest extract, as it is stored and as it unpacks; each is copied to the disk for "
        "temporary files before it is read.",
    )
    extract_block: int = Field(500, ge=1, le=10_000, description="Orders of an extract landed in one ledger commit.")


class OrderSettings(_Section):
    """The orders."""

    max_message_bytes: int = Field(
        1_048_576, ge=1024, description="Bytes of the largest message or extract order accepted; above it: too_large."
    )
    earliest_date: date = Field(
        date(2000, 1, 1), description="Orders dated before this day, or more than a day ahead, are refused."
    )
    order_key: Annotated[str, AfterValidator(_known_key)] = Field(
        "order_number",
        description="Fields that together name one order, with commas between them, such as "
        "store_id,day,order_number; any field of the order, and `day` in the store's time zone. The type is always "
        "part of it. Written into the ledger when it is made: look at it before the first run.",
    )
    sums: Literal["tell", "refuse", "off"] = Field(
        "tell",
        description="What becomes of an order whose lines do not make its total: tell, it is sent and counted; refuse, "
        "it is set aside; off, it is sent. It is set aside in any case where a line seems to be lost: at the end of a "
        "file, and beside a row that was refused.",
    )
    sums_tolerance: Decimal = Field(
        Decimal(0), ge=0, description="By how much, in the order's currency, lines may miss the total, as by rounding."
    )
    store_timezone: Annotated[str, AfterValidator(known_zone)] = Field(
        "UTC", description="Time zone of order dates that come without an offset; each such date counts as a warning."
    )
    card_length: int = Field(
        0,
        ge=0,
        le=64,
        description="Digits of a loyalty card; shorter ones get leading zeros, which spreadsheets take away. 0: cards "
        "stay as they come. Orders that wait are asked for by it as well.",
    )
    dummy_cards: str = Field(
        "0,n/a,na,none,null,nil,nan,unknown,#*",
        description="Cards that are none, with commas between them and * for any characters; 0 is zeros of any number.",
    )
    placeholder_emails: str = Field(
        "none@*,nomail@*,no-mail@*,noemail@*,no-email@*,noreply@*,no-reply@*,donotreply@*,unknown@*,anonymous@*,"
        "nobody@*,noone@*,dummy@*,test@test.*",
        description="Addresses that are nobody's, of orders and of loyalty answers, as above. Add what your tills type "
        "to get on, such as *@store.example.com. Text without an @ is no address in any case.",
    )


class LookupSettings(_Section):
    """The loyalty look-ups."""

    lookup_threads: int = Field(8, ge=1, le=64, description="Look-ups one mapped task has under way at once.")
    max_failed_look_ups: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of a batch's cards that get no answer, above which its task fails; up to it each is set "
        "aside alone and asked for again after 1, 6 and 24 hours, then daily.",
    )
    cache_hours: float = Field(24, ge=0, description="Hours a card's customer is remembered before it is asked again.")
    negative_cache_hours: float = Field(
        0.9, ge=0, description="Hours a card without a customer is remembered before it is asked again."
    )
    unmatched_expiry_days: float = Field(
        30, ge=0, description="Days after its arrival an unmatched order is asked for again; after them it stays."
    )
    own_email_after: Annotated[str, AfterValidator(_known_outcomes)] = Field(
        "not_found,no_email",
        description="Answers about a card after which an order goes to the email that it carries itself: any of "
        "not_found, no_email and inactive, with commas between them; empty: never. The card is always asked first.",
    )
    use_loyalty_api: bool = Field(
        True, description="Off: no loyalty API is asked; the mapping file alone answers for cards."
    )
    mapping_file: Path | None = Field(
        None,
        description="CSV with the columns card and email, found by their headings, that answers for cards the loyalty "
        "API does not know; between the columns , ; tab or |. Empty: none.",
    )


class EventSettings(_Section):
    """The events."""

    scope: str = Field(
        "Default", min_length=1, max_length=64, description="Scope of the events; must equal the website's own."
    )
    device_id: Annotated[str, AfterValidator(_known_placeholders)] = Field(
        "InStoreDevice",
        min_length=1,
        description="deviceId of the events: a constant, or {customer_key} for one device per customer.",
    )
    event_type: str = Field("StorePurchase", min_length=1, description="eventType of a sale.")
    event_value: str = Field("StorePurchase", min_length=1, description="value of a sale.")
    return_event_type: str = Field("StoreReturn", min_length=1, description="eventType of a return.")
    return_event_value: str = Field("StoreReturn", min_length=1, description="value of a return.")
    max_event_bytes: int = Field(
        256_000, ge=1024, description="Bytes of one event at most; above it the lines become a summary."
    )


class SendingSettings(_Section):
    """The sending."""

    enable_track_events: bool = Field(True, description="Off: nothing is sent and nothing is lost; orders stay ready.")
    track_bulk: bool = Field(True, description="On: TrackBulk; off: one Track request per event.")
    bulk_events: int = Field(100, ge=1, le=100, description="Events per TrackBulk request; the API takes 100 at most.")
    bulk_bytes: int = Field(1_000_000, ge=1024, description="Bytes per TrackBulk request.")
    on_ambiguous: Literal["verify", "resend", "hold"] = Field(
        "verify",
        description="What becomes of an event whose request died without an answer: ask the Profile Store, send it "
        "again, or hold it for a person.",
    )
    verify_after: float = Field(
        60,
        ge=0,
        description="Seconds an event in doubt is waited for. Look at it before the first run: longer than the Profile "
        "Store takes to show what it has taken, at its slowest.",
    )
    verify_witnesses: int = Field(
        3,
        ge=1,
        le=50,
        description="Events that left `verify_after` later and are shown, which prove that one in doubt that is not "
        "shown was not taken.",
    )
    doubt_hours: float = Field(
        24, ge=0, description="Hours after which an event of which nobody can tell whether it was taken is held."
    )
    read_back_sample: int = Field(
        20, ge=0, le=1000, description="Events of those the previous run sent that each run reads back; 0: none."
    )


class ServiceSettings(_Section):
    """The outside services, when one fails."""

    breaker_failures: int = Field(
        5,
        ge=1,
        description="Failing calls in a row, of one task, after which a service is left alone by all tasks; each has "
        "its own count: the loyalty API, the Tracking API and the Profile Store API. Above 5, the calls of one "
        "request, a failing send never comes to it.",
    )
    breaker_seconds: float = Field(
        30, gt=0, description="Seconds a service is left alone before one call tries whether it is well again."
    )
    retry_first_wait: float = Field(
        30,
        gt=0,
        description="Seconds; a task that failed is tried again after a random time of at most this, doubled at each "
        "further try. How often: the DAG's `retries`.",
    )
    retry_longest_wait: float = Field(
        600, gt=0, description="Seconds; the longest that this random time may become, however often it is doubled."
    )
    retry_after_max: float = Field(
        900, gt=0, description="Seconds; a task waits no longer, whatever Retry-After a service asked for."
    )


class AlertSettings(_Section):
    """The alerts; the channels are connection instore_alerts."""

    deadline_minutes: float = Field(
        90, ge=0, description="Minutes after a run was queued at which it is told that it is not done; 0: never."
    )
    alert_unmatched_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of the orders that arrived with a run and find no customer, from which on it is told; "
        "0: never.",
    )
    alert_oldest_message_minutes: float = Field(
        120, ge=0, description="Minutes; age of the oldest message left on the bus, from which on it is told; 0: never."
    )
    alert_oldest_unsent_minutes: float = Field(
        360,
        ge=0,
        description="Minutes since its arrival; age of the oldest unsent order, from which on it is told; 0: never.",
    )
    alert_dead_letters: int = Field(
        100, ge=0, le=10_000, description="Messages in the dead-letter queue, from which on it is told; 0: never."
    )
    alert_silence_hours: float = Field(
        48,
        ge=0,
        description="Hours without an order, from which on a feed or a store that has no past of two weeks yet is "
        "told; one that has is judged by that. 0: never, neither.",
    )
    alert_left_hours: float = Field(
        3,
        ge=0,
        description="Hours an extract is not read because it is still being written, or its marker is not there, from "
        "which on it is told; 0: never.",
    )
    alert_not_visible: int = Field(
        1,
        ge=0,
        description="Events of the previous run's sample that were accepted and are not visible, from which on it is "
        "told; 0: never.",
    )
    alert_shared: int = Field(
        5,
        ge=0,
        description="Orders, of however many cards and stores, that one address or card may have within an hour; more "
        "is told as a suspected placeholder. 0: never.",
    )
    runbook_url: str = Field(
        "docs/runbook.md", min_length=1, description="Where alerts say the runbook is: a path, or the URL of its page."
    )


class PoolSettings(_Section):
    """The pools; `python -m include.instore set-up` makes them."""

    pool_bus: int = Field(1, ge=1, description="Slots of pool `instore_bus`: topic drains at once, of all runs.")
    pool_loyalty: int = Field(
        4, ge=1, description="Slots of pool `instore_loyalty`: mapped look-up tasks at once, of all runs."
    )
    pool_profile_store: int = Field(
        4, ge=1, description="Slots of pool `instore_profile_store`: mapped sending tasks at once, of all runs."
    )


class RetentionSettings(_Section):
    """What is kept; DAG instore_maintenance removes daily what is older."""

    retention_days_payloads: float = Field(
        730,
        ge=0,
        description="Days after its arrival for which an order's content, card and email are kept, once nothing of it "
        "waits any more; 0: for ever. Afterwards it is known again, but cannot be sent again.",
    )
    retention_days_customers: float = Field(
        30, ge=0, description="Days for which a loyalty answer is kept after it has expired; 0: for ever."
    )
    retention_days_quarantine: float = Field(
        365,
        ge=0,
        description="Days for which the content of a quarantined record is kept; 0: for ever. One that nobody has "
        "settled until then is given up, and that run is red.",
    )
    retention_days_reports: float = Field(
        730, ge=0, description="Days for which a run and its report are kept; 0: for ever."
    )
    retention_days_alerts: float = Field(365, ge=0, description="Days for which an alert is kept; 0: for ever.")
    erasure_receipts: Path | None = Field(
        None,
        description="Folder for the receipts of erasures, which every run looks into: after a restored backup they "
        "say who is to be erased again. Keep it apart from the ledger. Empty: none, and nobody can be erased.",
    )


class Settings(BaseModel):
    """How the pipeline behaves, in sections. Read once per task by :func:`load_settings`.

    The environment variable of a field is ``INSTORE_`` and its name, without the section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: RunSettings = Field(default_factory=RunSettings)
    bus: BusSettings = Field(default_factory=BusSettings)
    extracts: ExtractSettings = Field(default_factory=ExtractSettings)
    orders: OrderSettings = Field(default_factory=OrderSettings)
    lookups: LookupSettings = Field(default_factory=LookupSettings)
    events: EventSettings = Field(default_factory=EventSettings)
    sending: SendingSettings = Field(default_factory=SendingSettings)
    services: ServiceSettings = Field(default_factory=ServiceSettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    pools: PoolSettings = Field(default_factory=PoolSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)

    def having(self, **values: Any) -> Settings:
        """The same but for these fields, which are not validated."""
        parts: dict[str, Any] = {}
        for name, value in values.items():
            section = SECTION_OF[name]
            parts[section] = parts.get(section, getattr(self, section)).model_copy(update={name: value})
        return self.model_copy(update=parts)


SECTIONS: dict[str, Any] = {name: field.annotation for name, field in Settings.model_fields.items()}
SECTION_OF = {name: section for section, kind in SECTIONS.items() for name in kind.model_fields}

YOURS = {
    "topic", "subscription", "topic_adapter", "extract_adapters", "order_key", "store_timezone", "scope", "device_id",
    "verify_after", "enable_track_events",
}  # fmt: skip
"""What a newcomer sets, or looks at, before the first run."""


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process, read from its environment.

    :param overrides: values that win over the environment, such as a run's params.
    :raises ConfigurationError: a variable starts with INSTORE_ and is none of ours, or has a wrong value.
    """
    known = {f"{PREFIX}{name}".upper() for name in SECTION_OF}
    for name in (*os.environ, *(f"{PREFIX}{name}" for name in overrides)):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "docs/configuration.md lists the settings."
            raise ConfigurationError(f"Setting {name} is unknown; {hint}")
    try:
        return Settings(**{section: kind(**overrides) for section, kind in SECTIONS.items()})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = f"{PREFIX}{'.'.join(str(part) for part in first['loc'])}".upper()
        raise ConfigurationError(f"Setting {name} is wrong: {first['msg']}; change it in the environment.") from None
    except SettingsError as error:
        name = next((each for each in ("extract_columns", "extract_adapters") if each in str(error)), "")
        raise ConfigurationError(
            f'Setting {PREFIX}{name.upper()} is not JSON; write it as {{"one name": "another"}}.'
        ) from None
