"""The settings, a class for each section: environment variables ``INSTORE_*``, each with its unit and default.

Secrets and endpoints are not here: they are Airflow connections (design.md, "Settings").
"""

from __future__ import annotations

import difflib
import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from include.instore.model.errors import ConfigurationError
from include.instore.model.identifiers import known_codec, known_trailer, known_zone
from include.instore.model.order_keys import key_fields
from include.instore.model.states import WITHOUT_ADDRESS

PREFIX = "INSTORE_"


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


def _known_outcomes(names: str) -> str:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not set(chosen) <= set(WITHOUT_ADDRESS):
        raise ValueError(f"can only have {', '.join(WITHOUT_ADDRESS)}, with commas between them")
    return ",".join(chosen)


class _Section(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")


class RunSettings(_Section):
    """The runs."""

    pipeline: str = Field(
        "instore_orders",
        min_length=1,
        max_length=64,
        description="Name of this pipeline, written into its ledger. Another brand needs another ledger.",
    )
    use_topic: bool = Field(
        True, description="Off: no run drains a topic. For retailers whose stores only export files."
    )
    use_extracts: bool = Field(
        True, description="Off: no run reads extracts. For retailers whose ERP only publishes messages."
    )
    wake_up: bool = Field(
        False,
        description="On: a message on the topic, or a new extract, also starts a run, within seconds, beside the "
        "hourly ones. Airflow's triggerer looks at the subscription every 2 s, and for files every 15 s. Not for "
        "subscriptions with sessions.",
    )
    max_bad_share: float = Field(
        0.02, ge=0, le=1, description="The run is red above this share of quarantined or rejected records."
    )
    share_minimum: int = Field(
        5,
        ge=1,
        description="A share passes its limit only with at least this many records, for every share: one bad message "
        "of three at night is no trend. It is counted all the same.",
    )
    batch_orders: int = Field(
        500, ge=1, description="Orders per mapped batch. Batches are larger where a run would have more than 50."
    )
    claim_wait: float = Field(
        300, ge=0, description="Seconds a run with a window waits for orders that another active run has claimed."
    )
    claim_minutes: float = Field(
        120, gt=0, description="Minutes after the last heartbeat of a dead run until another run takes over its orders."
    )


class BusSettings(_Section):
    """The topic."""

    topic: str = Field("orders", min_length=1, description="Service Bus topic the ERP publishes orders on.")
    subscription: str = Field(
        "orderprocessing", min_length=1, description="Subscription of that topic that is drained."
    )
    topic_adapter: Annotated[str, AfterValidator(_declared)] = Field(
        "",
        description="YAML file that declares how the topic's messages become orders (docs/adapters.md); empty: they "
        "are order documents.",
    )
    drain_receivers: int = Field(
        4, ge=1, le=32, description="Peek-lock receivers that drain in parallel, each with its own connection."
    )
    drain_block: int = Field(200, ge=1, le=2000, description="Messages per ledger commit, for each receiver.")
    drain_max_messages: int = Field(
        100_000, ge=1, description="Messages one run receives at most. The others stay on the bus for the next run."
    )
    drain_max_seconds: float = Field(
        900, gt=0, description="Seconds one run drains at most. The other messages stay on the bus for the next run."
    )
    settle_in_blocks: bool = Field(
        True,
        description="On: the messages of a block are completed by one request, if the SDK and the bus support it. Off: "
        "one by one, a round trip each.",
    )
    drain_wait: float = Field(
        0.5, gt=0, le=60, description="Seconds a receiver waits for the first message of a block."
    )
    drain_empty_reads: int = Field(
        1, ge=1, description="A receiver treats the subscription as drained after this many empty reads in a row."
    )


class ExtractSettings(_Section):
    """The extracts."""

    extracts_url: str = Field(
        "",
        description="Folder or bucket of the ERP's extracts, such as abfs://extracts/orders. Empty: the extra `path` "
        "of connection instore_extracts.",
    )
    extract_glob: str = Field("**/*", description="Glob of the files below that folder that are extracts.")
    extract_adapters: Annotated[dict[str, str], AfterValidator(_each_declared)] = Field(
        default_factory=dict,
        description="YAML files that declare how extracts become orders (docs/adapters.md), by the names of the "
        'extracts, as JSON: {"shopify/*.csv": "/opt/instore/adapters/shopify.yaml"}. The first match counts.',
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
        description="An amount such as 150.000 in a CSV, in a currency without three decimals: refuse, since it may be "
        "150 thousand; accept, as 150.",
    )
    extract_row_lines: int = Field(
        20,
        ge=1,
        le=1000,
        description="Lines that one row of a CSV may have, by line breaks within quotes. With more lines the quote "
        "is taken as a mistake.",
    )
    extract_min_age: float = Field(
        60,
        ge=0,
        description="A file is read once it has not changed for this many seconds; a younger file waits "
        "for the next run.",
    )
    extract_marker: str = Field(
        "",
        description="Name of a marker file (_SUCCESS) or suffix (.done) that must be next to an extract before it is "
        "read. Empty: no marker is needed. The file is compared with SHA-256 sums in the marker, as sha256sum writes "
        "them (.sha256).",
    )
    extract_trailer: Annotated[str, AfterValidator(known_trailer)] = Field(
        "",
        description="The line that ends each extract, as a regular expression such as "
        r"`EOF;(?P<count>\d+);(?P<sum>-?[\d.]+)`: count of its rows or orders; sum of the totals of the orders or "
        "of their lines. A file that does not match it, or lacks it, waits. Empty: there is no trailer.",
    )
    max_extract_bytes: int = Field(
        4_000_000_000,
        ge=1024,
        description="Bytes of the largest extract, as it is stored and as it unpacks. Each is copied to the disk for "
        "temporary files before it is read.",
    )
    extract_block: int = Field(500, ge=1, le=10_000, description="Orders of an extract per ledger commit.")


class OrderSettings(_Section):
    """The orders."""

    max_message_bytes: int = Field(
        1_048_576,
        ge=1024,
        description="Bytes of the largest message, or order of an extract, that is accepted. Above it: too_large.",
    )
    earliest_date: date = Field(
        date(2000, 1, 1), description="Orders dated before this day, or more than a day in the future, are refused."
    )
    order_key: Annotated[str, AfterValidator(_known_key)] = Field(
        "order_number",
        description="Fields that together name one order, with commas between them, such as "
        "store_id,day,order_number; any field of the order, and `day` in the store's time zone. The type is always "
        "part of it. It is written into the ledger when that is created: choose it before the first run.",
    )
    sums: Literal["tell", "refuse", "off"] = Field(
        "tell",
        description="An order whose lines do not add up to its total: tell, it is sent and counted; refuse, it is set "
        "aside; off, it is sent. In any case it is set aside where a line seems to be lost: at the end of a file, and "
        "next to a refused row.",
    )
    sums_tolerance: Decimal = Field(
        Decimal(0),
        ge=0,
        description="Difference, in the order's currency, that is allowed between lines and total, for rounding.",
    )
    store_timezone: Annotated[str, AfterValidator(known_zone)] = Field(
        "UTC", description="Time zone of order dates without an offset. Each such date counts as a warning."
    )
    no_purchase_words: str = Field(
        "void,voided,cancelled,canceled,deleted,storno,storniert,test,training,trainingmode",
        description="Words, with commas between them, by which a record is no purchase and is refused: it has a field "
        "of that name, such as isVoided or cancelledAt, that is true or has a date, or a status of that value. Empty: "
        "none is refused for it.",
    )
    card_length: int = Field(
        0,
        ge=0,
        le=64,
        description="Digits of a loyalty card. Shorter cards get leading zeros, which spreadsheets remove. 0: cards "
        "are not changed. It also counts for orders that already wait.",
    )
    dummy_cards: str = Field(
        "0,n/a,na,none,null,nil,nan,unknown,#*",
        description="Values that are not a card, with commas between them and * for any characters; 0 means any "
        "number of zeros.",
    )
    placeholder_emails: str = Field(
        "none@*,nomail@*,no-mail@*,noemail@*,no-email@*,noreply@*,no-reply@*,donotreply@*,unknown@*,anonymous@*,"
        "nobody@*,noone@*,dummy@*,test@test.*",
        description="Addresses that belong to no customer, on orders and in loyalty answers, written as above. Add "
        "those that are typed at your tills, such as *@store.example.com. Text without an @ is never an address.",
    )


class LookupSettings(_Section):
    """The loyalty look-ups."""

    lookup_threads: int = Field(8, ge=1, le=64, description="Parallel look-ups of one mapped task.")
    max_failed_look_ups: float = Field(
        0.2,
        ge=0,
        le=1,
        description="The task of a batch fails above this share of cards without an answer. Up to it, only these "
        "cards are set aside, and looked up again after 1, 6 and 24 hours, then daily.",
    )
    cache_hours: float = Field(24, ge=0, description="Hours that the customer of a card is cached.")
    negative_cache_hours: float = Field(0.9, ge=0, description="Hours that a card without a customer is cached.")
    unmatched_expiry_days: float = Field(
        30,
        ge=0,
        description="Days after its arrival that an unmatched order is looked up again; then it stays unmatched.",
    )
    own_email_after: Annotated[str, AfterValidator(_known_outcomes)] = Field(
        "not_found,no_email",
        description="Answers about a card after which the email on the order itself is used: any of not_found, "
        "no_email and inactive, with commas between them. Empty: never. The card is always looked up first.",
    )
    use_loyalty_api: bool = Field(
        True, description="Off: the loyalty API is not used; only the mapping file answers for cards."
    )
    mapping_file: Path | None = Field(
        None,
        description="CSV with the columns card and email, found by their headings, for cards that the loyalty API "
        "does not know. Delimiter: , ; tab or |. Empty: none.",
    )


class EventSettings(_Section):
    """The events."""

    scope: str = Field(
        "Default", min_length=1, max_length=64, description="Scope of the events; must equal the scope of the website."
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
        256_000, ge=1024, description="Bytes of one event at most. In a larger event a summary replaces the lines."
    )


class SendingSettings(_Section):
    """The sending."""

    enable_track_events: bool = Field(
        True, description="Off: nothing is sent and nothing is lost; orders stay in state ready."
    )
    track_bulk: bool = Field(True, description="On: TrackBulk; off: one Track request per event.")
    bulk_events: int = Field(100, ge=1, le=100, description="Events per TrackBulk request; the API takes 100 at most.")
    bulk_bytes: int = Field(1_000_000, ge=1024, description="Bytes per TrackBulk request.")
    on_ambiguous: Literal["verify", "resend", "hold"] = Field(
        "verify",
        description="An event whose request ended without an answer: verify asks the Profile Store, resend sends it "
        "again, hold leaves the decision to a person.",
    )
    verify_after: float = Field(
        60,
        ge=0,
        description="Seconds to wait for an ambiguous event to become visible. Must be longer than the Profile Store "
        "takes to show an accepted event, at its slowest.",
    )
    verify_witnesses: int = Field(
        3,
        ge=1,
        le=50,
        description="Visible events, sent at least `verify_after` later, that prove that an ambiguous event which is "
        "not visible was not accepted.",
    )
    doubt_hours: float = Field(24, ge=0, description="Hours after which an event that could not be verified is held.")
    read_back_sample: int = Field(
        20, ge=0, le=1000, description="Events of the previous run that each run reads back; 0: none."
    )
    resend_approval: int = Field(
        1000,
        ge=0,
        description="Events that are sent again without asking; more only by DAG `instore_resend`, from a list that a "
        "person approves.",
    )


class ServiceSettings(_Section):
    """Failures of the outside services."""

    breaker_failures: int = Field(
        5,
        ge=1,
        description="Failed calls in a row, of one task, that open the circuit for all tasks. The loyalty API, the "
        "Tracking API and the Profile Store API have a circuit each. Above 5, the calls of one request, a failing "
        "send never opens it.",
    )
    breaker_seconds: float = Field(
        30, gt=0, description="Seconds that a circuit stays open before one call tries the service again."
    )
    retry_first_wait: float = Field(
        30,
        gt=0,
        description="Seconds; a failed task is retried after a random time up to this, doubled at each retry. How "
        "often: the DAG's `retries`.",
    )
    retry_longest_wait: float = Field(600, gt=0, description="Seconds; the maximum of that random time.")
    retry_after_max: float = Field(
        900, gt=0, description="Seconds; the longest Retry-After of a service that a task waits for."
    )


class AlertSettings(_Section):
    """The alerts; the channels are connection instore_alerts."""

    deadline_minutes: float = Field(
        90, ge=0, description="Minutes after a run was queued until the alert that it is not done; 0: never."
    )
    alert_unmatched_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Alert from this share of the run's new orders without a customer; 0: never.",
    )
    alert_oldest_message_minutes: float = Field(
        120, ge=0, description="Minutes; alert from this age of the oldest message on the bus; 0: never."
    )
    alert_oldest_unsent_minutes: float = Field(
        360,
        ge=0,
        description="Minutes; alert when the oldest unsent order arrived this long ago; 0: never.",
    )
    alert_dead_letters: int = Field(
        100, ge=0, le=10_000, description="Alert from this number of messages in the dead-letter queue; 0: never."
    )
    alert_silence_hours: float = Field(
        48,
        ge=0,
        description="Hours without an order until the alert for a feed or a store that has less than two weeks of "
        "data; with more, its own usual hours decide. 0: no such alert at all.",
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
        description="Alert from this number of accepted events of the previous run's sample that are not visible; 0: "
        "never.",
    )
    alert_shared: int = Field(
        5,
        ge=0,
        description="Alert for a suspected placeholder when one address or card has more orders than this within an "
        "hour; 0: never.",
    )
    runbook_url: str = Field("docs/runbook.md", min_length=1, description="Path or URL of the runbook, for the alerts.")


