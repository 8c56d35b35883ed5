"""Tables as CSV files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

ROWS_PER_BATCH = 65_536  # 1M lines as text at once would take 200 MB


def write_csv(table: pa.Table, path: Path, *, count: Callable[[int], None]) -> None:
    """Nothing; the file appears at `path` as a whole or not at all. `count` gets the rows of each batch."""
    # The name keeps it from a folder watcher that looks for *.csv, and apart from that of another process.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    options = csv.WriteOptions(quoting_style="none", quoting_header="none")
    schema = pa.schema([(f.name, getattr(f.type, "value_type", f.type)) for f in table.schema])
    try:
        with csv.CSVWriter(part, schema, write_options=options) as writer:
            for batch in table.to_batches(max_chunksize=ROWS_PER_BATCH):
                writer.write_batch(_decoded(batch, schema))
                count(batch.num_rows)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _decoded(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
