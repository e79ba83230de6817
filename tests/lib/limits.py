# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of src/basic/limits.def, with the numbers of limits.h, and the sentences that wrenn tells beyond them."""

import ast
import operator
import re
from pathlib import Path

BASIC = Path(__file__).resolve().parents[2] / "src/basic"
UNITS = {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "USEC_PER_MSEC": 1000, "USEC_PER_SEC": 1000000}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


class Limit:
    """A row; members as in limits.def, `kind` without LIMIT_KIND_ and in small letters."""

    def __init__(self, name, fields):
        self.name = name
        self.kind = fields.pop("kind")
        self.min = self.max = self.step = self.item = self.all = 0
        self.unit, self.zero = 1, False
        self.what = self.route = self.member = self.method = self.option = self.verb = self.answer = None
        self.__dict__.update(fields)

    def text(self, value):
        """A value as people read it."""
        if self.kind == "size":
            return size(value)
        return span(value) if self.kind == "time" else str(value)

    def range(self, unit=1):
        """What the sentence of a number expects, of a client that counts in the unit."""
        people = f"{self.text(self.min)} to {self.text(self.max)}"
        if unit == 1:
            return people
        return f"{-(-self.min // unit)} to {self.max // unit} ({people})"

    def refusal(self, name, given, unit=1):
        """The sentence about a value (None: no integer), a text's length or a list's entries beyond the range."""
        if self.kind == "text":
            return (f"{name}: expected a string of {self.min} to {self.max} bytes, not {given}." if given
                    else f"{name}: expected a non-empty string.")
        if self.kind == "list":
            return f"{name}: expected at most {self.max} entries, not {given}."
        if given is None:
            return f"{name}: expected an integer, {self.range(unit)}."
        return f"{name}: expected {self.range(unit)}, not {given}."


def size(value):
    """As format_size() of strings.h."""
    power = next((p for p in (4, 3, 2, 1) if value >> 10 * p), 0)
    whole, tenths = value >> 10 * power, (value & (1 << 10 * power) - 1) * 10 >> 10 * power
    return f"{whole}{f'.{tenths}' if tenths else ''}{'BKMGT'[power]}"


def span(value):
    """As format_timespan(), of whole units."""
    for name, usec in (("d", 86400 * 10**6), ("h", 3600 * 10**6), ("min", 60 * 10**6), ("s", 10**6)):
        if value >= usec:
            assert value % usec == 0, value
            return f"{value // usec}{name}"
    return "0s"


def _number(text, constants):
    """A C expression of sums and products."""
    def value(node):
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Name):
            return UNITS[node.id] if node.id in UNITS else _number(constants[node.id], constants)
        return ast.literal_eval(node)
    return value(ast.parse(re.sub(r"\b(\d+)[UL]+\b", r"\1", text.strip()), mode="eval"))


def _constants():
    text = re.sub(r"/\*.*?\*/", "", (BASIC / "limits.h").read_text(encoding="utf-8"), flags=re.S)
    return dict(re.findall(r"^#define +(\w+) +(.+?) *$", text, flags=re.M))


def constant(name):
    """A number of limits.h."""
    return _number(name, _constants())


def table():
    """All rows, in their order."""
    constants, rows = _constants(), []
    text = re.sub(r"/\*.*?\*/", "", (BASIC / "limits.def").read_text(encoding="utf-8"), flags=re.S)
    for name, body in re.findall(r'LIMIT\((\w+), ((?:[^()"]|"[^"]*")*)\)\n', text):
        fields = {}
        for field, string, other in re.findall(r'\.(\w+) = (?:"([^"]*)"|([^",]+))', body):
            if string:
                fields[field] = string
            elif field == "kind":
                fields[field] = other.removeprefix("LIMIT_KIND_").lower()
            else:
                fields[field] = True if other == "true" else _number(other, constants)
        rows.append(Limit(name, fields))
    assert len(rows) == text.count("LIMIT("), "a row is not understood"
    return rows
