"""S2: fuzzed names, wherever a name may stand: always refused, with a problem, never a crash.

A name that is none cannot be anything else than wrong, so the answer is a 4xx whatever it looks like. Operations are
found in the contract, so a new one is fuzzed without a word here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.api.hostile import texts
from tests.api.test_hostile_values import taking_filters
from tests.conftest import served_contract
from tests.contract.served import Asked, Operation

Body = dict[str, Any]

SEED = 2
LOOKALIKES = str.maketrans("aeiopcxs_t", "аеіорсхѕ＿т")  # noqa: RUF001 - Cyrillic, and a full-width underscore
FEMALE = {"field": "customer__gender", "op": "eq", "values": ["F"]}


def asking(**more: Any) -> Body:
    return {"metrics": ["line_count"], **more}


PLACES: Mapping[str, Callable[[str], Body]] = {
    "metric": lambda name: {"metrics": [name]},
    "one of two metrics": lambda name: {"metrics": ["line_count", name]},
    "group-by": lambda name: asking(group_by=[name]),
    "grain": lambda name: asking(group_by=[f"metric_time__{name}"]),
    "entity": lambda name: asking(group_by=[f"{name}__gender"]),
    "filter": lambda name: asking(where=[FEMALE | {"field": name}]),
    "filter within groups": lambda name: asking(where=[{"not": {"any_of": [FEMALE, FEMALE | {"field": name}]}}]),
    "operator": lambda name: asking(where=[FEMALE | {"op": name}]),
    "having": lambda name: asking(having=[{"field": name, "op": "gt", "values": [1]}]),
    "order": lambda name: asking(order_by=[{"field": name}]),
    "unit": lambda name: asking(time_range={"last": 1, "unit": name}),
    "preset": lambda name: asking(time_range={"preset": name}),
    "key": lambda name: asking(**{name: []}),
    "key of a filter": lambda name: asking(where=[FEMALE | {name: []}]),
    "dimension in a text": lambda name: asking(where=[f"{{{{ Dimension('{name}') }}}} = 'F'"]),
    "metric in a text": lambda name: asking(where=[f"{{{{ Metric('{name}') }}}} > 1"]),
}


@pytest.fixture(scope="module")
async def known(api: httpx.AsyncClient) -> frozenset[str]:
    """Every word that means something somewhere."""
    names = {item["name"] for item in (await api.get("/v1/metrics?limit=500")).json()["data"]}
    names |= {item["name"] for item in (await api.get("/v1/dimensions?limit=500")).json()["data"]}
    names |= {item["name"] for item in (await api.get("/v1/saved-queries")).json()["data"]}
    names |= {str(item["segment_id"]) for item in (await api.get("/v1/segments")).json()["data"]}
    names |= set(json.dumps(served_contract().document).replace('"', " ").split())
    return frozenset(names)


def names(count: int, known: frozenset[str]) -> Iterator[str]:
    """Hostile texts, and real names that were changed a little."""
    draw = random.Random(SEED)
    real = sorted(known)
    for number, text in enumerate(texts(count, seed=SEED, pieces=real)):
        name = text if number % 2 else _changed(draw, draw.choice(real), text)
        if name.strip("'\" ") not in known and "__" not in name.strip("_"):
            yield name


def _changed(draw: random.Random, real: str, text: str) -> str:
    place = draw.randrange(len(real) + 1)
    return draw.choice(
        (
            real + text,
            text + real,
            real[:place] + text + real[place:],
            real.upper() + " ",
            real.translate(LOOKALIKES),
            f"{real}') }}}} = 'F' OR {{{{ Dimension('customer",
            f"{real}; DROP TABLE marts.fct_sales",
            f"{real} AS x, *",
            f"marts.{real}",
            f'"{real}"',
        )
    )


async def refused(api: httpx.AsyncClient, operation: Operation, asked: Asked, name: str) -> None:
    response = await operation.ask(api, asked)

    assert 400 <= response.status_code < 500, f"{operation.name}: {name!r} is answered {response.text[:300]}"
    assert response.json()["hint"]


async def every_place_refuses(api: httpx.AsyncClient, known: frozenset[str], *, count: int) -> int:
    """Put each name in one place of every body, and in every path and list of names; returns how many were refused."""
    draw = random.Random(SEED)
    named = [each for each in served_contract().operations if each.parameters("path")]
    listing = [
        each
        for each in served_contract().operations
        if any(parameter["name"] == "metrics" for parameter in each.parameters("query"))
    ]
    tried = 0
    for name in names(count, known):
        place = draw.choice(list(PLACES))
        for operation in taking_filters():
            await refused(api, operation, Asked(body=PLACES[place](name)), name)
        if 0 < len(name) <= 300 and name not in (".", ".."):  # these two make another path (RFC 3986, 5.2.4)
            operation = draw.choice(named)
            path = {parameter["name"]: name for parameter in operation.parameters("path")}
            await refused(api, operation, Asked(path_parameters=path), name)
        if name.strip(", "):
            operation = draw.choice(listing)
            path = {"dimension": "customer__gender"} if operation.parameters("path") else {}
            await refused(api, operation, Asked(path_parameters=path, query={"metrics": name}), name)
        tried += 1
    return tried


async def test_a_thousand_names_are_refused_wherever_they_stand(api: httpx.AsyncClient, known: frozenset[str]) -> None:
    assert await every_place_refuses(api, known, count=1_400) >= 1_000


@pytest.mark.full
@pytest.mark.timeout(3_600)
async def test_ten_thousand_names_are_refused_wherever_they_stand(
    api: httpx.AsyncClient, known: frozenset[str]
) -> None:
    assert await every_place_refuses(api, known, count=14_000) >= 10_000
