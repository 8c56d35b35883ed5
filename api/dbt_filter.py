"""Filters as clients of the dbt Semantic Layer write them, SQL text with Jinja calls, read into typed filters.

Nothing is rendered or run. The language is closed: a reader for just these words, and not a parser of all SQL with a
list of exceptions, so that what it does not know cannot pass, and what passes means what SQL means by it.
"""

from __future__ import annotations

import ast
import operator as python
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import NoReturn, TypeAlias

from api.errors import InvalidQuery
from api.filters import AllOf, AnyOf, Comparison, Filter, Not, Operator, Value, comparisons, rewrite

MAX_CHARACTERS = 10_000
MAX_WORDS = 4_000  # an IN of 1,000 values, the most that a query may have, is some 2,000
MAX_NESTING = 30  # parentheses and NOTs within each other; each takes six frames of Python's stack
MAX_CALL_CHARACTERS = 300
MAX_DIGITS = 40  # the warehouse holds 38

_TRUE, _FALSE = AllOf(()), AnyOf(())
_METRIC_MARK = ":"  # before the name of a metric while reading; no name can hold it
_LANGUAGE = "Filters know = <> < <= > >=, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT, parentheses and literals."


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedDbtFilter:
    """A filter's two halves: `where` on dimensions, before aggregation, and `having` on metrics, after it.

    None is a half without a condition; `AnyOf(())` is one that never holds.
    """

    where: Filter | None
    having: Filter | None


def parse_dbt_filter(text: str) -> ParsedDbtFilter:
    """The filter as typed trees; names in lower case and not looked up, values just as they were written.

    Two trees and not one, because AND may join conditions on dimensions and on metrics, which apply before and after
    aggregation: one tree would leave each caller to tell them apart, and to get OR wrong. `Metric` calls are metrics,
    bare names are dimensions. A metric that is grouped, `Metric('total_revenue', ['customer'])`, filters rows before
    aggregation, as a dimension does. Conditions that always hold are left out.

    Raises
    ------
    InvalidQuery
        The text is more than such a filter, too long or too deep, or has metrics and dimensions under one OR or NOT.

    Examples
    --------
    >>> parse_dbt_filter("{{ Dimension('customer__location') }} = 'Chicago' AND 1 = 1").where
    Comparison(field='customer__location', operator=<Operator.EQ: 'eq'>, values=('Chicago',))
    """
    where: list[Filter] = []
    having: list[Filter] = []
    for part in _conjuncts(_Reader(_words(text)).whole()):
        (having if _is_on_metrics(part) else where).append(part)
    return ParsedDbtFilter(where=_half(where), having=_half(having))


def _conjuncts(tree: Filter) -> Iterator[Filter]:
    if isinstance(tree, AllOf):
        for part in tree.parts:
            yield from _conjuncts(part)
    else:
        yield tree


def _is_on_metrics(part: Filter) -> bool:
    fields = [leaf.field for leaf in comparisons(part)]
    dimensions = [name for name in fields if not name.startswith(_METRIC_MARK)]
    metrics = [name.removeprefix(_METRIC_MARK) for name in fields if name.startswith(_METRIC_MARK)]
    if metrics and dimensions:
        _refuse(
            f"The metric {metrics[0]:.100} and the dimension {dimensions[0]:.100} stand under one OR or NOT",
            hint="Join conditions on metrics and on dimensions by AND alone: they apply after and before aggregation.",
        )
    return bool(metrics)


def _half(parts: list[Filter]) -> Filter | None:
    folded = _folded(AllOf(tuple(parts)))
    return None if folded == _TRUE else rewrite(folded, _unmarked)


def _unmarked(leaf: Comparison) -> Comparison:
    return replace(leaf, field=leaf.field.removeprefix(_METRIC_MARK))


def _folded(tree: Filter) -> Filter:
    """The same truth without constants (unless it is one) and without groups in groups of their kind."""
    match tree:
        case Not(part):
            inner = _folded(part)
            return _FALSE if inner == _TRUE else _TRUE if inner == _FALSE else Not(inner)
        case AllOf(parts) | AnyOf(parts):
            flat: list[Filter] = []
            for part in map(_folded, parts):
                flat.extend(part.parts if isinstance(part, AllOf | AnyOf) and type(part) is type(tree) else (part,))
            deciding = _FALSE if isinstance(tree, AllOf) else _TRUE
            return deciding if deciding in flat else flat[0] if len(flat) == 1 else type(tree)(tuple(flat))
        case _:
            return tree


def _refuse(detail: str, *, hint: str = _LANGUAGE) -> NoReturn:
    raise InvalidQuery(detail, hint=hint, code="unsupported_filter")


