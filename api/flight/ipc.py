"""Rows as the messages of a Flight stream: a schema, then record batches, each a message of Arrow's IPC format."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

# Clients of other languages take 4 MB a message unless they are told otherwise.
MESSAGE_BYTES = 2 * 2**20

_HEADER_TAG = b"\x12"  # field 2
_BODY_TAG = b"\xc2\x3e"  # field 1000


def schema_bytes(schema: pa.Schema) -> bytes:
    """The schema as Flight's descriptions carry it."""
    encoded: bytes = schema.serialize().to_pybytes()
    return encoded


def schema_message(schema: pa.Schema) -> bytes:
    """The first message of a stream."""
    return _flight_data(pa.ipc.read_message(schema.serialize()))


def batch_messages(batch: pa.RecordBatch) -> Iterator[bytes]:
    """The batch in messages of some `MESSAGE_BYTES` at most; blocks for a millisecond or so each."""
    rows = _rows_of_a_message(batch)
    for start in range(0, batch.num_rows, rows):
        yield _flight_data(pa.ipc.read_message(batch.slice(start, rows).serialize()))


def _rows_of_a_message(batch: pa.RecordBatch) -> int:
    return max(1, int(batch.num_rows * min(1.0, MESSAGE_BYTES / max(1, batch.nbytes))))


def _flight_data(message: pa.ipc.Message) -> bytes:
    """`FlightData` on the wire, by hand: protobuf's own way would copy the rows twice more."""
    header, body = message.metadata, message.body
    parts = [_HEADER_TAG, _varint(len(header)), header]
    if body is not None and len(body):
        parts += [_BODY_TAG, _varint(len(body)), body]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
