"""Small bugs of the protocol, one at a time: each must be killed by a test that is there for it."""

from __future__ import annotations

from dataclasses import dataclass

LEDGER = "include/instore/ledger/"
SOURCES = "include/instore/sources/"
PROVIDER = "plugins/instore_provider/"
OF_LEDGER = "tests/instore/ledger/test_"
OF_SENDING = ("tests/instore/destinations",)
OF_LOADING = ("tests/instore/sources/extracts/test_loading.py",)
OF_READING = ("tests/instore/sources/extracts/test_csv_lines.py", "tests/instore/sources/extracts/test_json_lines.py")
OF_BUS = ("tests/instore/sources/test_service_bus.py",)
OF_DEAD_LETTERS = "tests/instore/sources/test_dead_letters.py::test_"
OF_REPORT = ("tests/instore/runs",)
PAGE = "include/instore_airflow/page/"
OF_PAGE = ("tests/page/test_page.py",)


@dataclass(frozen=True)
class Mutant:
    """One bug: a text of a file, which is there once, and what stands there instead.

    :param tests: files, folders and single tests of which one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _of(file: str, tests: tuple[str, ...], *bugs: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(name, file, old, new, tests) for name, old, new in bugs]


MUTANTS = [
    *_of(
        LEDGER + "database.py",
        (OF_LEDGER + "database.py", OF_LEDGER + "migrations.py", OF_LEDGER + "suppressions.py"),
        ("SQLite does not wait for the disk", '"synchronous=FULL"', '"synchronous=NORMAL"'),
        ("SQLite's journal is not checked", 'if kept != ["wal", _SYNCHRONOUS_FULL]:', "if False:"),
        (
            "PostgreSQL without fsync is taken",
            '("fsync", fsync), ("synchronous_commit", synchronous_commit)',
            '("synchronous_commit", synchronous_commit),',
        ),
        (
            "PostgreSQL's commits need not be on disk",
            '("fsync", fsync), ("synchronous_commit", synchronous_commit)',
            '("fsync", fsync),',
        ),
        ("cards are hashed with their letter case", ".strip().casefold()", ".strip()"),
        ("the hash needs no key", "self.hash_key.encode(), text", "b'', text"),
        ("a write begins when it may be too late", '"BEGIN IMMEDIATE"', '"BEGIN"'),
        ("a look at PostgreSQL is no consistent one", '"REPEATABLE READ"', '"READ COMMITTED"'),
        ("a ledger that is away is a bug", "except DBAPIError as error:", "except ZeroDivisionError as error:"),
    ),
    *_of(
        PAGE + "__init__.py",
        OF_PAGE,
        ("the page is for everybody who can reach it", "rules = [Depends(_SEE), ", "rules = ["),
        (
            "a form of another page is taken",
            "rules = [Depends(_SEE), Depends(_from_this_page)]",
            "rules = [Depends(_SEE)]",
        ),
        ("who may look may act", '"/confirm": (_confirm, _EDIT)', '"/confirm": (_confirm, _SEE)'),
        (
            "who may look sees persons",
            '"/orders/{event_id}": (_order, _may_unmask)',
            '"/orders/{event_id}": (_order, _SEE)',
        ),
        (
            "FastAPI's own pages are there",
            "dependencies=rules, docs_url=None, redoc_url=None, openapi_url=None",
            "dependencies=rules",
        ),
        (
            "files are there for everybody",
            "    for path, view in routes.items():\n",
            "    from starlette.staticfiles import StaticFiles\n\n"
            '    made.mount("/static", StaticFiles(directory=_TEMPLATES))\n'
            "    for path, view in routes.items():\n",
        ),
        ("what the ERP says becomes markup", "autoescape=True", "autoescape=False"),
        (
            "a record in quarantine is not masked",
            "if unmask else _masked_record(row)",
            "if True else _masked_record(row)",
        ),
    ),
    *_of(
        "plugins/instore_page_plugin.py",
        OF_PAGE,
        (
            "another app has no rules",
            '"name": "In-store orders"}]  # noqa',
            '"name": "In-store orders"}, {"app": page, "url_prefix": "/more", "name": "more"}]  # noqa',
        ),
    ),
    *_of(
        LEDGER + "read_orders.py",
        OF_PAGE,
        ("a card is not masked", '"card": mask(self.row["loyalty_card"])', '"card": self.row["loyalty_card"]'),
        ("an email is not masked", '"email": mask(self.row["email"])', '"email": self.row["email"]'),
    ),
    *_of(
        LEDGER + "claims.py",
        (OF_LEDGER + "claims.py", OF_LEDGER + "editions.py", OF_SENDING[0], "tests/instore/runs"),
        (
            "a claim never ends",
            "claims.c.alive_at >= stale",
            "claims.c.alive_at >= datetime(1970, 1, 1, tzinfo=timezone.utc)",
        ),
        (
            "a live run's orders are taken",
            "orders.c.claim_run.in_(tries), sa.not_(alive))",
            "orders.c.claim_run.in_(tries), sa.true())",
        ),
        (
            "no sign of life is given",
            ".values(alive_at=datetime.now(timezone.utc))",
            ".values(alive_at=claims.c.alive_at)",
        ),
        (
            "a released claim stays",
            "sa.update(orders).where(orders.c.claim_run == run_id).values(claim_run=None)",
            "sa.update(orders).where(orders.c.claim_run == '').values(claim_run=None)",
        ),
        (
            "unmatched orders are asked for before they are due",
            "orders.c.status == Status.UNMATCHED.value, orders.c.next_attempt <= now)",
            "orders.c.status == Status.UNMATCHED.value, orders.c.next_attempt.is_not(None))",
        ),
        (
            "unmatched orders that are due are not asked for",
            "sa.select(orders.c.key).where(due_again),",
            "sa.select(orders.c.key).where(sa.false()),",
        ),
        (
            "what is in doubt is not planned again",
            "going.where(deliveries.c.status.in_(UNDER_WAY), _going())",
            "going.where(sa.false())",
        ),
        (
            "an order whose customer is searched anew is ready",
            "orders.c.status == Status.MATCHED.value)\n    return",
            "sa.true())\n    return",
        ),
        ("a run asks for orders outside its window", "its = in_window(run.window)", "its = sa.true()"),
        (
            "a window's last moment belongs to it",
            "orders.c.order_time < window.end",
            "orders.c.order_time <= window.end",
        ),
        (
            "rejected orders are sent again by the run that saw it",
            "deliveries.c.is_latest, deliveries.c.outcome_run != run.run_id)",
            "deliveries.c.is_latest)",
        ),
        (
            "with tracking off what is ready is claimed",
            "    if tracking:\n        going",
            "    if True:\n        going",
        ),
        ("a card is spread over batches", "if filled >= size and key != keys[index - 1]:", "if filled >= size:"),
        ("the number of batches shrinks", "sizes |= dict.fromkeys(range(len(sizes), earlier), 0)", "pass"),
        (
            "a run keeps the count of what another plans now",
            ".values(claimed=runs.c.claimed - count)",
            ".values(claimed=runs.c.claimed)",
        ),
        (
            "what a resend run finds unsent is not its edition",
            "note_editions(ledger, connection, run, mine, now)",
            "pass",
        ),
        (
            "a cleared run goes on under its first try's id",
            "run.tries[-1] if begins or not begun else begun[-1]",
            "run.tries[0]",
        ),
    ),
    *_of(
        LEDGER + "editions.py",
        (OF_LEDGER + "editions.py",),
        ("an edition has the event id of the one before", 'next_event_id(row["before"], edition)', 'row["before"]'),
        ("an edition before stays the latest", ".values(is_latest=False)", ".values(is_latest=True)"),
        (
            "an edition a try and not a run",
            "editions.c.ordered_by == run.tries[0],",
            "editions.c.ordered_by == run.run_id,",
        ),
        (
            "an order that is not sent gets an edition",
            "deliveries.c.status == DeliveryStatus.SENT.value, deliveries.c.is_latest",
            "deliveries.c.status != '', deliveries.c.is_latest",
        ),
        ("a new edition has the old content", ".values(taken_content(row, content))", ".values(source=row['source'])"),
        ("the content that was sent is forgotten", "ContentState.SENT", "ContentState.REPLACED"),
        (
            "an edition for somebody else is not looked up",
            '{"status": Status.PENDING.value, "reason": None}',
            '{"status": Status.MATCHED.value, "reason": None}',
        ),
    ),
    *_of(
        LEDGER + "deliveries.py",
        (OF_LEDGER + "deliveries.py", OF_SENDING[0], OF_LEDGER + "suppressions.py", "tests/instore/runs"),
        (
            "sending is not committed",
            "status=DeliveryStatus.SENDING.value,\n                attempts",
            "status=DeliveryStatus.READY.value,\n                attempts",
        ),
        ("a marking does not count", "attempts=deliveries.c.attempts + 1", "attempts=1"),
        (
            "what leaves later has the place of the first",
            "left_seq=left,\n                waited_seq=None,",
            "left_seq=1,\n                waited_seq=None,",
        ),
        (
            "suppressions are not read when marking",
            "kept_back = [key for key, hashes in persons.items() if stopped & hashes]",
            "kept_back: list[str] = []",
        ),
        (
            "a destination's content is not frozen",
            "fingerprint=sa.func.coalesce(deliveries.c.fingerprint, _of_the_order(",
            "fingerprint=sa.func.coalesce(None, _of_the_order(",
        ),
        (
            "a destination sends what is ready for another",
            "deliveries.c.destination == held.destination, deliveries.c.is_latest",
            "deliveries.c.destination != '', deliveries.c.is_latest",
        ),
        ("a try sends on though another has taken over", "!= dict(attempts):", "!= dict(attempts) and False:"),
        ("a request is tried again for who was suppressed", "return Renewed.SUPPRESSED", "pass"),
        (
            "a request tried again was waited for",
            ".values(sending_at=datetime.now(timezone.utc), waited_seq=None)",
            ".values(sending_at=datetime.now(timezone.utc))",
        ),
        (
            "what was accepted stays sending",
            "status=DeliveryStatus.SENT.value, reason=None, sent_at=now, outcome_run=held.run_id)",
            "reason=None, sent_at=now, outcome_run=held.run_id)",
        ),
        (
            "what was refused is ready again",
            "status=DeliveryStatus.REJECTED.value",
            "status=DeliveryStatus.READY.value",
        ),
        (
            "what was not taken stays sending",
            ".values(status=DeliveryStatus.READY.value, sending_at=None, reason=None)\n            )",
            ".values(sending_at=None, reason=None)\n            )",
        ),
        ("another try's events are given back", "deliveries.c.attempts == made)", "deliveries.c.attempts >= 0)"),
        ("a doubt that left again is given back", "deliveries.c.sending_at == each.sending_at,", ""),
        ("what left before is a witness", "deliveries.c.left_seq > after", "deliveries.c.left_seq >= 0"),
    ),
    *_of(
        LEDGER + "unsent.py",
        OF_REPORT,
        (
            "reconciling takes a live run's orders",
            ".where(_unsent(), held_by_no_live_run(claim_minutes), orders.c.key.in_(keys))",
            ".where(_unsent(), orders.c.key.in_(keys))",
        ),
        (
            "held events are not reconciled",
            "DeliveryStatus.REJECTED.value, DeliveryStatus.HELD.value)",
            "DeliveryStatus.REJECTED.value)",
        ),
    ),
    *_of(
        LEDGER + "held.py",
        OF_SENDING,
        (
            "a person's word moves what is not held",
            "deliveries.c.status.in_(DECIDED[decision]), deliveries.c.event_id.in_(event_ids)",
            "deliveries.c.event_id.in_(event_ids)",
        ),
        (
            "what is asked again is sent again",
            '"status": DeliveryStatus.SENDING.value,\n            "sending_at": now',
            '"status": DeliveryStatus.READY.value,\n            "sending_at": now',
        ),
    ),
    *_of(
        LEDGER + "suppressions.py",
        (OF_LEDGER + "suppressions.py",),
        ("an address of many cards covers them all", "cards <= PLACEHOLDER_CARDS", "cards > 0"),
        ("the answer's address is not covered", "*([ledger.keyed_hash(email)] if email else [])", ""),
        (
            "ready orders are not stopped",
            "deliveries.c.status == DeliveryStatus.READY.value)",
            "deliveries.c.status == '')",
        ),
        ("an active answer lifts nothing", "if active:", "if False:"),
        (
            "an active answer lifts what other cards said",
            "suppressions.c.learnt_from.in_(hashes)",
            "suppressions.c.learnt_from != ''",
        ),
        ("another hash key is taken", "if written_once(ledger, _CHECK, lambda _: mine) != mine:", "if False:"),
    ),
    *_of(
        LEDGER + "customers.py",
        (OF_LEDGER + "customers.py", "tests/instore/customers", OF_LEDGER + "suppressions.py"),
        (
            "an answer that ran out still counts",
            "customers.c.expires_at > asked_after",
            "customers.c.expires_at.is_not(None)",
        ),
        ("a card is remembered for ever", "if expires is None or expires <= now", "if expires is None"),
        (
            "an unmatched order is asked for for ever",
            "return again if again <= received_at + expiry else None",
            "return again",
        ),
        (
            "suppressed is unmatched",
            "CardOutcome.SUPPRESSED: Status.SUPPRESSED,",
            "CardOutcome.SUPPRESSED: Status.UNMATCHED,",
        ),
        ("a suppressed person's order is ready", "outcome = CardOutcome.SUPPRESSED.value\n", "pass\n"),
        ("an order's own email goes before its card", "or outcome in own_email_after)", "or True)"),
        (
            "an order with an email does not wait",
            "if row.loyalty_card is None or row.outcome is not None",
            "if True",
        ),
    ),
    *_of(
        "include/instore/customers/lookup.py",
        ("tests/instore/customers/test_lookup.py",),
        ("a card without an answer fails the batch", "elif isinstance(failure, CardNotAnswered):", "elif False:"),
        (
            "no share of cards without an answer is too many",
            "if not too_many and (answered or not passing):",
            "if True:",
        ),
        ("cards that failed are answered", "if error is None and failed:", "if failed:"),
        (
            "a service that answers nobody is asked for all",
            "if error or (not answered and _too_many",
            "if error or (False and _too_many",
        ),
    ),
    *_of(
        "include/instore/model/customer_keys.py",
        ("tests/instore/model/test_customer_keys.py",),
        ("a damaged card is one", "if _MADE_A_NUMBER.fullmatch(card):", "if False:"),
        ("full-width digits are another card", 'unicodedata.normalize("NFKC", card)', "card"),
        ("no card is a dummy", "_one_of(rules.dummy_cards).match(each)", "False"),
        ("no address is a placeholder", "_one_of(rules.placeholder_emails).match(address.casefold())", "False"),
        ("the first of several addresses is hers", "if len(several) == 1 else text", "if several else text"),
        ("half a pair of quotes is part of her address", """or address.startswith("'")""", ""),
    ),
    *_of(
        "include/instore/customers/mapping_file.py",
        ("tests/instore/customers/test_mapping_file.py",),
        ("the delimiter is a comma", "max(_DELIMITERS, key=heading.count)", '","'),
        ("the first two columns are card and email", "if cards and emails else (0, 1)", "if False else (0, 1)"),
        (
            "a file that answers for nobody is taken",
            "if not any(self._addresses(card) for card in self._emails):",
            "if False:",
        ),
    ),
    *_of(
        LEDGER + "erasure.py",
        (OF_LEDGER + "erasure.py::test_of_a_record_of_several_people_only_hers_goes",),
        ("a record of several people is emptied", "return kept.encode(encoding, errors)", 'return b""'),
        (
            "a record in quarantine is discarded with her",
            'rest.pop("state", RecordState.QUARANTINED.value)',
            '"discarded"',
        ),
    ),
    *_of(
        "include/instore/model/forgotten.py",
        (
            OF_LEDGER + "erasure.py::test_of_a_record_of_several_people_only_hers_goes",
            "tests/instore/model/test_forgotten.py",
        ),
        ("lines are documents", "if is_top or any(any(_lists(one)) for one in alike)", "if True"),
        ("what is left still has her", "and not is_theirs(kept)", ""),
    ),
    *_of(
        "include/instore/model/orders.py",
        ("tests/instore/model/test_orders.py::test_what_is_said_twice_with_two_values_is_refused",),
        ("the last of two values holds", "    refuse_contradictions(again)\n", ""),
    ),
    *_of(
        LEDGER + "intake.py",
        (OF_LEDGER + "intake.py::test_what_contradicts_itself_or_is_no_number_any_more_is_refused",),
        ("a sale may be less than nothing", 'if order.order_type == "sale" and order.total < 0:', "if False:"),
        ("a masked card is a card", 'if _MASKED.search(order.loyalty_card_number or ""):', "if False:"),
    ),
    *_of(
        SOURCES + "extracts/csv_lines.py",
        (OF_READING[0] + "::test_behind_another_heading_a_file_is_not_read_on_and_behind_the_same_it_is",),
        ("rows behind another heading are read by the first", "if number.strip(_AROUND) not in titles:", "if True:"),
    ),
    *_of(
        LEDGER + "suppressions.py",
        ("tests/instore/runs/test_report.py::test_what_is_suppressed_is_told_by_who_said_so",),
        (
            "who said so is not told",
            "Counter(next((each for each in _SOURCES if each in sources), SUPPRESSED)",
            "Counter(SUPPRESSED",
        ),
    ),
    *_of(
        LEDGER + "intake.py",
        (
            OF_LEDGER + "intake.py",
            OF_LEDGER + "known_again.py",
            OF_LOADING[0],
            OF_BUS[0],
            "tests/instore/sources/test_quarantine.py",
        ),
        (
            "records are received without being counted",
            "received=runs.c.received + landed.received",
            "received=runs.c.received",
        ),
        (
            "a file is loaded before its last block",
            'connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=values))',
            "pass",
        ),
        (
            "a redriven row stays quarantined",
            ".values(state=RecordState.REDRIVEN.value)",
            '.values(state="quarantined")',
        ),
        (
            "twins land",
            "rows = [item.row for key, item in first.items() if key not in twins]",
            "rows = [item.row for item in first.values()]",
        ),
        (
            "a collision is lost",
            "for item, reason, why in others\n        ]",
            "for item, reason, why in others[:0]\n        ]",
        ),
    ),
    *_of(
        LEDGER + "known_again.py",
        (OF_LEDGER + "known_again.py",),
        ("another store's order is a correction", 'why = "the store differs"', 'why = ""'),
        (
            "another moment's order is a correction",
            'why = "the day differs" if before["day"] != row["day"] else "the time differs"',
            'why = ""',
        ),
        ("another customer's order is a correction", 'why = "the customer differs"', 'why = ""'),
        (
            "an older content takes the later one's place",
            "return None if at == known else bool(at > known)",
            "return None if at == known else True",
        ),
        (
            "what has left is corrected in place",
            "if not is_later or mine.all:",
            "if not is_later:",
        ),
        ("a corrected customer is not looked up", "if _customer(before) != _customer(row) and", "if False and"),
        ("pieces that are no order leave", "if not mine.contents:", "if False:"),
        ("pieces that say different things are one order", 'why = "their order fields differ"', "pass"),
        ("a piece that is taken back is still claimed", "claimed=runs.c.claimed - 1", "claimed=runs.c.claimed"),
        (
            "a piece is a correction",
            "elif item.by_rows and not _holds(mine, theirs)",
            "elif False and not _holds(mine, theirs)",
        ),
    ),
    *_of(
        LEDGER + "extract_files.py",
        OF_LOADING,
        (
            "a released file is not due",
            'f"{RELEASED}{version}" if state == ExtractState.RELEASED.value',
            "version if not state",
        ),
        ("a file is left since the last look", 'set_={**new, "loaded_at": since}', "set_=new"),
        ("a file that is gone is left", "for path in gone:", "for path in []:"),
        ("a forgotten file is released", ".values(state=state.value)", ".values(state=ExtractState.RELEASED.value)"),
    ),
    *_of(
        LEDGER + "runs.py",
        (*OF_REPORT, OF_LEDGER + "editions.py"),
        ("what does not add up is green", "if counts.received != handled:", "if False:"),
        ("held events are not counted", "held=became[DeliveryStatus.HELD.value]", "held=0"),
        (
            "what is carried over is not counted",
            "carried_over=sum(now_mine.get(status, 0) for status in (Status.PENDING.value, *UNDER_WAY))",
            "carried_over=0",
        ),
        (
            "a claimed order that is gone is green",
            "counts.planned_orders < counts.claimed",
            "counts.claimed < 0",
        ),
        ("a status that nobody knows is green", "    if strange:", "    if False:"),
        (
            "what was sent again counts as sent",
            "became[DeliveryStatus.SENT.value] - resent",
            "became[DeliveryStatus.SENT.value]",
        ),
    ),
    *_of(
        "include/instore/runs/report.py",
        OF_REPORT + OF_LOADING,
        ("a run with held events is green", "if not counts.held:", "if True:"),
        ("a run with a file not read is green", "if not counts.unread_files:", "if True:"),
        ("a run with collisions is green", "if not counts.collisions:", "if True:"),
        ("a run keeps its claims", "release(ledger, run.run_id)", "pass"),
        ("a run with a failed task is green", "for each in failed),", "for each in ()),"),
        ("one bad record of three makes a run red", "bad < settings.share_minimum or", "not bad or"),
        ("a run that set too much aside is green", "bad / handled <= settings.max_bad_share", "bad / handled <= 1"),
    ),
    *_of(
        "include/instore/runs/reconcile.py",
        OF_REPORT,
        ("an unclear answer is taken for no", "sum(answer not in (SHOWN, ABSENT) for", "sum(answer == '' for"),
        ("what is not shown is marked", "if answers[event_id] == SHOWN", "if answers[event_id] != ''"),
    ),
    *_of(
        "include/instore/runs/silence.py",
        ("tests/instore/runs/test_silence.py",),
        ("a silence is told by chance", "_CHANCE = 10.0", "_CHANCE = 4.0"),
        ("a closed hour counts", "usual[hour % _WEEK] / max", "1 / max"),
        ("stores of a silent feed are told as well", "if not of_store[store] <= heard:", "if False:"),
        ("a store without a past is never silent", "if hours >= settings.alerts.alert_silence_hours", "if False"),
    ),
    *_of(
        "include/instore/runs/read_back.py",
        ("tests/instore/runs/test_read_back.py",),
        ("what left a moment ago is not visible", "timedelta(seconds=settings.verify_after)", "timedelta(0)"),
        ("what does not tell is on", 'unclear[0] if unclear else "on"', '"on"'),
    ),
    *_of(
        "include/instore/model/windows.py",
        ("tests/instore/model/test_windows.py",),
        ("a data interval of its own is ignored", "asked = asked or _own_interval(dag_run, interval)", "pass"),
    ),
    *_of(
        "include/instore/destinations/delivery.py",
        OF_SENDING,
        (
            "the right to send is not looked at",
            "fresh, self._first = self._first and time.monotonic() < self._until, False",
            "fresh = True",
        ),
        ("doubts are not settled", "doubts.settle(send_witnesses)", "send_witnesses()"),
        ("a bulk without an answer is followed by one as large", "size = max(1, len(bulk) // 2)", "pass"),
        ("a bulk that was not taken is no reason to stop", "if unsent:\n        raise", "if False:\n        raise"),
        (
            "an error loses the outcomes before it",
            "ledger, held, sent=sent, rejected=rejected",
            "ledger, held, sent=[], rejected=rejected",
        ),
        ("a wrong key leaves what it did not send in doubt", "unsent.extend(unanswered)", "pass"),
        ("with tracking off events are sent", "if not settings.enable_track_events:", "if False:"),
        (
            "an event that cannot be built keeps back its bulk",
            "except ValueError as error:",
            "except ZeroDivisionError as error:",
        ),
        (
            "refused is sent",
            'elif outcome.state == "refused":',
            'elif outcome.state == "refused" and not sent.append(outcome.track_id):',
        ),
    ),
    *_of(
        "include/instore/destinations/doubts.py",
        OF_SENDING,
        ("nobody waits before a witness leaves", "if (left := due - time.monotonic()) <= 0:", "if (left := 0) <= 0:"),
        ("witnesses are not needed", "doubt.waited < shown_up_to", "doubt.waited >= 0"),
        (
            "a witness too few is enough",
            "sorted(shown, reverse=True)[needed - 1] if len(shown) >= needed else 0",
            "max(shown, default=0)",
        ),
        ("a witness need not be shown", "if answer == SHOWN]", "if answer]"),
        ("an unclear answer proves absence", "if answers[event_id] == ABSENT}", "if answers[event_id] != SHOWN}"),
        ("what nobody sent may be shown", "if answers[unknown] != ABSENT:", "if False:"),
        ("a doubt is asked for once", "missing = self._absent(missing)", "pass"),
        ("what is shown stays in doubt", "record_outcomes(*self._place, sent=seen)", "pass"),
        (
            "no event is kept back",
            "return self._settings.verify_witnesses if self._asks and self.known() else 0",
            "return 0",
        ),
        ("nothing is ever held", "if doubt.sending_at < oldest]", "if False]"),
        (
            "without a reading side nothing is held",
            'settings.on_ambiguous == "verify" and destination.reads_back',
            'settings.on_ambiguous == "verify"',
        ),
        ("a reading side that is away holds up the ready", "send_witnesses()  # whoever", "pass  # whoever"),
        ("every candidate is asked for at every look", "_FIRST_PAUSE = 1 / 8", "_FIRST_PAUSE = 1 / 8000"),
    ),
    *_of(
        SOURCES + "service_bus.py",
        OF_BUS,
        (
            "a message is completed before it is landed",
            'fault_points.reach("topic.after_receive")\n',
            "for each in self._messages:\n                    settle(self._receiver, each, None)\n",
        ),
        (
            "a refused message is completed",
            "settle(self._receiver, message, refused)",
            "settle(self._receiver, message, None)",
        ),
        (
            "a block that lost its locks is followed by one as large",
            "return min(block, settled or max(1, block // 2))",
            "return block",
        ),
        ("a drain goes beyond its budget", "self._left -= granted", "pass"),
    ),
    *_of(
        SOURCES + "extracts/loading.py",
        OF_LOADING,
        (
            "a broken file is landed up to its fault",
            "if fault is not None and not (whole and is_released(ledger, file.name, file.version)):",
            "if False:",
        ),
        ("a checksum is not compared", "if said and checksum not in (each.lower() for each in mine):", "if False:"),
        ("a file that changes is loaded", "if storage.look_again(file.path).version != file.version:", "if False:"),
        ("an order that lost a row is landed", "if why := self._orders_of_file.lost_a_row(record):", "if why := '':"),
        (
            "a file that nobody reads is forgotten",
            'states["waiting"] += 1\n    for file in found.due',
            "pass\n    for file in found.due",
        ),
        ("a file that seems cut is loaded", "if why := self._orders_of_file.seems_cut():", "if why := '':"),
        ("pieces of an order are landed one by one", "if not is_piece:", "if True:"),
    ),
    *_of(
        SOURCES + "extracts/records.py",
        OF_READING,
        ("a file may lack its trailer", "if self._said is None or self._goes_on:", "if self._goes_on:"),
        ("a trailer's count is not compared", 'if "count" in said and said["count"]', 'if False and said["count"]'),
        ("a damaged page is a bad row", "if not line.isascii() and _DAMAGED", "if False and _DAMAGED"),
        ("lines behind a stray quote are lost", "self._back.extendleft(reversed(self._taken[1:]))", "pass"),
    ),
    *_of(
        SOURCES + "extracts/csv_lines.py",
        OF_READING,
        ("rows within quotes are text", "if holds_rows or (fault and", "if (fault and"),
        ("a byte of another encoding is let through", "return row, fault or self._lines.fault()", "return row, fault"),
    ),
    *_of(
        SOURCES + "feeds.py",
        OF_LOADING,
        ("a column that is gone is not missed", "gone = self._before.keys() &", "gone = frozenset() &"),
        ("cards that are gone are not missed", "elif not self._seen[_CARD] and", "elif False and"),
        ("a small file makes its feed forget", "_WEIGHT * before.get(each, 0.0)", "0 * before.get(each, 0.0)"),
    ),
    *_of(
        SOURCES + "extracts/apart.py",
        OF_LOADING,
        ("pieces that do not make the total are an order", "and first.adds_up(tolerance) and", "and"),
        ("an unsorted file that lost its end is loaded", "if apart and whole and short:", "if False:"),
        ("pieces that disagree are an order", "if all(one == said[0] for one in said) and first", "if first"),
    ),
    *_of(
        PROVIDER + "taken.py",
        ("tests/provider/test_answers_of_a_2xx.py", "tests/provider/test_send_events.py"),
        (
            "a page of a gateway is an acceptance",
            'return Taken("unreadable", {})\n    items',
            'return Taken("accepted", {})\n    items',
        ),
        ("success false is success", 'any(word in ("false", "0") for word in words[len(_WORDS) :])', "False"),
        ("an error in the answer is none", "or any(_is_told(named, name) for name in _ERRORS)", ""),
        ("an item's status is not read", "or _status(said) >= _FAILED", ""),
        (
            "what is not known to mean a failure is a success",
            'Taken("unreadable" if doubtful else "accepted", {})',
            'Taken("accepted", {})',
        ),
        ("two of three that were accepted are three", "value is not True and value < events", "False"),
        (
            "a bulk of which an answer names one is accepted",
            "of_some = len(items) < len(bulk) and",
            "of_some = False and",
        ),
        ("an item is about the event at its place", "    if named in ids:", "    if False:"),
        (
            "of a failure without a name the first event is blamed",
            "return at if items == len(bulk) else None",
            "return at",
        ),
    ),
    *_of(
        PROVIDER + "hooks/profile_store.py",
        (
            "tests/provider/test_send_events.py",
            "tests/provider/test_profile_store_reading.py",
            "tests/provider/test_answers_of_a_2xx.py",
        ),
        (
            "a 502 was not taken",
            "or status is None or status >= 500 or",
            "or status is None or",
        ),
        ("a 408 is a refused event", " or status in ASKS_FOR_PATIENCE:", ":"),
        (
            "an item answered 425 is a refused event",
            "statuses[at] >= _SERVER_ERROR or statuses[at] in ASKS_FOR_PATIENCE:",
            "statuses[at] >= _SERVER_ERROR:",
        ),
        (
            "any answer shows the event",
            'if any(str(item.get("TrackId", "")).casefold() == track_id.casefold() for item in items):',
            "if items:",
        ),
        (
            "an empty page proves absence",
            'return "absent" if total == 0 else "empty_pages"',
            'return "absent"',
        ),
        (
            "a refused bulk refuses all of its events",
            "self.halve = len(part) > 1\n            if",
            "self.halve = False\n            if",
        ),
        ("where all events fail they are all refused", "if len(self.suspects) >= _SUSPECTS:", "if False:"),
        ("an event that fails alone is told at once", "if self.suspects is None:", "if True:"),
        (
            "a text that nobody can read stops nothing",
            "and self.suspects is not None:\n                raise",
            "and False:\n                raise",
        ),
        ("after three answers lost it goes on", "if self._ambiguous_in_a_row >= _AMBIGUOUS_IN_A_ROW:", "if False:"),
        (
            "a request whose answer was lost is sent again",
            "return not result.left if isinstance(result, NoAnswer) else",
            "return True if isinstance(result, NoAnswer) else",
        ),
        (
            "a 502 is sent again",
            "else result.status in untaken\n",
            "else result.status in untaken or result.status >= 500\n",
        ),
        ("an address that is wrong refuses all events", "if status in _WRONG_PLACE:", "if False:"),
        ("the second half of a bulk gets lost", "return [part[middle:], part[:middle]]", "return [part[:middle]]"),
        (
            "the rest of a bulk that was cut has no outcome",
            "for rest in chain(reversed(parts), bulks):",
            "for rest in bulks:",
        ),
        ("any id may stand in a filter", "if not all(_ASKABLE_TRACK_ID.fullmatch(each) for each in ids):", "if False:"),
    ),
    *_of(
        PROVIDER + "http.py",
        ("tests/provider/test_send_events.py", "tests/provider/test_privacy_and_security.py"),
        ("redirects are followed", "allow_redirects=False", "allow_redirects=True"),
        ("nobody is asked before a request leaves", "        before_leaving()\n", ""),
        ("a request without a connection has left", "return NoAnswer(left=False,", "return NoAnswer(left=True,"),
        ("a request whose answer was lost has not left", "return NoAnswer(left=True,", "return NoAnswer(left=False,"),
        ("nobody waits as long as the service asked for", "if asked is None:", "if True:"),
        (
            "a service may ask for any wait",
            "min(asked, self._longest_retry_after) + self",
            "asked + self",
        ),
        ("a refused key is a refused event", "if status in KEY_REFUSED:", "if False:"),
        ("a redirect is a refused event", "if 300 <= status <= 399:", "if False:"),
        ("TLS is not verified", "None, self.ca_bundle or True, None)", "None, self.ca_bundle or False, None)"),
    ),
    *_of(
        PROVIDER + "http.py",
        ("tests/provider/test_breaker.py", "tests/provider/test_profile_store_reading.py"),
        ("a request leaves before its turn", "        self.before_attempt()\n", ""),
        (
            "an open breaker is not looked at while waiting",
            "            return resting\n        before_leaving()",
            "            pass\n        before_leaving()",
        ),
        (
            "a question is not asked again after a 500",
            "answer.status in ASKS_FOR_PATIENCE or answer.status >= 500",
            "answer.status in ASKS_FOR_PATIENCE",
        ),
        ("an open breaker is not waited out", "until = until or time.monotonic() + 2 *", "until = 0 *"),
        ("what the last call was answered is forgotten", "self.breaker.last_answer = result.told()", "pass"),
        ("half an answer is an answer", "            return self.whole", "            return True"),
        (
            "a refused card counts as a failing call",
            "not (again(result) or _unwell(result)):",
            "isinstance(result, Answer) and result.taken:",
        ),
    ),
    *_of(
        PROVIDER + "fields.py",
        ("tests/provider/test_privacy_and_security.py", "tests/provider/test_loyalty.py"),
        ("a key is not masked", "mask_secret(text)  #", "pass  #"),
        ("keys travel in clear", 'if url.scheme == "http" and not _is_loopback(host):', "if False:"),
        ("a URL may name a user", "if url.username or url.password or", "if"),
        ("a wrong choice is the default", "if found is None:", "if False:"),
        ("a wrong extra is none", 'return {"extra": connection.extra}', "return {}"),
    ),
    *_of(
        PROVIDER + "connections.py",
        ("tests/provider/test_privacy_and_security.py", "tests/provider/test_loyalty.py"),
        ("the reading side needs no key", "if self.read_host and not self.read_api_key:", "if False:"),
        ("a look-up asks for nobody's card", 'if "{card}" not in', 'if "{id}" in'),
    ),
    *_of(
        PROVIDER + "connections.py",
        ("tests/provider/test_send_events.py",),
        ("a 408 was not taken, whatever the connection says", '"429,503",', '"408,425,429,503",'),
    ),
    *_of(
        PROVIDER + "operators/profile_store.py",
        ("tests/provider/test_operator.py",),
        ("who fails keeps the counts", 'context["ti"].xcom_push(', "dict("),
        ("refused events bear the index of their bulk", "index=indexes[outcome.index]", "index=outcome.index"),
    ),
    *_of(
        "include/instore_airflow/tasks.py",
        ("tests/glue/test_another_source.py",),
        ("a dry run settles", "settles=not run.dry_run", "settles=True"),
        (
            "a backfill takes what is live",
            "if run.drains_topic:\n            with source_of",
            "if True:\n            with source_of",
        ),
    ),
    *_of(
        PROVIDER + "breaker.py",
        ("tests/provider/test_breaker.py",),
        ("a breaker never opens", "fail_max=failures", "fail_max=10**6"),
        ("a breaker never tries the service again", "reset_timeout=seconds", "reset_timeout=10**6"),
        ("calls queue up", "if self._circuit.current_state == STATE_CLOSED:", "if False:"),
        ("what is well does not count", "self._learn(is_well)", "self._learn(False)"),
        ("who waits does not hear that it opened", "self._opened.set()", "pass"),
        (
            "nobody is told for how long it is open",
            "return left if left > 0 else None",
            "return None",
        ),
    ),
    *_of(
        PROVIDER + "signs.py",
        ("tests/provider/test_signs.py",),
        ("no consent is consent", "        return value in _NO\n", "        return False\n"),
        (
            "a sign within a part of the member is none",
            "for each in several if len(path) < _DEPTH else ():",
            "for each in ():",
        ),
        ("a sign is ignored whoever names it", "if not known & set(", "if known & set("),
    ),
    *_of(
        "include/instore/ledger/intake.py",
        ("tests/instore/ledger/test_intake.py",),
        ("NULL is the number of an order", "if why := no_name(text):", "if False:"),
        ("what was voided is a purchase", "if name := no_purchase(order,", "if name := None and no_purchase(order,"),
    ),
    *_of(
        PROVIDER + "hooks/loyalty.py",
        ("tests/provider/test_loyalty.py", "tests/provider/test_loyalty_answers.py", "tests/provider/test_signs.py"),
        ("a sign of opting out is passed over", "if sign := unread_sign(", "if sign := None and unread_sign("),
        (
            "a failing provider knows no card",
            "said = answer.status in rules.not_found_statuses and",
            "said = answer.status >= 400 and",
        ),
        (
            "an answer by no rule is no such card",
            "if not answer.taken:\n            what =",
            "if not answer.taken:\n            return None\n            what =",
        ),
        ("a refused key is a wrong address", "service.check_door(answer.status)", "pass"),
        ("an inactive member is matched", "if word not in rules.active_statuses:", "if False:"),
        ("a suppressed member is only inactive", "if word in rules.suppressed_statuses:", "if False:"),
        ("the first of several members is the customer", "if len(members) != 1:", "if not members:"),
        ("any text is an address", 'if "@" in email else', "if email else"),
        (
            "a page of maintenance is no such card",
            "rules.not_found_statuses and _is_ours(answer)",
            "rules.not_found_statuses",
        ),
        ("an error in a 200 is an answer", "if _tells_an_error(found):", "if False:"),
        ("somebody with another card is the customer", "any(self._same(card, each) for each in has)", "True"),
        ("the rest of a page is not there", "if is_list and _has_more(", "if False and _has_more("),
        ("anything is a member", "if not any(_has(member, path)", "if False and not any(_has(member, path)"),
        ("a card fails as often as it is tried", "counts_questions=True", "counts_questions=False"),
        ("a card is not encoded", 'quote(value, safe="")', "value"),
        ("a revoked token is kept", "auth.forget(token)", "pass"),
    ),
    *_of(
        LEDGER + "keys.py",
        (OF_LEDGER + "keys.py",),
        ("a ledger known by another key is opened", "if known != wanted:", "if False:"),
        ("a ledger with orders takes any key", "wanted if is_new else _BEFORE_KEYS", "wanted"),
        ("two orders become one", "if key in references:", "if False:"),
        (
            "an order without the key's fields is skipped",
            "except RecordRefused as error:\n                raise",
            "except RecordRefused as error:\n                continue\n                raise",
        ),
        ("a dry run changes the keys", "if not dry_run:", "if True:"),
        ("keys change in one step", '_ON_THE_WAY = "rekeyed:"', '_ON_THE_WAY = ""'),
        (
            "contents keep the key from before",
            "(orders, contents, deliveries, editions)",
            "(orders, deliveries, editions)",
        ),
        (
            "editions keep the key from before",
            "(orders, contents, deliveries, editions)",
            "(orders, contents, deliveries)",
        ),
        (
            "deliveries keep the key from before",
            "(orders, contents, deliveries, editions)",
            "(orders, contents, editions)",
        ),
        (
            "the new key is not written down",
            'connection.execute(statement.on_conflict_do_update(index_elements=["setting"], set_=values))',
            "pass",
        ),
    ),
    *_of(
        LEDGER + "alerts.py",
        ("tests/alerts/test_memory.py",),
        ("a soft cause is told every hour", "elif not known or adds:", "else:"),
        ("what a run adds to a soft cause is told nobody", "elif not known or adds:", "elif not known:"),
        ("one thing is told twice, as red and as soft", "TOLD if cause in self.told_by_red else WAITING", "WAITING"),
        ("a soft cause never ends", 'ended = [row for row in still_open if row["cause"] in over]', "ended = []"),
        ("a red run ends what others failed at", "if not red:", "if True:"),
        (
            "an hourly run ends what a backfill failed at",
            '(row["ordinary"] and ordinary)',
            "ordinary",
        ),
        (
            "a backfill ends what the hourly runs fail at",
            'row["ordinary"] and ordinary)',
            'row["ordinary"])',
        ),
        ("what nobody was told of is recovered", 'if row["state"] != NOBODY)', ")"),
        ("what is over is told afterwards", 'TOLD if row["state"] == WAITING else row["state"]', 'row["state"]'),
        ("what another run is about to tell is told twice", "alerts.c.begun_at < now - _OTHERS_AFTER, ", ""),
        ("an alert is tried for ever", ", alerts.c.begun_at > now - _GIVEN_UP_AFTER", ""),
        ("what was told stays waiting", "cause)).values(state=state))", "cause)).values(state=WAITING))"),
        (
            "a failed dry run is one of the hourly stream",
            'run.claims == "due" and not run.dry_run',
            'run.claims == "due"',
        ),
        ("half a run's orders are judged", "if new.get(Status.PENDING.value):", "if False:"),
    ),
    *_of(
        "include/instore/runs/alerts.py",
        ("tests/alerts/test_judging.py",),
        ("a limit that is reached is kept", "value >= limit", "value > limit"),
        ("what was open before a limit was switched off stays so", "judged[alert.cause] = None  #", "pass  #"),
        ("a backfill's shares are the stream's", ", settings.runs) if shares else None", ", settings.runs)"),
        ("a failed task alerts nobody", "for each in failed\n", "for each in ()\n"),
    ),
    *_of(
        "include/instore/runs/planning.py",
        ("tests/instore/runs/test_planning.py",),
        ("a window's run takes what is free", "if held and not run.dry_run and", "if False and"),
        ("a window's run waits for ever", "waited < timedelta(seconds=settings.runs.claim_wait)", "waited"),
        ("a dry run waits", "if held and not run.dry_run and", "if held and"),
        (
            "a dry run tells nothing while tracking is off",
            "settings.sending.enable_track_events or run.dry_run",
            "settings.sending.enable_track_events",
        ),
    ),
    *_of(
        LEDGER + "quarantined.py",
        ("tests/instore/sources/test_quarantine.py",),
        (
            "what was decided is decided again",
            ".where(quarantine.c.id.in_(ids), quarantine.c.state == QUARANTINED)",
            ".where(quarantine.c.id.in_(ids))",
        ),
        (
            "what was discarded gets another reason",
            ".where(quarantine.c.id == id, quarantine.c.state == QUARANTINED)",
            ".where(quarantine.c.id == id)",
        ),
        ("the first of several ids is taken", "if len(found) == 1:", "if found:"),
        ("a message's rows are found by half its reference", "quarantine.c.raw == raw)", "sa.true())"),
    ),
    *_of(
        SOURCES + "service_bus.py",
        (OF_BUS[0] + "::test_an_empty_read_does_not_say_that_nothing_is_there",),
        ("an empty read says that nothing is there", "        if not left:\n", "        if True:\n"),
        ("a message that is there is not waited for", "_PATIENCE = 5.0", "_PATIENCE = 0.05"),
    ),
    *_of(
        SOURCES + "service_bus.py",
        (OF_BUS[0] + "::test_what_somebody_else_holds_is_counted_apart",),
        ("what somebody else holds is not counted", "locked_elsewhere=rest.held + left", "locked_elsewhere=rest.held"),
    ),
    *_of(
        SOURCES + "service_bus.py",
        ("tests/instore/sources/test_sessions.py::test_a_session_s_lock_is_renewed_while_its_messages_are_settled",),
        ("a session's lock is not renewed", "session.renew_lock() if self._renew_at else", ""),
    ),
    *_of(
        SOURCES + "service_bus.py",
        ("tests/instore/sources/test_sessions.py::test_a_session_whose_lock_is_lost_comes_again_and_is_known",),
        ("a session that cannot be settled is taken for ever", "or source.stuck", ""),
    ),
    *_of(
        SOURCES + "service_bus.py",
        (OF_BUS[0] + "::test_a_count_bounds_what_one_run_takes_and_the_rest_stays",),
        ("what the budget left is not counted", "not_drained=left", "not_drained=0"),
    ),
    *_of(
        SOURCES + "service_bus.py",
        (OF_BUS[0] + "::test_a_bus_that_cannot_be_asked_is_not_known_to_be_drained",),
        ("what could not be asked is drained", 'stopped_by="not known" if', 'stopped_by="drained" if'),
    ),
    *_of(
        SOURCES + "service_bus.py",
        (OF_BUS[0] + "::test_what_landed_and_was_not_settled_is_not_held_by_somebody_else",),
        (
            "what was not settled is held by somebody else",
            "rest.come_by(until) - budget.unsettled",
            "rest.come_by(until)",
        ),
    ),
    *_of(
        SOURCES + "service_bus.py",
        (OF_BUS[0] + "::test_deferred_messages_are_counted_and_a_dry_run_does_not_count_them_as_orders",),
        (
            "a dry run would send what is deferred",
            "active = [message for message in messages if message.state == ServiceBusMessageState.ACTIVE]",
            "active = messages",
        ),
    ),
    *_of(
        SOURCES + "decoding.py",
        ("tests/instore/sources/test_decoding.py",),
        ("what cannot be decoded stops the others", "return _in_parts(bytes(buffer))", "raise"),
        (".NET's decimals are read by the standard", "if exponent >> 7 == 12:", "if False:"),
        (
            "a section that is none of its kind is passed on",
            "_checked(_decode.decode_payload(buffer))",
            "_decode.decode_payload(buffer)",
        ),
        ("an annotation takes those of the bus along", "parts[name] = _readable_pairs(section)", "pass"),
        ("a person gets no order of a whole body", ", bytes(bare), body)", ", bytes(bare), False)"),
    ),
    *_of(
        SOURCES + "landing.py",
        (*OF_BUS, "tests/instore/sources/test_quarantine.py", *OF_LOADING),
        (
            "a block is settled before it is landed",
            "outcome = lander(block)\n        if settles:\n            source.settle(block, outcome)",
            "source.settle(block, LandedBlock())\n        outcome = lander(block)",
        ),
        (
            "of a row with several orders the good ones land alone",
            "return LandedBlock(refused=refused)\n        if short",
            "pass\n        if short",
        ),
        ("a redriven record stays in quarantine", "extract, block.redriven,", "extract, (),"),
        (
            "what a source refuses is not kept",
            "ledger, run_id(), arrivals, refusals,",
            "ledger, run_id(), arrivals, [],",
        ),
        (
            "a file's rows that are no orders are not counted",
            "bad_rows=block.extract.bad_rows + len(refusals)",
            "bad_rows=block.extract.bad_rows",
        ),
    ),
    *_of(
        SOURCES + "quarantine.py",
        ("tests/instore/sources/test_quarantine.py", OF_LEDGER + "keys.py", OF_LOADING[0]),
        ("what was discarded is redriven", "if row.state != QUARANTINED:", "if False:"),
        (
            "a record is as new as its redrive",
            "row.reference, row.raw, row.received_at, adapter)\n    return [",
            "row.reference, row.raw, datetime.now(timezone.utc), adapter)\n    return [",
        ),
        ("the rest of a broken file is redriven", "if row.reason == BROKEN_FILE:", "if False:"),
        (
            "what may be half an order is redriven unasked",
            "if row.reason in (CUT_ORDER, SPLIT_ORDER) and not named:",
            "if False:",
        ),
        ("a redrive is not counted", "if run_id.cache_info().currsize:", "if False:"),
        ("a dry run lands", "would_land(ledger, settings) if dry_run else into_ledger", "into_ledger"),
        ("the reason of today is not noted", "if not self._dry_run:", "if False:"),
        ("a collision is quarantined once more", "redriven=[row.id], all_or_none=not alone", "redriven=[row.id]"),
    ),
    # The tests of the bus wait for it: each of these bugs names the one test that is for it.
    *_of(
        SOURCES + "dead_letters.py",
        (OF_DEAD_LETTERS + "orders_land_and_are_completed_and_what_is_no_order_stays_with_today_s_reason",),
        (
            "what is no order leaves the bus",
            'self._became("refused", error)',
            'self._safe("refused")',
        ),
        (
            "what landed stays in quarantine",
            "Block(letter.records, redriven=letter.waiting, all_or_none=",
            "Block(letter.records, all_or_none=",
        ),
        ("what stays is locked", "receiver.abandon_message(message)", "pass"),
    ),
    *_of(
        SOURCES + "dead_letters.py",
        (OF_DEAD_LETTERS + "nothing_is_completed_that_the_ledger_did_not_take",),
        (
            "a dead letter is completed before it is safe",
            "self._letter = letter\n",
            "self._letter = letter\n                self._receiver and settle(self._receiver, letter.message)\n",
        ),
    ),
    *_of(
        SOURCES + "dead_letters.py",
        (OF_DEAD_LETTERS + "what_was_discarded_in_quarantine_is_completed_without_landing",),
        ("what was given up lands", "if letter.given_up:", "if False:"),
    ),
    *_of(
        SOURCES + "dead_letters.py",
        (OF_DEAD_LETTERS + "what_no_run_has_ever_read_is_in_quarantine_once_it_was_refused_and_can_be_given_up",),
        ("what nobody has read is not kept", "if not self._letter.rows:", "if False:"),
    ),
    *_of(
        SOURCES + "dead_letters.py",
        (OF_DEAD_LETTERS + "a_published_dead_letter_keeps_its_id_and_properties_and_loses_those_of_the_dead",),
        ("what was published stays in quarantine", "redriven=letter.waiting", "redriven=()"),
        ("what the bus added is published", "if text_of(name) not in _ADDED_BY_THE_BUS", "if True"),
    ),
    *_of(
        SOURCES + "dead_letters.py",
        (OF_DEAD_LETTERS + "a_redrive_looks_at_no_more_than_it_was_told_to",),
        ("more is redriven than was asked for", "min(_BLOCK, limit - len(seen))", "_BLOCK"),
    ),
    *_of(
        SOURCES + "bus.py",
        (OF_BUS[0] + "::test_a_settlement_that_is_refused_brings_the_message_again_as_a_duplicate",),
        ("a message that was not settled ends the drain", "return False\n    return True", "raise\n    return True"),
    ),
    *_of(
        SOURCES + "bus.py",
        (OF_BUS[0] + "::test_refused_messages_are_dead_lettered_with_their_reason_and_kept_with_their_raw_bytes",),
        ("a dead letter has no reason", "reason=refused.reason, error_description", "error_description"),
    ),
    *_of(
        SOURCES + "bus.py",
        (OF_BUS[0] + "::test_a_wrong_key_is_a_configuration_error_that_names_the_connection",),
        (
            "a wrong key is tried again",
            "except (ServiceBusAuthenticationError, ServiceBusAuthorizationError) as error:",
            "except ZeroDivisionError as error:",
        ),
    ),
    *_of(
        SOURCES + "bus.py",
        (OF_BUS[0] + "::test_a_connection_cut_in_the_middle_loses_nothing_and_doubles_nothing",),
        ("a bus that is gone is asked to settle each message", "raise  # each", "return False  # each"),
    ),
    *_of(
        SOURCES + "bus.py",
        (OF_BUS[0] + "::test_an_unknown_entity_is_a_configuration_error_that_names_the_setting",),
        ("a topic that is not there is a refused key", "== 404:", "== 0:"),
    ),
    *_of(
        SOURCES + "bus.py",
        (OF_BUS[0] + "::test_no_message_can_stop_the_others",),
        ("a message without an id has no reference", "{message.message_id or '-'}#", "{message.message_id}#"),
    ),
    *_of(
        LEDGER + "read_figures.py",
        (OF_LEDGER + "read_side.py",),
        ("what is held counts as delivered", 'lines[name].add("delivered", -count)', 'lines[name].add("delivered", 0)'),
        ("SQLite goes through every matched order", 'sa.func.coalesce(orders.c.status, "") ==', "orders.c.status =="),
    ),
    *_of(
        LEDGER + "read_orders.py",
        (OF_LEDGER + "read_side.py", "tests/cli/test_reading.py"),
        ("all orders are listed", "if not day and not run and status not in FEW:", "if False:"),
        (
            "that a person is suppressed is not said",
            '"suppressed": [dict(each) for each in lists]',
            '"suppressed": []',
        ),
        (
            "cards and emails are shown",
            "mask: Callable[[str | None], str] = masked",
            "mask: Callable[[str | None], str] = str",
        ),
    ),
    *_of(
        "include/instore_airflow/cli/orders.py",
        ("tests/cli/test_reading.py",),
        (
            "nobody knows who looked at a card",
            'note_done(ledger, "orders show --unmask"',
            'print("orders show --unmask"',
        ),
        ("a card is shown unasked", "if unmask else masked", "if not unmask else masked"),
    ),
    *_of(
        SOURCES + "adapters/adapter.py",
        ("tests/instore/sources/adapters",),
        ("a value that is not declared is left out", "if written not in known and written:", "if False:"),
        ("a heading may be missing", "if heading not in names and heading not in self.declared.optional:", "if False:"),
        ("a path that leads nowhere holds no order", "if found is None and path:", "if False:"),
        ("code's own words are told", "{type(error).__name__} at line {at}", "{error} at line {at}"),
        ("fields of one's own may differ within an order", "if len(said) > 1:", "if False:"),
    ),
    *_of(
        SOURCES + "adapters/adapter.py",
        ("tests/instore/sources/extracts/test_discovery.py::test_an_adapter_reads_files_of_any_ending",),
        ("the first adapter reads every file", "if fnmatch(name, pattern) or", "if name or"),
    ),
    *_of(
        SOURCES + "adapters/values.py",
        ("tests/instore/sources/adapters/test_values.py",),
        ("groups may have any digits", "{mark}\\d{{3}})+", "{mark}\\d+)+"),
        ("a date may mean two moments", "if len(found) > 1:", "if False:"),
    ),
    *_of(
        SOURCES + "adapters/bodies.py",
        ("tests/instore/sources/adapters/test_bodies.py",),
        ("gzip that breaks off is whole", "if not reader.eof and len(text) <= limit:", "if False:"),
        ("an order of several is read by the whole path again", "inner = adapter.of_elements()", "inner = adapter"),
    ),
    *_of(
        SOURCES + "extracts/documents.py",
        ("tests/instore/sources/extracts/test_documents.py",),
        ("entities are no reason", "        _refuse_entities(elements.root.getroottree(), 1)\n", ""),
        ("an order may be as large as the file", "if self._since > self._limit:", "if False:"),
        (
            "orders that are nowhere are none",
            "if not found:\n                        raise",
            "if False:\n                        raise",
        ),
    ),
    *_of(
        SOURCES + "extracts/formats.py",
        ("tests/instore/sources/extracts/test_documents.py",),
        ("an archive may be of any size", "if size > settings.extracts.max_extract_bytes:", "if False:"),
    ),
    *_of(
        SOURCES + "service_bus.py",
        (OF_BUS[0] + "::test_a_message_of_several_orders_is_settled_once_and_none_is_lost",),
        ("a message of several orders is settled by its first", "index += orders", "index += 1"),
    ),
]
