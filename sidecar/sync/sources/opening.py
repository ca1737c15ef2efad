"""Open the source that the configuration names."""

from __future__ import annotations

from sidecar.config.sync_source import SourceSection
from sidecar.sync.sources.csv import CsvPeople
from sidecar.sync.sources.json import JsonPeople
from sidecar.sync.sources.ldap import LdapPeople
from sidecar.sync.sources.rest import RestPeople, ScimPeople
from sidecar.sync.sources.source import Source
from sidecar.sync.sources.sql import SqlPeople


def open_source(name: str, section: SourceSection) -> Source:
    """A source to be read once; connects to nothing yet. Raises ValueError for an address that is none."""
    if section.csv is not None:
        return CsvPeople(section.csv)
    if section.json_file is not None:
        return JsonPeople(section.json_file)
    if section.sql is not None:
        return SqlPeople(name, section.sql)
    if section.ldap is not None:
        return LdapPeople(name, section.ldap)
    if section.rest is not None:
        return RestPeople(name, section.rest)
    if section.scim is not None:
        return ScimPeople(name, section.scim)
    message = "this kind of source is not there"
    raise ValueError(message)
