"""JSON Lines extracts: one order per line, the same document as a message's body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder, parse_order
from include.instore.model.settings import Settings
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord, Lines


def read_json_lines(stream: BinaryIO, settings: Settings) -> Iterator[ExtractRecord]:
    """The orders of a JSON Lines file, in file order.

    :raises BrokenExtract: the last line is cut off, or the file is not what its trailer says.
    """
    lines = Lines(stream, settings)
    return lines.checked(_records(lines, settings))


def _records(lines: Lines, settings: Settings) -> Iterator[ExtractRecord]:
    for line in lines:
        too_long, raw = lines.too_long, lines.taken()
        if not line.strip():
            continue
        order: InStoreOrder | RecordRefused
        try:
            if too_long:
                raise RecordRefused("too_large", f"the line has more than {settings.max_message_bytes} characters")
            order = parse_order(line.strip().encode(errors="surrogatepass"), settings.max_message_bytes)
        except RecordRefused as error:
            if error.reason == "not_json" and not lines.complete:
                raise BrokenExtract(lines.number, "breaks off in the middle of a line", raw) from None
            order = error
        yield ExtractRecord(lines.number, raw, order)
