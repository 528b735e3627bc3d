"""The words for states and outcomes are texts: the ledger and the codes have the same."""

from __future__ import annotations

from include.instore.model.codes import CODES
from include.instore.model.states import CardOutcome, DeliveryStatus


def test_a_word_is_the_same_key_as_its_text() -> None:
    assert {"matched": 1}[CardOutcome.MATCHED] == {CardOutcome.MATCHED: 1}["matched"]
    assert f"{DeliveryStatus.READY}" == "ready"


def test_every_outcome_that_is_no_match_is_a_code_a_person_finds() -> None:
    assert {outcome for outcome in CardOutcome if outcome != CardOutcome.MATCHED} <= set(CODES)
