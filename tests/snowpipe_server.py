"""The process of the emulated Snowpipe Streaming: the REST endpoints that the SDK asks, over TLS; see `tests.snowpipe`.

Rows that were appended wait here until they are committed: then they go through the pipe's own SELECT, as it was sent
to the emulated account, into the pipe's table there. What a test may have it do wrong is in `Faults`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pyarrow as pa
import uvicorn
from snowflake.connector import connect
from snowflake.connector.errors import ProgrammingError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

_PIPE = re.compile(
    r"create pipe if not exists (?P<pipe>\S+) as copy into (?P<table>\S+) \((?P<columns>.+?)\) from \("
    r"select (?P<values>.+) from table\(data_source\(type => 'streaming'\)\) where (?P<condition>.+)\)",
    re.IGNORECASE | re.DOTALL,
)
_COMMIT_EVERY_S = 0.1
_HOUR_S = 3600


@dataclass
class Faults:
    """What it does wrong, until told otherwise."""

    answers: list[int] = field(default_factory=list)  # to the next appends, of which nothing is kept
    lost_answers: int = 0  # of so many appends, which are kept
    delay_s: float = 0.0  # of every append
    is_commit_held: bool = False
    rows_refused: int = 0  # of the next commit, as where a row does not fit: the token passes them


@dataclass
class Channel:
    """One channel. Who opens it has it: the sequencer in a continuation token says who that was."""

    sequencer: int = 0
    row_sequencer: int = 0
    token: str | None = None
    pending: list[tuple[str, list[str]]] = field(default_factory=list)
    is_valid: bool = True
    rows_inserted: int = 0
    rows_parsed: int = 0
    rows_refused: int = 0
    opened: int = 0

    @property
    def continuation(self) -> str:
        return f"{self.sequencer}_{self.row_sequencer}"


class Service:
    """The endpoints, and what lies behind them."""

    def __init__(self, *, account_port: int, record: Path) -> None:
        self._account_port = account_port
        self._record = record
        self._channels: dict[tuple[str, str, str], Channel] = {}
        self._faults = Faults()
        self._asked: list[dict[str, str]] = []

    def routes(self) -> list[Route]:
        pipe = "/v2/streaming/databases/{database}/schemas/{schema}/pipes/{pipe}"
        data = "/v2/streaming/data/databases/{database}/schemas/{schema}/pipes/{pipe}"
        return [
            Route("/v2/streaming/hostname", self.hostname),
            Route("/oauth/token", self.token, methods=["POST"]),
            Route(f"{pipe}/channels/{{channel:path}}", self.open_channel, methods=["PUT"]),
            Route(f"{data}/channels/{{channel:path}}/rows", self.append, methods=["POST"]),
            Route(f"{pipe}:bulk-channel-status", self.statuses, methods=["POST"]),
            Route(f"{pipe}:pipe-info", self.pipe_info, methods=["POST"]),
            Route("/control/faults", self.fail, methods=["POST"]),
            Route("/control/invalidate", self.invalidate, methods=["POST"]),
            Route("/control/forget", self.forget, methods=["POST"]),
            Route("/control/requests", self.requests),
        ]

    async def hostname(self, request: Request) -> Response:
        self._note(request)
        return PlainTextResponse(str(request.url.hostname))

    async def token(self, request: Request) -> Response:
        self._note(request)
        claims = jwt.decode(_bearer(request), options={"verify_signature": False})
        if not re.fullmatch(r"EMULATED\.TESTER\.SHA256:.+", claims["iss"]):
            return _refused(401, "ERR_JWT", "this key is nobody's")
        scoped = {"iss": "emulated", "iat": int(time.time()), "exp": int(time.time()) + _HOUR_S}
        return PlainTextResponse(jwt.encode(scoped, "canary-of-the-scoped-token-0123456789", algorithm="HS256"))

    async def pipe_info(self, request: Request) -> Response:
        """Where large batches go, past this service: the SDK wants to know before it begins. Ours are small."""
        self._note(request)
        if self._pipe(request) is None:
            return _refused(404, "ERR_PIPE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", "no such pipe")
        stage = {
            "expiry_time_ms": int(time.time() + _HOUR_S) * 1000,
            "location_type": "S3",
            "location": "bucket/streaming/",
            "use_s3_regional_url": False,
            "region": "us-east-1",
            "storage_account": None,
            "bucket_name": "bucket",
            "path_prefix": "streaming/",
            "creds": {"AWS_KEY_ID": "none", "AWS_SECRET_KEY": "none", "AWS_TOKEN": "none"},
            "parameters": {
                "max_client_lag_seconds": 1,
                "rowset_flush_threshold_kb": 4_096,
                "max_buffered_kb_for_rowset_mode": 60_000,
                "rowset_threshold_lookback_seconds": 10,
                "rowset_threshold_ewma_weight": 50,
                "target_file_size_compressed_mb": 16,
                "cpu_throttle_high_watermark_percent": 100,
                "cpu_throttle_low_watermark_percent": 99,
                "mem_throttle_high_watermark_percent": 100,
                "mem_throttle_low_watermark_percent": 99,
            },
        }
        key = base64.b64encode(bytes(16)).decode()
        return JSONResponse(
            {
                "rowset_stage_location": stage,
                "durable_stage_location": stage,
                "encryption_info": {"pipe_key": key, "pipe_key_id": 1, "diversifier": "none"},
                "parameter_overrides": {},
            }
        )

    async def open_channel(self, request: Request) -> Response:
        self._note(request)
        if self._pipe(request) is None:
            return _refused(404, "ERR_PIPE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", "no such pipe")
        asked = json.loads(await request.body() or b"{}")
        place = _place(request)
        channel = self._channels.setdefault(place, Channel())
        if channel.pending and asked.get("fail_on_uncommitted_rows"):
            return _refused(409, "ERR_CHANNEL_HAS_UNCOMMITTED_DATA", "the channel has uncommitted rows")
        channel.pending.clear()
        channel.sequencer += 1
        channel.row_sequencer = 0
        channel.opened += 1
        channel.is_valid = True
        channel.token = asked.get("offset_token") or channel.token
        status = _status(place, channel)
        return JSONResponse({"next_continuation_token": channel.continuation, "channel_status": status})

    async def append(self, request: Request) -> Response:
        self._note(request)
        await asyncio.sleep(self._faults.delay_s)
        if self._faults.answers and (code := self._faults.answers.pop(0)) != 200:
            return _refused(code, "ERR_OF_THE_TEST", "as the test wants it")
        channel = self._channels.get(_place(request))
        if channel is None or not channel.is_valid:
            return _refused(409, "ERR_CHANNEL_MUST_BE_REOPENED", "open the channel anew")
        sequencer, row_sequencer = map(int, request.query_params["continuationToken"].split("_"))
        if sequencer != channel.sequencer:
            return _refused(400, "STALE_CONTINUATION_TOKEN_SEQUENCER", "somebody else has opened the channel")
        if row_sequencer == channel.row_sequencer:  # else it is asked again, as the answer was lost
            body = await _unpacked(request)
            rows = [line for line in body.decode().split("\n") if line]
            channel.pending.append((request.query_params["endOffsetToken"], rows))
            channel.row_sequencer += 1
        if self._faults.lost_answers:
            self._faults.lost_answers -= 1
            return _refused(503, "ERR_OF_THE_TEST", "the answer is lost")
        return JSONResponse({"next_continuation_token": channel.continuation})

    async def statuses(self, request: Request) -> Response:
        self._note(request)
        database, schema, pipe = (request.path_params[each] for each in ("database", "schema", "pipe"))
        names = json.loads(await request.body())["channel_names"]
        places = {name: (f"{database}.{schema}".upper(), pipe.upper(), name) for name in names}
        known = {name: self._channels[place] for name, place in places.items() if place in self._channels}
        return JSONResponse({"channel_statuses": {name: _status(places[name], each) for name, each in known.items()}})

    async def fail(self, request: Request) -> Response:
        self._faults = Faults(**json.loads(await request.body()))
        return JSONResponse(asdict(self._faults))

    async def invalidate(self, _: Request) -> Response:
        for channel in self._channels.values():
            channel.is_valid = False
            channel.pending.clear()
        return JSONResponse({})

    async def forget(self, _: Request) -> Response:
        self._channels.clear()
        return JSONResponse({})

    async def requests(self, _: Request) -> Response:
        return JSONResponse(self._asked)

    async def commit_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY_S)
            for place, channel in list(self._channels.items()):
                if channel.pending and not self._faults.is_commit_held:
                    batches = list(channel.pending)
                    rows = [row for _, batch in batches for row in batch]
                    refused, self._faults.rows_refused = self._faults.rows_refused, 0
                    try:
                        kept = await asyncio.to_thread(self._insert, place, rows[refused:])
                    except ProgrammingError:  # a key that is there already: DuckDB enforces what Snowflake does not
                        kept, refused = 0, len(rows)
                    channel.token = batches[-1][0]
                    channel.rows_parsed += len(rows)
                    channel.rows_inserted += kept
                    channel.rows_refused += refused
                    del channel.pending[: len(batches)]

    def _insert(self, place: tuple[str, str, str], rows: list[str]) -> int:
        """How many rows the pipe let pass."""
        schema, pipe, _ = place
        found = self._definition(schema.partition(".")[0], pipe)
        assert found is not None
        lines = ", ".join("('" + row.replace("\\", "\\\\").replace("'", "''") + "')" for row in rows)
        source = f"(select parse_json(column1) as record from values {lines})"
        values, condition = (found[each].replace("$1", "record") for each in ("values", "condition"))
        sql = f"insert into {found['table']} ({found['columns']}) select {values} from {source} where {condition}"
        with connect(
            user="tester",
            password="not-a-secret",
            account="emulated",
            host="127.0.0.1",
            port=self._account_port,
            protocol="http",
            database=schema.partition(".")[0],
            schema="PUBLIC",
        ) as session:
            cursor = session.cursor()
            if rows:
                cursor.execute(sql)
            return int(cursor.rowcount or 0) if rows else 0

    def _pipe(self, request: Request) -> re.Match[str] | None:
        return self._definition(request.path_params["database"], request.path_params["pipe"])

    def _definition(self, database: str, pipe: str) -> re.Match[str] | None:
        for line in self._record.read_text(encoding="utf-8").splitlines():
            sent = json.loads(line)
            made = _PIPE.match(sent["sql"].strip()) if (sent["database"] or "").upper() == database.upper() else None
            if made is not None and made["pipe"].rpartition(".")[2].upper() == pipe.upper():
                return made
        return None

    def _note(self, request: Request) -> None:
        self._asked.append({"method": request.method, "path": request.url.path, "query": request.url.query})


def _place(request: Request) -> tuple[str, str, str]:
    path = request.path_params
    return f"{path['database']}.{path['schema']}".upper(), path["pipe"].upper(), path["channel"]


def _status(place: tuple[str, str, str], channel: Channel) -> dict[str, Any]:
    schema, pipe, name = place
    return {
        "database_name": schema.partition(".")[0],
        "schema_name": schema.partition(".")[2],
        "pipe_name": pipe,
        "channel_name": name,
        "channel_status_code": "SUCCESS" if channel.is_valid else "ERR_CHANNEL_MUST_BE_REOPENED",
        "last_committed_offset_token": channel.token,
        "created_on_ms": 1,
        "rows_inserted": channel.rows_inserted,
        "rows_parsed": channel.rows_parsed,
        "rows_error_count": channel.rows_refused,
        "last_error_offset_upper_bound": channel.token if channel.rows_refused else None,
        "last_error_message": "a row does not fit" if channel.rows_refused else None,
        "last_error_timestamp_ms": None,
        "snowflake_avg_processing_latency_ms": 1,
    }


def _bearer(request: Request) -> str:
    return request.headers["authorization"].removeprefix("Bearer ")


async def _unpacked(request: Request) -> bytes:
    body = await request.body()
    if request.headers.get("content-encoding") != "zstd":
        return body
    size = int(request.headers["x-snowflake-uncompressed-content-length"])
    return bytes(pa.decompress(body, decompressed_size=size, codec="zstd"))


def _refused(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, status_code=status)


async def _serve(port: int, certificate: str, key: str, service: Service) -> None:
    app = Starlette(routes=service.routes())
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, ssl_certfile=certificate, ssl_keyfile=key, log_level="warning"
    )
    committing = asyncio.create_task(service.commit_again_and_again())
    serving = asyncio.create_task(uvicorn.Server(config).serve())
    await asyncio.wait({committing, serving}, return_when=asyncio.FIRST_COMPLETED)
    for task in (committing, serving):
        if task.done():
            task.result()


if __name__ == "__main__":
    port, certificate, key, account_port, record = sys.argv[1:]
    asyncio.run(_serve(int(port), certificate, key, Service(account_port=int(account_port), record=Path(record))))
