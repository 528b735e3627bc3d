"""JSON Lines extracts: one document a line, as in a message's body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from include.instore.model.errors import RecordRefused
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter, Part, read_body
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord, Lines


def read_json_lines(stream: BinaryIO, settings: Settings, adapter: Adapter | None = None) -> Iterator[ExtractRecord]:
    """The orders of a JSON Lines file, in file order.

    :raises BrokenExtract: the last line is cut off, or the file is not what its trailer says.
    """
    adapter = adapter or Adapter(settings)
    lines = Lines(stream, settings, adapter)
    return lines.checked(_records(lines, settings, adapter))


def _records(lines: Lines, settings: Settings, adapter: Adapter) -> Iterator[ExtractRecord]:
    for line in lines:
        too_long, raw = lines.too_long, lines.taken()
        if not line.strip():
            continue
        parts = read_body(line.strip().encode(errors="surrogatepass"), adapter, is_utf_8=True)
        if too_long:
            why = f"the line has more than {settings.orders.max_message_bytes} characters"
            parts = [Part(raw, RecordRefused("too_large", why), adapter.own_name)]
        order = parts[0].order
        if isinstance(order, RecordRefused) and order.reason == "not_json" and not lines.complete:
            raise BrokenExtract(lines.number, "ends in the middle of a line", raw)
        for part in parts:
            yield ExtractRecord.of_part(lines.number, part if len(parts) > 1 else replace(part, raw=raw))
