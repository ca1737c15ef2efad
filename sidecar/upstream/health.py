"""Ask each server of the application from time to time whether it is well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from aiohttp.http import HttpProcessingError

from sidecar.faults import Refused, Unavailable
from sidecar.upstream.asking import ask
from sidecar.upstream.head import Head

if TYPE_CHECKING:
    from sidecar.config.service import Health
    from sidecar.upstream.server import Server

_FIRST_BAD_STATUS = 400


async def look_after(server: Server, section: Health) -> NoReturn:
    """Check *server* for ever."""
    while True:
        server.checked(await check(server, section))
        await asyncio.sleep(section.every.total_seconds())


async def check(server: Server, section: Health) -> str:
    """What is wrong with *server*, "" when nothing is; bounded in time, and only the head of the answer is read."""
    try:
        async with asyncio.timeout(section.timeout.total_seconds()):
            status = await _ask(server, section)
    except TimeoutError:
        return "no answer in time"
    except (Unavailable, Refused) as fault:
        return fault.detail or fault.reason.value
    except HttpProcessingError as error:
        return type(error).__name__
    return "" if status < _FIRST_BAD_STATUS else f"answers {status}"


async def _ask(server: Server, section: Health) -> int:
    # Over a connection of its own: whether a new one can be made is half of the question.
    host = section.host or server.target.authority
    lines = (("Host", host), ("User-Agent", "sidecar-health"), ("Accept", "*/*"))
    return (await ask(server, Head("GET", section.path, lines))).status
