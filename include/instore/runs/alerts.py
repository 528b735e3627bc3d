"""Which alerts a run gives, by its report, the ages and the limits, and their texts.

    red      the run is red: a task finally failed, the numbers do not add up, too many records were set aside
    soft     the run is green and a limit is passed: alerted when it begins, and once when it has ended
    missed   there is no report: it was killed, or the run is not done in time

This module only decides; it calls no service and sends nothing. Texts are made of counts, names of tasks, settings and
extracts, and links: never of an order, an email or a card. Titles, meanings and remedies come from model/codes.py, and
every cause has a section of the same heading in docs/runbook.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.instore.ledger.alerts import Ages
from include.instore.ledger.arrivals import Silence
from include.instore.model.codes import (
    BAD_SHARE,
    CODES,
    COMMAND,
    CORRECTED_AFTER_SENT,
    DEAD_LETTERS,
    DEADLINE,
    IN_DOUBT,
    LEFT_FILES,
    NO_REPORT,
    NOT_DRAINED,
    NOT_VISIBLE,
    OLDEST_MESSAGE,
    OLDEST_UNSENT,
    QUARANTINED,
    RECOVERED,
    REJECTED,
    SHARED,
    SILENCE,
    TASK_FAILED,
    TRUNCATED,
    UNMATCHED_SHARE,
    Code,
    Told,
    code_of,
)
from include.instore.model.settings import AlertSettings, RunSettings, Settings
from include.instore.runs.report import Failure

_TOLD_COUNTS = (
    "received", "orders", "duplicates", "corrections", "quarantined", "matched", "unmatched", "suppressed", "sent",
    "resent", "rejected", "carried_over",
)  # fmt: skip


TOLD_BY_BAD_SHARE = (QUARANTINED, REJECTED)
"""Codes that the alert of a run with too large a share of bad records covers as well."""


@dataclass(frozen=True)
class Alert:
    """One cause in words; ``cause`` is its code, with the name of a task as in ``task_failed:drain_topic``.

    :param codes: of the records that it is about, whose remedies it lists. :param link: to the task, if there is one.
    """

    cause: str
    what: str
    means: str = ""
    codes: Sequence[Code] = ()
    link: str = ""

    @property
    def title(self) -> str:
        kind, _, name = self.cause.partition(":")
        return f"Task {name} failed" if kind == TASK_FAILED else self.section

    @property
    def section(self) -> str:
        """Its heading in docs/runbook.md."""
        return code_of(self.cause).heading

    @property
    def remedies(self) -> list[str]:
        """The commands for it, each with its condition."""
        said = [each for code in self.codes or (code_of(self.cause),) for each in code.remedies if each[1]]
        return [f"{when}: {COMMAND} {command}".removeprefix(": ") for when, command in said]


def red_alerts(failed: Sequence[Failure], red: Mapping[str, Sequence[str]], counts: Mapping[str, Any]) -> list[Alert]:
    """An alert for every task that finally failed, once for a mapped one, and for each other reason to be red.

    :param red: the report's sentences by cause, such as :data:`NUMBERS`. :param counts: the report's.
    """
    alerts = [
        Alert(
            f"{TASK_FAILED}:{each.task}",
            _sentence(each.told()),
            _FAILED_MEANS.get(each.task.rpartition(".")[2], TASK_FAILED.meaning),
            link=each.link,
        )
        for each in failed
    ]
    of_run, waiting = (_codes(counts[name]) for name in ("quarantined_by_reason", "set_aside"))
    for cause, reasons in red.items():
        told = of_run if cause == BAD_SHARE else [code for code in waiting if code.alert == cause]
        if reasons:
            alerts.append(Alert(cause, _sentence("; ".join(reasons)), codes=told))
    return alerts


_FAILED_MEANS = {
    "drain_topic": "New messages stay on the bus, nothing is lost, and the next run receives them. Extracts, and "
    "orders already in the ledger, are handled as usual.",
    "load_extracts": "The next run loads the files that this one did not. Messages are handled as usual.",
    "plan_batches": "This run sends nothing. Its orders are in the ledger, and the next run sends them.",
    "look_up_customers": "The orders of the failed batches stay in the ledger without a customer. The next run looks "
    "them up again and sends them.",
    "send_events": "The orders of the failed batches stay in the ledger, and the next run sends them. None is sent "
    "twice.",
}


def _dead_letters(ages: Ages, settings: AlertSettings) -> str:
    if ages.expired:
        return (
            f"{ages.expired} messages expired on the subscription before a run received them, and are dead letters "
            f"now: there are too few runs, or its time-to-live is too short."
        )
    return f"The subscription's dead-letter queue holds {settings.alert_dead_letters} messages or more."


_NAMED_FILES = 5
_SPENT = ("count", "time")
"""How a drain ended that reached its limit of messages or seconds."""


def soft_alerts(counts: Mapping[str, Any], ages: Ages, settings: Settings, *, shares: bool) -> dict[str, Alert | None]:
    """Every soft limit that this run can decide: its alert, or None where the limit is not passed.

    For a cause that is not in the answer it is not known whether it holds.

    :param counts: the report's.
    :param shares: whether shares are compared with their limits: not those of a backfill.
    """
    judged: dict[str, Alert | None] = {}
    on_bus = f" By the bus's own count: {ages.on_bus}." if ages.on_bus else ""

    def judge(alert: Alert, limit: float, value: float | None) -> None:
        if not limit:
            judged[alert.cause] = None  # switched off: an open alert ends
        elif value is not None:
            judged[alert.cause] = alert if value >= limit else None

    judge(
        Alert(
            UNMATCHED_SHARE,
            f"{ages.new_unmatched} of {ages.new_orders} orders that arrived with this run have no customer, which is "
            f"{_share(ages.new_unmatched, ages.new_orders)}; the limit is {settings.alerts.alert_unmatched_share:.1%}. "
            f"Outcomes: {_by(counts.get('unmatched_by_outcome', {}))}.",
            codes=_codes(counts.get("unmatched_by_outcome", {})),
        ),
        settings.alerts.alert_unmatched_share,
        _share_of(ages.new_unmatched, ages.new_orders, settings.runs) if shares else None,
    )
    judge(
        Alert(
            OLDEST_MESSAGE,
            f"After this run the oldest message on the subscription is {_age(ages.oldest_message or 0)} old; the limit "
            f"is {_age(settings.alerts.alert_oldest_message_minutes * 60)}.{on_bus}",
        ),
        settings.alerts.alert_oldest_message_minutes * 60,
        ages.oldest_message,
    )
    judge(
        Alert(
            OLDEST_UNSENT,
            f"The oldest order that is not sent yet arrived {_age(ages.oldest_unsent)} ago; the limit is "
            f"{_age(settings.alerts.alert_oldest_unsent_minutes * 60)}. Waiting: {_by(_waiting(counts))}. Tracking is "
            f"{'on' if counts.get('tracking') else 'switched off'}.",
        ),
        settings.alerts.alert_oldest_unsent_minutes * 60,
        ages.oldest_unsent,
    )
    judge(
        Alert(
            DEAD_LETTERS,
            f"{_dead_letters(ages, settings.alerts)}{on_bus}",
        ),
        1 if ages.expired else settings.alerts.alert_dead_letters,
        ages.dead_letters,
    )
    spent = counts["drain"] in _SPENT
    limit = f"Two runs in a row reached their limit ({counts['drain']}) before the subscription was empty"
    rest = f"at least {counts['not_drained'] or 'one'} that came before this run are still on it"
    judge(
        Alert(
            NOT_DRAINED,
            (f"{limit}; {rest}." if spent else "The bus did not answer how many messages are still on it.") + on_bus,
        ),
        1,
        counts["drain"] and (counts["drain"] == "not known" or (spent and counts["drained_before"] in _SPENT)),
    )
    for name, found_silent in ages.silences.items():
        cause = f"{SILENCE}:{name}"
        judged[cause] = Alert(cause, _silence(name, found_silent)) if found_silent else None
    judge(Alert(NOT_VISIBLE, _not_visible(counts)), settings.alerts.alert_not_visible, _unseen(counts, settings.alerts))
    found_left = ages.left_files or ()
    named = "; ".join(f"{path}: {why}" for path, why in found_left[:_NAMED_FILES])
    judge(
        Alert(
            LEFT_FILES,
            f"{len(found_left)} extracts have not been read for {settings.alerts.alert_left_hours:g} h or longer: "
            f"{named}.",
        ),
        min(1, settings.alerts.alert_left_hours),
        None if ages.left_files is None else len(found_left),
    )
    judge(
        Alert(
            SHARED,
            f"{ages.shared} addresses or cards are each on more than {settings.alerts.alert_shared} of this run's "
            "orders within one hour.",
        ),
        min(1, settings.alerts.alert_shared),
        ages.shared,
    )
    return judged | _of_codes(counts)


def _of_codes(counts: Mapping[str, Any]) -> dict[str, Alert | None]:
    """The soft alerts without a limit: of what is set aside, by its codes, and of counts of this run alone."""
    judged: dict[str, Alert | None] = {}
    waiting = dict(zip(_codes(counts["set_aside"]), counts["set_aside"].values(), strict=True))
    for alert in (code for code in CODES.values() if code.told is Told.SOFT):
        if counts.get(alert, 0) is None:
            continue  # not known
        found = {code: count for code, count in waiting.items() if code.alert is alert}
        if not any(code.told is alert for code in CODES.values()) and counts.get(alert):
            found = {alert: counts[alert]} | found
        what = " ".join(f"{count} {code}: {_sentence(_said(code, alert))}" for code, count in found.items())
        judged[alert] = Alert(alert, what, codes=list(found)) if found else None
    return judged


def _silence(name: str, found: Silence | int) -> str:
    if isinstance(found, int):
        return f"{found} stores send no orders, though they usually do at this time; other stores of the feed do."
    name = name[:1].upper() + name[1:]
    if found.missed is None:
        return f"{name}: no order for {found.hours} h; the limit is INSTORE_ALERT_SILENCE_HOURS."
    longest = "there was no such pause" if found.longest is None else f"the longest such pause was {found.longest} h"
    return (
        f"{name}: no order for {found.hours} h of its usual hours, in which {found.missed:.0f} orders are usual; "
        f"in the four weeks before {longest} on a {found.weekday}."
    )


def _unseen(counts: Mapping[str, Any], settings: AlertSettings) -> int | None:
    """Events of the sample that are not visible; the limit where that is not known; None where none was read back."""
    if not counts.get("read_back_asked"):
        return None
    return int(counts["not_visible"]) if counts["read_back"] == "on" else settings.alert_not_visible


def _not_visible(counts: Mapping[str, Any]) -> str:
    if counts.get("read_back") not in ("on", "off"):
        return f"The events of the previous run cannot be read back: {counts.get('read_back')}."
    return (
        f"Of {counts.get('read_back_asked')} events that the destination accepted in the previous run, "
        f"{counts.get('not_visible')} are not visible."
    )


def added_to(counts: Mapping[str, Any]) -> set[str]:
    """The alerts that this run adds records to, which are sent again."""
    added = [word for word in (REJECTED, CORRECTED_AFTER_SENT, TRUNCATED) if counts[word]]
    return _alerts_of((*added, *counts["quarantined_by_reason"]))


def still_red(counts: Mapping[str, Any]) -> set[str]:
    """The alerts of what is still set aside, whether or not this run is red for it."""
    return _alerts_of(counts["set_aside"])


def _alerts_of(words: Iterable[str]) -> set[str]:
    return {alert for code in _codes(words) if (alert := code.alert)}


def _codes(words: Iterable[str]) -> list[Code]:
    """The entries of words in the ledger, into which an older release may have written others."""
    return [CODES.get(word, QUARANTINED) for word in words]


def no_report_alert(reason: str) -> Alert:
    """The run failed and there is no report of it.

    :param reason: Airflow's word, such as ``task_failure`` or ``timed_out``.
    """
    return Alert(
        NO_REPORT,
        f"Airflow ended the run as failed ({reason or 'no reason given'}), and its last task, report_run, wrote no "
        f"report: it failed itself, was killed, or never ran.",
    )


def deadline_alert(minutes: float, state: str) -> Alert:
    """The run is not done. :param minutes: since it was queued. :param state: Airflow's state of it."""
    return Alert(
        DEADLINE,
        f"The run is {state} {minutes:g} minutes after it was queued; that is the limit.",
    )


