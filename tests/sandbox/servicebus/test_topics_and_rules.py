"""Topics, subscriptions, correlation filters and SQL filters (service-bus.md, point 0)."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._transport._pyamqp_transport import PyamqpTransport

from sandbox.servicebus import ConfigRefused, ServiceBusStandIn, rules
from sandbox.servicebus.message import parse
from tests.sandbox.servicebus.conftest import config, eventually, subscription, topic


def rule(**properties: Any) -> dict[str, Any]:
    return {"Name": "r", "Properties": properties}


def correlation_rule(name: str, **filters: Any) -> dict[str, Any]:
    return {"Name": name, "Properties": {"FilterType": "Correlation", "CorrelationFilter": filters}}


def sql_rule(name: str, expression: str) -> dict[str, Any]:
    return {"Name": name, "Properties": {"FilterType": "Sql", "SqlFilter": {"SqlExpression": expression}}}


ORDERS = config(
    topics=[
        topic(
            "orders",
            subscription("all"),
            subscription("canada", correlation_rule("ca", Label="order", Properties={"country": "CA"})),
            subscription("large", sql_rule("large", "amount > 100 AND sys.Label LIKE 'ord%'")),
            subscription("either", sql_rule("one", "country = 'US'"), correlation_rule("two", CorrelationId="c-1")),
        )
    ]
)


def test_every_subscription_gets_its_own_copy_of_what_its_rules_take() -> None:
    names = ("all", "canada", "large", "either")
    with ServiceBusStandIn(ORDERS) as bus:

        def receive(name: str) -> list[str]:
            client = ServiceBusClient.from_connection_string(bus.connection_string)
            with client, client.get_subscription_receiver("Orders", name.upper()) as receiver:
                expected = bus.state()["entities"][f"orders/Subscriptions/{name}"]["active"]
                messages = receiver.receive_messages(expected, max_wait_time=3)
                for message in messages:
                    receiver.complete_message(message)
                return [str(each) for each in messages]

        client = ServiceBusClient.from_connection_string(bus.connection_string)
        with client, client.get_topic_sender("ORDERS") as sender:
            sent = [
                {"subject": "order", "application_properties": {"country": "CA", "amount": 50}},
                {"subject": "order", "application_properties": {"country": "US", "amount": 500}},
                {"subject": "refund", "application_properties": {"amount": 9}, "correlation_id": "c-1"},
            ]
            for number, parts in enumerate(sent, start=1):
                sender.send_messages(ServiceBusMessage(str(number), **parts))
            at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=0.2)
            [cancelled, _] = sender.schedule_messages([ServiceBusMessage("5"), ServiceBusMessage("4")], at)
            sender.cancel_scheduled_messages(cancelled)
        eventually(lambda: bus.state()["entities"]["orders/Subscriptions/all"]["active"] == 4)
        with ThreadPoolExecutor(4) as pool:
            received = dict(zip(names, pool.map(receive, names), strict=True))
    assert received == {"all": ["1", "2", "3", "4"], "canada": ["1"], "large": ["2"], "either": ["2", "3"]}


ORDER = {
    "message_id": "m-1",
    "subject": "order",
    "content_type": "application/json",
    "application_properties": {"country": "CA", "amount": 50, "rate": 1.5, "rush": True, "two words": "x"},
}


@pytest.fixture
def order() -> Any:
    """The order as the SDK writes it and the broker reads it."""
    outgoing = PyamqpTransport.to_outgoing_amqp_message(ServiceBusMessage("body", **ORDER).raw_amqp_message)
    return parse(bytes(encode_payload(bytearray(), outgoing)))


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("country = 'CA'", True),
        ("country <> 'CA'", False),
        ("country != 'US'", True),
        ("user.amount < 51 and AMOUNT IS NULL", True),
        ("amount >= 50 AND amount <= 50 AND rate > 1.25 AND amount > -1", True),
        ("amount = 50.0", True),
        ("amount = '50'", False),
        ("country IN ('US', 'CA')", True),
        ("country NOT IN ('US', 'CA')", False),
        ("country LIKE 'C_' AND country NOT LIKE '%S'", True),
        ("missing LIKE '%'", False),
        ("missing IS NULL AND country IS NOT NULL", True),
        ("missing = 'x' OR country = 'CA'", True),
        ("NOT missing = 'x'", False),
        ("NOT (country = 'US' OR amount > 100)", True),
        ("rush = TRUE AND rush", True),
        ("country = NULL", False),
        ("[two words] = 'x' AND \"country\" = 'CA'", True),
        ("sys.Label = 'order' AND sys.ContentType LIKE '%json' AND sys.MessageId = 'm-1'", True),
        ("sys.CorrelationId IS NULL", True),
        ("country = 'it''s'", False),
        ("country = 'US' OR country = 'CA' AND amount = 1", False),
    ],
)
def test_a_sql_filter_takes_what_is_true_and_nothing_else(order: Any, expression: str, matches: bool) -> None:
    assert rules.sql(expression)(order) is matches


@pytest.mark.parametrize(
    "expression",
    ["amount + 1 = 2", "sys.Colour = 'red'", "country LIKE amount", "country =", "(country = 'CA'", "amount % 2 = 0",
     "newid() = 'x'", "country NOT = 'CA'", ""],
)  # fmt: skip
def test_sql_outside_the_subset_is_refused_at_start(expression: str) -> None:
    entities = config(topics=[topic("orders", subscription("s", sql_rule("odd", expression)))])
    with pytest.raises(ConfigRefused, match=r"orders/Subscriptions/s: rule odd: the SQL filter|sys\.Colour|LIKE"):
        ServiceBusStandIn(entities)


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ({"Label": "order"}, True),
        ({"Label": "Order"}, False),
        ({"Label": "order", "MessageId": "m-1", "ContentType": "application/json"}, True),
        ({"Properties": {"country": "CA", "amount": 50}}, True),
        ({"Properties": {"country": "CA", "absent": "x"}}, False),
        ({"ReplyTo": "x"}, False),
    ],
)
def test_a_correlation_filter_wants_every_property_equal(order: Any, filters: dict[str, Any], matches: bool) -> None:
    assert rules.correlation(filters)(order) is matches


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: s["Properties"].update(
                RequiresDuplicateDetection=True, DuplicateDetectionHistoryTimeWindow="ten minutes"
            ),
            "DuplicateDetectionHistoryTimeWindow: 'ten minutes' is not an ISO 8601",
        ),
        (lambda s: s["Properties"].update(MaxMessageSizeInKilobytes=0), "MaxMessageSizeInKilobytes must be a positive"),
        (
            lambda s: s["Properties"].update(ForwardTo="elsewhere"),
            "forwards to 'elsewhere', which is no queue or topic",
        ),
        (lambda s: s["Properties"].update(LockDuration="1 minute"), "LockDuration: '1 minute' is not an ISO 8601"),
        (lambda s: s["Properties"].update(MaxDeliveryCount=0), "MaxDeliveryCount must be a positive"),
        (
            lambda s: s["Rules"].append({"Name": "r", "Properties": {"FilterType": "Magic"}}),
            "must be Correlation or Sql",
        ),
        (lambda s: s["Rules"].append(correlation_rule("r", Colour="red")), "a correlation filter has no Colour"),
        (lambda s: s["Rules"].append(correlation_rule("r")), "needs at least one property"),
        (
            lambda s: s["Rules"].append({"Name": "r", "Properties": {"Action": {"SqlExpression": "SET x = 1"}}}),
            "actions",
        ),
        (lambda s: s.pop("Name"), "Name is missing"),
    ],
)
def test_what_the_stand_in_does_not_do_is_refused_at_start_in_one_sentence(
    change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    broken = subscription("s")
    change(broken)
    with pytest.raises(ConfigRefused, match=sentence):
        ServiceBusStandIn(config(topics=[topic("orders", broken)]))


def test_names_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(ConfigRefused, match="same name"):
        ServiceBusStandIn(config(topics=[topic("orders", subscription("s"), subscription("S"))]))
