"""Make what commands need: invitations, renamings under way, and since when something is owed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"

_TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "sidecar_invitation": (
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("used", sa.Double),
        sa.Column("used_by", sa.String(64)),
    ),
}

_COLUMNS = (
    ("sidecar_account", sa.Column("renaming", sa.Text)),
    ("sidecar_outbox", sa.Column("created", sa.Double)),
)

_INDEXES = (
    ("sidecar_invitation_person", "sidecar_invitation", ("person_id",)),
    ("sidecar_outbox_person", "sidecar_outbox", ("person_id", "state")),
)


def upgrade() -> None:
    """Make what is not there yet: MySQL keeps what a start did that was killed half way."""
    inspector = sa.inspect(op.get_bind())
    present = set(inspector.get_table_names())
    for name, columns in _TABLES.items():
        if name not in present:
            op.create_table(name, *columns, mysql_engine="InnoDB", mysql_charset="utf8mb4")
    for table, column in _COLUMNS:
        if column.name not in {one["name"] for one in inspector.get_columns(table)}:
            op.add_column(table, column)
    inspector.clear_cache()
    for name, table, indexed in _INDEXES:
        if name not in {index["name"] for index in inspector.get_indexes(table)}:
            op.create_index(name, table, list(indexed))