class PoolSettings(_Section):
    """The pools; `python -m include.instore set-up` makes them."""

    pool_bus: int = Field(
        1, ge=1, description="Slots of pool `instore_bus`: parallel drains of the topic, of all runs."
    )
    pool_loyalty: int = Field(
        4, ge=1, description="Slots of pool `instore_loyalty`: parallel look-up tasks, of all runs."
    )
    pool_profile_store: int = Field(
        4, ge=1, description="Slots of pool `instore_profile_store`: parallel sending tasks, of all runs."
    )


class RetentionSettings(_Section):
    """Retention; DAG instore_maintenance removes older data every night."""

    retention_days_payloads: float = Field(
        730,
        ge=0,
        description="Days after its arrival that the content, card and email of an order are kept, if no event of it "
        "waits; 0: for ever. Later a duplicate is still recognised, but the order cannot be sent again.",
    )
    retention_days_customers: float = Field(
        30, ge=0, description="Days that a loyalty answer is kept after it has expired; 0: for ever."
    )
    retention_days_quarantine: float = Field(
        365,
        ge=0,
        description="Days that the content of a quarantined record is kept; 0: for ever. A record that nobody has "
        "settled by then is given up, and that run is red.",
    )
    retention_days_reports: float = Field(
        730, ge=0, description="Days that a run and its report are kept; 0: for ever."
    )
    retention_days_alerts: float = Field(365, ge=0, description="Days that an alert is kept; 0: for ever.")
    erasure_receipts: Path | None = Field(
        None,
        description="Folder for the receipts of erasures. Every run reads it, so that people are erased again after a "
        "restored backup. Keep it apart from the ledger. Empty: nobody can be erased.",
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
    "verify_after", "enable_track_events", "wake_up",
}  # fmt: skip
"""What a newcomer sets, or looks at, before the first run."""


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process, read from its environment.

    :param overrides: fields whose values replace those of the environment.
    :raises ConfigurationError: a variable starts with INSTORE_ and is not a setting, or has a wrong value.
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
