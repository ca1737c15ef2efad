"""The tables in which synchronisations keep their books; the migrations make them."""

from __future__ import annotations

from sqlalchemy import Column, Double, ForeignKey, Integer, String, Table, Text

from sidecar.directory.tables import metadata

# How each source stands: what the last good run found, who works on it now, and when it is due again.
sync_source = Table(
    "sidecar_sync_source",
    metadata,
    Column("source", String(190), primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("people", Integer),
    Column("groups", Text, nullable=False),
    Column("config", String(64), nullable=False),
    Column("last_run", Double, nullable=False),
    Column("last_good", Double, nullable=False),
    Column("last_full", Double, nullable=False),
    Column("due", Double, nullable=False),
    Column("lease", String(190), nullable=False),
    Column("lease_until", Double, nullable=False),
)

# What a source said last of each of its people, as a digest, and how long they have been missing.
sync_track = Table(
    "sidecar_sync_track",
    metadata,
    Column("source", String(190), primary_key=True),
    Column("external_hash", String(64), primary_key=True),
    Column("external", Text, nullable=False),
    Column("person_id", String(32), ForeignKey("sidecar_person.id"), nullable=False),
    Column("mark", String(32), nullable=False),
    Column("missing", Integer, nullable=False),
    Column("since", Double),
    Column("off", Double),
)

sync_run = Table(
    "sidecar_sync_run",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("source", String(190), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("asked_by", String(190), nullable=False),
    Column("approved_by", String(190), nullable=False),
    Column("head", Text, nullable=False),
)

sync_item = Table(
    "sidecar_sync_item",
    metadata,
    Column("run_id", String(32), ForeignKey("sidecar_sync_run.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("external_hash", String(64), nullable=False),
    Column("person_id", String(32), nullable=False),
    Column("document", Text, nullable=False),
    Column("state", String(8), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("error", Text, nullable=False),
)
