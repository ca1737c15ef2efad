"""Come in by public_url as a browser would, and see whether this sidecar answers and what reached the browser."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

from sidecar.doctor.finding import Finding, Probe
from sidecar.doctor.looking import Seen, UnseenError, fetch
from sidecar.doctor.patient import Patient
from sidecar.logins.opening import callback_address

_WITHIN = 2.0
_PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
_CACHED = ("Age", "X-Cache", "X-Cache-Status", "CF-Cache-Status", "X-Varnish")
_BAD = 400
# RFC 9110, section 15.5.20: what we answer to a Host that is none of ours.
_MISDIRECTED = 421
_PASS_ON = (
    "Let the proxy in front pass the Host header as it came, set X-Forwarded-Proto, and list it in trusted_proxies."
)


def probes(patient: Patient) -> list[Probe]:
    """One, because each step needs the one before."""
    return [_come_in(patient)]


async def _come_in(patient: Patient) -> Probe:
    if not await _is_running(patient):
        yield patient.skipped(
            "public-url", f"no sidecar runs at {patient.config.server.listen}; start it and look again"
        )
        return
    site, place = patient.site, ("server", "public_url")
    try:
        # Certificates have findings of their own.
        live = await fetch(f"{site.origin}{site.prefix}/live", verify=False)
    except UnseenError as error:
        yield patient.failure("public-url", f"{site.origin} does not answer: {error}", place)
        return
    if not _is_ours(live):
        seen = f"something else answers at {site.origin} (status {live.status}, no page of ours)"
        yield patient.failure("public-url", seen, place)
        return
    yield _cache(patient, live)
    async for finding in _begin(patient):
        yield finding


async def _is_running(patient: Patient) -> bool:
    listen = patient.config.server.listen
    try:
        async with asyncio.timeout(_WITHIN):
            if listen.startswith("unix:"):
                _, writer = await asyncio.open_unix_connection(listen.removeprefix("unix:"))
            else:
                host, _, port = listen.rpartition(":")
                host = host.strip("[]")
                _, writer = await asyncio.open_connection(_own(host), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _own(host: str) -> str:
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _is_ours(seen: Seen) -> bool:
    return (
        seen.status < _BAD
        and b'"live"' in seen.body
        and seen.headers.get("Content-Type", "").startswith("application/json")
    )


def _cache(patient: Patient, live: Seen) -> Finding:
    marks = [name for name in _CACHED if _says_kept(name, live.headers.get(name, ""))]
    if marks:
        return patient.failure(
            "public-url-cache", f"a probe that must not be kept came from a cache ({', '.join(marks)})"
        )
    if "no-store" not in live.headers.get("Cache-Control", ""):
        return patient.failure("public-url-cache", "Cache-Control: no-store was taken away on the way")
    return patient.ok("public-url-cache", "Cache-Control arrives as it was sent")


def _says_kept(name: str, value: str) -> bool:
    if name == "Age":
        return value.isdecimal() and int(value) > 0
    return "hit" in value.lower() or (name == "X-Varnish" and " " in value.strip())


async def _begin(patient: Patient) -> Probe:
    """Begin a sign-in: its first answer sets a cookie, and says what the proxy in front told us."""
    site = patient.site
    name = next(iter(patient.config.logins))
    try:
        seen = await fetch(f"{site.origin}{site.prefix}/login?to=/&with={name}", verify=False, headers=_PAGE)
    except UnseenError as error:
        yield patient.failure("public-url", f"a sign-in cannot be begun: {error}", ("server", "public_url"))
        return
    if seen.status == _MISDIRECTED or _is_moved(seen):
        told = f"asked for {site.authority} by {site.scheme}, we were told another host or scheme"
        yield patient.failure("public-url", told, ("server", "public_url"), change=_PASS_ON)
        return
    if seen.status >= _BAD:
        yield patient.skipped("public-url-cookies", f"a sign-in cannot be begun now: status {seen.status}")
        yield patient.ok("public-url", f"{site.origin} leads here")
        return
    asked = parse_qs(urlsplit(seen.headers.get("Location", "")).query).get("redirect_uri", [""])[0]
    due = callback_address(site.origin, site.prefix, name)
    if asked and asked != due:
        yield patient.failure("public-url", f"another sidecar answers: its sign-ins return to {asked[:200]}")
        return
    yield patient.ok("public-url", f"{site.origin} leads here, with its own host and scheme")
    yield _cookies(patient, seen)


def _is_moved(seen: Seen) -> bool:
    """When another name or scheme reaches us than public_url has, we send the browser there, once."""
    return "moved" in parse_qs(urlsplit(seen.headers.get("Location", "")).query)


def _cookies(patient: Patient, seen: Seen) -> Finding:
    name = patient.site.browser_cookie
    lines = [line for line in seen.cookies if line.startswith(f"{name}=")]
    if not lines:
        return patient.failure("public-url-cookies", f"the cookie {name} did not arrive")
    attributes = {part.strip().partition("=")[0].lower() for part in lines[0].split(";")[1:]}
    due = {"httponly", "samesite", "path"} | ({"secure"} if patient.site.scheme == "https" else set())
    lost = sorted(due - attributes)
    if lost:
        return patient.failure("public-url-cookies", f"{name} arrived without {', '.join(lost)}")
    return patient.ok("public-url-cookies", "cookies arrive with all their attributes")
