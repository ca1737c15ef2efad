"""Make the tables of what SCIM clients say of people, and the indices by which they ask."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

# The default of MySQL takes é for e.
_LETTERS = sa.String(190).with_variant(mysql.VARCHAR(190, collation="utf8mb4_bin"), "mysql", "mariadb")

_TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "sidecar_scim_user": (
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("source", sa.String(190), nullable=False),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), nullable=False),
        sa.Column("name_hash", sa.String(64), nullable=False),
        sa.Column("search_name", _LETTERS, nullable=False),
        sa.Column("external_hash", sa.String(64)),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("source", "name_hash", name="sidecar_scim_user_name"),
        sa.UniqueConstraint("source", "external_hash", name="sidecar_scim_user_external"),
        sa.UniqueConstraint("source", "person_id", name="sidecar_scim_user_person"),
    ),
    "sidecar_scim_email": (
        sa.Column("user_id", sa.String(32), sa.ForeignKey("sidecar_scim_user.id"), primary_key=True),
        sa.Column("value_hash", sa.String(64), primary_key=True),
    ),
}

_INDEXES = (
    ("sidecar_scim_user_order", "sidecar_scim_user", ("source", "created", "id")),
    ("sidecar_scim_user_updated", "sidecar_scim_user", ("source", "updated")),
    ("sidecar_scim_user_search", "sidecar_scim_user", ("source", "search_name", "id")),
    ("sidecar_scim_user_active", "sidecar_scim_user", ("source", "active")),
    ("sidecar_scim_email_value", "sidecar_scim_email", ("value_hash", "user_id")),
    ("sidecar_group_order", "sidecar_group", ("source", "created", "id")),
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
