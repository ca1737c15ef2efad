"""Have Alembic bring the tables up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection, folder: Path, *, is_transactional: bool) -> None:
    """Apply the migrations in *folder* that are missing; whether DDL can be undone the database decides."""
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["transactional"] = is_transactional
    command.upgrade(config, "head")
