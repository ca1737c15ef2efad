"""Make the tables of audit lines, of turns that replicas take, and of what was noticed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0008"

# MySQL's TEXT ends at 64 KiB, and its BIGINT alone counts up by itself; SQLite counts up INTEGER only.
_LONG = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_COUNTED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "sidecar_audit": (
        sa.Column("id", _COUNTED, primary_key=True, autoincrement=True),
        sa.Column("chain", sa.String(16), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("reference", sa.String(64), nullable=False),
        sa.Column("line", _LONG, nullable=False),
        sa.UniqueConstraint("chain", "number", name="sidecar_audit_place"),
    ),
    "sidecar_turn": (
        sa.Column("name", sa.String(190), primary_key=True),
        sa.Column("until", sa.Double, nullable=False),
    ),
}
_INDEXES = (
    ("sidecar_audit_time", "sidecar_audit", ("time",)),
    ("sidecar_audit_event", "sidecar_audit", ("event", "id")),
    ("sidecar_audit_reference", "sidecar_audit", ("reference",)),
)


def upgrade() -> None:
    """Make what is not there yet: MySQL keeps the first tables of a start that was killed half way."""
    inspector = sa.inspect(op.get_bind())
    present = set(inspector.get_table_names())
    for name, columns in _TABLES.items():
        if name not in present:
            # A number that was used once is never given again, or a place in the order could be taken twice.
            op.create_table(name, *columns, mysql_engine="InnoDB", mysql_charset="utf8mb4", sqlite_autoincrement=True)
    inspector.clear_cache()
    for name, table, indexed in _INDEXES:
        if name not in {index["name"] for index in inspector.get_indexes(table)}:
            op.create_index(name, table, list(indexed))
