"""What of a record's text is of others."""

from __future__ import annotations

from include.instore.model.forgotten import without_theirs


def test_all_goes_where_what_is_theirs_cannot_be_told_from_the_rest() -> None:
    def has_her_card(text: str) -> bool:
        return "6035\n7768" in text  # over two lines, so that no line has it by itself

    assert without_theirs("S2;his\nS1;6035\n7768\nS3;his\n", has_her_card) == ""
    assert without_theirs("S2;his\nS1;6035 7768\n", has_her_card) == "S2;his\nS1;6035 7768\n"
