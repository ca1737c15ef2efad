"""Make the table of API tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_NAME = "sidecar_token"
_INDEXES = (
    ("sidecar_token_person", ("person_id",)),
    ("sidecar_token_order", ("application", "created", "id")),
)


def upgrade() -> None:
    """Make what is not there yet: MySQL keeps the table of a start that was killed half way."""
    inspector = sa.inspect(op.get_bind())
    if _NAME not in inspector.get_table_names():
        op.create_table(
            _NAME,
            sa.Column("id", sa.String(32), primary_key=True),
            sa.Column("application", sa.String(64), nullable=False),
            sa.Column("secret_hash", sa.String(64), nullable=False),
            sa.Column("kind", sa.String(8), nullable=False),
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id")),
            sa.Column("subject", sa.Text, nullable=False),
            sa.Column("roles", sa.Text, nullable=False),
            sa.Column("scope", sa.Text, nullable=False),
            sa.Column("created", sa.Double, nullable=False),
            sa.Column("created_by", sa.String(190), nullable=False),
            sa.Column("expires", sa.Double, nullable=False),
            sa.Column("last_used", sa.Double, nullable=False),
            sa.Column("revoked", sa.Double),
            sa.Column("revoked_by", sa.String(190), nullable=False),
            sa.UniqueConstraint("secret_hash", name="sidecar_token_secret"),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
        )
    inspector.clear_cache()
    present = {index["name"] for index in inspector.get_indexes(_NAME)}
    for name, columns in _INDEXES:
        if name not in present:
            op.create_index(name, _NAME, list(columns))
