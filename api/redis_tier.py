"""Results in Redis, shared by replicas; a Redis that is away, slow, full or flushed makes them slower and no more.

An entry is `<magic><digest of its key><CRC-32 of the body><body>`, the body an Arrow IPC stream. An entry that is not
exactly that is no entry. Without a body it says that the result is too large to be kept here.

    insight:result:<format>:<digest>         an entry
    insight:result:<format>:<digest>:lock    the token of the replica that runs the query now
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from hashlib import blake2b

import pyarrow as pa
import structlog

from api.redis_link import PATIENCE, RedisLink

_log = structlog.get_logger(__name__)

# Part of the keys, too: replicas of two releases must not take turns in overwriting each other's entries.
_FORMAT = 1

# The digest ties an entry to its key. Were a reply ever handed to the wrong reader, by a defect in a client library or
# a proxy, it would be refused here instead of showing somebody else's rows.
_HEADER = struct.Struct("<8s16sI4x")  # 32 bytes, so that the body stays aligned for Arrow
_MAGIC = f"insight{_FORMAT}".encode()

# 32 ms on a network of 1 Gbit/s, well within the patience of a link; some 150,000 rows of an answer.
_LARGEST_ENTRY_BYTES = 4 * 2**20

# LZ4 made 50,000 rows 2.6 times smaller, zstd 3.4 times at 5 times the cost of reading (2.4 ms). Below 32 KB setting
# LZ4 up costs 0.1 ms, more than the bytes do.
_COMPRESSION = "lz4"
_UNCOMPRESSED_BYTES = 32 * 2**10

# More than 1 MB takes over 0.5 ms to pack, and the event loop has others to serve; a thread costs 0.1 ms.
_INLINE_BYTES = 2**20

# How long a replica may claim a query, so how long the others wait for one that died. Few queries take longer; those
# run once in each replica.
_LOCK_MS = 3_000
_FIRST_POLL_S, _LAST_POLL_S = 0.005, 0.05

_ABSENT = b""

# Entries themselves do not pass through Lua, which took 1.8 ms more for one of 1.3 MB.
_CLAIM = """
if redis.call('STRLEN', KEYS[1]) > 0 then return 'there' end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 'ours' end
return 'taken'
"""
_RELEASE = "if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end return 'done'"


class RedisTier:
    """Entries and turns in one Redis. Nothing here raises: what fails is counted and answered as an absence.

    Parameters
    ----------
    url
        `redis://`, `rediss://` or `unix://`, as redis-py reads it.
    keep_for
        How long an entry lives. Those of replaced publications are never asked for again, so this is what frees them.
    patience
        How long one command may take, a new connection included.
    """

    def __init__(self, url: str, *, keep_for: timedelta, patience: timedelta = PATIENCE) -> None:
        self._link = RedisLink(url, purpose="result_cache", probe=self._probe, patience=patience)
        self._claiming, self._releasing = map(self._link.client.register_script, (_CLAIM, _RELEASE))
        self._keep_for_ms = int(keep_for.total_seconds() * 1000)
        self._damaged = 0

    @property
    def errors(self) -> int:
        """Commands without a reply, and entries that could not be read."""
        return self._link.errors + self._damaged

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[Turn]:
        """What is kept under the key, or else the turn to run the query.

        Waits, up to 3 s, while another replica has the turn. The turn is given back at the end of the block.
        """
        turn = Turn(key)
        try:
            await self._claim(turn)
            yield turn
        finally:
            if turn.may_hold_lock:
                await self._link.ask(partial(self._releasing, keys=turn.names, args=(turn.token,)))

    async def store(self, turn: Turn, table: pa.Table) -> None:
        """Keep the table in place of what is there."""
        if self._link.is_away or turn.is_lost:
            return
        if table.nbytes > _INLINE_BYTES:
            entry = await asyncio.to_thread(_pack, turn.digest, table)
        else:
            entry = _pack(turn.digest, table)
        if await self._link.ask(partial(self._link.client.set, turn.names[0], entry, px=self._keep_for_ms)) is None:
            turn.may_hold_lock = False  # it runs out by itself; the caller has waited for Redis long enough

    async def close(self) -> None:
        """Close the connections. Idempotent; afterwards everything is absent."""
        await self._link.close()

    async def _claim(self, turn: Turn) -> None:
        give_up_at, pause_s = time.monotonic() + _LOCK_MS / 1000, _FIRST_POLL_S
        turn.may_hold_lock = True  # until it is certain: who is cancelled while asking does not know
        entry: object = await self._entry(turn)
        standing: object = _ABSENT
        while entry == _ABSENT:
            standing = await self._link.ask(self._claim_of(turn))
            if standing == b"there":
                entry = await self._entry(turn)
            elif standing == b"taken" and time.monotonic() < give_up_at:
                turn.has_waited = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_POLL_S)
            else:
                break
        turn.may_hold_lock = standing == b"ours"
        turn.is_lost = None in (entry, standing)
        if isinstance(entry, bytes) and entry != _ABSENT:
            turn.found = await self._unpacked(turn, entry)

    def _claim_of(self, turn: Turn) -> Callable[[], Awaitable[object]]:
        return partial(self._claiming, keys=turn.names, args=(turn.token, _LOCK_MS))

    async def _probe(self) -> object:
        return await self._claim_of(Turn(f"probe {secrets.token_hex(8)}"))()

    async def _entry(self, turn: Turn) -> object:
        async def read() -> object:
            return await self._link.client.get(turn.names[0]) or _ABSENT

        return await self._link.ask(read)

    async def _unpacked(self, turn: Turn, entry: bytes) -> pa.Table | None:
        try:
            if len(entry) > _INLINE_BYTES:
                return await asyncio.to_thread(_unpack, turn.digest, entry)
            return _unpack(turn.digest, entry)
        except (ValueError, OSError, pa.ArrowException) as error:
            self._damaged += 1
            _log.warning("result_cache_entry_refused", entry=turn.names[0], reason=f"{error!r:.200}")
            return None


class Turn:
    """One caller's dealing with one entry.

    `found` is what was there, after `has_waited` for another replica or not. `is_lost` says that Redis did not answer.
    """

    def __init__(self, key: str) -> None:
        self.digest = blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
        # Digests, because a key holds filter values, and Redis shows names in its logs.
        name = f"insight:result:{_FORMAT}:{self.digest.hex()}"
        self.names = (name, f"{name}:lock")
        self.token = secrets.token_hex(8)
        self.found: pa.Table | None = None
        self.has_waited = False
        self.may_hold_lock = False
        self.is_lost = False


def _pack(digest: bytes, table: pa.Table) -> bytes:
    body = b"" if table.nbytes > 16 * _LARGEST_ENTRY_BYTES else _body(table)
    if len(body) > _LARGEST_ENTRY_BYTES:
        body = b""
    return _HEADER.pack(_MAGIC, digest, zlib.crc32(body)) + body


def _body(table: pa.Table) -> bytes:
    compression = _COMPRESSION if table.nbytes > _UNCOMPRESSED_BYTES else None
    options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _unpack(digest: bytes, entry: bytes) -> pa.Table | None:
    """The table, whose buffers may lie in the entry; None if the entry says it was too large.

    Raises
    ------
    ValueError, pa.ArrowException, OSError
        It is damaged, of another format or of another key.
    """
    if len(entry) < _HEADER.size:
        raise ValueError("too short")
    magic, owner, checksum = _HEADER.unpack_from(entry)
    body = memoryview(entry)[_HEADER.size :]
    if magic != _MAGIC:
        raise ValueError("not an entry of this format")
    if owner != digest:
        raise ValueError("the entry of another key")
    if zlib.crc32(body) != checksum:
        raise ValueError("damaged")
    if not body:
        return None
    options = pa.ipc.IpcReadOptions(use_threads=False)
    return pa.ipc.open_stream(pa.py_buffer(body), options=options).read_all()
