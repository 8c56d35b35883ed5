"""Two replicas behind nginx, on one Redis and one PostgreSQL, are one service to whoever asks.

nginx has the file of `deploy/compose`, its addresses apart.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.keys import ApiKeys
from api.state import open_state
from tests.altered import altered_publication, sleeping
from tests.api.clients.proxies import wait_until_open
from tests.conftest import REPOSITORY, Published
from tests.faults import load, questions
from tests.server import Server
from tests.services import free_port, required_binary, running_postgres, running_redis

ALLOWED_A_MINUTE = 10
POLICY = f"""
version: 1
roles:
  admin:
    metrics: ["*"]
    dimensions: ["*"]
  limited:
    metrics: ["*"]
    dimensions: ["*"]
    requests_per_minute: {ALLOWED_A_MINUTE}
"""

# What Debian's nginx has no words for yet, and what is a matter of the place.
OWN_RESOLVER = re.compile(r"^ *resolver .*$", re.MULTILINE)
UPSTREAM = re.compile(r"^ *server api:(\d+) resolve (.*);$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The processes, and the address in front of them."""

    servers: tuple[Server, ...]
    url: str
    state_url: str

    def key(self, role: str = "admin") -> str:
        return self.servers[0].key(role, role=role)

    def client(self, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


@pytest.fixture(scope="module")
def replicas(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Both of them, over data whose sales take half a second to read."""
    folder = tmp_path_factory.mktemp("replicas")
    publications = altered_publication(synthetic, folder, sleeping(0.5))
    (folder / "policy.yml").write_text(POLICY)
    with ExitStack() as closing:
        redis = closing.enter_context(running_redis(folder))
        postgres = closing.enter_context(running_postgres())
        shared = {"redis_url": redis.url, "state_url": postgres.url, "policy_file": folder / "policy.yml"}
        servers = []
        for name in ("a", "b"):
            (home := folder / name).mkdir()
            server = Server(publications, home, **shared, audit_dir=home / "audit", stop_notice_s=1)
            closing.callback(server.kill)
            server.start()
            servers.append(server)
        url = closing.enter_context(balanced(folder, [server.port for server in servers]))
        yield Replicas(servers=tuple(servers), url=url, state_url=postgres.url)


@contextmanager
def balanced(folder: Path, ports: list[int]) -> Iterator[str]:
    """The address of an nginx in front of the ports, until the block ends."""
    http, flight = free_port(), free_port()
    text = (REPOSITORY / "deploy" / "compose" / "nginx.conf").read_text(encoding="utf-8")
    text = OWN_RESOLVER.sub("", UPSTREAM.sub(lambda found: own_upstream(found, ports), text))
    text = text.replace("listen 8000;", f"listen 127.0.0.1:{http};").replace("http2 on;", "")
    text = text.replace("listen 31337;", f"listen 127.0.0.1:{flight} http2;")
    scratch = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {", f"http {{ {scratch}", 1)
    user = "" if os.geteuid() else "user root;"  # else it could not enter the folder
    (folder / "nginx.conf").write_text(f"daemon off; pid {folder}/nginx.pid; error_log stderr; {user}\n{text}")
    with (folder / "nginx.log").open("wb") as log:
        command = [required_binary("nginx", "usr/sbin"), "-c", folder / "nginx.conf", "-p", folder]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until_open(http, process, folder / "nginx.log")
        yield f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def own_upstream(found: re.Match[str], ports: list[int]) -> str:
    # Nobody asks for Flight SQL here.
    return "".join(f"server 127.0.0.1:{port} {found[2]};\n" for port in (ports if found[1] == "8000" else ports[:1]))


@contextmanager
def both(replicas: Replicas, key: str) -> Iterator[tuple[httpx.Client, ...]]:
    """A client of each, past the balancer."""
    with ExitStack() as closing:
        yield tuple(closing.enter_context(server.client(key)) for server in replicas.servers)


def test_a_query_submitted_to_one_is_read_from_the_other(replicas: Replicas) -> None:
    with both(replicas, replicas.key()) as (one, other):
        location = one.post("/v1/queries", json=questions.sales()).headers["location"]
        deadline = time.monotonic() + 60
        while (told := other.get(location).json()["state"]) in ("queued", "running"):
            assert time.monotonic() < deadline, told
            time.sleep(0.1)

        assert told == "succeeded"
        assert other.get(f"{location}/results").json()["data"]


def test_a_key_revoked_through_one_is_refused_by_the_other_within_five_seconds(replicas: Replicas) -> None:
    key = replicas.key()
    with both(replicas, key) as clients:
        assert [client.get("/v1/entities").status_code for client in clients] == [200, 200]

        state = open_state(replicas.state_url)
        ApiKeys(state).revoke(key.split("_")[1])
        state.dispose()
        revoked_at = time.monotonic()
        while {client.get("/v1/entities").status_code for client in clients} != {401}:
            assert time.monotonic() - revoked_at < 5
            time.sleep(0.1)


async def test_a_question_asked_of_both_at_once_runs_once(replicas: Replicas) -> None:
    question, key = questions.sales(), replicas.key()

    async with replicas.client(key) as client:
        answers = await asyncio.gather(*(client.post("/v1/query", json=question) for _ in range(20)))

    origins = Counter(answer.json()["meta"]["cache"]["result"] for answer in answers)
    assert origins["miss"] == 1, origins
    assert len({str(answer.json()["data"]) for answer in answers}) == 1


async def test_an_allowance_is_one_over_both(replicas: Replicas) -> None:
    key = replicas.key("limited")
    await asyncio.sleep(max(0.0, 5 - (60 - time.time() % 60)))  # not across the end of a minute

    async with replicas.client(key) as client:
        statuses = Counter([(await client.get("/v1/entities")).status_code for _ in range(ALLOWED_A_MINUTE + 5)])

    assert statuses == {200: ALLOWED_A_MINUTE, 429: 5}


async def test_both_write_one_audit(replicas: Replicas) -> None:
    key = replicas.key()
    async with replicas.client(key) as client:
        answers = [await client.get("/v1/entities") for _ in range(10)]
        wanted = {answer.headers["x-request-id"] for answer in answers}
        deadline = time.monotonic() + 20
        while missing := wanted - audited(replicas):
            assert time.monotonic() < deadline, missing
            await asyncio.sleep(0.2)


def audited(replicas: Replicas) -> set[str]:
    state = open_state(replicas.state_url)
    with state.connect() as connection:
        found = {row[0] for row in connection.exec_driver_sql("SELECT request_id FROM audit")}
    state.dispose()
    return found


async def test_a_rolling_restart_under_load_fails_no_request(replicas: Replicas) -> None:
    ended = asyncio.Event()
    key = replicas.key()
    async with replicas.client(key) as client:
        asking = asyncio.create_task(load.at_a_rate([client], questions.marketing, per_s=20, until=ended))
        for server in replicas.servers:
            await asyncio.sleep(1)
            server.terminate()
            assert await asyncio.to_thread(server.process.wait, 40) == 0
            await asyncio.to_thread(server.start)
        await asyncio.sleep(1)
        ended.set()
        replies = await asking

    assert len(replies) > 50
    assert Counter(reply.status for reply in replies) == {200: len(replies)}


def test_the_edge_shows_no_series(replicas: Replicas) -> None:
    answers: list[Any] = [httpx.get(f"{replicas.url}{path}").status_code for path in ("/metrics", "/healthz")]

    assert answers == [404, 200]
