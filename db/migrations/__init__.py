"""Alembic's migrations; `db.migrate` runs them."""