def alert_text(
    alert: Alert, *, run: str, counts: Mapping[str, Any] | None, runbook: str, link: str, about: str = ""
) -> tuple[str, str]:  # fmt: skip
    """The title and the text a person gets.

    :param run: the run in words, see :func:`run_in_words`.
    :param counts: the report's, None where there is no report.
    :param runbook: where the runbook is, a path or URL.
    :param link: to the run in the UI. :param about: to what it is about; empty: there is nothing to see.
    """
    todo = f"{alert.section}, in {runbook}#{anchor(alert.section)}"
    means = alert.means or code_of(alert.cause).meaning
    title, text = _message(alert.title, f"{alert.what} (code {alert.cause})", run, counts, means, todo, link)
    links = [f"{what}: {to}" for what, to in (("The task in Airflow", alert.link), ("What it is about", about)) if to]
    return title, "\n".join([text, *links, *alert.remedies])


def recovery_text(
    ended: Mapping[str, tuple[str, int]], *, run: str, counts: Mapping[str, Any], link: str
) -> tuple[str, str]:
    """The one message about causes that have ended.

    :param ended: by cause, when it was first alerted (in words) and in how many runs.
    """
    causes = [
        f"{_in_words(cause)}, since {since}{f', in {runs} runs' if runs > 1 else ''}"
        for cause, (since, runs) in ended.items()
    ]
    means = RECOVERED.meaning
    return _message("Recovered", f"this has ended: {'; '.join(causes)}.", run, counts, means, "nothing.", link)


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
    """A run in words; it needs no logical date."""
    words = f"{'dry ' if dry_run else ''}{kind} run {run_id}"
    return f"{words}, window {window}" if window else words


def _in_words(cause: str) -> str:
    kind, _, name = cause.partition(":")
    title = CODES[kind].heading if kind in CODES else kind  # of an older release
    if kind == TASK_FAILED:
        return f"task {name} failed"
    return title[0].lower() + title[1:] + (f" ({name})" if name else "")


def _waiting(counts: Mapping[str, Any]) -> dict[str, int]:
    held = {**counts.get("ledger", {}), **counts["set_aside"]}
    return {name: held[name] for name in ("pending", "ready", IN_DOUBT) if held.get(name)}


def _by(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items()) or "none"


def _said(code: Code, alert: Code) -> str:
    """The likely cause for a code with its own alert, whose meaning the message has already; else the meaning."""
    return code.cause if code is alert else code.meaning


def _share_of(part: int, whole: int, settings: RunSettings) -> float | None:
    """The share if there are enough records for one; None if there are too few."""
    return part / whole if part >= settings.share_minimum else 0.0 if whole >= settings.share_minimum else None


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _age(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h" if minutes < 2880 else f"{minutes / 1440:.1f} days"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
