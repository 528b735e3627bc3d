"""Which messages a subscription takes: correlation filters and SQL filters.

Source: "Topic filters and actions" and "Subscription rule SQL filter syntax" of the Service Bus documentation, as far
as the emulator's Config.json can state them. Of SQL this much: =, <>, !=, <, <=, >, >=, [NOT] IN, [NOT] LIKE,
IS [NOT] NULL, AND, OR, NOT, parentheses, TRUE, FALSE, NULL, strings and numbers, over `sys.` and `user.` properties.
A property that is not there makes a comparison unknown, as in SQL; only what is true matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sandbox.servicebus.message import Content

Rule = Callable[[Content], bool]

_Row = Callable[[str], Any]
_Term = Callable[[_Row], Any]
_Truth = Callable[[_Row], "bool | None"]

_SYSTEM = {
    "messageid": "message-id",
    "to": "to",
    "label": "subject",
    "subject": "subject",
    "replyto": "reply-to",
    "correlationid": "correlation-id",
    "contenttype": "content-type",
    "sessionid": "group-id",
    "replytosessionid": "reply-to-group-id",
}
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<string>'(?:[^']|'')*')|(?P<operator><=|>=|<>|!=|=|<|>)
    |(?P<mark>[(),\-])|(?P<name>(?:(?:sys|user)\.)?(?:[A-Za-z_][\w-]*|\[[^\]]+\]|"[^"]+")))""",
    re.VERBOSE | re.IGNORECASE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "<>": lambda a, b: bool(a != b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


class RuleRefused(Exception):
    """A filter the stand-in does not understand; the text says which part."""


def everything(content: Content) -> bool:  # noqa: ARG001
    """The rule of a subscription without rules."""
    return True


def any_of(each: Sequence[Rule]) -> Rule:
    """Rules of one subscription are alternatives: a message that fits several comes once."""
    return lambda content: any(rule(content) for rule in each)


def correlation(filters: Mapping[str, Any]) -> Rule:
    """Every property named must be equal, text compared with case.

    Raises:
        RuleRefused: for a property correlation filters do not have, or none at all.
    """
    system: dict[str, str] = {}
    user: Mapping[str, Any] = {}
    for key, value in filters.items():
        if key == "Properties":
            user = value
        elif key.lower() in _SYSTEM and key.lower() != "subject":
            system[_SYSTEM[key.lower()]] = value
        else:
            raise RuleRefused(f"a correlation filter has no {key}.")
    if not system and not user:
        raise RuleRefused("a correlation filter needs at least one property.")

    def matches(content: Content) -> bool:
        properties = content.properties() if system else {}
        if any(_text(properties.get(key)) != value for key, value in system.items()):
            return False
        own = content.application_properties() if user else {}
        return all(key in own and _comparable(own[key]) == _comparable(value) for key, value in user.items())

    return matches


def sql(expression: str) -> Rule:
    """A filter from a SQL expression.

    Raises:
        RuleRefused: with the place, if the expression is outside the subset above.
    """
    condition = _Parser(expression).parse()

    def matches(content: Content) -> bool:
        system, user = content.properties(), content.application_properties()

        def row(name: str) -> Any:
            scope, _, plain = name.partition(".")
            return _text(system.get(plain)) if scope == "sys" else _comparable(user.get(plain))

        return condition(row) is True

    return matches


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _comparable(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _same_kind(a: Any, b: Any) -> bool:
    numbers = (int, float)
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool)
    return (isinstance(a, numbers) and isinstance(b, numbers)) or type(a) is type(b)


class _Parser:
    """A recursive descent parser that builds closures; precedence: NOT, AND, OR."""

    def __init__(self, expression: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at, text = 0, expression.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if not match or match.lastgroup is None:
                raise RuleRefused(f"the SQL filter is not understood at {text[at : at + 20]!r}.")
            self._tokens.append((match.lastgroup, match.group(match.lastgroup)))
            at = match.end()
        self._at = 0

    def parse(self) -> _Truth:
        condition = self._either()
        if self._at < len(self._tokens):
            raise RuleRefused(f"the SQL filter is not understood at {self._tokens[self._at][1]!r}.")
        return condition

    def _keyword(self, *words: str) -> bool:
        ahead = [text.upper() for kind, text in self._tokens[self._at : self._at + len(words)] if kind == "name"]
        if ahead != list(words):
            return False
        self._at += len(words)
        return True

    def _mark(self, mark: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == ("mark", mark):
            self._at += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._mark(mark):
            raise RuleRefused(f"the SQL filter lacks a {mark!r}.")

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise RuleRefused("the SQL filter ends too early.")
        self._at += 1
        return self._tokens[self._at - 1]

    def _either(self) -> _Truth:
        left = self._both()
        while self._keyword("OR"):
            left = _or(left, self._both())
        return left

    def _both(self) -> _Truth:
        left = self._negation()
        while self._keyword("AND"):
            left = _and(left, self._negation())
        return left

    def _negation(self) -> _Truth:
        if self._keyword("NOT"):
            return _not(self._negation())
        if self._mark("("):
            inner = self._either()
            self._expect(")")
            return inner
        return self._predicate()

    def _predicate(self) -> _Truth:
        left = self._term()
        if self._keyword("IS", "NOT", "NULL"):
            return lambda row: left(row) is not None
        if self._keyword("IS", "NULL"):
            return lambda row: left(row) is None
        turned = self._keyword("NOT")
        condition: _Truth
        if self._keyword("IN"):
            condition = _or(*[_comparison("=", left, each) for each in self._list()])
        elif self._keyword("LIKE"):
            condition = self._like(left)
        elif turned:
            raise RuleRefused("NOT must stand before a condition, IN or LIKE.")
        elif self._at < len(self._tokens) and self._tokens[self._at][0] == "operator":
            operator = self._next()[1]
            condition = _comparison(operator, left, self._term())
        else:
            condition = _alone(left)
        return _not(condition) if turned else condition

    def _list(self) -> list[_Term]:
        self._expect("(")
        items = [self._term()]
        while self._mark(","):
            items.append(self._term())
        self._expect(")")
        return items

    def _like(self, left: _Term) -> _Truth:
        kind, text = self._next()
        if kind != "string":
            raise RuleRefused("LIKE needs a string.")
        parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in _unquote(text))
        pattern = re.compile("".join(parts), re.DOTALL)

        def condition(row: _Row) -> bool | None:
            value = left(row)
            return None if value is None else isinstance(value, str) and pattern.fullmatch(value) is not None

        return condition

    def _term(self) -> _Term:
        kind, text = self._next()
        negative = (kind, text) == ("mark", "-")
        if negative:
            kind, text = self._next()
        if kind == "number":
            number = (float(text) if "." in text else int(text)) * (-1 if negative else 1)
            return lambda _: number
        if kind == "string" and not negative:
            literal = _unquote(text)
            return lambda _: literal
        if kind != "name" or negative:
            raise RuleRefused(f"the SQL filter is not understood at {text!r}.")
        constant = {"TRUE": True, "FALSE": False, "NULL": None}
        if text.upper() in constant:
            fixed = constant[text.upper()]
            return lambda _: fixed
        return _property(text)


def _unquote(text: str) -> str:
    return text[1:-1].replace("''", "'")


def _property(text: str) -> _Term:
    scope, dot, plain = text.partition(".") if re.match(r"(?i)(sys|user)\.", text) else ("user", ".", text)
    plain = plain[1:-1] if plain[0] in '["' else plain
    if scope.lower() == "sys":
        if plain.lower() not in _SYSTEM:
            raise RuleRefused(f"sys.{plain} is not a property the stand-in can filter on.")
        plain = _SYSTEM[plain.lower()]
    name = scope.lower() + dot + plain
    return lambda row: row(name)


def _alone(term: _Term) -> _Truth:
    """A term that stands as a condition: true or false if it is a boolean, else unknown."""

    def condition(row: _Row) -> bool | None:
        value = term(row)
        return value if isinstance(value, bool) else None

    return condition


def _comparison(operator: str, left: _Term, right: _Term) -> _Truth:
    compare = _COMPARE[operator]

    def condition(row: _Row) -> bool | None:
        a, b = left(row), right(row)
        if a is None or b is None:
            return None
        return compare(a, b) if _same_kind(a, b) else operator in ("<>", "!=")

    return condition


def _or(*each: _Truth) -> _Truth:
    def condition(row: _Row) -> bool | None:
        values = [one(row) for one in each]
        return True if True in values else None if None in values else False

    return condition


def _and(left: _Truth, right: _Truth) -> _Truth:
    def condition(row: _Row) -> bool | None:
        values = (left(row), right(row))
        return False if False in values else None if None in values else True

    return condition


def _not(inner: _Truth) -> _Truth:
    def condition(row: _Row) -> bool | None:
        value = inner(row)
        return None if value is None else not value

    return condition
