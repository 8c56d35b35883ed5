"""The first schema: keys, secrets, audit, long queries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(200), nullable=False),
        sa.Column("claims", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime),
        sa.Column("revoked_at", sa.DateTime),
    )
    op.create_table(
        "secrets",
        sa.Column("purpose", sa.String(32), primary_key=True),
        sa.Column("secret", sa.LargeBinary(32), nullable=False),
    )
    _make_long_queries()
    _make_audit()


def _make_long_queries() -> None:
    op.create_table(
        "deferred_queries",
        sa.Column("query_id", sa.String(32), primary_key=True),
        sa.Column("principal_id", sa.String(500), nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("claimable_at", sa.DateTime, nullable=False),
        sa.Column("claim", sa.String(16)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime),
        sa.Column("finished_at", sa.DateTime),
        sa.Column("expires_at", sa.DateTime),
        sa.Column("row_count", sa.BigInteger),
        sa.Column("stored_bytes", sa.BigInteger),
        sa.Column("answer", sa.Text),
        sa.Column("failure", sa.Text),
    )
    op.create_index("ix_deferred_queries_expires_at", "deferred_queries", ["expires_at"])
    op.create_index("ix_deferred_queries_state", "deferred_queries", ["state", "claimable_at"])
    op.create_index("ix_deferred_queries_principal", "deferred_queries", ["principal_id", "query_id"])
    op.create_table(
        "deferred_rows",
        sa.Column("query_id", sa.String(32), primary_key=True),
        sa.Column("first_row", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("row_count", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )


def _make_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("principal_id", sa.String(200)),
        sa.Column("principal_name", sa.String(200)),
        sa.Column("role", sa.String(200)),
        sa.Column("transport", sa.String(20), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("what", sa.JSON, nullable=False),
        sa.Column("metrics", sa.Text),
        sa.Column("decision", sa.String(20), nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("code", sa.String(100)),
        sa.Column("rows", sa.BigInteger),
        sa.Column("publication", sa.String(200)),
        sa.Column("cache", sa.String(20)),
        sa.Column("sql_hash", sa.String(64)),
        sa.Column("ms", sa.Float, nullable=False),
    )
    op.create_index("ix_audit_request_id", "audit", ["request_id"])
    op.create_index("ix_audit_at", "audit", ["at"])
