"""Forgetting a person: receipts, which outlive the ledger's backups, and erasing again by them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from include.instore.ledger import Ledger
from include.instore.ledger.dry_runs import discard_dead
from include.instore.ledger.erasure import Persons, erase, is_erased, persons_known_as, suppress_erased
from include.instore.model.customer_keys import card_of, email_of
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import RetentionSettings, Settings

log = logging.getLogger(__name__)

EraseOnBus = Callable[[Callable[[bytes], bool]], int]
"""Completes the dead letters of whose body this says yes; how many were."""


@dataclass(frozen=True)
class Forgotten:
    """What an erasure came to, in rows and messages; ``receipt`` is the name of its file, empty after a dry run."""

    orders: int
    customers: int
    quarantine: int
    dead_letters: int
    dry_runs: int
    receipt: str = ""


def forget_person(
    ledger: Ledger,
    settings: Settings,
    *,
    cards: Collection[str],
    emails: Collection[str],
    on_bus: EraseOnBus | None,
    dry_run: bool = False,
) -> Forgotten:
    """Erase who has these cards and addresses, and keep a receipt, which says nothing of who it was.

    Nothing is kept of, or sent for, that person from now on. What has been sent is the destination's to delete.

    :param on_bus: None: there is no bus.
    :param dry_run: only count; dead letters are not looked at.
    :raises ConfigurationError: nobody is named, what is named is no card or address, or there is no place for receipts.
    :raises RetriableError: the ledger or the bus failed; erase once more.
    """
    rules = settings.orders
    named = _read(cards, lambda text: card_of(text, rules)), _read(emails, lambda text: email_of(text, rules))
    if not (named[0] or named[1]):
        raise ConfigurationError("No person is given; give at least one --email or --card.")
    at = datetime.now(timezone.utc)
    persons = persons_known_as(ledger, *named)
    if dry_run:
        return Forgotten(**asdict(erase(ledger, persons, "", dry_run=True)[0]), dead_letters=0, dry_runs=0)
    folder, name = _folder(settings.retention), f"erased-{at:%Y%m%dT%H%M%S%f}Z.json"
    suppress_erased(ledger, persons)
    _write(folder / name, _receipt(ledger, persons, at))  # first, or a crash would leave none
    letters = on_bus(lambda body: persons.are_in(ledger, body)) if on_bus else 0
    gone = discard_dead(ledger, 0)
    erased, persons = erase(ledger, persons, f"erase__{at.isoformat()}")
    ledger.forget_log()
    done = Forgotten(**asdict(erased), dead_letters=letters, dry_runs=gone, receipt=name)
    _write(folder / name, _receipt(ledger, persons, at) | {"counts": asdict(done)})
    return done


def look_after(ledger: Ledger, settings: Settings) -> int:
    """What every run begins with: scratch ledgers of dead dry runs are removed, and persons erased again.

    After a restored backup the receipts say whom the ledger has forgotten that it has forgotten.

    :return: receipts that had to be followed once more.
    :raises ConfigurationError: a receipt cannot be read, or was made with another hash key.
    """
    discard_dead(ledger, settings.runs.claim_minutes)
    followed = 0
    receipts = settings.retention.erasure_receipts
    for path in sorted(receipts.glob("erased-*.json")) if receipts else ():
        persons = _persons(ledger, path)
        if not is_erased(ledger, persons.hashes):
            suppress_erased(ledger, persons)
            erase(ledger, persons, f"erase__{path.stem}")
            ledger.forget_log()
            followed += 1
            log.warning("erased again by receipt %s: the ledger did not know of it", path.name)
    return followed


def _read(texts: Collection[str], read: Callable[[str], str | None]) -> list[str]:
    try:
        found = [read(text) for text in texts]
    except ValueError:
        found = [None]
    if None in found:
        raise ConfigurationError("One of the cards or addresses is not valid; write it as it is on an order.")
    return [each for each in found if each]


def _folder(settings: RetentionSettings) -> Path:
    if settings.erasure_receipts is None or not settings.erasure_receipts.is_dir():
        raise ConfigurationError(
            "There is no folder for the receipt; set INSTORE_ERASURE_RECEIPTS to an existing folder that is not "
            "restored together with the ledger."
        )
    return settings.erasure_receipts


def _receipt(ledger: Ledger, persons: Persons, at: datetime) -> dict[str, Any]:
    return {
        "at": at.isoformat(),
        "hash_key": ledger.keyed_hash("check"),
        "persons": sorted(persons.hashes),
        "event_ids": sorted(persons.event_ids),
    }


def _write(path: Path, receipt: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(receipt, indent=2))
    draft.replace(path)


def _persons(ledger: Ledger, path: Path) -> Persons:
    try:
        receipt = json.loads(path.read_text())
        key, persons = receipt["hash_key"], Persons(frozenset(receipt["persons"]), frozenset(receipt["event_ids"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"The receipt {path.name} in INSTORE_ERASURE_RECEIPTS cannot be read; put it back from a backup, or a "
            "restored ledger would know that person again."
        ) from None
    if key != ledger.keyed_hash("check"):
        raise ConfigurationError(
            f"The receipt {path.name} in INSTORE_ERASURE_RECEIPTS was made with another key than that of connection "
            "instore_hash_key; each pipeline needs its own folder."
        )
    return persons
