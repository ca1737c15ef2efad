"""How long it takes to be ready, what it holds when idle, and what a second worker brings."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench import configs
from bench.cpu import Processes
from bench.load import wrk
from bench.peers import ROOT, Surroundings, python
from bench.report import Report, Table

_PAGE = "/some/page"


def measure(here: Surroundings, report: Report) -> None:
    """Start it some times, and look at it when it has nothing to do."""
    # As an installed package has it: without, each start would compile two hundred modules anew.
    bytecode = here.folder()
    _once(here, bytecode)
    times = [_once(here, bytecode) for _ in range(2 if report.is_quick else 5)]
    ready = statistics.median(seconds for seconds, _, _ in times)
    idle = max(memory for _, _, memory in times)
    quickest, spent = min(seconds for seconds, _, _ in times), min(cpu for _, cpu, _ in times)
    row = (f"{len(times)}", f"{ready:.2f}", f"{quickest:.2f}", f"{spent:.2f}", f"{idle:.0f}")
    columns = ("starts", "median s", "quickest s", "least CPU s", "idle MB")
    about = (
        "From the command to the first 200 of /-/ready, with bytecode of an earlier start; memory resident in one "
        "worker that has served nothing yet."
    )
    report.tables.append(Table("Start", about, columns, [row]))
    report.judge("ready within 1.5 s", ready, 1.5, " s")
    report.judge("idle worker at most 90 MB resident", idle, 90, " MB")


def _once(here: Surroundings, bytecode: Path) -> tuple[float, float, float]:
    place = here.place(workers=1)
    file = place.folder / "config.yaml"
    file.write_text(configs.sidecar(place))
    environment = {**os.environ, **configs.sidecar_environment(place), "PYTHONPATH": str(ROOT)}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    with subprocess.Popen([python(), "-m", "sidecar", "run", str(file)], env=environment) as process:
        try:
            while not _is_ready(place.url):
                time.sleep(0.01)
            took, spent = time.perf_counter() - began, Processes(process.pid).seconds()
            time.sleep(0.5)
            return took, spent, max(Processes(process.pid).resident())
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def workers(here: Surroundings, report: Report) -> None:
    """Compare one worker with two, in turns."""
    rounds, seconds = (1, 1) if report.is_quick else (3, 3)
    peers = [here.sidecar(workers=number) for number in (1, 2)]
    rates: list[list[float]] = [[], []]
    costs: list[list[float]] = [[], []]
    for peer in peers:
        peer.cookie = peer.sign_in()
        wrk(peer.place.url + _PAGE, peer.cookie, 1, 64)
    for _ in range(rounds):
        for number, peer in enumerate(peers):
            before = peer.processes.seconds()
            load = wrk(peer.place.url + _PAGE, peer.cookie, seconds, 64)
            rates[number].append(load.rate)
            costs[number].append((peer.processes.seconds() - before) / load.requests * 1e6)
    memory = [peer.processes.memory() for peer in peers]
    here.end(peers)
    rows = [
        (
            f"{number + 1}",
            f"{statistics.median(rates[number]):.0f}",
            f"{statistics.median(costs[number]):.0f}",
            f"{memory[number]:.0f}",
        )
        for number in (0, 1)
    ]
    about = (
        "64 connections, in turns. Load and application need cores, too: two workers on two cores are not twice one."
    )
    report.tables.append(Table("Workers", about, ("workers", "requests/s", "CPU µs/request", "memory MB"), rows))
