"""Damaged samples of every adapter: whatever comes, it is read, refused or broken, and nothing else is raised."""

from __future__ import annotations

import contextlib
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.instore.model.declarations import load_declaration
from include.instore.model.errors import FatalError, RecordRefused
from include.instore.model.settings import load_settings
from include.instore.sources.adapters import Adapter, read_body
from include.instore.sources.extracts.formats import read_file
from include.instore.sources.extracts.records import BrokenExtract
from include.instore.sources.suggesting import as_yaml, suggest
from tests.instore.sources.adapters.test_examples import ADAPTERS, EXAMPLES, sample_of
from tests.instore.sources.adapters.test_fuzz import short

SETTINGS = load_settings(max_message_bytes=20_000)
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12) | st.sampled_from([b"", b'"', b"<", b"\0"])),
    max_size=4,
)


def damaged(raw: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for where, gone, new in changes:
        at = int(where * len(raw))
        raw = raw[:at] + new + raw[at + gone :]
    return raw


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", EXAMPLES)
@short
@given(changes=edits)
def test_a_damaged_file_is_read_refused_or_broken(
    name: str, zipped: bool, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int, bytes]]
) -> None:
    sample = sample_of(ADAPTERS / name)
    raw = sample.read_bytes()
    raw = damaged(gzip.compress(raw, mtime=0) if zipped else raw, changes)
    adapter = Adapter(SETTINGS, load_declaration(str(ADAPTERS / name / f"{name}.yaml")))
    file = f"{sample.name}.gz" if zipped else sample.name
    again: list[list[tuple[int, object]]] = []
    for _ in range(2):  # the second reading is the first
        records: list[tuple[int, object]] = []
        try:
            for record in read_file(io.BytesIO(raw), file, SETTINGS, adapter):
                records.append(
                    (record.line, str(record.order) if isinstance(record.order, RecordRefused) else record.order)
                )
        except BrokenExtract as broken:
            records.append((broken.line, broken.detail))
        again.append(records)
    assert again[0] == again[1]
    assert read_body(raw, adapter)
    path = tmp_path_factory.getbasetemp() / f"{name}-{file}"
    path.write_bytes(raw)
    with contextlib.suppress(FatalError):
        assert as_yaml(suggest(path))
