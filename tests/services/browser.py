"""Debian's Chromium, headless, driven by Playwright."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from playwright.async_api import async_playwright

from tests.services.process import ServiceMissingError, find_program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# A test's browser talks to the servers of the test and to nobody else.
ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    # Containers have a /dev/shm of 64 MB.
    "--disable-dev-shm-usage",
)


def find_chromium() -> str:
    """Return the path of a Chromium; raises ServiceMissingError."""
    for program in PROGRAMS:
        with suppress(ServiceMissingError):
            return find_program(program)
    return find_program(PROGRAMS[0])


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start a Chromium of this event loop's own, and end it with the block."""
    # Chromium's sandbox refuses to run as root.
    arguments = [*ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else [*ARGUMENTS]
    executable = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, headless=True, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()
