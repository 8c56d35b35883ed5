"""TLS without a proxy: one certificate for both ports of `insight serve`."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi

from tests import server as servers
from tests.api.clients.proxies import certified
from tests.conftest import Published
from tests.server import Serve, Server
from tests.services import free_port

serve = servers.serve


@pytest.fixture
def secured(serve: Serve, synthetic: Published, tmp_path: Path) -> Server:
    """A service with a certificate of its own."""
    certified(tmp_path)
    return serve(
        synthetic.settings.publication_dir,
        flight_port=free_port(),
        tls_cert_file=tmp_path / "fullchain.pem",
        tls_key_file=tmp_path / "key.pem",
    )


def test_both_ports_speak_tls_and_nothing_else(secured: Server, tmp_path: Path) -> None:
    key = secured.key()
    with secured.client(key) as client:
        answer = client.post("/graphql", json={"query": "{ metrics { name } }"}).json()
    shown = {
        DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {key}",
        DatabaseOptions.TLS_ROOT_CERTS.value: (tmp_path / "authority.pem").read_text(),
    }
    url = f"grpc+tls://127.0.0.1:{secured.flight_port}"
    with dbapi.connect(url, db_kwargs=shown, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("{{ semantic_layer.metrics() }}")
        flown = cursor.fetch_arrow_table().column("NAME").to_pylist()

    assert flown == [metric["name"] for metric in answer["data"]["metrics"]]
    assert f'"url":"{secured.url}"' in secured.log
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{secured.port}/readyz")


def test_a_certificate_that_is_none_stops_the_start_with_one_line(
    synthetic: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified(tmp_path)
    for name, file in {"CERT": "key.pem", "KEY": "fullchain.pem"}.items():  # the wrong way round
        monkeypatch.setenv(f"INSIGHT_TLS_{name}_FILE", str(tmp_path / file))
    monkeypatch.setenv("INSIGHT_PUBLICATION_DIR", str(synthetic.settings.publication_dir))
    monkeypatch.setenv("INSIGHT_STATE_URL", f"sqlite:///{tmp_path / 'state.db'}")

    done = subprocess.run(
        [servers.INSIGHT, "serve", "--port", str(free_port())], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert "INSIGHT_TLS_CERT_FILE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_whoever_never_shakes_hands_is_let_go(secured: Server) -> None:
    with socket.create_connection(("127.0.0.1", secured.port)) as silent:
        silent.settimeout(25)
        assert silent.recv(1) == b""
