"""The two forms of Retry-After, and everything that is neither."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from instore_provider.http import parse_retry_after

NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("86400", 86_400),
        ("Wed, 01 May 2024 12:01:30 GMT", 90),
        ("Wednesday, 01-May-24 12:01:30 GMT", 90),
        ("Wed, 01 May 2024 14:01:30 +0200", 90),
        ("Wed, 01 May 2024 12:01:30 -0000", 90),
        # The past, absurd, and garbage.
        ("Wed, 01 May 2024 11:59:59 GMT", None),
        ("Wed, 01 May 2099 12:00:00 GMT", None),
        ("86401", None),
        ("99999999999999999999", None),
        ("-5", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Wed, 99 May 2024 12:00:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_a_date_counts_from_now() -> None:
    assert parse_retry_after("Wed, 01 May 2024 12:01:30 GMT") is None
