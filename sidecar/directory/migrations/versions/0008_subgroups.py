"""Make the table of groups that are members of groups, and an index for PostgreSQL by the beginning of user names."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_TABLE = "sidecar_subgroup"
_INDEX = "sidecar_subgroup_child"
_BEGINNING = "sidecar_scim_user_beginning"


def upgrade() -> None:
    """Make what is not there yet: MySQL keeps the first table of a start that was killed half way."""
    inspector = sa.inspect(op.get_bind())
    if _TABLE not in inspector.get_table_names():
        op.create_table(
            _TABLE,
            sa.Column("group_id", sa.String(32), sa.ForeignKey("sidecar_group.id"), primary_key=True),
            sa.Column("child_id", sa.String(32), sa.ForeignKey("sidecar_group.id"), primary_key=True),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
        )
    inspector.clear_cache()
    if _INDEX not in {index["name"] for index in inspector.get_indexes(_TABLE)}:
        op.create_index(_INDEX, _TABLE, ["child_id", "group_id"])
    names = {index["name"] for index in inspector.get_indexes("sidecar_scim_user")}
    # The order of most languages is of no use to LIKE.
    if op.get_bind().dialect.name == "postgresql" and _BEGINNING not in names:
        columns, ways = ["source", "search_name", "id"], {"search_name": "text_pattern_ops"}
        op.create_index(_BEGINNING, "sidecar_scim_user", columns, postgresql_ops=ways)
