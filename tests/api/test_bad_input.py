"""S14: bad input of all kinds, to every operation: a 4xx with a problem, soon, and never a crash.

Each kind is bad for certain, whatever is drawn. Operations and their good bodies come from the contract, so a new one
is tried without a word here. That the problem has its form, the client of the tests sees to.
"""

from __future__ import annotations

import gzip
import json
import random
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from tests.api.hostile import texts
from tests.conftest import served_contract
from tests.contract.served import JSON, PROBLEM, Asked, Operation

SEED = 3
SOON_S = 5.0  # the goal is 100 ms; a busy machine is no fault

Draw = random.Random
Good = dict[str, Any]
Bad = tuple[bytes, dict[str, str]]

AS_JSON = {"Content-Type": JSON}


def text(document: object) -> str:
    return json.dumps(document)


def raw(content: str | bytes, **headers: str) -> Bad:
    return (content.encode() if isinstance(content, str) else content), AS_JSON | headers


def cut_off(draw: Draw, good: Good) -> Bad:
    whole = text(good)
    return raw(whole[: draw.randrange(1, len(whole) - 1)])


def with_a_stray_piece(draw: Draw, good: Good) -> Bad:
    return raw(text(good) + draw.choice(("}", ",", "{}", "null", "//", "/**/", "\0", ";", text(good))))


def of_broken_utf8(draw: Draw, good: Good) -> Bad:
    piece = draw.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe2\x82"))
    return raw(text(good).encode().replace(b'": ', b'": "' + piece + b'", "x": ', 1))


def of_another_form(draw: Draw, good: Good) -> Bad:
    forms = ([good], "line_count", 1, 1.5, True, None, [], [[]], "", text(good))
    return raw(text(draw.choice(forms)))


def with_a_wrong_type(draw: Draw, good: Good) -> Bad:
    key = draw.choice(sorted(good))
    value = draw.choice(({"a": 1}, [[[]]], [{"a": {}}], 1e30, -1, True, [None], [1e30], "\x01", ["\ud800"], [True]))
    if isinstance(good[key], dict) or isinstance(value, type(good[key])):
        value = draw.choice((1e30, True, "text", [[]]))
    return raw(text({**good, key: value}))


def with_an_unknown_key(draw: Draw, good: Good) -> Bad:
    name = draw.choice([each for each in texts(300, seed=SEED) if each not in good])
    return raw(text({**good, name: draw.choice((1, None, [], {}))}))


def with_a_key_twice(draw: Draw, good: Good) -> Bad:
    key = draw.choice(sorted(good))
    return raw(text(good)[:-1] + f", {text(key)}: {text(draw.choice((good[key], None, [])))}}}")


