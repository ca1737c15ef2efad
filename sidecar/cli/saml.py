"""``sidecar saml``: print our metadata, and say what is wrong with an answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from sidecar.cli.loading import CONFIG, load_or_leave
from sidecar.cli.saying import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE, complain, give_up, say, say_json
from sidecar.faults import Refused, Unavailable

if TYPE_CHECKING:
    from sidecar.config.models import Config
    from sidecar.logins.saml.answer import Demand
    from sidecar.logins.saml.conditions import Expected
    from sidecar.logins.saml.inspecting import Inspection
    from sidecar.logins.saml.login import SamlSignIn
    from sidecar.logins.saml.parties import IdentityProvider

_MOST = 4 * 1024 * 1024
_LOGIN = click.option("--login", help="Which SAML login; needed when there are several.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.group()
def saml() -> None:
    """Print our SAML metadata, and inspect SAML answers."""


@saml.command()
@CONFIG
@_LOGIN
@_JSON
def metadata(config: Path, login: str | None, *, as_json: bool) -> None:
    """Print our metadata for a provider, to be given to it as a file. It does not expire; the published one does.

    \b
    sidecar saml metadata --login partners config.yaml > sidecar-metadata.xml
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from sidecar.logins.saml.publishing import published

    settings = load_or_leave(config, quiet=True).config
    name = _name(settings, login)
    service = _opened(settings, name).service
    document = published(service, settings.saml_logins[name], None).decode()
    if as_json:
        addresses = {"acs": service.acs_url, "logout": service.slo_url, "metadata": service.metadata_url}
        say_json({"entity_id": service.entity_id, **addresses, "document": document})
    else:
        click.echo(document)


@saml.command("inspect")
@click.argument("response", type=click.File("rb"))
@click.argument("config", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_LOGIN
@click.option("--as-issued", is_flag=True, help="Judge times as of when the answer was made, not as of now.")
@click.option("--show-values", is_flag=True, help="Also print names and attribute values of people.")
@_JSON
def inspect_response(
    response: BinaryIO, config: Path | None, login: str | None, *, as_issued: bool, show_values: bool, as_json: bool
) -> None:
    """Say what a SAML RESPONSE holds and, with a CONFIG, what is right and wrong with it.

    RESPONSE is a file or - for standard input: XML, base64, or the form that carried it. Nothing is changed, and no
    name or value of a person is printed unless asked for.

    Exit code 0: nothing is wrong. 1: something is. 2: not readable. 3: the provider's metadata cannot be had.
    """
    from sidecar.logins.saml.inspecting import inspect, octets_of

    try:
        raw = octets_of(response.read(_MOST))
    except ValueError as error:
        give_up(f"RESPONSE: {error}", EXIT_USAGE)
    if config is None:
        found = inspect(raw, show_values=show_values)
    else:
        settings = load_or_leave(config, quiet=True).config
        name = _name(settings, login)
        try:
            found = asyncio.run(_verified(settings, name, raw, as_issued=as_issued, show_values=show_values))
        except Unavailable as fault:
            give_up(f"unavailable: {fault}", EXIT_UNAVAILABLE)
    _tell(found, as_json=as_json)
    if not found.is_right:
        raise SystemExit(EXIT_PROBLEMS)


def _name(settings: Config, login: str | None) -> str:
    names = list(settings.saml_logins)
    if login is None and len(names) == 1:
        return names[0]
    if login not in names:
        give_up(f"--login must be one of: {', '.join(names)}" if names else "there is no SAML login", EXIT_USAGE)
    return str(login)


def _opened(settings: Config, name: str) -> SamlSignIn:
    from sidecar.logins.opening import open_logins
    from sidecar.logins.saml.login import SamlSignIn
    from sidecar.plans import identity_plan
    from sidecar.portal.site import site_of

    site = site_of(settings.server, settings.sessions)
    sections = {name: settings.logins[name]}
    try:
        login = open_logins(sections, site.origin, site.prefix, {name: identity_plan(settings, name)})[name]
    except ValueError as error:
        give_up(str(error))
    assert isinstance(login, SamlSignIn)  # noqa: S101 - it was chosen among these
    return login


async def _verified(settings: Config, name: str, raw: bytes, *, as_issued: bool, show_values: bool) -> Inspection:
    from sidecar.logins.saml.inspecting import inspect

    login = _opened(settings, name)
    now = _issued(raw) if as_issued else time.time()
    try:
        provider = await login.metadata.current(time.time())
    finally:
        await login.close()
    demand, expected = _terms(settings, login, provider, raw, now)
    return inspect(raw, demand, expected, show_values=show_values)


def _terms(
    settings: Config, login: SamlSignIn, provider: IdentityProvider, raw: bytes, now: float
) -> tuple[Demand, Expected]:
    from sidecar.logins.saml.answer import Demand
    from sidecar.logins.saml.conditions import Expected
    from sidecar.logins.saml.names import held_to

    section = settings.saml_logins[login.name]
    demand = Demand(
        certificates=provider.certificates,
        keys=login.service.keys,
        signed=section.signed,
        must_be_encrypted=section.encrypted == "required",
        weak=frozenset(section.weak),
    )
    expected = Expected(
        provider=provider.entity_id,
        service=login.service.entity_id,
        acs_url=login.service.acs_url,
        # Which request was ours is known to the running sidecar alone; here it only must be the same everywhere.
        request=_attribute(raw, "InResponseTo"),
        now=now,
        leeway=section.leeway.total_seconds(),
        classes=frozenset(section.authn_context),
        name_format=held_to(section.name_id),
    )
    return demand, expected


def _issued(raw: bytes) -> float:
    from sidecar.logins.saml.instants import read_instant

    try:
        return read_instant(_attribute(raw, "IssueInstant"), "IssueInstant")
    except Refused:
        return time.time()


def _attribute(raw: bytes, name: str) -> str:
    from sidecar.logins.saml.document import parse
    from sidecar.logins.saml.names import PROTOCOL

    try:
        root = parse(raw)
    except Refused:
        return ""
    return str(root.get(name, "")) if root.tag.startswith(f"{{{PROTOCOL}}}") else ""


def _tell(found: Inspection, *, as_json: bool) -> None:
    if as_json:
        listed = [asdict(point) for point in found.points]
        say_json({"right": found.is_right, "points": listed, "facts": dict(found.facts)})
        return
    for name, value in found.facts.items():
        say(f"{name}: {value}")
    say()
    for point in found.points:
        mark = {True: "right", False: "WRONG", None: "     "}[point.is_right]
        line = f"{mark}  {point.about}{f': {point.says}' if point.says else ''}"
        if point.is_right is False:
            complain(line)
        else:
            say(line, "green" if point.is_right else "")
