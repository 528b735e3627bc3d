"""What is kept when a person is forgotten: what her orders are known again by, and what of a record is of others."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import simplejson

_ALWAYS = ("orderNumber", "orderType", "date", "storeId", "currency", "total")
_DOCUMENT = (
    "till|register|terminal|workstation|pos|receipt|ticket|transaction|trans|sequence|seq|invoice|document|shift|"
    "company|branch|site|channel"
)
_NAMES_A_DOCUMENT = re.compile(rf"(?:(?:{_DOCUMENT}|id|number|num|no|nr|code|key)[ _-]?)+", re.IGNORECASE)
_OF_ONE = re.compile(_DOCUMENT, re.IGNORECASE)
"""Fields of these words alone, such as tillId or receipt_number, may become part of the key; a person is in none."""


def without_person(payload: str, key_fields: Collection[str]) -> str:
    """The payload without lines, names and whatever else may be of a person.

    Its key can be computed still: by the fields it has now, and by those that name a till or a document.

    :param key_fields: in camelCase.
    """
    document = json.loads(payload, parse_float=Decimal)
    lines = document.get("lines") or []
    # A row a line has all columns, so that a field of the key may be in the lines only.
    of_lines = {name: value for name, value in (lines[0] if lines else {}).items() if _in_all(lines, name, value)}
    kept = {
        name: value
        for name, value in {**of_lines, **document}.items()
        if name in _ALWAYS or (isinstance(value, str | int) and (name in key_fields or _names_a_document(name)))
    }
    text: str = simplejson.dumps(kept, use_decimal=True, ensure_ascii=False, separators=(",", ":"))
    return text


def _in_all(lines: Collection[dict[str, object]], name: str, value: object) -> bool:
    return all(line.get(name) == value for line in lines)


def _names_a_document(name: str) -> bool:
    return bool(_NAMES_A_DOCUMENT.fullmatch(name) and _OF_ONE.search(name))


_JSON = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)
_XML = re.compile(r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<(/?)([^\s<>/!?]+)[^<>]*?(/?)>", re.DOTALL)
_COMMA = re.compile(r"\s*,")
_SOMETHING = re.compile(r"\w{2}")


@dataclass
class _Node:
    """An object or list of JSON, or an element of XML, from one place of a text to another; cut: to its end."""

    name: str
    start: int
    end: int
    inner: list[_Node] = field(default_factory=list, repr=False, compare=False)

    def is_in(self, other: _Node) -> bool:
        return other.start <= self.start and self.end <= other.end


def without_theirs(text: str, is_theirs: Callable[[str], bool], *, rows: bool = False) -> str:
    """What of a record's text is of others: whole documents of JSON or XML, also of a text that is cut; else lines.

    A document is the smallest thing around what is theirs that holds a list of things, as an order holds its lines.
    Empty where everything is theirs, or what is can not be told from the rest.

    :param rows: it is rows of a file.
    """
    begins = text.lstrip("\ufeff \t\r\n")[:1]
    # AMQP, and a string as .NET writes it, has its own lengths: of such a record the documents stay alone.
    is_wrapped = not begins.isprintable() or begins == "@"
    if not rows and (begins in ("{", "[", "<") or is_wrapped):
        kept = _documents_without_theirs(text, is_theirs, is_xml=begins == "<", is_wrapped=is_wrapped)
    else:
        kept = "".join(line for line in text.splitlines(keepends=True) if not is_theirs(line))
    return kept if _SOMETHING.search(kept) and not is_theirs(kept) else ""


def _documents_without_theirs(text: str, is_theirs: Callable[[str], bool], *, is_xml: bool, is_wrapped: bool) -> str:
    root = _tree(text, is_xml=is_xml)
    try:
        theirs = list(_theirs(root, text, is_theirs))
    except RecursionError:
        return ""  # nothing of several people has as many things within each other
    wholes = [each for each in root.inner if each not in theirs] if is_wrapped and root not in theirs else [root]
    return "\n".join(_without(text, whole, [each for each in theirs if each.is_in(whole)]) for whole in wholes)


def _tree(text: str, *, is_xml: bool) -> _Node:
    root = _Node("<" if is_xml else "[", 0, len(text))
    path = [root]
    for token in (_XML if is_xml else _JSON).finditer(text):
        closes, name, alone = token.groups() if is_xml else (token[0] in "]}", token[0], "")
        if not name or name.startswith('"'):
            continue
        if closes and len(path) > 1:
            path.pop().end = token.end()
        elif not closes:
            path[-1].inner.append(_Node(f"<{name}" if is_xml else name, token.start(), len(text)))
            if alone:
                path[-1].inner[-1].end = token.end()
            else:
                path.append(path[-1].inner[-1])
    return root


def _lists(node: _Node) -> Iterator[list[_Node]]:
    """The lists of objects, or of elements of one name, beneath a node, none of them within another."""
    by_name: dict[str, list[_Node]] = defaultdict(list)
    for each in node.inner:
        by_name[each.name].append(each)
    for name, alike in by_name.items():
        if (name == "{" and node.name == "[") or (name.startswith("<") and len(alike) > 1):
            yield alike
        else:
            for each in alike:
                yield from _lists(each)


def _theirs(node: _Node, text: str, is_theirs: Callable[[str], bool]) -> Iterator[_Node]:
    # Things that hold no list themselves, as lines do, are no documents; but where they are all there is.
    is_top = node.start == 0 and node.name == "["
    documents = [each for alike in _lists(node) if is_top or any(any(_lists(one)) for one in alike) for each in alike]
    if not documents or is_theirs(_without(text, node, documents)):
        yield node
        return
    for each in documents:
        if is_theirs(text[each.start : each.end]):
            yield from _theirs(each, text, is_theirs)


def _without(text: str, whole: _Node, nodes: Collection[_Node]) -> str:
    """The text of one without these, and without a comma too many."""
    kept, start = [""], whole.start
    for each in sorted(nodes, key=lambda node: node.start):
        kept.append(text[start : each.start])
        start = each.end
        if behind := _COMMA.match(text, start, whole.end):
            start = behind.end()
        else:
            before = kept.pop()
            while kept and not before.strip():
                before = kept.pop() + before
            kept.append(before.rstrip().removesuffix(","))
    return "".join([*kept, text[start : whole.end]])
