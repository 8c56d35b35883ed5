"""Which changes of segments are told, whatever was published meanwhile and whenever a process dies; without a Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from workers.announcing import Announcements, Changes, announce
from workers.broker import Broker
from workers.duckdb_build import DuckDbBuild
from workers.messages import SEGMENT_CHANGED, encode
from workers.publish import PublicationStore
from workers.sending import Sender
from workers.stream_settings import StreamSettings

# Each version's data are in its own folder; what was built is of no interest.
DATABASE = DuckDbBuild(Path("nothing-is-built-here.duckdb"))

Publish = Callable[[Mapping[int, int]], str]

NAMES = ("Champions", "Loyal Customers", "Big Spenders", "Occasional Shoppers", "At-Risk")


@pytest.fixture
def store(tmp_path: Path) -> PublicationStore:
    return PublicationStore(tmp_path / "publications", keep=2)


@pytest.fixture
def publish(store: PublicationStore) -> Publish:
    """Makes a publication current that has customers in these segments, and nothing else."""
    count = 0

    def made(placed: Mapping[int, int]) -> str:
        nonlocal count
        count += 1
        version = f"2019123{count}T000000Z-00000{count}"
        folder = store.root / version
        folder.mkdir(parents=True)
        with duckdb.connect(folder / "data.duckdb") as connection:
            connection.execute("create schema marts")
            connection.execute("create table marts.fct_customer_segments (customer_id bigint, segment_id integer)")
            for row in placed.items():
                connection.execute("insert into marts.fct_customer_segments values (?, ?)", row)
        segments = [{"segment_id": number, "name": name} for number, name in enumerate(NAMES)]
        (folder / "segments.json").write_text(json.dumps({"segments": segments}))
        record = {"version": version, "created_at": "2020-01-01T00:00:00Z", "as_of": "2019-12-31"}
        counts = {"data_through": "2019-12-31", "tables": {}, "tests_passed": 0, "tests_warned": 0}
        (folder / "publication.json").write_text(json.dumps(record | counts | {"fingerprint": "", "sources": []}))
        (store.root / "current").write_text(version)
        return version

    return made


def messages(changes: Changes | None) -> list[dict[str, Any]]:
    assert changes is not None
    return [json.loads(message.value) for message in changes.messages()]


def moves(changes: Changes | None) -> list[tuple[int, str | None, str | None]]:
    return [(each["customer_id"], each["previous_segment"], each["segment"]) for each in messages(changes)]


def test_nothing_is_told_before_anything_is_published(store: PublicationStore) -> None:
    assert Announcements(store, DATABASE).pending() is None


def test_the_first_look_tells_of_nobody_and_the_next_one_of_who_moved(
    store: PublicationStore, publish: Publish
) -> None:
    publish({1: 4, 2: 1})
    assert Announcements(store, DATABASE).pending() is None

    version = publish({1: 0, 2: 1, 3: 3})

    changes = Announcements(store, DATABASE).pending()
    assert moves(changes) == [(1, "At-Risk", "Champions"), (3, None, "Occasional Shoppers")]
    assert [each["event_id"] for each in messages(changes)] == [f"{version}:1", f"{version}:3"]
    assert messages(changes)[0]["as_of"] == "2019-12-31"


def test_what_was_not_taken_for_told_is_told_again_with_the_same_ids(store: PublicationStore, publish: Publish) -> None:
    publish({1: 4})
    Announcements(store, DATABASE).pending()
    publish({1: 0})

    first = messages(Announcements(store, DATABASE).pending())  # and then the process dies
    publish({1: 2})
    again = Announcements(store, DATABASE).pending()

    assert messages(again) == first
    assert again is not None
    Announcements(store, DATABASE).told(again)
    assert moves(Announcements(store, DATABASE).pending()) == [(1, "Champions", "Big Spenders")]


def test_a_kill_between_what_was_told_and_what_is_pending_tells_again_and_then_no_more(
    store: PublicationStore, publish: Publish
) -> None:
    publish({1: 4})
    Announcements(store, DATABASE).pending()
    publish({1: 0})
    changes = Announcements(store, DATABASE).pending()
    assert changes is not None
    kept = (store.root.with_name("segment_changes") / "pending.json").read_text()
    Announcements(store, DATABASE).told(changes)
    (store.root.with_name("segment_changes") / "pending.json").write_text(kept)

    again = Announcements(store, DATABASE).pending()
    assert messages(again) == messages(changes)
    assert again is not None
    Announcements(store, DATABASE).told(again)

    assert Announcements(store, DATABASE).pending() is None


def test_steps_that_nobody_was_told_of_become_one_and_those_that_were_undone_none(
    store: PublicationStore, publish: Publish
) -> None:
    publish({1: 4, 2: 1, 3: 2})
    Announcements(store, DATABASE).pending()
    publish({1: 3, 2: 0, 3: 2})
    publish({1: 0, 2: 1})

    changes = Announcements(store, DATABASE).pending()

    assert moves(changes) == [(1, "At-Risk", "Champions"), (3, "Big Spenders", None)]


def test_a_publication_in_which_nobody_moved_tells_nothing(store: PublicationStore, publish: Publish) -> None:
    publish({1: 4})
    Announcements(store, DATABASE).pending()
    publish({1: 4})

    assert Announcements(store, DATABASE).pending() is None


async def test_two_do_not_tell_at_once(store: PublicationStore, publish: Publish) -> None:
    publish({1: 4})
    Announcements(store, DATABASE).pending()
    publish({1: 0})
    sender = Sender(Broker(StreamSettings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:1")))

    with Announcements(store, DATABASE).lock:
        assert await announce(Announcements(store, DATABASE), sender) == 0

    assert Announcements(store, DATABASE).pending() is not None


def test_a_change_has_the_customer_for_its_key_and_the_version_in_a_header(
    store: PublicationStore, publish: Publish
) -> None:
    publish({12: 4})
    Announcements(store, DATABASE).pending()
    publish({12: 0})
    changes = Announcements(store, DATABASE).pending()
    assert changes is not None

    (message,) = changes.messages()

    assert (message.topic, message.key, message.headers) == ("segment_changed", b"12", (("schema_version", b"1"),))
    assert encode(SEGMENT_CHANGED.schemas[1].model_validate_json(message.value), SEGMENT_CHANGED) == message
