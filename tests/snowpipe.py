"""An emulated Snowpipe Streaming beside the emulated account, for the real SDK: a process of its own, over TLS.

The SDK asks nobody but by https, and trusts what `SSL_CERT_FILE` names: so the endpoint has a certificate of its own.
docs/snowflake.md says what this cannot show.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.services import free_port
from tests.snowflake import SnowflakeEmulator

_START_S = 30.0


class SnowpipeEmulator:
    """A running emulator, in front of the databases of one emulated account."""

    def __init__(self, folder: Path, account: SnowflakeEmulator) -> None:
        self.port = free_port()
        self.account = account
        self.key_file = _write_key(folder / "user.p8")
        self.certificate_file, tls_key = _write_certificate(folder)
        self._log = folder / "snowpipe.log"
        command = [sys.executable, "-W", "ignore", "-m", "tests.snowpipe_server", str(self.port)]
        command += [str(self.certificate_file), str(tls_key), str(account.port), str(account.record)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=log, stderr=log)
        self._context = ssl.create_default_context(cafile=str(self.certificate_file))
        deadline = time.monotonic() + _START_S
        while not self._is_listening():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"the emulator did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    @property
    def environment(self) -> dict[str, str]:
        """What turns Snowpipe Streaming on for a process, beside INSIGHT_WAREHOUSE_URL."""
        return {
            "INSIGHT_SNOWFLAKE_STREAMING_URL": f"https://127.0.0.1:{self.port}",
            "INSIGHT_SNOWFLAKE_PRIVATE_KEY_FILE": str(self.key_file),
            "SSL_CERT_FILE": str(self.certificate_file),
        }

    def fail(self, **faults: object) -> None:
        """Have it do wrong what `tests.snowpipe_server.Faults` says, instead of what it did wrong before."""
        self._ask("/control/faults", faults)

    def invalidate_channels(self) -> None:
        """Have every channel be opened anew; rows that are not committed are gone."""
        self._ask("/control/invalidate", {})

    def forget_channels(self) -> None:
        """Have no channel, as where every pipe is made anew."""
        self._ask("/control/forget", {})

    def requests(self, path: str = "", *, method: str = "") -> list[dict[str, str]]:
        """What it was asked so far, where the path holds the text."""
        asked: list[dict[str, str]] = self._ask("/control/requests")
        return [each for each in asked if path in each["path"] and method in each["method"]]

    def stop(self) -> None:
        """Return when the process is gone, with everything it held. Idempotent."""
        self._process.kill()
        self._process.wait()

    def _ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", data=data)
        with urllib.request.urlopen(request, context=self._context, timeout=10) as answer:
            return json.load(answer)

    def _is_listening(self) -> bool:
        try:
            self._ask("/control/requests")
        except OSError:
            return False
        return True


@pytest.fixture(scope="session")
def snowpipe_of_session(
    tmp_path_factory: pytest.TempPathFactory, snowflake: SnowflakeEmulator
) -> Iterator[SnowpipeEmulator]:
    emulator = SnowpipeEmulator(tmp_path_factory.mktemp("snowpipe"), snowflake)
    # Before the SDK is loaded: it reads this once, for good.
    os.environ["SSL_CERT_FILE"] = str(emulator.certificate_file)
    yield emulator
    emulator.stop()
    del os.environ["SSL_CERT_FILE"]


@pytest.fixture
def snowpipe(snowpipe_of_session: SnowpipeEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnowpipeEmulator]:
    """The emulator of this test process, turned on for the test, doing nothing wrong."""
    for name, value in snowpipe_of_session.environment.items():
        monkeypatch.setenv(name, value)
    snowpipe_of_session.fail()
    yield snowpipe_of_session
    snowpipe_of_session.fail()


def _write_key(file: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(pem)
    return file


def _write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of loopback that signs itself, and its key."""
    key_file = _write_key(folder / "tls.key")
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "tls.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return file, key_file
