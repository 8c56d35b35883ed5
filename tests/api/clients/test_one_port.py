"""REST, GraphQL and Flight SQL on one TLS port, behind the proxies that docs/deploy-tls.md describes."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from pyarrow import flight

from tests.api.clients.proxies import Proxy, proxying
from tests.server import Server, trusting
from tests.services import free_port

WALK = Path(__file__).with_name("sdk_walk.py")
REVENUE = {"metrics": ["total_revenue"]}
BY_PLACE = {**REVENUE, "group_by": ["customer__location"], "order_by": [{"field": "customer__location"}]}
Told = dict[str, Any]


@pytest.fixture(scope="module", params=["nginx", "envoy"])
def proxy(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Either proxy, in front of the running service."""
    folder = tmp_path_factory.mktemp(request.param)
    with proxying(request.param, folder, http_port=server.port, flight_port=server.flight_port) as running:
        yield running


def walked(key: str, **environment: str) -> Told:
    """What dbt's SDK is told at every step, in a process with that environment."""
    done = subprocess.run(
        [sys.executable, WALK],
        env=os.environ | environment | {"INSIGHT_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: Told = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def direct(server: Server, key: str) -> Told:
    """What the SDK is told without a proxy, over two ports and without TLS."""
    return walked(
        key,
        DBT_SL_GRAPHQL_URL_FORMAT=f"http://{{server_host}}:{server.port}/api/graphql",
        DBT_SL_ADBC_URL_FORMAT=f"grpc://{{server_host}}:{server.flight_port}",
    )


@pytest.fixture(scope="module")
def proxied(proxy: Proxy, key: str) -> Told:
    """What it is told on the one port, which it trusts by its environment."""
    return walked(
        key,
        DBT_SL_GRAPHQL_URL_FORMAT=f"https://{{server_host}}:{proxy.port}/api/graphql",
        DBT_SL_ADBC_URL_FORMAT=f"grpc+tls://{{server_host}}:{proxy.port}",
        SSL_CERT_FILE=str(proxy.authority),
        REQUESTS_CA_BUNDLE=str(proxy.authority),
    )


def client(proxy: Proxy, key: str) -> httpx.Client:
    url = f"https://127.0.0.1:{proxy.port}"
    return httpx.Client(
        base_url=url, verify=trusting(proxy.authority), headers={"Authorization": f"Bearer {key}"}, timeout=60
    )


def without_ids(text: str) -> str:
    return text.partition("request_id")[0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_sdk_is_told_what_it_is_told_without_a_proxy(direct: Told, proxied: Told, kind: str) -> None:
    for step, answer in direct[kind].items():
        if isinstance(answer, str):
            assert without_ids(proxied[kind][step]) == without_ids(answer), step
        else:
            assert proxied[kind][step] == answer, step


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_sdk_is_told_what_there_is(direct: Told, server: Server, key: str, kind: str) -> None:
    told = direct[kind]
    with server.client(key) as rest:
        rows = rest.post("/v1/query", json=BY_PLACE).json(parse_float=Decimal)["data"]
        lines = rest.post("/v1/query", json={"metrics": ["line_count", "total_revenue"]}).json(parse_float=Decimal)
        metrics = rest.get("/v1/metrics", params={"limit": 500}).json()["data"]
        places = rest.get("/v1/dimensions/customer__location/values").json()["data"]

    assert set(direct["methods"]) <= told.keys()  # every public method is called
    assert told["metrics"] == [item["name"] for item in metrics]
    assert told["query"]["customer__location"] == [row["customer__location"] for row in rows]
    assert [Decimal(each) for each in told["query"]["total_revenue"]] == [row["total_revenue"] for row in rows]
    assert told["dimension_values"] == {"customer__location": places}
    (totals,) = lines["data"]
    assert told["every line"][0] == totals["line_count"]
    assert Decimal(told["every line"][1]) == totals["total_revenue"]
    assert told["environment_info"].endswith("DUCKDB")
    assert "customer__location" in told["dimensions"]
    assert "revenue_by_month" in told["saved_queries"]
    assert all((told["entities"], told["measures"], told["compile_sql"]))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_sdk_raises_the_errors_that_are_its_own(proxied: Told, kind: str) -> None:
    assert proxied[kind]["misspelt"].startswith("QueryFailedError")
    assert "Did you mean total_revenue" in proxied[kind]["misspelt"]
    assert proxied[kind]["long error"].startswith("QueryFailedError")
    assert "unknown_query" in proxied[kind]["cancel_query"]
    assert proxied[kind]["metrics of a stranger"].startswith("AuthError")
    assert proxied[kind]["query of a stranger"].startswith("AuthError")


def test_rest_and_flight_answer_on_the_same_port(proxy: Proxy, key: str) -> None:
    options = {
        DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {key}",
        DatabaseOptions.TLS_ROOT_CERTS.value: proxy.authority.read_text(),
    }
    url = f"grpc+tls://127.0.0.1:{proxy.port}"
    with dbapi.connect(url, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT customer_location, SUM(total_revenue) FROM ALL GROUP BY 1 ORDER BY 1")
        flown = cursor.fetchall()
    with client(proxy, key) as rest:
        rows = rest.post("/v1/query", json=BY_PLACE).json(parse_float=Decimal)["data"]
        assert rest.get("/readyz").status_code == 200
        exported = rest.post("/v1/query", json={**REVENUE, "group_by": ["sale"]}, headers={"Accept": "text/csv"})

    assert flown == [(row["customer__location"], row["total_revenue"]) for row in rows]
    assert exported.text.count("\n") > 5_000


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics?x=1", "//metrics", "/v1/../metrics", "/%6Detrics", "/./metrics/"]
)
def test_what_is_not_for_callers_is_not_there(proxy: Proxy, path: str) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=trusting(proxy.authority), timeout=30)
    connection.request("GET", path)  # as it is: other clients would tidy it up

    assert connection.getresponse().status == 404
    connection.close()


def test_the_certificate_is_checked(proxy: Proxy, key: str) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://127.0.0.1:{proxy.port}/readyz")
    shown = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {key}"}
    url = f"grpc+tls://127.0.0.1:{proxy.port}"
    with (
        dbapi.connect(url, db_kwargs=shown, autocommit=True) as connection,
        connection.cursor() as cursor,
        pytest.raises(dbapi.Error, match="certificate"),
    ):
        cursor.execute("SELECT total_revenue FROM ALL")


@pytest.mark.parametrize("kind", ["nginx", "envoy"])
def test_a_service_that_is_away_is_unavailable(kind: str, tmp_path: Path) -> None:
    with proxying(kind, tmp_path, http_port=free_port(), flight_port=free_port()) as alone:
        trust = alone.authority.read_bytes()
        over_grpc = flight.FlightClient(f"grpc+tls://127.0.0.1:{alone.port}", tls_root_certs=trust)
        with over_grpc, pytest.raises(flight.FlightUnavailableError):
            over_grpc.get_flight_info(flight.FlightDescriptor.for_command(b""))
        with client(alone, "none") as rest:
            assert rest.get("/readyz").status_code in (502, 503)
