"""S10: exactly one audit record for each request whose answer was seen, through `kill -9` of the service."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.audit_store import AuditQuestion, AuditStore
from api.keys import ApiKeys
from api.state import open_state
from tests.conftest import Published
from tests.server import Server

CLIENTS = 8
GENDERS = ("F", "M")
LOCATIONS = ("California", "Chicago", "New York", "New Jersey", "Washington DC")
METRICS = ("total_revenue", "line_count", "average_order_value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, the ending that it must have, and what its record must say that it asked."""

    request_id: str
    method: str
    path: str
    status: int
    action: str
    what: dict[str, Any]
    body: Any = None
    has_key: bool = True


@dataclass
class Sent:
    """What became of the requests: the answers that were seen, and the requests that got none."""

    seen: dict[str, httpx.Response] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)


class Service(Server):
    """The service, with what it has recorded."""

    start_s = 180.0  # a machine that is busy with other tests has taken 70

    def records(self) -> list[dict[str, Any]]:
        """Every record, once all have been moved into the database."""
        deadline = time.monotonic() + 60
        while "insight_audit_backlog 0.0" not in httpx.get(f"{self.url}/metrics", timeout=30).text:
            assert time.monotonic() < deadline, "records are not moved"
            time.sleep(0.1)
        state = open_state(self.state_url)
        records = AuditStore(state).newest(AuditQuestion(), limit=1_000_000)
        state.dispose()
        return records


@contextmanager
def running(published: Published, folder: Path) -> Iterator[Service]:
    service = Service(published.settings.publication_dir, folder)
    service.start()
    try:
        yield service
    finally:
        service.kill()


def mixed(count: int, chance: random.Random) -> Iterator[Request]:
    """Requests of every kind: most are queries, which are answered from memory and from the warehouse."""
    kinds: tuple[Callable[[str, random.Random], Request], ...] = (_query, _query, _query, _query, _list, _refused)
    for number in range(count):
        yield chance.choice(kinds)(f"s10-{number}", chance)


def _query(request_id: str, chance: random.Random) -> Request:
    body: dict[str, Any] = {
        "metrics": chance.sample(METRICS, 2),
        "group_by": ["metric_time__month"],
        "where": [{"field": "customer__gender", "op": "eq", "values": [chance.choice(GENDERS)]}],
        "having": [{"field": "total_revenue", "op": "gt", "values": [chance.randrange(10)]}],
        "time_range": {"last": chance.randrange(1, 12), "unit": "month"},
        "limit": chance.randrange(1, 12),
    }
    body["metrics"] = sorted({*body["metrics"], "total_revenue"})
    what = body | {
        "where": body["where"][0],
        "having": body["having"][0],
        "time_range": {"count": body["time_range"]["last"], "unit": "month"},
    }
    return Request(
        request_id=request_id, method="POST", path="/v1/query", status=200, action="run_query", what=what, body=body
    )


def _list(request_id: str, chance: random.Random) -> Request:
    limit = chance.randrange(1, 50)
    return chance.choice(
        (
            Request(
                request_id=request_id,
                method="GET",
                path=f"/v1/metrics?limit={limit}",
                status=200,
                action="list_metrics",
                what={"limit": str(limit)},
            ),
            Request(
                request_id=request_id,
                method="GET",
                path="/v1/metrics/total_revenue",
                status=200,
                action="get_metric",
                what={"metric": "total_revenue"},
            ),
        )
    )


def _refused(request_id: str, chance: random.Random) -> Request:
    location = chance.choice(LOCATIONS)
    body = {"metrics": ["no_such"], "where": [{"field": "customer__location", "op": "in", "values": [location]}]}
    what = body | {"where": body["where"][0]}
    return chance.choice(
        (
            Request(
                request_id=request_id,
                method="POST",
                path="/v1/query",
                status=404,
                action="run_query",
                what=what,
                body=body,
            ),
            Request(
                request_id=request_id,
                method="GET",
                path="/v1/freshness",
                status=401,
                action="get_freshness",
                what={},
                has_key=False,
            ),
            Request(
                request_id=request_id,
                method="GET",
                path="/v1/nowhere",
                status=404,
                action="unknown",
                what={"method": "GET", "path": "/v1/nowhere"},
            ),
        )
    )


def send_all(service: Service, requests: list[Request], *, kills: int, chance: random.Random) -> Sent:
    """Send each request once, from several clients; meanwhile kill the service and start it again, that many times."""
    state = open_state(service.state_url)
    key = ApiKeys(state).create("s10", role="admin")
    state.dispose()
    sent, waiting, is_up = Sent(), iter(requests), threading.Event()
    lock = threading.Lock()
    is_up.set()

    def client() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as connection:
            while True:
                is_up.wait()
                with lock:
                    request = next(waiting, None)
                if request is None:
                    return
                headers = {"X-Request-Id": request.request_id}
                if request.has_key:
                    headers["Authorization"] = f"Bearer {key}"
                try:
                    response = connection.request(request.method, request.path, json=request.body, headers=headers)
                except httpx.HTTPError:
                    sent.lost.add(request.request_id)
                else:
                    sent.seen[request.request_id] = response

    marks = [len(requests) * (number + 1) // (kills + 1) for number in range(kills)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        running_clients = [clients.submit(client) for _ in range(CLIENTS)]
        try:
            for mark in marks:
                while len(sent.seen) + len(sent.lost) < mark:
                    time.sleep(0.001)
                time.sleep(chance.random() * 0.2)  # anywhere between two moves into the database
                is_up.clear()
                service.kill()
                service.start()
                is_up.set()
            for running_client in running_clients:
                running_client.result()
        finally:  # a service that does not start must not leave the clients waiting
            waiting = iter(())
            is_up.set()
    return sent


def check(records: list[dict[str, Any]], requests: list[Request], sent: Sent) -> None:
    counts = Counter(record["request_id"] for record in records)
    assert {name: count for name, count in counts.items() if count > 1} == {}
    assert set(sent.seen) - set(counts) == set()
    assert set(counts) <= {request.request_id for request in requests}
    asked = {request.request_id: request for request in requests}
    for record in records:
        request, response = asked[record["request_id"]], sent.seen.get(record["request_id"])
        if response is None:
            continue  # it was in flight when the service died
        assert response.status_code == request.status == record["status"], response.text
        assert (record["action"], record["what"]) == (request.action, request.what)
        assert record["decision"] == ("answered" if request.status == 200 else "refused")
        assert (record["principal_name"] == "s10") == (request.has_key and request.action != "unknown")
        if request.action == "run_query" and request.status == 200:
            meta = response.json()["meta"]
            assert (record["rows"], record["publication"]) == (meta["row_count"], meta["publication"])
            assert record["cache"] == meta["cache"]["result"]
            assert len(record["sql_hash"]) == 64


@pytest.mark.parametrize(
    ("count", "kills"),
    [(500, 1), pytest.param(10_000, 20, marks=(pytest.mark.full, pytest.mark.timeout(1_800)))],
)
def test_every_answer_that_was_seen_has_one_record(
    synthetic: Published, tmp_path: Path, count: int, kills: int
) -> None:
    chance = random.Random(10)
    requests = list(mixed(count, chance))
    with running(synthetic, tmp_path) as service:
        sent = send_all(service, requests, kills=kills, chance=chance)
        records = service.records()

    assert len(sent.seen) + len(sent.lost) == count
    assert len(sent.lost) <= CLIENTS * kills  # those in flight alone
    check(records, requests, sent)
