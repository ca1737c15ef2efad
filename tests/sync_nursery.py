"""Run a synchronisation in a child that may be killed: `python -m tests.sync_nursery CONFIG`, a line for each child.

A line is ``SECONDS AHEAD``: kill the child after so many seconds (0: let it end), its clock being AHEAD of ours. The
answer is how it ended: killed, or the state of the run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

from sidecar.config.loader import load
from sidecar.faults import Unavailable
from sidecar.hooks.passwords import FILTERS
from sidecar.sync.runs import Wish
from sidecar.syncing import open_syncing


async def synchronise(file: Path, ahead: float) -> str:
    """Run the source and settle the accounts."""
    config = load(file, environment=os.environ, filters=FILTERS).config
    async with open_syncing(config, lambda: time.time() + ahead) as syncing:
        try:
            run = await syncing.sources["hr"].run(Wish("test"))
        except Unavailable as fault:
            return fault.reason.value
        await syncing.settle(lambda _done: None)
        return run.state


def child(file: Path, seconds: float, ahead: float) -> str:
    """Fork, and say how it ended."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.write(writer, asyncio.run(synchronise(file, ahead)).encode())
        os._exit(0)
    os.close(writer)
    if seconds:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    said = os.read(reader, 100).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return said or "killed"


def main() -> None:
    """Answer line by line."""
    assert threading.active_count() == 1, "a child of several threads is not whole"
    for line in sys.stdin:
        seconds, ahead = map(float, line.split())
        print(child(Path(sys.argv[1]), seconds, ahead), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
