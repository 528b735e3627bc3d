"""Which alerts a run gives: the causes that hold, by its report, the ages and the limits, and their texts.

    red      the run itself is red: a task finally failed, the numbers do not add up, too much was set aside
    soft     the run is green, but a limit is passed: told when it begins, and its end told once
    missed   the report could not tell: it was killed, or the run is not done in time

Plain judging: nothing here asks or tells anybody. Every text is made of counts, names of tasks, settings and extracts,
and a link: no order, email or card can get into one. Every cause has a section of the same heading in docs/runbook.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.instore.model.alert_causes import (
    BAD_SHARE,
    COLLISIONS,
    CORRECTED_AFTER_SENT,
    DEAD_LETTERS,
    DEADLINE,
    HELD_EVENTS,
    LOOK_UPS_FAILING,
    NO_REPORT,
    NUMBERS,
    OLDEST_MESSAGE,
    OLDEST_UNSENT,
    QUARANTINED_SHARE,
    RECOVERED,
    TASK_FAILED,
    UNMATCHED_SHARE,
    UNREAD_FILES,
    Ages,
    kind_of,
)
from include.instore.model.settings import Settings

SECTIONS = {
    TASK_FAILED: "A task failed",
    NUMBERS: "The numbers do not add up",
    BAD_SHARE: "Too many records were set aside",
    COLLISIONS: "Orders with the key of another order",
    UNREAD_FILES: "A file was not read to its end",
    HELD_EVENTS: "Events are held for a person to decide",
    NO_REPORT: "The run failed without a report",
    DEADLINE: "The run is not done in time",
    OLDEST_MESSAGE: "Messages wait on the bus",
    OLDEST_UNSENT: "Orders wait to be sent",
    DEAD_LETTERS: "Dead letters on the bus",
    LOOK_UPS_FAILING: "Cards get no answer",
    QUARANTINED_SHARE: "Many records are quarantined",
    UNMATCHED_SHARE: "Many orders find no customer",
    CORRECTED_AFTER_SENT: "Orders were corrected after they were sent",
    RECOVERED: "Recovered",
}
"""Heading in docs/runbook.md of each kind of cause."""

_TOLD_COUNTS = (
    "received", "orders", "duplicates", "corrections", "quarantined", "matched", "unmatched", "suppressed", "sent",
    "resent", "rejected", "carried_over",
)  # fmt: skip


@dataclass(frozen=True)
class Alert:
    """One cause, in a person's words; ``cause`` is its machine word, ``task_failed:drain_topic``."""

    cause: str
    what: str
    means: str

    @property
    def title(self) -> str:
        kind, _, name = self.cause.partition(":")
        return f"Task {name} failed" if kind == TASK_FAILED else self.section

    @property
    def section(self) -> str:
        """Its heading in docs/runbook.md."""
        return SECTIONS[kind_of(self.cause)]


def red_alerts(failed_tasks: Sequence[str], red: Mapping[str, Sequence[str]]) -> list[Alert]:
    """An alert for every task that finally failed, a mapped one named once, and for each other reason to be red.

    :param red: the report's sentences by kind of cause, such as :data:`NUMBERS`.
    """
    alerts = [
        Alert(
            f"{TASK_FAILED}:{task}",
            f"Task {task} failed, also when it was tried again. The last line of its log is one sentence that names "
            "what is wrong and what to change.",
            _FAILED_MEANS.get(task.rpartition(".")[2], "Nothing is lost; what was not done is done by the next run."),
        )
        for task in failed_tasks
    ]
    means = {
        NUMBERS: "Orders may be counted wrongly or missing from the ledger. Do not clear anything before it is "
        "understood.",
        BAD_SHARE: "The good orders of this run were sent. Those set aside wait in quarantine or as rejected, and "
        "reach nobody's profile until they are corrected.",
        COLLISIONS: "They reach nobody's profile until the key tells them apart and they are redriven. All other "
        "orders were sent.",
        HELD_EVENTS: "They left once, and may or may not be in a profile; they are not sent again by themselves. All "
        "other orders were sent.",
        UNREAD_FILES: "Nothing of these files is in the ledger. They wait until they come whole, or a person "
        "decides; all other orders were sent.",
    }
    alerts += [Alert(kind, _sentence("; ".join(red[kind])), means[kind]) for kind in means if red.get(kind)]
    return alerts


