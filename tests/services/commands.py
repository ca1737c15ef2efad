"""Type ``sidecar`` and words as in a terminal, at the cost of a fork: all that commands import is imported once.

The nursery is a process with all commands imported, one per pytest worker. It forks for each command a process of its
own with the folder, the environment and the streams that are wanted; such a process is as it is after the start of
``sidecar``, except that nothing need be imported. Tests of the start itself start it.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from sidecar.cli import _COMMANDS, main

ROOT = Path(__file__).parents[2]


def typed(
    *words: str, folder: Path, environment: Mapping[str, str], timeout: float = 200.0
) -> subprocess.CompletedProcess[str]:
    """Type ``sidecar`` and *words* in *folder*; raises TimeoutError after *timeout* seconds, and kills it."""
    order = {"words": words, "folder": str(folder), "environment": dict(environment)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        ours, theirs = socket.socketpair()
        with ours, theirs, ours.makefile("rw") as line:
            socket.send_fds(_nursery(), [b"."], [theirs.fileno(), out.fileno(), err.fileno()])
            theirs.close()
            line.write(f"{json.dumps(order)}\n")
            line.flush()
            pid = int(line.readline())
            ours.settimeout(timeout)
            try:
                code = int(line.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(["sidecar", *words], code, out.read().decode(), err.read().decode())


@functools.cache
def _nursery() -> socket.socket:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.services.commands", str(theirs.fileno())],
        cwd=ROOT,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours


def _serve(orders: socket.socket) -> None:
    """Fork for each command, until nobody can order any more."""
    for _, module in _COMMANDS.values():
        importlib.import_module(module)
    gc.freeze()
    # Nobody waits for those who wait for a command; the kernel buries them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, streams, _, _ = socket.recv_fds(orders, 1, 3)
        if not streams:
            return
        assert threading.active_count() == 1, "a child of several threads is not whole"
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _carry_out(*streams)
            return
        for one in streams:
            os.close(one)


def _carry_out(channel: int, out: int, err: int) -> None:
    """Fork once more, and say the number of that process and how it ended; returns in neither of the two."""
    with socket.socket(fileno=channel) as caller, caller.makefile("rw") as line:
        order = json.loads(line.readline())
        child = os.fork()
        if child:
            line.write(f"{child}\n")
            line.flush()
            line.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
            line.flush()
            os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    # It leaves as the program does, by SystemExit, with all that Python does at the end.
    main(order["words"], prog_name="sidecar")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
