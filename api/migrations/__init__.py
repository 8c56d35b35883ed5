"""Alembic's scripts: how an older state database is brought up to date."""