_FAILED_MEANS = {
    "drain_topic": "New messages stay on the bus, nothing is lost, and the next run takes them; extracts and orders "
    "already in the ledger are handled as always.",
    "load_extracts": "Extract files that were not loaded are loaded by the next run; messages are handled as always.",
    "plan_batches": "This run sends nothing. Its orders are in the ledger, and the next run sends them.",
    "look_up_customers": "The orders of the failed batches stay in the ledger without a customer; the next run asks "
    "again and sends them.",
    "send_events": "The orders of the failed batches stay in the ledger, and the next run sends them. None is sent "
    "twice.",
}


def _dead_letters(ages: Ages, settings: Settings) -> str:
    if ages.expired:
        return (
            f"{ages.expired} messages expired on the subscription before any run had read them, and are dead letters "
            "now: runs come too seldom, or its time to live is too short."
        )
    return f"The subscription's dead-letter queue holds {settings.alert_dead_letters} messages or more."


def soft_alerts(counts: Mapping[str, Any], ages: Ages, settings: Settings, *, shares: bool) -> dict[str, Alert | None]:
    """Every soft limit that can be judged by this run: its alert, or None where it is kept.

    A cause that is not in the answer is not known to hold or to have ended.

    :param counts: the report's.
    :param shares: whether the shares of this run say something about the stream of orders: not those of a backfill.
    """
    judged: dict[str, Alert | None] = {}

    def judge(alert: Alert, limit: float, value: float | None) -> None:
        if not limit:
            judged[alert.cause] = None  # switched off: what was open before ends
        elif value is not None:
            judged[alert.cause] = alert if value >= limit else None

    received, quarantined = counts["received"], counts["quarantined"]
    enough = shares and received >= settings.alert_min_orders
    judge(
        Alert(
            QUARANTINED_SHARE,
            f"{quarantined} of {received} records received are no orders by the contract, which is "
            f"{_share(quarantined, received)}; the limit is {settings.alert_quarantined_share:.1%}. "
            f"Reasons: {_by(counts.get('quarantined_by_reason', {}))}.",
            "They are kept in quarantine and reach nobody's profile until the ERP partner corrects what it publishes "
            "and they are redriven. All other orders are sent.",
        ),
        settings.alert_quarantined_share,
        quarantined / received if enough else None,
    )
    enough = shares and ages.new_orders >= settings.alert_min_orders
    judge(
        Alert(
            UNMATCHED_SHARE,
            f"{ages.new_unmatched} of {ages.new_orders} orders that arrived with this run have no customer, which is "
            f"{_share(ages.new_unmatched, ages.new_orders)}; the limit is {settings.alert_unmatched_share:.1%}. "
            f"Outcomes: {_by(counts.get('unmatched_by_outcome', {}))}.",
            "They are asked for again by themselves until they expire, and sent once a customer is found; until then "
            "they are in nobody's profile.",
        ),
        settings.alert_unmatched_share,
        ages.new_unmatched / ages.new_orders if enough else None,
    )
    judge(
        Alert(
            OLDEST_MESSAGE,
            f"After this run the oldest message on the subscription is {_age(ages.oldest_message or 0)} old; the limit "
            f"is {_age(settings.alert_oldest_message_minutes * 60)}.",
            "Orders reach the profiles late. They are not lost, unless they stay longer than the topic keeps them.",
        ),
        settings.alert_oldest_message_minutes * 60,
        ages.oldest_message,
    )
    judge(
        Alert(
            OLDEST_UNSENT,
            f"The oldest order that is not sent yet arrived {_age(ages.oldest_unsent)} ago; the limit is "
            f"{_age(settings.alert_oldest_unsent_minutes * 60)}. Waiting: {_by(_waiting(counts))}. Tracking is "
            f"{'on' if counts.get('tracking') else 'switched off'}.",
            "These orders are in the ledger and in nobody's profile yet. Nothing is lost; they are sent as soon as "
            "what holds them up is gone.",
        ),
        settings.alert_oldest_unsent_minutes * 60,
        ages.oldest_unsent,
    )
    judge(
        Alert(
            DEAD_LETTERS,
            _dead_letters(ages, settings),
            "Each is an order, or was meant to be one, that nobody has looked at. They do not expire, but they fill "
            "the topic's quota, after which the ERP can publish nothing.",
        ),
        1 if ages.expired else settings.alert_dead_letters,
        ages.dead_letters,
    )
    failing = counts["look_ups_failing"]
    judge(
        Alert(
            LOOK_UPS_FAILING,
            f"{failing} orders wait because the loyalty API answers other cards, but not theirs. The log of "
            "look_up_customers has what came instead, by code.",
            "Their cards are asked for again by themselves, and the orders are sent once one is answered; until then "
            "they are in nobody's profile. All other orders are sent.",
        ),
        1,
        failing,
    )
    corrected = counts["corrected_after_sent"]
    judge(
        Alert(
            CORRECTED_AFTER_SENT,
            f"{corrected} orders came again with another content after they had been sent, or begun to be.",
            "The profiles keep the event of the first content; the later one is in the ledger, table contents.",
        ),
        1,
        corrected,
    )
    return judged


