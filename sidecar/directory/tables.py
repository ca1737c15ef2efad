"""The directory's tables as the program uses them; the migrations make them.

Every name begins with ``sidecar_``, so that the directory may live in the application's own database. Long texts are
looked up by their SHA-256, because MySQL cannot index them whole. Times are epoch seconds.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Boolean, Column, Double, ForeignKey, Integer, MetaData, String, Table, Text

from sidecar.core.wanted import folded

SEARCHED = 190
LONGEST_APPLICATION = 64

metadata = MetaData()

person = Table(
    "sidecar_person",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("source", String(190), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("disabled_by", String(190), nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("username", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("search_username", String(SEARCHED), nullable=False),
    Column("search_email", String(SEARCHED), nullable=False),
    Column("tombstone", Double),
    Column("version", Integer, nullable=False),
)

identity = Table(
    "sidecar_identity",
    metadata,
    Column("key_hash", String(64), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), nullable=False),
)

# One row is one person's account in one application: ``reserved`` before its creation is sent, ``bound`` afterwards.
account = Table(
    "sidecar_account",
    metadata,
    Column("application", String(LONGEST_APPLICATION), primary_key=True),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), primary_key=True),
    Column("key_hash", String(64), nullable=False),
    Column("account_key", Text, nullable=False),
    Column("id_hash", String(64)),
    Column("account_id", Text, nullable=False),
    Column("outputs", Text, nullable=False),
    Column("state", String(8), nullable=False),
    Column("attempt", String(32), nullable=False),
    Column("linked", Boolean, nullable=False),
    Column("deactivated", Boolean, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("roles", Text, nullable=False),
    Column("updated", Double, nullable=False),
    # The key that the application was told to give the account, until somebody has seen that it did.
    Column("renaming", Text),
)

outbox = Table(
    "sidecar_outbox",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("application", String(LONGEST_APPLICATION), nullable=False),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), nullable=False),
    Column("change", String(32), nullable=False),
    Column("payload", Text, nullable=False),
    Column("due", Double, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("state", String(8), nullable=False),
    Column("last_error", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("lease", String(32), nullable=False),
    Column("idempotency", String(64), nullable=False),
    Column("created", Double),
)

# Who has a person switched off: a row for each. The rows of somebody who is on mean nothing; ``disabled_by`` above is
# the one who has held them for the longest.
block = Table(
    "sidecar_block",
    metadata,
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), primary_key=True),
    Column("source", String(190), primary_key=True),
    Column("since", Double, nullable=False),
)

# What one source says of a person: a login (then it is what the last sign-in said), SCIM, a synchronisation, a command.
profile = Table(
    "sidecar_profile",
    metadata,
    Column("source", String(190), primary_key=True),
    Column("external_hash", String(64), primary_key=True),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("groups", Text),
    Column("claims", Text, nullable=False),
    Column("is_login", Boolean, nullable=False),
    Column("updated", Double, nullable=False),
)

# Two rows with the same source and value, one of the source's own and one of a login, are one person.
join = Table(
    "sidecar_join",
    metadata,
    Column("source", String(190), primary_key=True),
    Column("value_hash", String(64), primary_key=True),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), primary_key=True),
    Column("side", String(190), primary_key=True),
)

group = Table(
    "sidecar_group",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("source", String(190), nullable=False),
    Column("name", Text, nullable=False),
    Column("name_hash", String(64), nullable=False),
    Column("search_name", String(SEARCHED), nullable=False),
    Column("external", Text, nullable=False),
    Column("external_hash", String(64)),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("version", Integer, nullable=False),
)

member = Table(
    "sidecar_member",
    metadata,
    Column("group_id", String(32), ForeignKey("sidecar_group.id"), primary_key=True),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), primary_key=True),
)

# A group inside a group of the same source: whoever is in ``child_id`` is in ``group_id``, too.
subgroup = Table(
    "sidecar_subgroup",
    metadata,
    Column("group_id", String(32), ForeignKey("sidecar_group.id"), primary_key=True),
    Column("child_id", String(32), ForeignKey("sidecar_group.id"), primary_key=True),
)

# Who holds a link with this id may sign in as the person, once; ``used_by`` is the hash of the identity that did.
invitation = Table(
    "sidecar_invitation",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("used", Double),
    Column("used_by", String(64)),
)

# What a SCIM client says of a person, as it says it; ``document`` holds what the client may write, and nothing else.
scim_user = Table(
    "sidecar_scim_user",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("source", String(190), nullable=False),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), nullable=False),
    Column("name_hash", String(64), nullable=False),
    Column("search_name", String(SEARCHED), nullable=False),
    Column("external_hash", String(64)),
    Column("active", Boolean, nullable=False),
    Column("document", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("version", Integer, nullable=False),
)

scim_email = Table(
    "sidecar_scim_email",
    metadata,
    Column("user_id", String(32), ForeignKey("sidecar_scim_user.id"), primary_key=True),
    Column("value_hash", String(64), primary_key=True),
)

token = Table(
    "sidecar_token",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("application", String(LONGEST_APPLICATION), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("name", Text, nullable=False),
    Column("person_id", String(32), ForeignKey("sidecar_person.id")),
    Column("subject", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("created_by", String(190), nullable=False),
    Column("expires", Double, nullable=False),
    Column("last_used", Double, nullable=False),
    Column("revoked", Double),
    Column("revoked_by", String(190), nullable=False),
)


def digest(text: str) -> str:
    """SHA-256 of *text* in hexadecimal."""
    # A provider may send half a surrogate pair; it is nobody then, not an error.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def searchable(text: str) -> str:
    """*text* as it is searched for by its beginning."""
    return folded(text)[:SEARCHED]