def _excerpt(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")  # noqa: PLR2004 - what fits into a message


@dataclass(frozen=True, slots=True)
class _Word:
    kind: str  # a group of _WORD, or END
    text: str

    @property
    def name(self) -> str:
        """What the grammar compares with, in upper case; nothing for what carries a value."""
        return self.text.upper() if self.kind in ("NAME", "MARK") else ""


_WORD = re.compile(
    r"""(?P<SPACE>[ \t\r\n]+)
    | (?P<CALL>\{\{(?:[^'"{}]|'[^']*+'|"[^"]*+")*+\}\})
    | (?P<TEXT>'(?:[^']|'')*+')
    | (?P<NUMBER>\.?[0-9][0-9A-Za-z_.]*)
    | (?P<NAME>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<OUTSIDE>--|/\*|\{\{|\{%|\{\#)
    | (?P<MARK><=|>=|<>|!=|::|[=<>(),-])
    | (?P<OTHER>.)""",
    re.VERBOSE | re.DOTALL,
)
_PARAMETER = ("a parameter", "Write the value itself.")
_COMMENT = ("a comment", "Leave comments out.")
_OUTSIDE = {
    "--": _COMMENT,
    "/*": _COMMENT,
    "{#": _COMMENT,
    "{%": ("a Jinja statement", "Only calls such as {{ Dimension('customer__location') }} are known."),
    "{{": ("a call that never ends, or has braces in it", "Write calls as {{ Dimension('customer__location') }}."),
    "'": ("a text that never ends", "Close it with a single quote, and double the quotes in it."),
    '"': ("a double quote", "Put texts in single quotes, and names in none."),
    ";": ("the end of a statement", "A filter is one condition."),
    "?": _PARAMETER,
    "$": _PARAMETER,
    ":": _PARAMETER,
}


def _words(text: str) -> list[_Word]:
    if len(text) > MAX_CHARACTERS:
        _refuse(f"The filter has {len(text)} characters", hint=f"At most {MAX_CHARACTERS} are allowed.")
    if re.search("[\0\ud800-\udfff]", text):
        _refuse("The filter holds a NUL or half a character", hint="Send it as well-formed Unicode.")
    matches = (match for match in _WORD.finditer(text) if match.lastgroup != "SPACE")
    words = [_word(match) for match in islice(matches, MAX_WORDS + 1)]
    if len(words) > MAX_WORDS:
        _refuse("The filter has too many words and marks", hint=f"At most {MAX_WORDS} are allowed.")
    return [*words, _Word("END", "")]


def _word(match: re.Match[str]) -> _Word:
    kind, text = match.lastgroup or "", match.group()
    if kind in ("OUTSIDE", "OTHER"):
        noun, hint = _OUTSIDE.get(text, ("no part of a filter", _LANGUAGE))
        _refuse(f"{_excerpt(match.string[match.start() :])} begins with {noun}", hint=hint)
    return _Word(kind, text)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    per: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Value


_Term: TypeAlias = _Field | _Literal | Filter

_Symbol: TypeAlias = tuple[Operator, Operator, Callable[[Value, Value], bool]]
# The operator, what it is with its sides swapped, and what it says of constants.
_SYMBOLS: Mapping[str, _Symbol] = {
    "=": (Operator.EQ, Operator.EQ, python.eq),
    "<>": (Operator.NE, Operator.NE, python.ne),
    "!=": (Operator.NE, Operator.NE, python.ne),
    "<": (Operator.LT, Operator.GT, python.lt),
    "<=": (Operator.LTE, Operator.GTE, python.le),
    ">": (Operator.GT, Operator.LT, python.gt),
    ">=": (Operator.GTE, Operator.LTE, python.ge),
}
_DATES: Mapping[str, Callable[[str], Value]] = {
    "DATE": date.fromisoformat,
    "TIMESTAMP": datetime.fromisoformat,
}
_RESERVED = re.compile(
    "AND|OR|NOT|IN|BETWEEN|I?LIKE|ESCAPE|IS|NULL|AS|SELECT|FROM|WITH|WHERE|UNION|EXCEPT|INTERSECT|VALUES|TABLE|"
    "CASE|WHEN|EXISTS|ANY|ALL|SOME|INTERVAL|COPY|ATTACH|DROP|INSERT|UPDATE|DELETE"
)
_INSTEAD = {
    "::": "Only a text can be cast, to DATE or TIMESTAMP; a time takes its grain in the call.",
    "(": "Functions and subqueries are not known; compare with a literal.",
    "ILIKE": "Use LIKE, which heeds upper and lower case.",
    "NULL": "Write IS NULL or IS NOT NULL; nothing is equal to NULL.",
}


class _Reader:
    """Recursive descent over the words; one method for each rule, in the order of SQL's precedence."""

    def __init__(self, words: list[_Word]) -> None:
        self._words = words
        self._at = 0
        self._nesting = 0

    def whole(self) -> Filter:
        """The condition that all the words make."""
        tree = _condition(self._disjunction())
        if self._next.kind != "END":
            self._unexpected()
        return tree

    @property
    def _next(self) -> _Word:
        return self._words[self._at]

    def _take(self, kind: str) -> str:
        word = self._next
        if word.kind != kind:
            self._unexpected()
        self._at += 1
        return word.text

    def _takes(self, *names: str) -> str | None:
        if (name := self._next.name) not in names:
            return None
        self._at += 1
        return name

    def _expect(self, name: str) -> None:
        if not self._takes(name):
            self._unexpected()

    def _unexpected(self) -> NoReturn:
        if self._next.kind == "END":
            _refuse("The filter ends where more must follow" if self._at else "The filter is empty")
        place = f"after {_excerpt(self._words[self._at - 1].text)}" if self._at else "at the start"
        _refuse(f"{_excerpt(self._next.text)} cannot stand {place}", hint=_INSTEAD.get(self._next.name, _LANGUAGE))

    def _nested(self, rule: Callable[[], _Term]) -> _Term:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            _refuse("The filter is nested too deeply", hint=f"At most {MAX_NESTING} parentheses and NOTs are allowed.")
        term = rule()
        self._nesting -= 1
        return term

    def _disjunction(self) -> _Term:
        terms = [self._conjunction()]
        while self._takes("OR"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else AnyOf(tuple(map(_condition, terms)))

    def _conjunction(self) -> _Term:
        terms = [self._negation()]
        while self._takes("AND"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else AllOf(tuple(map(_condition, terms)))

    def _negation(self) -> _Term:
        return Not(_condition(self._nested(self._negation))) if self._takes("NOT") else self._predicate()

    def _predicate(self) -> _Term:
        left = self._operand()
        if self._takes("IS"):
            return self._is(_field(left))
        if symbol := self._takes(*_SYMBOLS):
            return _compared(left, _SYMBOLS[symbol], self._operand())
        is_negated = self._takes("NOT")
        if test := self._test(left):
            return _negated(test) if is_negated else test
        if is_negated:
            self._unexpected()
        return left

    def _is(self, field: _Field) -> Filter:
        is_negated = self._takes("NOT")
        if self._takes("NULL"):
            return _leaf(field, Operator.IS_NOT_NULL if is_negated else Operator.IS_NULL)
        if not (truth := self._takes("TRUE", "FALSE")):
            self._unexpected()
        # Unlike = TRUE it is false of a null, which shows under a NOT.
        holds = AllOf((_leaf(field, Operator.IS_NOT_NULL), _leaf(field, Operator.EQ, truth == "TRUE")))
        return Not(holds) if is_negated else holds

    def _test(self, left: _Term) -> Comparison | None:
        match self._takes("IN", "BETWEEN", "LIKE"):
            case "IN":
                return _leaf(_field(left), Operator.IN, *self._list())
            case "BETWEEN":
                low = self._value()
                self._expect("AND")
                return _leaf(_field(left), Operator.BETWEEN, low, self._value())
            case "LIKE":
                pattern = _unquoted(self._take("TEXT"))
                escape = _unquoted(self._take("TEXT")) if self._takes("ESCAPE") else ""
                operator, text = _looked_for(pattern, escape)
                return _leaf(_field(left), operator, text)
            case _:
                return None

    def _list(self) -> Iterator[Value]:
        self._expect("(")
        yield self._value()
        while self._takes(","):
            yield self._value()
        self._expect(")")

    def _value(self) -> Value:
        match term := self._operand():
            case _Literal(value):
                return value
            case _:
                _refuse(f"{_shown(term)} stands where a literal must", hint="Compare a dimension with literals.")

    def _operand(self) -> _Term:
        match self._next.kind:
            case "CALL":
                return _called(self._take("CALL"))
            case "TEXT":
                text = self._take("TEXT")
                return self._cast(text) if self._takes("::") else _Literal(_unquoted(text))
            case "NUMBER":
                return _Literal(_number(self._take("NUMBER")))
            case "NAME":
                return self._named()
        if self._takes("-"):
            return _Literal(_number("-" + self._take("NUMBER")))
        self._expect("(")
        term = self._nested(self._disjunction)
        self._expect(")")
        return term

    def _named(self) -> _Term:
        if _RESERVED.fullmatch(self._next.name):
            self._unexpected()
        if truth := self._takes("TRUE", "FALSE"):
            return _Literal(truth == "TRUE")
        text = self._take("NAME")
        if text.upper() in _DATES and self._next.kind == "TEXT":
            return _date(text.upper(), self._take("TEXT"))
        if text.upper() == "CAST" and self._takes("("):
            quoted = self._take("TEXT")
            self._expect("AS")
            literal = self._cast(quoted)
            self._expect(")")
            return literal
        if self._next.name == "(":
            _refuse(f"{_excerpt(text)} is called as a function", hint=_INSTEAD["("])
        return _Field(_name(text))

    def _cast(self, quoted: str) -> _Literal:
        if not (type_ := self._takes(*_DATES)):
            self._unexpected()
        return _date(type_, quoted)


def _leaf(field: _Field, operator: Operator, *values: Value) -> Comparison:
    return Comparison(field=field.name, operator=operator, values=values, per=field.per)


def _negated(test: Comparison) -> Filter:
    return replace(test, operator=Operator.NOT_IN) if test.operator is Operator.IN else Not(test)


def _compared(left: _Term, symbol: _Symbol, right: _Term) -> Filter:
    operator, mirrored, holds = symbol
    match left, right:
        case _Field() as field, _Literal(value):
            return _leaf(field, operator, value)
        case _Literal(value), _Field() as field:
            return _leaf(field, mirrored, value)
        case _Literal(one), _Literal(other) if _order(one) == _order(other):
            return _TRUE if holds(one, other) else _FALSE
        case _:
            _refuse(f"{_shown(left)} is compared with {_shown(right)}", hint="Compare a dimension with a literal.")


def _order(value: Value) -> tuple[type, bool]:
    """What the value is compared among: numbers of every kind are one order, times with an offset another one."""
    kind = type(value) if isinstance(value, str | bool | date) else Decimal
    return kind, isinstance(value, datetime) and value.tzinfo is not None


def _condition(term: _Term) -> Filter:
    match term:
        case _Field():
            return _leaf(term, Operator.EQ, True)  # noqa: FBT003 - a value, not a switch
        case _Literal(bool() as value):
            return _TRUE if value else _FALSE
        case _Literal():
            _refuse(f"{_shown(term)} is no condition", hint="Compare it with a dimension.")
        case _:
            return term


def _field(term: _Term) -> _Field:
    if not isinstance(term, _Field):
        _refuse(f"{_shown(term)} stands where a dimension must", hint="Write the dimension first.")
    return term


def _shown(term: _Term) -> str:
    match term:
        case _Field(name):
            return _excerpt(name.removeprefix(_METRIC_MARK))
        case _Literal(value):
            return _excerpt(str(value))
        case _:
            return "A condition"


def _name(text: str) -> str:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", text):
        _refuse(f"{_excerpt(text)} is no name", hint="Names are made of letters, digits and underscores.")
    return text.lower()


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")


def _number(text: str) -> int | Decimal:
    if len(text) > MAX_DIGITS or not re.fullmatch(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)", text):
        _refuse(f"{_excerpt(text)} is no number", hint="Write numbers in digits, such as 12 or -0.25.")
    return Decimal(text) if "." in text else int(text)


def _date(type_: str, quoted: str) -> _Literal:
    try:
        return _Literal(_DATES[type_](_unquoted(quoted)))
    except (ValueError, OverflowError):
        _refuse(f"{_excerpt(quoted)} is no {type_}", hint="Write '2019-01-31', with a time '2019-01-31 12:00:00'.")


def _looked_for(pattern: str, escape: str) -> tuple[Operator, str]:
    """The text operator that a LIKE pattern stands for, and the text between its wildcards."""
    letters = list(_letters(pattern, escape))
    ends_open = letters[-1:] == [None]
    starts_open = letters[: len(letters) - ends_open][:1] == [None]
    inner = letters[starts_open : len(letters) - ends_open]
    if None in inner or not (starts_open or ends_open):
        hint = "Put % at the start, at the end or at both; without it, write =."
        _refuse(f"The pattern {_excerpt(pattern)} is none of x%, %x and %x%", hint=hint)
    operator = Operator.STARTS_WITH if not starts_open else Operator.CONTAINS if ends_open else Operator.ENDS_WITH
    return operator, "".join(letter for letter in inner if letter is not None)


def _letters(pattern: str, escape: str) -> Iterator[str | None]:
    """The letters that the pattern means, with None for each %."""
    if len(escape) > 1:
        _refuse(f"ESCAPE {_excerpt(escape)} is not one character", hint="Write ESCAPE '!', for instance.")
    rest = iter(pattern)
    for letter in rest:
        is_escape = letter == escape
        meant = next(rest, "") if is_escape else letter
        if meant not in ("%", "_", escape) if is_escape else meant == "_":
            hint = "Only % is a wildcard here; with ESCAPE '!', the letters % _ ! are written !% !_ !!."
            _refuse(f"The pattern {_excerpt(pattern)} holds a wildcard or an escape that is not known", hint=hint)
        yield None if meant == "%" and not is_escape else meant


_CALL = re.compile(r"""(?:[A-Za-z_=,.()\[\] \t\r\n]|'[^'\\]*+'|"[^"\\]*+")*+""")
_PARAMETERS = {
    "Dimension": ("name", "entity_path"),
    "TimeDimension": ("time_dimension_name", "time_granularity_name", "entity_path"),  # and date_part_name, by name
    "Entity": ("entity_name", "entity_path"),
    "Metric": ("metric_name", "group_by"),
    "grain": ("time_granularity_name",),
    "date_part": ("date_part_name",),
}
_BY_NAME = {"TimeDimension": ("date_part_name",)}


def _called(text: str) -> _Field:
    """The field that a call in double braces names; it is read as Python and never run.

    Outside its quotes it holds no digit, operator or backslash, so Python has nothing to warn of.
    """
    body = text[2:-2].strip()
    tree = None
    if len(body) <= MAX_CALL_CHARACTERS and _CALL.fullmatch(body):
        try:
            tree = ast.parse(body, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            tree = None
    match tree:
        case ast.Call(func=ast.Name(id="Metric")):
            return _called_metric(_arguments(tree, "Metric", text), text)
        case _:
            return _Field(_called_name(tree, text))


def _called_metric(given: Mapping[str, tuple[str, ...]], text: str) -> _Field:
    (name,), per = given["metric_name"], given.get("group_by", ())
    if "group_by" in given and not per:
        hint = "Name an entity in it, or leave group_by out: the metric is filtered as the query groups it then."
        _refuse(f"{_excerpt(text)} groups the metric by nothing", hint=hint)
    return _Field(name, per) if per else _Field(_METRIC_MARK + name)


def _called_name(tree: ast.expr | None, text: str) -> str:
    match tree:
        case ast.Call(func=ast.Attribute(value=inner, attr="grain" | "date_part" as function)):
            return "__".join((_called_name(inner, text), *_grain(_arguments(tree, function, text))))
        case ast.Call(func=ast.Name(id="Dimension" | "TimeDimension" | "Entity" as function)):
            given = _arguments(tree, function, text)
            return "__".join((*given.get("entity_path", ()), *given[_PARAMETERS[function][0]], *_grain(given)))
        case _:
            hint = "Known are Dimension, TimeDimension, Entity and Metric, names in quotes, .grain() and .date_part()."
            _refuse(f"{_excerpt(text)} is no call that a filter knows", hint=hint)


def _grain(given: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What follows a time's name: its grain, or the part of its date."""
    grain = given.get("time_granularity_name", ())
    parts = tuple(f"extract_{part}" for part in given.get("date_part_name", ()))
    return parts if grain == ("none",) else (*grain, *parts)  # dbt's own clients print a missing grain as "None"


def _arguments(call: ast.Call, function: str, text: str) -> dict[str, tuple[str, ...]]:
    known = _PARAMETERS[function]
    every = (*known, *_BY_NAME.get(function, ()))
    given = [*zip(known, call.args, strict=False), *((keyword.arg or "", keyword.value) for keyword in call.keywords)]
    names = [name for name, _ in given]
    if len(call.args) > len(known) or known[0] not in names or len(set(names)) < len(names) or not {*names} <= {*every}:
        _refuse(f"{_excerpt(text)} has other arguments than {function} takes", hint=f"They are {', '.join(every)}.")
    return {name: tuple(_constants(node, name, text)) for name, node in given}


def _constants(node: ast.expr, parameter: str, text: str) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(name)):
            yield _name(name)
        case ast.Constant(value=None) if parameter in ("time_granularity_name", "date_part_name"):
            return
        case ast.List(elts=items) | ast.Tuple(elts=items) if parameter in ("entity_path", "group_by"):
            for item in items:
                yield from _constants(item, "", text)
        case _:
            _refuse(f"{_excerpt(text)} has an argument that is no name in quotes", hint="Write names in quotes.")
