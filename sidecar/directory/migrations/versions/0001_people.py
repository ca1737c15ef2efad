"""Make the tables of people, identities, accounts and the outbox.

MySQL commits each statement of DDL by itself, so a start that was killed half way leaves some of the tables behind:
every step looks first whether it is done.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "sidecar_person": (
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("source", sa.String(190), nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("disabled_by", sa.String(190), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("search_username", sa.String(190), nullable=False),
        sa.Column("search_email", sa.String(190), nullable=False),
        sa.Column("tombstone", sa.Double),
        sa.Column("version", sa.Integer, nullable=False),
    ),
    "sidecar_identity": (
        sa.Column("key_hash", sa.String(64), primary_key=True),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), nullable=False),
    ),
    "sidecar_account": (
        sa.Column("application", sa.String(64), primary_key=True),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), primary_key=True),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("account_key", sa.Text, nullable=False),
        sa.Column("id_hash", sa.String(64)),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("outputs", sa.Text, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("attempt", sa.String(32), nullable=False),
        sa.Column("linked", sa.Boolean, nullable=False),
        sa.Column("deactivated", sa.Boolean, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
        sa.UniqueConstraint("application", "key_hash", name="sidecar_account_key"),
        sa.UniqueConstraint("application", "id_hash", name="sidecar_account_id"),
    ),
    "sidecar_outbox": (
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("application", sa.String(64), nullable=False),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), nullable=False),
        sa.Column("change", sa.String(32), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("last_error", sa.Text, nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("lease", sa.String(32), nullable=False),
        sa.Column("idempotency", sa.String(64), nullable=False),
        sa.UniqueConstraint("application", "idempotency", name="sidecar_outbox_once"),
    ),
}

_INDEXES = (
    ("sidecar_person_username", "sidecar_person", ("search_username",)),
    ("sidecar_person_email", "sidecar_person", ("search_email",)),
    ("sidecar_identity_person", "sidecar_identity", ("person_id",)),
    ("sidecar_outbox_due", "sidecar_outbox", ("application", "state", "due")),
)


def upgrade() -> None:
    """Make what is not there yet."""
    inspector = sa.inspect(op.get_bind())
    present = set(inspector.get_table_names())
    for name, columns in _TABLES.items():
        if name not in present:
            op.create_table(name, *columns, mysql_engine="InnoDB", mysql_charset="utf8mb4")
    inspector.clear_cache()
    for name, table, indexed in _INDEXES:
        if name not in {index["name"] for index in inspector.get_indexes(table)}:
            op.create_index(name, table, list(indexed))
