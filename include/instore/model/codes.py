"""Every code: why something is refused, set aside, warned of or alerted, with its meaning, likely cause and remedies.

A code needs one entry here. docs/codes.md, the table of docs/runbook.md, the alerts and the commands take their texts
from it. A word without an entry cannot be used: looking it up raises ``KeyError``.
"""

from __future__ import annotations

import re
from enum import Enum

from include.instore.model.states import CardOutcome

COMMAND = "python -m include.instore"


class Kind(str, Enum):
    """What a code is about; the value is the heading of its part of docs/codes.md."""

    REFUSED = "Records in quarantine"
    FILE = "Files"
    ORDER = "Orders without a customer"
    EVENT = "Events"
    ANSWER = "Cards without an answer"
    WARNING = "Warnings"
    ALERT = "Runs and limits"


class Told(str, Enum):
    """How a person is notified."""

    RED = "the run is red"
    SOFT = "an alert from the first one"
    LIMIT = "an alert above its limit"
    COUNTED = "a count in the report"


class Code(str):
    """A code, which is the word itself.

    :param told: how a person is notified, or the code whose alert covers it.
    :param heading: of its alert, and of its section in docs/runbook.md where it has one.
    :param meaning: what it means for the orders. :param cause: the most likely cause.
    :param remedies: a condition and the command to run then, without :data:`COMMAND`; without a command: what to do.
    :param urgent: how soon a person has to look.
    """

    kind: Kind
    told: Told | Code
    heading: str
    meaning: str
    cause: str
    remedies: tuple[tuple[str, str], ...]
    urgent: str

    @property
    def alert(self) -> Code | None:
        """The code whose alert covers it; None: it is only counted."""
        told: Told | Code = self
        while isinstance(told, Code):
            alert, told = told, told.told
        return None if told is Told.COUNTED else alert

    def remedy(self, id: str = "ID") -> str:
        """The commands for the thing with this id; a person chooses one."""
        return " or ".join((command or when).replace("ID", id) for when, command in self.remedies)

    @property
    def is_soft(self) -> bool:
        """Whether it is an alert of a green run; it stays open until a run finds that its cause has ended."""
        return self.told in (Told.SOFT, Told.LIMIT)


CODES: dict[str, Code] = {}


def code_of(word: str) -> Code:
    """The entry of a word, also of a cause, ``task_failed:drain_topic``, or of one of a family, ``answered_400``.

    :raises KeyError: it has none.
    """
    return CODES[re.sub(r"(?<=^answered_)\d+", "NNN", word.partition(":")[0])]


def _code(
    word: str,
    kind: Kind,
    heading: str,
    meaning: str,
    cause: str,
    *remedies: tuple[str, str],
    told: Told | Code = Told.COUNTED,
    urgent: str = "this week",
) -> Code:
    code = Code(word)
    code.kind, code.heading, code.meaning, code.cause, code.told = kind, heading, meaning, cause, told
    code.remedies, code.urgent = remedies, urgent
    if CODES.setdefault(word, code) is not code:
        raise KeyError(f"{word} has an entry already")
    return code


# Runs and limits

