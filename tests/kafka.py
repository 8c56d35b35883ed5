"""A real Apache Kafka for tests, started on loopback and free ports: a pytest plugin, and what its fixtures stand on.

The jars come from Maven Central by Maven, once for a machine: they are kept in the user's cache, outside the tree.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from filelock import FileLock

from tests.services import free_port, required_binary

VERSION = "4.1.1"
PASSWORD = "canary-password-of-kafka"
"""Of the user `insight`, at the listener that asks for one (`servers_to_sign_in`, PLAIN)."""

_START_S = 60.0  # 3 to 6 s on an idle machine
_JARS_S = 600.0

_POM = f"""
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>insight.tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <!-- Kafka's own POM leaves them out. -->
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.24.3</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{signed_in},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{signed_in}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_insight="{password}";
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
log.dirs={data}
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
share.coordinator.state.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.num.partitions=3
transaction.state.log.min.isr=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=2097152
message.max.bytes=20971520
replica.fetch.max.bytes=20971520
socket.request.max.bytes=104857600
"""


class KafkaBroker:
    """A broker that a test may stop, kill and start again on the same ports, with what it had on disk."""

    def __init__(self, folder: Path) -> None:
        self._java = required_binary("java")
        self._classpath = f"{_jars()}/*"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap_servers = f"127.0.0.1:{free_port()}"
        self.servers_to_sign_in = f"127.0.0.1:{free_port()}"

    def start(self) -> None:
        """Return when it answers."""
        properties = self._folder / "server.properties"
        if not properties.exists():
            text = _PROPERTIES.format(
                port=self.bootstrap_servers.rpartition(":")[2],
                signed_in=self.servers_to_sign_in.rpartition(":")[2],
                password=PASSWORD,
                controller=free_port(),
                data=self._folder / "data",
            )
            properties.write_text(text)
            self._format(properties)
        heap = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        with (self._folder / "kafka.log").open("ab") as log:
            command = [self._java, *heap, "-cp", self._classpath, "kafka.Kafka", str(properties)]
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not asyncio.run(self._is_answering()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"Kafka did not start:\n{(self._folder / 'kafka.log').read_text()[-4_000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Return when it has ended in order. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Return when the process is gone, whatever it was doing. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def create_topic(self, name: str, *, partitions: int = 1, **config: str) -> None:
        """Return when the topic is there; a setting's dots are written as underscores."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        async with self._admin() as admin:
            topic = NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=settings)
            await admin.create_topics([topic])

    async def configure_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Return when the topic has these settings, and the broker's own for all others."""
        async with self._admin() as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(config))])

    async def add_partitions(self, name: str, total: int) -> None:
        """Return when the topic has so many partitions."""
        from aiokafka.admin.new_partitions import NewPartitions

        async with self._admin() as admin:
            await admin.create_partitions({name: NewPartitions(total)})

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=10_000)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    async def _is_answering(self) -> bool:
        host, _, port = self.bootstrap_servers.partition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                pass
            async with self._admin() as admin:
                return bool((await admin.describe_cluster())["brokers"])
        except (KafkaError, OSError):
            return False

    def _format(self, properties: Path) -> None:
        tool = [self._java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", self._classpath, "kafka.tools.StorageTool"]
        # Any 16 bytes in base64 are a cluster's id.
        command = [*tool, "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties), "--ignore-formatted"]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)


def _jars() -> Path:
    """The folder of Kafka's jars, fetched the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marketing-insight" / f"kafka-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):
        if not (cache / "complete").exists():
            maven = required_binary("mvn")
            (cache / "pom.xml").write_text(_POM)
            goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
            command = [maven, "-q", "-B", "-f", str(cache / "pom.xml"), goal, "-DincludeScope=runtime"]
            fetched = subprocess.run(
                [*command, f"-DoutputDirectory={cache / 'libs'}"],
                capture_output=True,
                text=True,
                timeout=_JARS_S,
                check=False,
            )
            if fetched.returncode:
                shutil.rmtree(cache / "libs", ignore_errors=True)
                _unavailable(f"Maven could not fetch Kafka: {fetched.stdout[-1_000:]}")
            (cache / "complete").touch()
    return cache / "libs"


def _unavailable(reason: str) -> None:
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{reason}, and REQUIRE_SERVICES=1")
    pytest.skip(reason)


@contextmanager
def running_kafka(folder: Path) -> Iterator[KafkaBroker]:
    """A broker for the length of the block; the test is skipped, or fails, where Java or Maven are missing."""
    broker = KafkaBroker(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """The broker of all tests of a process; each test makes topics of its own."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker
