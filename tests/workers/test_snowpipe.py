"""Events through Snowpipe Streaming, by the real SDK and the emulator: the promises of transactions, by other means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization

from api.snowflake_account import SnowflakeAccount
from tests.conftest import REPOSITORY
from tests.services import free_port
from tests.sites import SnowflakeSite
from tests.snowflake import SnowflakeEmulator
from tests.snowpipe import SnowpipeEmulator
from tests.workers.test_sinks import price_events
from workers import snowpipe as snowpipe_module
from workers.errors import EventsLost, SettingError, WarehouseError
from workers.messages import NEWS
from workers.recordings import replay
from workers.sinks import EventSlice, EventWriter, Place, Warehouse, open_warehouse

BITCOIN: Place = ("bitcoin", 0)
COUNTED = "select count(*), count(distinct kafka_offset) from raw.bitcoin_events where kafka_topic = 'bitcoin'"


@pytest.fixture
def account(snowflake: SnowflakeEmulator, snowpipe: SnowpipeEmulator) -> SnowflakeSite:
    del snowpipe  # is turned on
    return SnowflakeSite(snowflake)


@pytest.fixture
def warehouse(account: SnowflakeSite) -> Iterator[Warehouse]:
    with open_warehouse(account.url) as opened:
        opened.ensure_raw_tables()
        yield opened


def persistently(writer: EventWriter, slices: list[EventSlice]) -> frozenset[Place]:
    """What the writer says when it does not refuse, as a consumer asks it; a few refusals at most."""
    for _ in range(5):
        try:
            return writer.store(slices)
        except WarehouseError:
            continue
    pytest.fail("it refuses for ever")


def test_rows_and_the_token_after_them_land_once(account: SnowflakeSite, warehouse: Warehouse) -> None:
    writer, before = warehouse.event_writer(), datetime.now(UTC).replace(tzinfo=None)

    first = [price_events(0, 3, start=None), price_events(5, 6, start=None, topic="b2")]
    assert writer.store(first) == set()
    assert writer.store([price_events(3, 7, start=3)]) == set()

    assert warehouse.event_offsets([BITCOIN, ("b2", 0), ("bitcoin", 1)]) == {BITCOIN: 7, ("b2", 0): 6}
    positions = [(each.topic, each.rows_loaded, each.rows_rejected) for each in warehouse.stream_positions()]
    assert positions == [("b2", 1, 1), ("bitcoin", 7, 2)]
    assert account.rows(COUNTED) == [(7, 7)]
    columns = "kafka_partition, message_key, schema_version, payload, event_at, loaded_at"
    for *row, loaded_at in account.rows(f"select {columns} from raw.bitcoin_events"):
        assert row == [0, None, 1, "{}", datetime(2019, 1, 1)]  # noqa: DTZ001 - UTC, as it is stored
        assert timedelta(0) <= loaded_at - before < timedelta(minutes=1)
    assert len(account.sent("COPY INTO")) == 0


def test_every_character_of_a_payload_arrives(account: SnowflakeSite, warehouse: Warehouse) -> None:
    said = json.dumps({"headline": "Bank's \"news\" \\ \n\t €\U0001f600 ' -- ; $1 {}"}, ensure_ascii=False)
    one = price_events(0, 1, start=None)
    rows = one.rows.set_column(one.rows.schema.get_field_index("payload"), "payload", [[said]])

    warehouse.event_writer().store([replace(one, rows=rows)])

    assert account.rows("select payload from raw.bitcoin_events") == [(said,)]


def test_messages_that_were_all_rejected_are_passed_and_leave_no_row(
    account: SnowflakeSite, warehouse: Warehouse
) -> None:
    writer = warehouse.event_writer()
    nothing = price_events(0, 0, start=None).rows
    slices = [
        EventSlice(
            topic="bitcoin", partition=0, start=None, end=4, event_table="bitcoin_events", rows=nothing, rejected=4
        )
    ]

    assert writer.store(slices) == set()
    assert warehouse.event_offsets([BITCOIN]) == {BITCOIN: 4}
    assert account.rows(COUNTED) == [(0, 0)]
    assert writer.store([price_events(4, 6, start=4)]) == set()
    assert [(each.rows_loaded, each.rows_rejected) for each in warehouse.stream_positions()] == [(2, 5)]


def test_a_writer_that_was_overtaken_writes_nothing_of_that_partition_and_all_of_the_others(
    account: SnowflakeSite, warehouse: Warehouse
) -> None:
    warehouse.event_writer().store([price_events(0, 5, start=None)])
    with open_warehouse(account.url) as other:
        late = [price_events(0, 3, start=None), price_events(0, 2, start=None, topic="b2")]

        assert other.event_writer().store(late) == {BITCOIN}
        assert other.event_writer().store([price_events(4, 9, start=4)]) == {BITCOIN}

        assert other.event_offsets([BITCOIN, ("b2", 0)]) == {BITCOIN: 5, ("b2", 0): 2}
    assert account.rows(COUNTED) == [(5, 5)]


def test_two_writers_that_believe_to_own_a_partition_lose_and_double_nothing(
    account: SnowflakeSite, warehouse: Warehouse
) -> None:
    with open_warehouse(account.url) as other:
        writers = [warehouse.event_writer(), other.event_writer()]
        # Each has the channel once, so that each is refused once, in the middle of what it believes.
        stale = [
            persistently(writers[turn % 2], [price_events(turn * 5, turn * 5 + 5, start=turn * 5 or None)])
            for turn in range(4)
        ]
        assert stale == [frozenset()] * 4

        def write(writer: EventWriter, *, first: int) -> bool:
            return not persistently(writer, [price_events(first, first + 5, start=first)])

        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(write, writer, first=20) for writer in writers]
            assert True in [each.result() for each in both]

    assert warehouse.event_offsets([BITCOIN]) == {BITCOIN: 25}
    assert account.rows(COUNTED) == [(25, 25)]


@pytest.mark.parametrize(
    "faults",
    [
        {"answers": [500]},
        {"answers": [503, 500]},
        {"answers": [429]},
        {"lost_answers": 1},
        {"delay_s": 2.0},
    ],
    ids=["an error", "two", "too busy", "an answer that is lost", "slow"],
)
def test_a_service_in_trouble_gets_each_row_once(
    faults: dict[str, object], account: SnowflakeSite, warehouse: Warehouse, snowpipe: SnowpipeEmulator
) -> None:
    writer = warehouse.event_writer()
    writer.store([price_events(0, 3, start=None)])
    snowpipe.fail(**faults)

    assert writer.store([price_events(3, 6, start=3)]) == set()

    assert account.rows(COUNTED) == [(6, 6)]


def test_a_channel_that_is_invalid_is_opened_anew_and_nothing_is_lost(
    account: SnowflakeSite, warehouse: Warehouse, snowpipe: SnowpipeEmulator
) -> None:
    writer = warehouse.event_writer()
    writer.store([price_events(0, 3, start=None)])
    snowpipe.invalidate_channels()

    with pytest.raises(WarehouseError, match="Snowpipe Streaming refused") as caught:
        writer.store([price_events(3, 6, start=3)])
    assert "sent again" in caught.value.hint
    assert writer.store([price_events(3, 6, start=3)]) == set()

    assert account.rows(COUNTED) == [(6, 6)]


def test_what_is_not_committed_in_time_is_waited_for_by_whoever_comes_next(
    account: SnowflakeSite, warehouse: Warehouse, snowpipe: SnowpipeEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snowpipe_module, "_COMMITTED_WITHIN", timedelta(seconds=1))
    writer = warehouse.event_writer()
    writer.store([price_events(0, 3, start=None)])
    snowpipe.fail(is_commit_held=True)

    with pytest.raises(WarehouseError, match="has not committed what was sent of bitcoin-0"):
        writer.store([price_events(3, 6, start=3)])
    assert account.rows(COUNTED) == [(3, 3)]
    with open_warehouse(account.url) as other, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(other.event_writer().store, [price_events(3, 6, start=3)])
        assert not waiting.done()
        snowpipe.fail()
        assert waiting.result() == {BITCOIN}  # it is there already

    assert warehouse.event_offsets([BITCOIN]) == {BITCOIN: 6}
    assert account.rows(COUNTED) == [(6, 6)]


def test_a_large_batch_goes_in_parts_and_goes_on_after_the_last_part_that_arrived(
    account: SnowflakeSite, warehouse: Warehouse, snowpipe: SnowpipeEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = price_events(0, 10, start=None)
    monkeypatch.setattr(snowpipe_module, "_PIECE_BYTES", batch.rows.nbytes // 3)
    snowpipe.fail(answers=[200, 400])
    writer = warehouse.event_writer()

    with pytest.raises(WarehouseError):
        writer.store([batch])
    assert persistently(writer, [batch]) == {BITCOIN}
    reached = warehouse.event_offsets([BITCOIN])[BITCOIN]
    assert 0 < reached < 10
    assert [(each.rows_loaded, each.rows_rejected) for each in warehouse.stream_positions()] == [(reached, 0)]
    assert writer.store([price_events(reached, 10, start=reached)]) == set()

    assert account.rows(COUNTED) == [(10, 10)]
    assert [(each.rows_loaded, each.rows_rejected) for each in warehouse.stream_positions()] == [(10, 1)]


def test_rows_that_snowflake_leaves_out_stop_every_consumer_until_an_operator_goes_on(
    account: SnowflakeSite, warehouse: Warehouse, snowpipe: SnowpipeEmulator
) -> None:
    warehouse.event_writer().store([price_events(0, 2, start=None)])
    snowpipe.fail(rows_refused=2)
    with pytest.raises(EventsLost, match="left out 2 rows of bitcoin-0") as caught:
        warehouse.event_writer().store([price_events(2, 5, start=2)])
    assert "insight stream skip bitcoin 0 5" in caught.value.hint
    with open_warehouse(account.url) as restarted:
        with pytest.raises(EventsLost, match="left out 2 rows of bitcoin-0"):
            restarted.event_writer().store([price_events(5, 6, start=5)])
        restarted.skip_to(BITCOIN, 5)
        assert restarted.event_writer().store([price_events(5, 6, start=5)]) == set()
    assert account.rows(COUNTED) == [(4, 4)]


def test_a_partition_that_transactions_began_goes_on_in_a_channel_and_only_there(
    account: SnowflakeSite, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.store_events([price_events(0, 5, start=None)])
    assert warehouse.event_offsets([BITCOIN]) == {BITCOIN: 5}

    assert warehouse.event_writer().store([price_events(5, 8, start=5)]) == set()

    assert [(each.next_offset, each.rows_loaded) for each in warehouse.stream_positions()] == [(8, 8)]
    monkeypatch.delenv("INSIGHT_SNOWFLAKE_STREAMING_URL")
    with open_warehouse(account.url) as transactions:
        for ask in (transactions.stream_positions, lambda: transactions.event_offsets([BITCOIN])):
            with pytest.raises(SettingError, match="bitcoin/0 is loaded by Snowpipe Streaming"):
                ask()
        assert transactions.store_events([price_events(5, 8, start=5)]) == {BITCOIN}
        transactions.skip_to(BITCOIN, 8)  # taken back
        assert transactions.store_events([price_events(8, 9, start=8)]) == set()
    assert warehouse.event_writer().store([price_events(9, 12, start=9)]) == set()  # and handed over again
    assert account.rows(COUNTED) == [(12, 12)]


@pytest.mark.parametrize("to", [100, 2])
def test_an_operator_may_go_on_at_an_offset_and_whoever_has_the_channel_hears_of_it(
    to: int, account: SnowflakeSite, warehouse: Warehouse
) -> None:
    writer = warehouse.event_writer()
    writer.store([price_events(0, 5, start=None)])
    with open_warehouse(account.url) as operator:
        operator.skip_to(BITCOIN, to)
        with pytest.raises(SettingError, match="bitcoin/1"):
            operator.skip_to(("bitcoin", 1), 5)

    assert persistently(writer, [price_events(5, 9, start=5)]) == {BITCOIN}

    assert warehouse.event_offsets([BITCOIN]) == {BITCOIN: to}
    assert [(each.rows_loaded, each.rows_rejected) for each in warehouse.stream_positions()] == [(5, 1)]


def test_a_channel_that_is_gone_begins_nothing_anew_before_an_operator_says_where(
    account: SnowflakeSite, warehouse: Warehouse, snowpipe: SnowpipeEmulator
) -> None:
    warehouse.event_writer().store([price_events(0, 5, start=None)])
    snowpipe.forget_channels()
    with open_warehouse(account.url) as restarted:
        with pytest.raises(EventsLost, match=r"The channel bitcoin-0, .* is gone") as caught:
            restarted.stream_positions()
        assert "insight stream skip bitcoin 0 OFFSET" in caught.value.hint
        with pytest.raises(EventsLost, match="is gone"):
            restarted.event_offsets([BITCOIN])
        with pytest.raises(EventsLost, match="is gone"):
            restarted.event_writer().store([price_events(0, 5, start=None)])
        restarted.skip_to(BITCOIN, 5)
    with open_warehouse(account.url) as restarted:
        assert restarted.event_offsets([BITCOIN]) == {BITCOIN: 5}
        assert restarted.event_writer().store([price_events(5, 7, start=5)]) == set()
    assert account.rows(COUNTED) == [(7, 7)]


def test_a_recording_stays_a_transaction(account: SnowflakeSite, warehouse: Warehouse, tmp_path: Path) -> None:
    article = {
        "title": "Prices rise",
        "url": "https://n.example/1",
        "source": {"name": "N"},
        "publishedAt": "2019-01-01T00:00:00Z",
    }
    file = tmp_path / "headlines.json"
    file.write_text(json.dumps({"status": "ok", "totalResults": 2, "articles": [article, {}]}))

    report = replay(file, NEWS, warehouse=warehouse)
    again = replay(file, NEWS, warehouse=warehouse)

    assert (report.loaded, report.rejected, again.loaded) == (1, 1, 0)
    assert len(account.sent("COPY INTO")) == 2  # the row, and what was rejected
    assert [each.rows_loaded for each in warehouse.stream_positions()] == [1]


def test_a_token_that_is_none_of_ours_is_a_clear_error(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = warehouse.event_writer()
    writer.store([price_events(0, 5, start=None)])
    with monkeypatch.context() as patched:
        patched.setattr(snowpipe_module, "_token", lambda _, *, refused: f"somebody's {refused}")
        writer.store([price_events(5, 6, start=5)])

    with pytest.raises(WarehouseError, match="an offset token that is none of ours") as caught:
        warehouse.stream_positions()
    assert "insight stream skip bitcoin 0 OFFSET" in caught.value.hint


def test_a_service_that_is_away_is_said_to_be(account: SnowflakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_STREAMING_URL", f"https://127.0.0.1:{free_port()}")
    with open_warehouse(account.url) as warehouse:
        warehouse.ensure_raw_tables()
        began = datetime.now(UTC)
        with pytest.raises(WarehouseError, match="Snowpipe Streaming refused"):
            warehouse.event_writer().store([price_events(0, 5, start=None)])
        assert datetime.now(UTC) - began < timedelta(seconds=20)
        assert warehouse.event_offsets([BITCOIN]) == {}


STORE_ONE = """
import os
from dataclasses import replace
from tests.workers.test_sinks import price_events
from workers.sinks import open_warehouse
one = price_events(0, 1, start=None)
rows = one.rows.set_column(one.rows.schema.get_field_index("payload"), "payload", [["canary-of-a-message"]])
with open_warehouse(os.environ["INSIGHT_WAREHOUSE_URL"]) as warehouse:
    warehouse.ensure_raw_tables()
    print("left out:", *warehouse.event_writer().store([replace(one, rows=rows)]))
"""


def test_no_secret_and_no_message_is_in_what_the_sdk_logs_at_its_most_talkative(
    account: SnowflakeSite, snowpipe: SnowpipeEmulator, tmp_path: Path
) -> None:
    key = serialization.load_pem_private_key(snowpipe.key_file.read_bytes(), password=None)
    passphrase, file = "canary-passphrase", tmp_path / "encrypted.p8"
    locked = serialization.BestAvailableEncryption(passphrase.encode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    file.write_bytes(pem)
    own = {
        "INSIGHT_WAREHOUSE_URL": account.url,
        "INSIGHT_SNOWFLAKE_PRIVATE_KEY_FILE": str(file),
        "INSIGHT_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": passphrase,
    }
    said = {}
    for level in ("trace", "error"):  # the second one comes too late
        environment = os.environ | own | {"SS_LOG_LEVEL": level}
        command = [sys.executable, "-W", "ignore", "-c", STORE_ONE]
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        said[level] = done.stdout + done.stderr
        assert done.stdout.startswith("left out:"), "answers stand alone on stdout"

    assert said["error"].count("\n") == 1
    assert "left out:\n" in said["trace"]
    assert "Flush completed" in said["trace"]
    unlocked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    canaries = [passphrase, "eyJ", "canary-of-a-message", *pem.decode().split()[3:9], *unlocked.decode().split()[3:9]]
    assert [each for each in canaries if each in said["trace"]] == []


@pytest.mark.parametrize(
    "url", ["http://h.example", "https://", "https://u:secret@h.example", "https://h.example/path", "h.example"]
)
def test_an_address_that_is_no_https_url_of_a_host_is_refused_without_repeating_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_PRIVATE_KEY_FILE", "/run/secrets/insight.p8")
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_STREAMING_URL", url)
    with pytest.raises(SettingError, match="STREAMING_URL") as caught:
        open_warehouse("snowflake://u@org-account/D")
    assert "secret" not in caught.value.message


def test_without_a_key_pair_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_STREAMING_URL", "https://h.example")
    with pytest.raises(SettingError, match="STREAMING_URL needs PRIVATE_KEY_FILE"):
        open_warehouse("snowflake://u@org-account/D")


def test_the_sdk_is_told_of_the_account_what_the_connector_is(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "STREAMING_URL": "https://org-account.privatelink.snowflakecomputing.com",
        "PRIVATE_KEY_FILE": "/run/secrets/insight.p8",
        "PRIVATE_KEY_PASSPHRASE": "canary",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"INSIGHT_SNOWFLAKE_{name}", value)
    account = SnowflakeAccount.of(sa.make_url("snowflake://LOADER_1@org-account/D?warehouse=W&role=INSIGHT_LOADER"))

    assert account.streaming_properties() == {
        "account": "org-account",
        "user": "LOADER_1",
        "role": "INSIGHT_LOADER",
        "url": "https://org-account.privatelink.snowflakecomputing.com",
        "scheme": "https",
        "host": "org-account.privatelink.snowflakecomputing.com",
        "port": "443",
        "private_key_file": "/run/secrets/insight.p8",
        "private_key_passphrase": "canary",
    }
