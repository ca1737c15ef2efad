"""How many SAML answers one process verifies in a second, and how long its event loop waits meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from typing import Any

from tests.saml_forger import ATTRIBUTES, ENTITY, login, pair, recipe

OURS = pair("ours")
GROUPS = {"groups": tuple(f"group-{number}" for number in range(150))}
# Name, how the answer is made, whether it is decrypted with a key of ours.
KINDS: tuple[tuple[str, Mapping[str, Any], bool], ...] = (
    ("assertion signed", {}, False),
    ("response signed", {"signs": ("response",)}, False),
    ("both signed", {"signs": ("assertion", "response")}, False),
    ("both signed, 150 groups", {"signs": ("assertion", "response"), "attributes": {**ATTRIBUTES, **GROUPS}}, False),
    ("signed and encrypted (AES-256-GCM)", {"encrypt": (OURS, None, None)}, True),
)
AT_ONCE = 8


async def longest_wait(stop: asyncio.Event) -> float:
    """Milliseconds by which the event loop was late at worst, of ticks 1 ms apart."""
    worst = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - before - 0.001)
    return worst * 1000


async def measure(changes: Mapping[str, Any], seconds: float, *, decrypts: bool) -> tuple[float, float, float, int]:
    """(answers per second, CPU ms per answer, longest wait of the loop in ms, octets of an answer)."""
    made = recipe(**changes)
    text = made.text()
    verifier = login((OURS,) if decrypts else ())
    kept = {"request": made.request, "issuer": ENTITY}
    done = 0
    end = time.perf_counter() + seconds

    async def one_browser() -> None:
        nonlocal done
        while time.perf_counter() < end:
            # Replays are the portal's business, so the same answer will do.
            await verifier.finish(kept, {"SAMLResponse": text}, made.now)
            done += 1

    await verifier.finish(kept, {"SAMLResponse": text}, made.now)
    stop = asyncio.Event()
    watch = asyncio.create_task(longest_wait(stop))
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_browser() for _ in range(AT_ONCE)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    wait = await watch
    await verifier.close()
    return done / took, cpu / done * 1000, wait, len(text)


def main() -> None:
    """Print a line for each kind of answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each kind is measured")
    seconds = parser.parse_args().seconds
    print(f"{AT_ONCE} answers at once, one process, {seconds:g} s each")
    print(f"{'answer':36} {'size':>8} {'answers/s':>10} {'CPU ms each':>12} {'loop late, worst':>17}")
    for name, changes, decrypts in KINDS:
        rate, cpu, wait, size = asyncio.run(measure(changes, seconds, decrypts=decrypts))
        print(f"{name:36} {size:6} B {rate:10.0f} {cpu:12.2f} {wait:14.1f} ms")


if __name__ == "__main__":
    main()