TASK_FAILED = _code(
    "task_failed", Kind.ALERT, "A task failed", "Nothing is lost; the next run does what this one did not.",
    "A connection or a setting is wrong, or a service does not answer: the last line of the task's log names it.",
    ("after correcting what that line names: clear the task, or wait for the next hour", ""),
    told=Told.RED, urgent="the second hour in a row",
)  # fmt: skip
NUMBERS = _code(
    "numbers", Kind.ALERT, "The numbers do not add up",
    "Orders may be counted wrongly or missing from the ledger. Do not clear any task before you know why.",
    "Somebody changed the ledger, an old backup was restored, or this is a bug.",
    ("after a restored backup, with tracking off", "reconcile"),
    told=Told.RED, urgent="yes",
)  # fmt: skip
NO_REPORT = _code(
    "no_report", Kind.ALERT, "The run failed without a report",
    "The run's counts are not known. Nothing is lost: received orders are in the ledger, all others are still on the "
    "bus, and the next run continues from there.",
    "The ledger cannot be opened, or the worker of the report was killed.",
    ("when the ledger answers again: trigger a run, or wait for the next hour", ""),
    told=Told.RED, urgent="yes",
)  # fmt: skip
DEADLINE = _code(
    "deadline", Kind.ALERT, "The run is not done in time",
    "Orders reach the profiles late. No other hourly run starts before this one ends; nothing is lost.",
    "A service is slow, a worker is lost, no slot is free, or there are far more orders than usual.",
    ("if a pool is missing or too small", "set-up"),
    told=Told.RED, urgent="yes, where it happens again",
)  # fmt: skip
BAD_SHARE = _code(
    "bad_share", Kind.ALERT, "Too many records were set aside",
    "The valid orders of this run were sent. The others are in quarantine or rejected, and reach no profile until "
    "they are corrected.",
    "The ERP or the destination changed something.",
    ("", "quarantine list"), told=Told.RED, urgent="this day",
)  # fmt: skip
QUARANTINED = _code(
    "quarantined", Kind.ALERT, "Records wait in quarantine",
    "They are kept, and reach no profile until a person redrives or discards them. All other orders are sent.",
    "Records that are not orders by the contract; each has its own code.",
    ("", "quarantine list"), told=Told.SOFT,
)  # fmt: skip
COLLISIONS = _code(
    "collisions", Kind.ALERT, "Orders with the key of another order",
    "They reach no profile until a person decides what they are. All other orders were sent.",
    "INSTORE_ORDER_KEY gives different orders the same key.",
    ("", "quarantine list --reason collision"), told=Told.RED, urgent="this day",
)  # fmt: skip
UNMATCHED_SHARE = _code(
    "unmatched_share", Kind.ALERT, "Many orders find no customer",
    "Later runs look them up again until they expire, and send them once a customer is found. Until then they are in "
    "no profile.",
    "Cards are written differently than before, or the connection reads the provider's answers wrongly.",
    ("after correcting the cause, to look them up at once", "orders search-again --reason not_found"),
    told=Told.LIMIT,
)  # fmt: skip
OLDEST_MESSAGE = _code(
    "oldest_message", Kind.ALERT, "Messages wait on the bus",
    "Orders reach the profiles late. They are not lost, unless they stay longer than the topic keeps them.",
    "The run reached its limit of messages or seconds, or messages come back because they cannot be settled.",
    ("if a limit was reached: trigger runs until the alert has recovered", ""),
    told=Told.LIMIT, urgent="this day; before the topic's time-to-live",
)  # fmt: skip
NOT_DRAINED = _code(
    "not_drained", Kind.ALERT, "The bus was not drained",
    "The remaining messages are on the bus. Orders reach the profiles late, and are lost if they stay longer than the "
    "topic keeps them.",
    "Two runs in a row reached their limit of messages or seconds, or the bus did not answer at the end of a run.",
    ("if a limit was reached: trigger runs until the alert has recovered", ""),
    told=Told.LIMIT, urgent="this day; before the topic's time-to-live",
)  # fmt: skip
DEFERRED = _code(
    "deferred", Kind.ALERT, "Deferred messages on the bus",
    "Each may be an order. A run does not receive them; they stay until they are received by number, or expire.",
    "Another program receives from the same subscription and defers messages: this pipeline never does.",
    ("to land those that are orders and complete them", "dead-letters redrive --deferred"),
    told=Told.SOFT, urgent="this day; before they expire",
)  # fmt: skip
OLDEST_UNSENT = _code(
    "oldest_unsent", Kind.ALERT, "Orders wait to be sent",
    "These orders are in the ledger and in no profile yet. Nothing is lost; they are sent once the cause is removed.",
    "Tracking is switched off, a task fails, or requests are still ambiguous.",
    ("if tracking is on and the tasks succeed: nothing, the next run sends them", ""),
    told=Told.LIMIT, urgent="this day",
)  # fmt: skip
DEAD_LETTERS = _code(
    "dead_letters", Kind.ALERT, "Dead letters on the bus",
    "Each is an order, or was meant to be one, and waits for a person. They do not expire, but they fill the topic's "
    "quota; when it is full the ERP cannot publish.",
    "Messages that were refused, that expired unread, or whose reader died several times.",
    ("to land those that are orders by today's settings, and complete those that were discarded",
    "dead-letters redrive"),
    told=Told.LIMIT,
)  # fmt: skip
SILENCE = _code(
    "silence", Kind.ALERT, "Nothing came",
    "Orders that do not arrive cannot be sent, and no other system notices.",
    "The till, its network, the ERP's publisher or its export has stopped; or the store is closed on an unusual day.",
    ("when orders arrive again: nothing, they are landed and sent", ""),
    told=Told.LIMIT, urgent="this day",
)  # fmt: skip
NOT_VISIBLE = _code(
    "not_visible", Kind.ALERT, "Sent events are not visible",
    "They are counted as sent, not as lost: the destination may be slow, and it never shows events of people on its "
    "blacklist.",
    "The destination is slow, or loses accepted events; or its read API does not honour the filter.",
    ("if it is slow every hour: raise INSTORE_VERIFY_AFTER above its delay", ""),
    told=Told.LIMIT, urgent="this day",
)  # fmt: skip
SHARED = _code(
    "shared", Kind.ALERT, "One address or card on many orders",
    "All these orders reach the profile of one person, who did not buy them.",
    "A placeholder address that is typed at tills, or a dummy card.",
    ("if it is one: add it to INSTORE_PLACEHOLDER_EMAILS or INSTORE_DUMMY_CARDS", ""),
    told=Told.LIMIT,
)  # fmt: skip
LOOK_UPS_FAILING = _code(
    "look_ups_failing", Kind.ALERT, "Cards get no answer",
    "Later runs look these cards up again, and send the orders once there is an answer. Until then they are in no "
    "profile. All other orders are sent.",
    "The loyalty API fails for these cards, or its answers say nothing about them.",
    ("after correcting the provider or the connection, to look them up at once",
     "orders search-again --reason look_up_failed"),
    told=Told.SOFT,
)  # fmt: skip
HELD_EVENTS = _code(
    "held_events", Kind.ALERT, "Events are held for a person to decide",
    "They were sent once, and may or may not be in a profile. No run sends them again. All other orders were sent.",
    "Their requests ended without an answer, and the Profile Store cannot be asked, or its answers prove nothing.",
    ("", "deliveries list"), told=Told.RED, urgent="this day",
)  # fmt: skip
RECOVERED = _code(
    "recovered", Kind.ALERT, "Recovered", "This run or the next ones handle what had waited.",
    "The cause of an earlier alert has ended.", ("nothing", ""),
)  # fmt: skip


