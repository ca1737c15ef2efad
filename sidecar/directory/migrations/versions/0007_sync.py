"""Make the tables in which synchronisations keep their books."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"

# MySQL's TEXT ends at 64 KiB.
_LONG = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")

_TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "sidecar_sync_source": (
        sa.Column("source", sa.String(190), primary_key=True),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("people", sa.Integer),
        sa.Column("groups", _LONG, nullable=False),
        sa.Column("config", sa.String(64), nullable=False),
        sa.Column("last_run", sa.Double, nullable=False),
        sa.Column("last_good", sa.Double, nullable=False),
        sa.Column("last_full", sa.Double, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("lease", sa.String(190), nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
    ),
    "sidecar_sync_track": (
        sa.Column("source", sa.String(190), primary_key=True),
        sa.Column("external_hash", sa.String(64), primary_key=True),
        sa.Column("external", sa.Text, nullable=False),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), nullable=False),
        sa.Column("mark", sa.String(32), nullable=False),
        sa.Column("missing", sa.Integer, nullable=False),
        sa.Column("since", sa.Double),
        sa.Column("off", sa.Double),
    ),
    "sidecar_sync_run": (
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("source", sa.String(190), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
        sa.Column("asked_by", sa.String(190), nullable=False),
        sa.Column("approved_by", sa.String(190), nullable=False),
        sa.Column("head", _LONG, nullable=False),
    ),
    "sidecar_sync_item": (
        sa.Column("run_id", sa.String(32), sa.ForeignKey("sidecar_sync_run.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("external_hash", sa.String(64), nullable=False),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("document", _LONG, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    ),
}

_INDEXES = (
    ("sidecar_sync_track_person", "sidecar_sync_track", ("person_id",)),
    ("sidecar_sync_track_missing", "sidecar_sync_track", ("source", "missing")),
    ("sidecar_sync_run_source", "sidecar_sync_run", ("source", "created")),
    ("sidecar_sync_item_state", "sidecar_sync_item", ("run_id", "state", "number")),
)


def upgrade() -> None:
    """Make what is not there yet: MySQL keeps the first tables of a start that was killed half way."""
    inspector = sa.inspect(op.get_bind())
    present = set(inspector.get_table_names())
    for name, columns in _TABLES.items():
        if name not in present:
            op.create_table(name, *columns, mysql_engine="InnoDB", mysql_charset="utf8mb4")
    inspector.clear_cache()
    for name, table, indexed in _INDEXES:
        if name not in {index["name"] for index in inspector.get_indexes(table)}:
            op.create_index(name, table, list(indexed))