def no_report_alert(reason: str) -> Alert:
    """The run ended as failed and its report told nothing.

    :param reason: Airflow's machine word, such as ``task_failure`` or ``timed_out``.
    """
    return Alert(
        NO_REPORT,
        f"Airflow ended the run as failed ({reason or 'no reason given'}), and its last task, report_run, did not tell "
        "why: it failed itself, was killed, or never ran.",
        "The run's counts are not known. Nothing is lost: what was received is in the ledger, what was not is still "
        "on the bus, and the next run goes on from there.",
    )


def deadline_alert(minutes: float, state: str) -> Alert:
    """The run is not done :param minutes: after it was queued; :param state: what Airflow says of it now."""
    return Alert(
        DEADLINE,
        f"The run is {state} {minutes:g} minutes after it was queued; that is the limit.",
        "Orders reach the profiles late. While it goes on, no other hourly run begins; nothing is lost.",
    )


def alert_text(alert: Alert, *, run: str, counts: Mapping[str, Any] | None, runbook: str, link: str) -> tuple[str, str]:
    """The title and the text a person gets.

    :param run: the run in words, as :func:`run_in_words` has it.
    :param counts: the report's, None where there is no report.
    :param runbook: where the runbook is, a path or URL.
    :param link: to the run in the UI.
    """
    todo = f"{alert.section}, in {runbook}#{anchor(alert.section)}"
    return _message(alert.title, alert.what, run, counts, alert.means, todo, link)


def recovery_text(
    ended: Mapping[str, tuple[str, int]], *, run: str, counts: Mapping[str, Any], link: str
) -> tuple[str, str]:
    """What is told once when causes have ended.

    :param ended: by cause, when it was first told (in words) and by how many runs.
    """
    causes = [
        f"{_in_words(cause)}, since {since}{f', in {runs} runs' if runs > 1 else ''}"
        for cause, (since, runs) in ended.items()
    ]
    means = "what had waited is handled by this run, or by the ones to come."
    return _message("Recovered", f"this is over: {'; '.join(causes)}.", run, counts, means, "nothing.", link)


def _message(
    title: str, what: str, run: str, counts: Mapping[str, Any] | None, means: str, todo: str, link: str
) -> tuple[str, str]:
    told = ", ".join(f"{name} {counts[name]}" for name in _TOLD_COUNTS if name in counts) if counts else "not known"
    lines = [
        f"What happened: {what}",
        f"Run: {run}.",
        f"Counts: {told}.",
        f"For the orders: {means}",
        f"What to do: {todo}",
        f"The run in Airflow: {link}",
    ]
    return f"In-store orders: {title}", "\n".join(lines)


def anchor(heading: str) -> str:
    """The fragment that GitHub and most renderers give a heading."""
    return heading.lower().replace(" ", "-")


def run_in_words(kind: str, run_id: str, window: str | None, *, dry_run: bool = False) -> str:
    """A run in words; works without a logical date, because it never asks for one."""
    words = f"{'dry ' if dry_run else ''}{kind} run {run_id}"
    return f"{words}, window {window}" if window else words


def _in_words(cause: str) -> str:
    kind, _, name = cause.partition(":")
    return f"task {name} failed" if kind == TASK_FAILED else SECTIONS[kind][0].lower() + SECTIONS[kind][1:]


def _waiting(counts: Mapping[str, Any]) -> dict[str, int]:
    held = counts.get("ledger", {})
    return {name: held[name] for name in ("pending", "ready", "sending") if held.get(name)}


def _by(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items()) or "none"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _age(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h" if minutes < 2880 else f"{minutes / 1440:.1f} days"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