# Records in quarantine


def _refused(
    word: str,
    title: str,
    meaning: str,
    cause: str,
    *remedies: tuple[str, str],
    told: Code = QUARANTINED,
) -> Code:
    again = [("after correcting the cause on this side", f"quarantine redrive --reason {word}")]
    given_up = ("if the ERP sends it again corrected, or it is not wanted", f"quarantine discard --reason {word}")
    return _code(word, Kind.REFUSED, title, meaning, cause, *(remedies or again), given_up, told=told)


NOT_JSON = _refused(
    "not_json", "Not JSON", "The record's text cannot be read as JSON, or not as UTF-8.",
    "The publisher compresses, cuts or encodes differently; the detail says what the text looks like.",
)  # fmt: skip
NOT_AN_OBJECT = _refused(
    "not_an_object", "Not an object", "The record is JSON, but a list, a text or a number instead of one order.",
    "It was serialised twice, or one message has several orders.",
)  # fmt: skip
MISSING_FIELD = _refused(
    "missing_field", "A field is missing", "A field that every order must have, or a field of its key, is absent or "
    "empty.",
    "The ERP renamed or dropped a field.",
)  # fmt: skip
BAD_VALUE = _refused(
    "bad_value", "A field's value is wrong", "A field breaks its rule; the detail names the field and the rule.",
    "The ERP, or a spreadsheet in between, writes dates, amounts or numbers differently.",
)  # fmt: skip
TOO_LARGE = _refused(
    "too_large", "Too large", "The record is larger than INSTORE_MAX_MESSAGE_BYTES.",
    "An order with very many lines, or not an order. Raise the setting; for an order of an extract have the file "
    "delivered again as well, since only the beginning of the order was kept.",
)  # fmt: skip
BLOB_MISSING = _refused(
    "blob_missing", "The blob of an order is not there", "The message is a pointer to a blob of connection "
    "instore_extracts, and none has this name. The pointer is kept.",
    "The publisher has not written it yet, or its blobs are deleted too early; or the declaration's `blob` leads "
    "elsewhere.",
)  # fmt: skip
UNSUPPORTED_TYPE = _refused(
    "unsupported_type", "An unknown type of order",
    "orderType is neither sale nor return, or a field says that the order was voided or is a test.",
    "The ERP publishes something that is not a purchase.",
)  # fmt: skip
UNDECODABLE = _refused(
    "undecodable", "It cannot be decoded", "The message is not AMQP that can be decoded; the detail names the "
    "sections. Its bytes are kept.", "A publisher writes a value of a type that the SDK does not know.",
    ("if its body is whole: to land the order and complete the message", "dead-letters redrive"),
)  # fmt: skip
SPLIT_ORDER = _refused(
    "split_order", "Rows of one order that do not make it", "The rows of one order are not together in one "
    "file, or are in two files, and together they do not make one order. Those that had not been sent are here.",
    "The export is not sorted by order, or has lost rows.",
    ("if the kept rows are the whole order", "quarantine redrive ID"),
    told=COLLISIONS,
)  # fmt: skip
CUT_ORDER = _refused(
    "cut_order", "It may be half an order", "The order's lines do not add up to its total, where rows of the file "
    "were lost.",
    "The file was cut.", ("if the order is whole all the same", "quarantine redrive ID"),
)  # fmt: skip
BROKEN_FILE = _refused(
    "broken_file", "The rest of a broken file", "From this line on a released file could not be read.",
    "The file is cut or damaged.", ("if the ERP delivers it again, whole: nothing, the next run loads it", ""),
)  # fmt: skip
COLLISION = _refused(
    "collision", "Another order has its key", "A different order has the same key; the detail says what differs. "
    "This one replaced nothing.", "Numbers start again each day, or several stores use the same numbers.",
    ("after setting INSTORE_ORDER_KEY to fields that differ between such orders", "ledger rekey"),
    ("after that", "quarantine redrive --reason collision"),
    ("if it is a separate order", "quarantine accept-as new-order ID"),
    ("if it is the known order, corrected", "quarantine accept-as correction ID"),
    told=COLLISIONS,
)  # fmt: skip
SUSPECTED_TWIN = _refused(
    "suspected_twin", "It seems to be a known order", "Its number differs only by leading zeros from that of a known "
    "order of the same store and moment.", "A spreadsheet removed the zeros in one of two sources.",
    ("if it is a separate order", "quarantine accept-as new-order ID"),
    told=COLLISIONS,
)  # fmt: skip

