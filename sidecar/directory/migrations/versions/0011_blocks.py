"""Make the table of all who have somebody switched off, where one column held the first of them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_COLUMNS = (
    sa.Column("person_id", sa.String(32), sa.ForeignKey("sidecar_person.id"), primary_key=True),
    sa.Column("source", sa.String(190), primary_key=True),
    sa.Column("since", sa.Double, nullable=False),
)

# Who came second was not kept, but what the sources said last was: it holds beside the first one's word.
_SAID = (
    "SELECT id AS person_id, disabled_by AS source, updated AS since FROM sidecar_person WHERE disabled_by <> ''",
    "SELECT person_id, source, MIN(updated) AS since FROM sidecar_scim_user WHERE NOT active GROUP BY 1, 2",
    "SELECT person_id, source, MIN(off) AS since FROM sidecar_sync_track WHERE off IS NOT NULL GROUP BY 1, 2",
)


def upgrade() -> None:
    """Make what is not there yet: MySQL keeps the table, and maybe rows, of a start that was killed half way."""
    if "sidecar_block" not in set(sa.inspect(op.get_bind()).get_table_names()):
        op.create_table("sidecar_block", *_COLUMNS, mysql_engine="InnoDB", mysql_charset="utf8mb4")
    for said in _SAID:
        op.execute(
            "INSERT INTO sidecar_block (person_id, source, since)"  # noqa: S608 - constants
            f" SELECT said.person_id, said.source, said.since FROM ({said}) said"
            " JOIN sidecar_person p ON p.id = said.person_id AND NOT p.active"
            " LEFT JOIN sidecar_block b ON b.person_id = said.person_id AND b.source = said.source"
            " WHERE b.source IS NULL"
        )
