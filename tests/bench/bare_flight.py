"""A `pyarrow.flight` server that runs one statement and streams its rows, and does nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb
from pyarrow import flight


class Bare(flight.FlightServerBase):  # type: ignore[misc] # pyarrow ships no types
    """Answers any ticket with the rows of the statement, as the engine makes them."""

    def __init__(self, port: int, file: str, question: dict[str, Any]) -> None:
        super().__init__(f"grpc://127.0.0.1:{port}")
        self._engine = duckdb.connect(file, read_only=True, config={"threads": "2", "memory_limit": "512MB"})
        self._question = question

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """The rows."""
        del context, ticket
        cursor = self._engine.cursor()
        asked = cursor.sql(self._question["sql"], params=self._question["parameters"])
        return flight.RecordBatchStream(asked.to_arrow_reader(8_192))


if __name__ == "__main__":
    Bare(int(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))).serve()