# Files

UNREAD_FILES = _code(
    "unread_files", Kind.FILE, "A file was not read to its end",
    "No order of these files is in the ledger. They wait until they are delivered whole, or a person decides. All "
    "other orders were sent.",
    "A file is cut or damaged, lacks a column, has another encoding, or has an unknown kind of name.",
    ("if the ERP exports it again under the same name: nothing, the next run loads it", ""),
    ("to load what is before the fault, or after correcting a setting", "extracts release PATH"),
    ("if it was delivered under another name, or is not wanted", "extracts forget PATH"),
    told=Told.RED, urgent="this day",
)  # fmt: skip
LEFT_FILES = _code(
    "left_files", Kind.FILE, "Files are not read for hours",
    "Nothing of these files is in the ledger, and nobody can tell that they are whole. Their orders are in nobody's "
    "profile; all others are sent.",
    "The marker that INSTORE_EXTRACT_MARKER asks for does not come, or the file is written for ever, or was given up.",
    ("its marker comes, or it changes no more: the next run loads it", ""),
    ("it is whole as it is", "extracts release PATH"),
    ("it is not wanted", "extracts forget PATH"),
    told=Told.LIMIT, urgent="this day",
)  # fmt: skip

# Orders without a customer


def _without_customer(
    outcome: CardOutcome, title: str, meaning: str, cause: str, told: Told | Code = UNMATCHED_SHARE
) -> Code:
    again = ("after correcting the cause, to look them up at once", f"orders search-again --reason {outcome}")
    return _code(outcome.value, Kind.ORDER, title, meaning, cause, again, told=told)


