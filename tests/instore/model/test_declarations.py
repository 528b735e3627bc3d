"""Declarations: read with the settings, and each fault in one sentence that says what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.instore.model.declarations import load_declaration
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import load_settings

ORDER = "order: {orderNumber: No, date: Date, storeId: Store, currency: Cur, total: Sum}\n"
CSV = f"format: csv\n{ORDER}"


def declared(tmp_path: Path, text: str, name: str = "acme.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_declaration_has_its_file_s_name_unless_it_says_another(tmp_path: Path) -> None:
    assert load_declaration(str(declared(tmp_path, CSV))).name == "acme"
    assert load_declaration(str(declared(tmp_path, f"name: till\n{CSV}", "b.yaml"))).name == "till"


def test_text_is_text_in_a_declaration(tmp_path: Path) -> None:
    text = CSV.replace("storeId: Store, ", "") + "constants: {storeId: 0404}\nfirst_row_only: yes\n"
    found = load_declaration(str(declared(tmp_path, text)))
    assert (found.order["orderNumber"], found.constants["storeId"], found.first_row_only) == ("No", "0404", True)


def test_a_declaration_that_changes_is_read_again(tmp_path: Path) -> None:
    path = declared(tmp_path, CSV)
    assert load_declaration(str(path)).title_lines == 0
    path.write_text(f"{CSV}title_lines: 2\n")
    assert load_declaration(str(path)).title_lines == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("format: csw\n" + ORDER, "format: Input should be 'csv'"),
        ("format: csv", "order is empty"),
        ("- csv", "has no declaration"),
        ("format: [", "is not YAML"),
        (CSV + CSV, "format is there twice"),
        (CSV + "title_line: 1", "title_line is not known; did you mean title_lines?"),
        (CSV + "numbers: {decimals: ','}", "numbers.decimals is not known; did you mean decimal?"),
        (CSV + "numbers: {decimal: ',', thousands: ','}", "the same mark"),
        (CSV + "lines: {sku: A}", "lines: sku is not known; there are productCode"),
        (CSV + "values: {ordertype: {}}", "ordertype is not known; did you mean orderType?"),
        (CSV + "constants: {currency: EUR}", "currency is in order and in constants"),
        (CSV.replace("Cur", "[a]"), "order.currency: Input should be a valid string"),
        (CSV.replace("currency: Cur, ", ""), "order has no currency, which every order needs"),
        (CSV + "dates: {formats: ['%H:%M']}", "%H:%M is not a format of a whole date"),
        (CSV + "dates: {zone: Mars/Olympus}", "dates.zone: not a time zone"),
        (CSV + "encoding: utf-9", "encoding: not a text encoding"),
        (CSV.replace("csv", "json").replace("No", "'a['"), "order.orderNumber is not JMESPath"),
        (CSV.replace("csv", "xml"), "orders is needed"),
        (CSV.replace("csv", "json") + "lines: {productCode: sku}", "lines_at is needed"),
        (CSV + "more: {till_no: Till}", "more.till_no is not a name of your own in camelCase"),
        (CSV + "more: {quantity: Till}", "more.quantity is not a name of your own"),
        (CSV + "optional: [Till]", "optional names Till, which no field is mapped to"),
        (CSV + "code: nothing.py", "has no function order_of"),
    ],
)
def test_a_fault_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"acme\.yaml|nothing\.py") as caught:
        load_declaration(str(declared(tmp_path, text)))
    assert sentence in str(caught.value)


def test_each_fault_has_its_own_sentence(tmp_path: Path) -> None:
    path = declared(tmp_path, CSV + "title_line: 1\nencoding: utf-9\n")
    with pytest.raises(ValueError, match=r"encoding: .*\. title_line is not known"):
        load_declaration(str(path))


def test_the_settings_refuse_a_wrong_declaration_by_the_variable_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = declared(tmp_path, "format: csv")
    monkeypatch.setenv("INSTORE_EXTRACT_ADAPTERS", f'{{"*.csv": "{path}"}}')
    with pytest.raises(ConfigurationError, match=r"INSTORE_EXTRACT_ADAPTERS is wrong.*order is empty"):
        load_settings()
    monkeypatch.setenv("INSTORE_EXTRACT_ADAPTERS", "{")
    with pytest.raises(ConfigurationError, match=r"INSTORE_EXTRACT_ADAPTERS is not JSON"):
        load_settings()
    monkeypatch.delenv("INSTORE_EXTRACT_ADAPTERS")
    monkeypatch.setenv("INSTORE_TOPIC_ADAPTER", str(tmp_path / "no.yaml"))
    with pytest.raises(ConfigurationError, match=r"INSTORE_TOPIC_ADAPTER is wrong.*no\.yaml cannot be read"):
        load_settings()


def test_two_adapters_of_one_name_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    paths = {"a/*": str(declared(tmp_path, CSV)), "b/*": str(declared(other, CSV))}
    with pytest.raises(ConfigurationError, match="two adapters have the name acme"):
        load_settings(extract_adapters=paths)
    assert load_settings(extract_adapters={"a/*": paths["a/*"], "c/*": paths["a/*"]}).extracts.extract_adapters