def with_a_number_that_is_none(draw: Draw, good: Good) -> Bad:
    key = draw.choice(sorted(good))
    number = draw.choice(("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "+1", ".5", "1.", "0x1", "1_0"))
    return raw(text({**good, key: "HERE"}).replace('"HERE"', draw.choice((number, f"[{number}]"))))


def with_a_huge_number(draw: Draw, good: Good) -> Bad:
    key = draw.choice(sorted(good))
    digits = draw.choice(("9" * 400, "9" * 4_000, "1" + "0" * 100_000, "-" + "9" * 50, "1e30", "1E+308"))
    return raw(text({**good, key: "HERE"}).replace('"HERE"', digits))


def with_what_is_no_text(draw: Draw, good: Good) -> Bad:
    key = draw.choice(sorted(good))
    return raw(text({**good, key: draw.choice(("\0", "a\0b", "\ud800", "\udfff", "\ud800x"))}))


def nested_deeply(draw: Draw, good: Good) -> Bad:
    depth = draw.choice((100, 1_000, 50_000))
    opening, closing = draw.choice((("[", "]"), ('{"not":', "}"), ('{"any_of":[', "]}"), ('{"a":', "}")))
    inner = opening * depth + "1" + closing * depth
    return raw(text({**good, draw.choice(sorted(good)): "HERE"}).replace('"HERE"', f"[{inner}]"))


def with_very_many(draw: Draw, good: Good) -> Bad:
    item = draw.choice(("1", "{}", "[]", '"x"', "null"))
    many = "[" + ",".join([item] * draw.choice((1_001, 20_000, 150_000))) + "]"
    return raw(text({**good, draw.choice(sorted(good)): "HERE"}).replace('"HERE"', many))


def packed(draw: Draw, good: Good) -> Bad:
    pack = draw.choice((gzip.compress, zlib.compress))
    return raw(pack(text(good).encode()), **draw.choice(({}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "br"})))


def a_bomb(draw: Draw, good: Good) -> Bad:
    return raw(gzip.compress(b"[" * 5_000_000), **draw.choice(({}, {"Content-Encoding": "gzip"})))


def of_another_type(draw: Draw, good: Good) -> Bad:
    types = ("text/plain", "text/json", "multipart/form-data; boundary=x", "application/xml", "json", "*/*", "/", ";")
    return raw(text(good), **{"Content-Type": draw.choice((*types, "application/x-www-form-urlencoded", "x" * 2_000))})


def too_large(draw: Draw, good: Good) -> Bad:
    return raw(text(good) + " " * draw.choice((1_048_577, 3_000_000)))


def empty(draw: Draw, good: Good) -> Bad:
    return raw(draw.choice(("", " ", "\n", "\ufeff", "\0")))


KINDS: Sequence[Callable[[Draw, Good], Bad]] = (
    cut_off,
    with_a_stray_piece,
    of_broken_utf8,
    of_another_form,
    with_a_wrong_type,
    with_an_unknown_key,
    with_a_key_twice,
    with_a_number_that_is_none,
    with_a_huge_number,
    with_what_is_no_text,
    nested_deeply,
    with_very_many,
    packed,
    a_bomb,
    of_another_type,
    too_large,
    empty,
)


async def refused(api: httpx.AsyncClient, operation: Operation, asked: Asked, kind: str, **more: Any) -> None:
    began = time.perf_counter()
    response = await operation.ask(api, asked, **more)
    took_s = time.perf_counter() - began

    said = f"{operation.name} of {kind}: {response.status_code} {response.text[:300]}"
    if operation.name == "score_customers" and response.status_code == 200:  # it tells what is bad row by row
        assert all(row["errors"] for row in response.json()["data"]), said
        return
    assert 400 <= response.status_code < 500, said
    assert response.headers["content-type"] == PROBLEM, said
    assert response.json()["hint"], said
    assert len(response.content) < 20_000, said
    assert took_s < SOON_S, f"{said} in {took_s:.1f} s"


async def bodies_are_refused(api: httpx.AsyncClient, *, count: int) -> int:
    """Send bad bodies to every operation that takes one, kind after kind; returns how many."""
    draw = random.Random(SEED)
    taking = [operation for operation in served_contract().operations if operation.takes_a_body]
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        for operation in taking:
            example = operation.example
            assert example is not None
            content, headers = kind(draw, example.body)
            await refused(api, operation, example, kind.__name__, content=content, headers=headers)
    return count * len(taking)


async def parameters_are_refused(api: httpx.AsyncClient, *, count: int) -> None:
    """Send bad parameters to every operation: unknown ones, repeated ones, numbers that are none, texts too long."""
    draw = random.Random(SEED)
    unknown = [each for each in texts(count, seed=SEED) if each]
    for number in range(count):
        for operation in served_contract().operations:
            known = operation.parameters("query")
            queries: list[list[tuple[str, Any]]] = [[(f"{draw.choice(unknown)}~", draw.choice(unknown))]]
            for parameter in known:
                schema, name = parameter["schema"], parameter["name"]
                if schema.get("type") == "integer":
                    queries.append(
                        [(name, draw.choice(("", "x", "1.5", "1e3", "-1", "0", "NaN", "9" * 30, "\u0661", "0x1")))]
                    )
                elif "maxLength" in schema:
                    queries.append([(name, draw.choice(unknown)[:1] * (schema["maxLength"] + 1) or "x")])
                queries.append([(name, "1"), (name, "2")])
            query = queries[number % len(queries)]
            await refused(api, operation, operation.example or Asked(), f"parameter {query}"[:200], params=query)


async def test_a_hundred_bad_bodies_to_every_operation_are_refused(api: httpx.AsyncClient) -> None:
    assert await bodies_are_refused(api, count=102) >= 200


async def test_bad_parameters_to_every_operation_are_refused(api: httpx.AsyncClient) -> None:
    await parameters_are_refused(api, count=30)


@pytest.mark.full
@pytest.mark.timeout(3_600)
async def test_two_thousand_bad_bodies_to_every_operation_are_refused(api: httpx.AsyncClient) -> None:
    assert await bodies_are_refused(api, count=2_006) >= 4_000


@pytest.mark.full
@pytest.mark.timeout(3_600)
async def test_two_thousand_bad_parameters_to_every_operation_are_refused(api: httpx.AsyncClient) -> None:
    await parameters_are_refused(api, count=2_000)