NO_CUSTOMER_KEY = _code(
    "no_customer_key", Kind.ORDER, "Neither card nor email", "Kept, and not looked up: there is nothing to look up.",
    "An anonymous shopper; or the heading of the card column has changed.",
    ("if the heading has changed: name it in INSTORE_EXTRACT_COLUMNS, and have the files delivered again", ""),
    told=UNMATCHED_SHARE,
)  # fmt: skip
_without_customer(
    CardOutcome.NOT_FOUND, "An unknown card", "The provider has no such card. Looked up again until the order expires.",
    "A card that is not registered yet, or is written differently.",
)  # fmt: skip
_without_customer(
    CardOutcome.NO_EMAIL, "A member without an email",
    "The card is known and has no address. Looked up again until the order expires.",
    "A member without an address, or a wrong path to the email.",
)  # fmt: skip
_without_customer(
    CardOutcome.INACTIVE, "A member who is not active",
    "The card's member is not active. Looked up again until the order expires.",
    "A closed membership, or a status that is not among the active ones.",
)  # fmt: skip
_without_customer(
    CardOutcome.AMBIGUOUS, "Several members on one card",
    "The customer cannot be decided. Looked up again until the order expires.",
    "Two members share a card, or the provider searches for a part of the number.",
)  # fmt: skip
LOOK_UP_FAILED = _without_customer(
    CardOutcome.LOOK_UP_FAILED, "A card without an answer", "The card was looked up, and the answer says nothing about "
    "it. Looked up again until the order expires.", "The codes of the answers are in the log of look_up_customers.",
    LOOK_UPS_FAILING,
)  # fmt: skip
SUPPRESSED = _code(
    "suppressed", Kind.ORDER, "A person nothing may be sent for", "No event of this person is sent.",
    "The person was erased or opted out, by a loyalty answer, a file or a command.",
    ("if it was a mistake, to send the orders that were kept back", "suppressions lift ID"),
)  # fmt: skip

# Events

IN_DOUBT = _code(
    "in_doubt", Kind.EVENT, "Nobody knows yet whether it was taken", "It was sent, and its request ended without an "
    "answer. A later run verifies it, and holds it after INSTORE_DOUBT_HOURS.", "The network or the service failed.",
    ("nothing: a later run verifies it", ""), told=OLDEST_UNSENT,
)  # fmt: skip
HELD = _code(
    "held", Kind.EVENT, "A person has to decide", "It was sent, and whether it was accepted is not known. No run sends "
    "it again.", "The Profile Store could not be asked, or its answers prove nothing.",
    ("if the Profile Store shows it", "deliveries settle --sent ID"),
    ("if it shows later events, and not this one", "deliveries settle --send-again ID"),
    ("if it can be asked now", "deliveries settle --ask-again ID"),
    told=HELD_EVENTS,
)  # fmt: skip
REJECTED = _code(
    "rejected", Kind.EVENT, "Events were refused", "The destination refuses the content of these events. They are in "
    "no profile; all other orders are sent.", "Scope, event type or size: the destination gives the reason.",
    ("after correcting the setting", "deliveries settle --send-again ID"),
    ("if it is not wanted", "deliveries settle --give-up ID"),
    told=Told.SOFT,
)  # fmt: skip
CORRECTED_AFTER_SENT = _code(
    "corrected_after_sent", Kind.EVENT, "Orders were corrected after they were sent",
    "The profiles keep the event of the first content; the later one is in the ledger, table contents.",
    "The ERP publishes orders before they are final.",
    ("to send the later content as well, as a second event", "orders resend --corrected"),
    ("if the first event is good enough", "orders keep --corrected"),
    told=Told.SOFT,
)  # fmt: skip

# Cards without an answer


def _answer(word: str, title: str, cause: str) -> Code:
    remedy = ("after correcting the provider or the connection", "orders search-again --reason look_up_failed")
    meaning = "The answer says nothing about the card; its orders are set aside as look_up_failed."
    return _code(word, Kind.ANSWER, title, meaning, cause, remedy, told=LOOK_UP_FAILED)


