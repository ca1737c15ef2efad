"""Make the tables of what sources say of people (profiles), of what joins them to those who sign in, and of groups."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "sidecar_profile": (
        sa.Column("source", sa.String(190), primary_key=True),
        sa.Column("external_hash", sa.String(64), primary_key=True),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("groups", sa.Text),
        sa.Column("claims", sa.Text, nullable=False),
        sa.Column("is_login", sa.Boolean, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
    ),
    "sidecar_join": (
        sa.Column("source", sa.String(190), primary_key=True),
        sa.Column("value_hash", sa.String(64), primary_key=True),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), primary_key=True),
        sa.Column("side", sa.String(190), primary_key=True),
    ),
    "sidecar_group": (
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("source", sa.String(190), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_hash", sa.String(64), nullable=False),
        sa.Column("search_name", sa.String(190), nullable=False),
        sa.Column("external", sa.Text, nullable=False),
        sa.Column("external_hash", sa.String(64)),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("source", "name_hash", name="sidecar_group_name"),
    ),
    "sidecar_member": (
        sa.Column("group_id", sa.String(32), sa.ForeignKey("sidecar_group.id"), primary_key=True),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), primary_key=True),
    ),
}

_INDEXES = (
    ("sidecar_profile_person", "sidecar_profile", ("person_id",)),
    ("sidecar_join_person", "sidecar_join", ("person_id",)),
    ("sidecar_group_external", "sidecar_group", ("source", "external_hash")),
    ("sidecar_group_search", "sidecar_group", ("source", "search_name")),
    ("sidecar_member_person", "sidecar_member", ("person_id",)),
    ("sidecar_outbox_person", "sidecar_outbox", ("person_id", "change", "state")),
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
