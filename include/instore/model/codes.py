"""Every code: why something is refused, set aside, warned of or told, with its meaning, likely cause and remedies.

One entry here is all that a code needs: docs/codes.md, the table of docs/runbook.md, and what alerts and commands say
of it are made from it. A word that has no entry cannot be used: looking it up raises ``KeyError``.
"""

from __future__ import annotations

import re
from enum import Enum

COMMAND = "python -m include.instore"


class Kind(str, Enum):
    """What a code is said of; the value heads its part of docs/codes.md."""

    REFUSED = "Records in quarantine"
    FILE = "Files"
    ORDER = "Orders without a customer"
    EVENT = "Events"
    ANSWER = "Cards without an answer"
    WARNING = "Warnings"
    ALERT = "Runs and limits"


class Told(str, Enum):
    """How a person hears of it."""

    RED = "the run is red"
    SOFT = "an alert from the first one on"
    LIMIT = "an alert where its limit is passed"
    COUNTED = "a count of the report"


class Code(str):
    """A code, which is the word itself.

    :param told: how a person hears of it, or the code whose alert tells it.
    :param heading: of its alert, and of its section in docs/runbook.md where it has one.
    :param meaning: what it means for the orders. :param cause: what it most likely comes of.
    :param remedies: when, and the command that is then to be run, without :data:`COMMAND`; no command: what to do.
    :param urgent: how soon somebody has to look.
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
        """The code whose alert tells it; None: it is counted alone."""
        told: Told | Code = self
        while isinstance(told, Code):
            alert, told = told, told.told
        return None if told is Told.COUNTED else alert

    def remedy(self, id: str = "ID") -> str:
        """What a person may do of it, one of several, to the thing with this id."""
        return " or ".join((command or when).replace("ID", id) for when, command in self.remedies)

    @property
    def is_soft(self) -> bool:
        """Whether it is an alert of a run that stays green, which lasts until a run finds its end."""
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
    "task_failed", Kind.ALERT, "A task failed", "Nothing is lost; what was not done is done by the next run.",
    "A connection or a setting is wrong, or a service is away: the task's own sentence names it.",
    ("what the sentence names is corrected: clear the task, or wait for the next hour", ""),
    told=Told.RED, urgent="the second hour in a row",
)  # fmt: skip
NUMBERS = _code(
    "numbers", Kind.ALERT, "The numbers do not add up",
    "Orders may be counted wrongly or missing from the ledger. Do not clear anything before it is understood.",
    "Somebody changed the ledger, an old backup was restored, or this is a bug.",
    ("after a restored backup, with tracking off", "reconcile"),
    told=Told.RED, urgent="yes",
)  # fmt: skip
NO_REPORT = _code(
    "no_report", Kind.ALERT, "The run failed without a report",
    "The run's counts are not known. Nothing is lost: what was received is in the ledger, what was not is still on the "
    "bus, and the next run goes on from there.",
    "The ledger cannot be opened, or the report's worker was killed.",
    ("the ledger answers again: trigger a run, or wait for the hour", ""),
    told=Told.RED, urgent="yes",
)  # fmt: skip
DEADLINE = _code(
    "deadline", Kind.ALERT, "The run is not done in time",
    "Orders reach the profiles late. While it goes on, no other hourly run begins; nothing is lost.",
    "A service is slow, a worker is lost, no slot is free, or there is far more to do than in an hour.",
    ("a pool is missing or too small", "set-up"),
    told=Told.RED, urgent="yes, where it happens again",
)  # fmt: skip
BAD_SHARE = _code(
    "bad_share", Kind.ALERT, "Too many records were set aside",
    "The good orders of this run were sent. Those set aside wait in quarantine or as rejected, and reach nobody's "
    "profile until they are corrected.",
    "The ERP changed something, or the destination did.",
    ("", "quarantine list"), told=Told.RED, urgent="this day",
)  # fmt: skip
QUARANTINED = _code(
    "quarantined", Kind.ALERT, "Records wait in quarantine",
    "They are kept, and reach nobody's profile until they land or are given up. All other orders are sent.",
    "Records that are no orders by the contract; each has a code of its own.",
    ("", "quarantine list"), told=Told.SOFT,
)  # fmt: skip
COLLISIONS = _code(
    "collisions", Kind.ALERT, "Orders with the key of another order",
    "They reach nobody's profile until a person says what they are. All other orders were sent.",
    "INSTORE_ORDER_KEY does not tell orders apart that are not the same.",
    ("", "quarantine list --reason collision"), told=Told.RED, urgent="this day",
)  # fmt: skip
UNMATCHED_SHARE = _code(
    "unmatched_share", Kind.ALERT, "Many orders find no customer",
    "They are asked for again by themselves until they expire, and sent once a customer is found; until then they are "
    "in nobody's profile.",
    "Cards are written otherwise than before, or the connection reads the provider's answers wrongly.",
    ("what is wrong is corrected, and they are to be searched at once", "orders search-again --reason not_found"),
    told=Told.LIMIT,
)  # fmt: skip
OLDEST_MESSAGE = _code(
    "oldest_message", Kind.ALERT, "Messages wait on the bus",
    "Orders reach the profiles late. They are not lost, unless they stay longer than the topic keeps them.",
    "The run's budget was spent, or messages come back because they cannot be settled.",
    ("the budget was spent: trigger runs until it is told as recovered", ""),
    told=Told.LIMIT, urgent="this day; before the topic's time-to-live",
)  # fmt: skip
NOT_DRAINED = _code(
    "not_drained", Kind.ALERT, "The bus was not drained",
    "What is left is on the bus. Orders reach the profiles late, and are lost where they stay longer than the topic "
    "keeps them.",
    "Two runs in a row spent their budget, or the bus could not be asked at the end of a run.",
    ("the budget was spent: trigger runs until it is told as recovered", ""),
    told=Told.LIMIT, urgent="this day; before the topic's time-to-live",
)  # fmt: skip
DEFERRED = _code(
    "deferred", Kind.ALERT, "Deferred messages on the bus",
    "Each may be an order. No run is given them; they stay until they are asked for by their numbers, or expire.",
    "Another program receives from the same subscription and defers them: this pipeline never does.",
    ("what is an order lands, and is removed", "dead-letters redrive --deferred"),
    told=Told.SOFT, urgent="this day; before they expire",
)  # fmt: skip
OLDEST_UNSENT = _code(
    "oldest_unsent", Kind.ALERT, "Orders wait to be sent",
    "These orders are in the ledger and in nobody's profile yet. Nothing is lost; they are sent as soon as what holds "
    "them up is gone.",
    "Tracking is switched off, a task fails, or nobody knows yet what became of a request.",
    ("tracking is on and the tasks end well: nothing, the next run sends them", ""),
    told=Told.LIMIT, urgent="this day",
)  # fmt: skip
DEAD_LETTERS = _code(
    "dead_letters", Kind.ALERT, "Dead letters on the bus",
    "Each is an order, or was meant to be one, that nobody has looked at. They do not expire, but they fill the "
    "topic's quota, after which the ERP can publish nothing.",
    "Records that were refused, that expired unread, or that killed their reader several times.",
    ("what is an order by today's settings lands, and what was discarded is removed", "dead-letters redrive"),
    told=Told.LIMIT,
)  # fmt: skip
SILENCE = _code(
    "silence", Kind.ALERT, "Nothing came",
    "Orders that do not come cannot be sent, and nobody else notices.",
    "The till or its line, the ERP's publisher or its export has stopped; or the store is closed on an unusual day.",
    ("orders come again: nothing, they are landed and sent", ""),
    told=Told.LIMIT, urgent="this day",
)  # fmt: skip
NOT_VISIBLE = _code(
    "not_visible", Kind.ALERT, "Sent events are not visible",
    "They are counted as sent and not called lost: the destination may be slow, and of people on its blacklist it "
    "never shows any.",
    "The destination lags, or loses what it accepted; or its reading side does not do what it is asked.",
    ("it lags each hour: raise INSTORE_VERIFY_AFTER above that", ""),
    told=Told.LIMIT, urgent="this day",
)  # fmt: skip
SHARED = _code(
    "shared", Kind.ALERT, "One address or card on many orders",
    "Such orders reach the profile of one person, whose they are not.",
    "A placeholder that tills type to get on, or a dummy card.",
    ("it is one: add it to INSTORE_PLACEHOLDER_EMAILS or INSTORE_DUMMY_CARDS", ""),
    told=Told.LIMIT,
)  # fmt: skip
LOOK_UPS_FAILING = _code(
    "look_ups_failing", Kind.ALERT, "Cards get no answer",
    "Their cards are asked for again by themselves, and the orders are sent once one is answered; until then they are "
    "in nobody's profile. All other orders are sent.",
    "The loyalty API fails on these cards, or what it answers is no answer about them.",
    ("the provider or the connection is corrected, and they are to be asked for at once",
     "orders search-again --reason look_up_failed"),
    told=Told.SOFT,
)  # fmt: skip
HELD_EVENTS = _code(
    "held_events", Kind.ALERT, "Events are held for a person to decide",
    "They left once, and may or may not be in a profile; they are not sent again by themselves. All other orders were "
    "sent.",
    "Their requests died, and the Profile Store cannot be asked, or does not tell.",
    ("", "deliveries list"), told=Told.RED, urgent="this day",
)  # fmt: skip
RECOVERED = _code(
    "recovered", Kind.ALERT, "Recovered", "What had waited is handled by this run, or by the ones to come.",
    "What was told before is over.", ("nothing", ""),
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
    again = [("its cause is corrected on this side", f"quarantine redrive --reason {word}")]
    given_up = ("it comes again corrected, or is not wanted", f"quarantine discard --reason {word}")
    return _code(word, Kind.REFUSED, title, meaning, cause, *(remedies or again), given_up, told=told)


NOT_JSON = _refused(
    "not_json", "Not JSON", "The record's text cannot be read as JSON, or not as UTF-8.",
    "A publisher that compresses, cuts or encodes otherwise; the detail says what it looks like.",
)  # fmt: skip
NOT_AN_OBJECT = _refused(
    "not_an_object", "Not an object", "The record is JSON, but a list, a text or a number and not one order.",
    "It was serialised twice, or several orders are in one message.",
)  # fmt: skip
MISSING_FIELD = _refused(
    "missing_field", "A field is missing", "A field that every order must have, or one of its key, is absent or empty.",
    "The ERP renamed or dropped a field.",
)  # fmt: skip
BAD_VALUE = _refused(
    "bad_value", "A field's value is wrong", "A field breaks its rule; the detail names the field and the rule.",
    "The ERP, or a spreadsheet on the way, writes dates, amounts or numbers otherwise.",
)  # fmt: skip
TOO_LARGE = _refused(
    "too_large", "Too large", "The record is larger than INSTORE_MAX_MESSAGE_BYTES.",
    "An order of very many lines, or something else than an order. Raise the setting; of an extract's order have the "
    "file delivered again as well, since only its beginning was kept.",
)  # fmt: skip
UNSUPPORTED_TYPE = _refused(
    "unsupported_type", "An unknown type of order", "orderType is neither sale nor return.",
    "The ERP publishes something that is not a purchase.",
)  # fmt: skip
UNDECODABLE = _refused(
    "undecodable", "It cannot be decoded", "The message is no AMQP that can be decoded; the detail names the sections. "
    "It is kept with its bytes.", "A publisher writes a value of a type that the SDK does not know.",
    ("its body is whole: the order of it lands, and the message is removed", "dead-letters redrive"),
)  # fmt: skip
SPLIT_ORDER = _refused(
    "split_order", "Rows of one order that do not make it", "The rows of one order stand apart, in one file or two, "
    "and together they are not one order. What of it had not left was taken back.",
    "The export is not sorted by order, or has lost rows.",
    ("the order is whole in what was kept", "quarantine redrive ID"),
    told=COLLISIONS,
)  # fmt: skip
CUT_ORDER = _refused(
    "cut_order", "It may be half an order", "The order's lines do not make its total, at a place where rows were lost.",
    "The file was cut.", ("it is whole, though it seems cut", "quarantine redrive ID"),
)  # fmt: skip
BROKEN_FILE = _refused(
    "broken_file", "The rest of a broken file", "From this line on a released file could not be read.",
    "The file is cut or damaged.", ("the ERP delivers it whole again: the next run loads it", ""),
)  # fmt: skip
COLLISION = _refused(
    "collision", "Another order has its key", "Another order is known by the same key, and it is not the same order: "
    "the detail says what differs. It took nobody's place.", "Numbers begin anew each day, or stores count alike.",
    ("INSTORE_ORDER_KEY is set to fields that tell them apart", "ledger rekey"),
    ("after that", "quarantine redrive --reason collision"),
    ("it is an order of its own", "quarantine accept-as new-order ID"),
    ("it is the known order, corrected", "quarantine accept-as correction ID"),
    told=COLLISIONS,
)  # fmt: skip
SUSPECTED_TWIN = _refused(
    "suspected_twin", "It seems to be a known order", "Its number is that of a known order of the same store and "
    "moment, but for leading zeros.", "A spreadsheet took the zeros away in one of two sources.",
    ("it is an order of its own", "quarantine accept-as new-order ID"),
    told=COLLISIONS,
)  # fmt: skip

# Files

UNREAD_FILES = _code(
    "unread_files", Kind.FILE, "A file was not read to its end",
    "Nothing of these files is in the ledger. They wait until they come whole, or a person decides; all other orders "
    "were sent.",
    "A file breaks off, is damaged, lacks a column, is in another encoding, or has a name nobody expected.",
    ("the ERP exports it again, under the same name: the next run loads it", ""),
    ("what is before the fault is wanted, or a setting was corrected", "extracts release PATH"),
    ("it came under another name, or is not wanted", "extracts forget PATH"),
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


def _without_customer(word: str, title: str, meaning: str, cause: str, told: Told | Code = UNMATCHED_SHARE) -> Code:
    again = ("the cause is corrected, and they are to be searched at once", f"orders search-again --reason {word}")
    return _code(word, Kind.ORDER, title, meaning, cause, again, told=told)


NO_CUSTOMER_KEY = _code(
    "no_customer_key", Kind.ORDER, "Neither card nor email", "Kept and not asked for again: nothing can be asked.",
    "An anonymous shopper; or the heading of the card has changed.",
    ("the heading has changed: name it in INSTORE_EXTRACT_COLUMNS, and have the files delivered again", ""),
    told=UNMATCHED_SHARE,
)  # fmt: skip
NOT_FOUND = _without_customer(
    "not_found", "An unknown card", "The provider has no such card. Asked for again until it expires.",
    "A card not registered yet, or written otherwise.",
)  # fmt: skip
NO_EMAIL = _without_customer(
    "no_email", "A member without an email", "The card is known and has no address. Asked for again until it expires.",
    "A member without an address, or a wrong path to the email.",
)  # fmt: skip
INACTIVE = _without_customer(
    "inactive", "A member who is not active", "The card's member is not active. Asked for again until it expires.",
    "A closed membership, or a status that is not among the active ones.",
)  # fmt: skip
AMBIGUOUS = _without_customer(
    "ambiguous", "Several members on one card", "Nobody can tell whose order it is. Asked for again until it expires.",
    "Two members share a card, or the provider searches for a part of it.",
)  # fmt: skip
LOOK_UP_FAILED = _without_customer(
    "look_up_failed", "A card without an answer", "The card was asked for, and what came says nothing about it. Asked "
    "for again until it expires.", "The codes of what came are in the log of look_up_customers.",
    LOOK_UPS_FAILING,
)  # fmt: skip
SUPPRESSED = _code(
    "suppressed", Kind.ORDER, "A person nothing may be sent for", "Nothing is sent for this person, whatever comes.",
    "The person was erased or opted out, by a loyalty answer, a file or a command.",
    ("it was a mistake, and what was kept back is to be sent", "suppressions lift ID"),
)  # fmt: skip

# Events

IN_DOUBT = _code(
    "in_doubt", Kind.EVENT, "Nobody knows yet whether it was taken", "It left, and its request died. A later run finds "
    "out, and holds it where nobody can tell for INSTORE_DOUBT_HOURS.", "The network or the service failed.",
    ("nothing: a later run finds out", ""), told=OLDEST_UNSENT,
)  # fmt: skip
HELD = _code(
    "held", Kind.EVENT, "A person has to decide", "It left, and nobody can tell whether it was taken. It is not sent "
    "again by itself.", "The Profile Store could not be asked, or did not tell.",
    ("the Profile Store shows it", "deliveries settle --sent ID"),
    ("it shows later ones, and not this one", "deliveries settle --send-again ID"),
    ("it can be asked now", "deliveries settle --ask-again ID"),
    told=HELD_EVENTS,
)  # fmt: skip
REJECTED = _code(
    "rejected", Kind.EVENT, "Events were refused", "The destination refuses these events for what they are. They are "
    "in nobody's profile; all other orders are sent.", "Scope, event type or size: the reason is its own.",
    ("the setting is corrected", "deliveries settle --send-again ID"),
    ("it is not wanted", "deliveries settle --give-up ID"),
    told=Told.SOFT,
)  # fmt: skip
CORRECTED_AFTER_SENT = _code(
    "corrected_after_sent", Kind.EVENT, "Orders were corrected after they were sent",
    "The profiles keep the event of the first content; the later one is in the ledger, table contents.",
    "The ERP publishes orders before they are final.",
    ("the later content is to be sent as well, as an event of its own", "orders resend --corrected"),
    ("the first event is right enough", "orders keep --corrected"),
    told=Told.SOFT,
)  # fmt: skip

# Cards without an answer


def _answer(word: str, title: str, cause: str) -> Code:
    remedy = ("the provider or the connection is corrected", "orders search-again --reason look_up_failed")
    meaning = "It says nothing about the card; its orders are set aside as look_up_failed."
    return _code(word, Kind.ANSWER, title, meaning, cause, remedy, told=LOOK_UP_FAILED)


_answer("answered_NNN", "This status, which is not in *Not-found statuses*", "The card's number, or the provider.")
_answer("answered_NNN_not_json", "This status with a page or a text", "Maintenance, or something in between.")
_answer("no_answer", "None, however often it was tried", "The network or the provider.")
_answer("error_in_answer", "Status 200, and in the answer an error, or `success` false", "The provider.")
_answer("no_member", "JSON in which the paths find no member", "Compare the paths with an answer.")
_answer("unexpected_answer", "JSON of another shape than the paths expect", "Compare the paths with an answer.")
_answer("no_id", "No id for the second call", "Compare *Path to the id* with an answer.")
_answer("another_card", "A member with another card", "The provider searches for a part of it, or a wrong path.")
_answer("no_card", "A member without a card at *Path to the card*", "A wrong path.")

# Warnings

LINES_DO_NOT_ADD_UP = _code(
    "lines_do_not_add_up", Kind.WARNING, "Lines of orders do not make their totals",
    "They are sent all the same, or set aside where INSTORE_SUMS is refuse. The log of the task says where they came "
    "from.", "Vouchers, delivery fees and rounding, which are real; or a line was lost on the way.",
    ("the ERP delivers the file again: orders that have not left are corrected", ""),
    ("those set aside are right, and INSTORE_SUMS is tell", "quarantine redrive --reason lines_do_not_add_up"),
    ("those set aside come again corrected", "quarantine discard --reason lines_do_not_add_up"),
    told=Told.SOFT, urgent="this day, where orders of this ERP mostly make theirs",
)  # fmt: skip
CHANGED_HEADINGS = _code(
    "changed_headings", Kind.WARNING, "Files have other headings than before",
    "All columns that an order is made of are there, and the orders were landed; what else the ERP has changed is not "
    "known.", "The ERP's export was changed.",
    ("one of the new ones is what our column is called now: name it in INSTORE_EXTRACT_COLUMNS", ""), told=Told.SOFT,
)  # fmt: skip
TRUNCATED = _code(
    "truncated", Kind.WARNING, "Events were sent without their lines", "They were larger than INSTORE_MAX_EVENT_BYTES, "
    "so their lines went out as a summary.", "Orders of very many lines.",
    ("the destination takes larger ones: raise the setting", ""), told=Told.SOFT,
)  # fmt: skip
CARDS_AS_NUMBERS = _code(
    "cards_as_numbers", Kind.WARNING, "Cards as JSON numbers", "They are taken as they come; zeros that a card began "
    "with are lost.", "The publisher's card is no text.",
    ("cards have one length: set INSTORE_CARD_LENGTH; better, have it published as a text", ""),
)  # fmt: skip
DATES_WITHOUT_OFFSET = _code(
    "dates_without_offset", Kind.WARNING, "Dates without an offset", "They are taken for INSTORE_STORE_TIMEZONE.",
    "The ERP writes local times.", ("the setting is the stores' zone: nothing", ""),
)  # fmt: skip


def is_soft(cause: str) -> bool:
    """Whether a cause is one of :data:`SOFT`, or one of several of that code: ``silence:store 0404``."""
    return cause.partition(":")[0] in SOFT


SOFT = tuple(code for code in CODES.values() if code.is_soft)
"""Causes that last from run to run until a run finds their end."""