_answer("answered_NNN", "This status, which is not in *Not-found statuses*", "The card's number, or the provider.")
_answer("answered_NNN_not_json", "This status with a page or a text", "Maintenance, or a proxy in between.")
_answer("no_answer", "No answer after all retries", "The network or the provider.")
_answer("error_in_answer", "Status 200 with an error in the answer, or `success` false", "The provider.")
_answer("no_member", "JSON in which the paths find no member", "Compare the paths with an answer.")
_answer("unexpected_answer", "JSON with another structure than the paths expect", "Compare the paths with an answer.")
_answer("no_id", "No id for the second call", "Compare *Path to the id* with an answer.")
_answer(
    "another_card", "A member with another card", "The provider searches for a part of the number, or a wrong path."
)
_answer(
    "unread_sign", "A member with a field such as optOut, deletedAt or consent, which nothing reads",
    "Have *Path to the status* read the field, or name it in *Signs that do not matter*.",
)  # fmt: skip
_answer("no_card", "A member without a card at *Path to the card*", "A wrong path.")

# Warnings

LINES_DO_NOT_ADD_UP = _code(
    "lines_do_not_add_up", Kind.WARNING, "Lines of orders do not make their totals",
    "They are sent all the same, or set aside where INSTORE_SUMS is refuse. The log of the task names their source.",
    "Vouchers, delivery fees and rounding, which are correct; or a lost line.",
    ("if the ERP delivers the file again: nothing, orders that have not been sent are corrected", ""),
    ("if those set aside are right, after setting INSTORE_SUMS=tell",
    "quarantine redrive --reason lines_do_not_add_up"),
    ("if those set aside are delivered again, corrected", "quarantine discard --reason lines_do_not_add_up"),
    told=Told.SOFT, urgent="this day, if the lines of this ERP's orders mostly add up",
)  # fmt: skip
CHANGED_FIELDS = _code(
    "changed_fields", Kind.WARNING, "Orders have other fields than before",
    "All fields that an order needs are there, and the orders were landed. What else the ERP changed is not known.",
    "The ERP's export, or its publisher, was changed.",
    ("if a new one is the new name of a known one: name it in INSTORE_EXTRACT_COLUMNS or in the declaration", ""),
    told=Told.SOFT,
)  # fmt: skip
NEW_STORES = _code(
    "new_stores", Kind.WARNING, "Orders of stores that never had any", "They were landed as all others.",
    "A store has opened, or the ERP writes the numbers of its stores differently than before.",
    ("if a store has opened: nothing", ""),
    ("if it is another spelling: have it corrected, or put the right number into `values` of the declaration", ""),
    told=Told.SOFT,
)  # fmt: skip
TRUNCATED = _code(
    "truncated", Kind.WARNING, "Events were sent without their lines", "They were larger than INSTORE_MAX_EVENT_BYTES, "
    "so their lines went out as a summary.", "Orders with very many lines.",
    ("if the destination accepts larger events: raise the setting", ""), told=Told.SOFT,
)  # fmt: skip
CARDS_AS_NUMBERS = _code(
    "cards_as_numbers", Kind.WARNING, "Cards as JSON numbers", "They are used as they are; leading zeros of a card are "
    "lost.", "The publisher writes the card as a number.",
    ("if all cards have one length: set INSTORE_CARD_LENGTH; better, have cards published as texts", ""),
)  # fmt: skip
DATES_WITHOUT_OFFSET = _code(
    "dates_without_offset", Kind.WARNING, "Dates without an offset", "They are read in INSTORE_STORE_TIMEZONE.",
    "The ERP writes local times.", ("if that is the stores' time zone: nothing", ""),
)  # fmt: skip


def is_soft(cause: str) -> bool:
    """Whether a cause is one of :data:`SOFT`, or one of several of that code: ``silence:store 0404``."""
    return cause.partition(":")[0] in SOFT


SOFT = tuple(code for code in CODES.values() if code.is_soft)
"""Causes that stay open from run to run until a run finds that they have ended."""
