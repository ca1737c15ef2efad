"""Ask the sidecar that runs on this machine, at its Unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LONGEST_ANSWER = 1 << 20


def ask(path: Path, patience: float, **fields: Any) -> Mapping[str, Any]:
    """Ask the sidecar that listens at *path*. Raises OSError (TimeoutError among them), ValueError and TypeError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(patience)
        one.connect(str(path))
        one.sendall(json.dumps(fields).encode() + b"\n")
        with one.makefile("rb") as stream:
            answer = json.loads(stream.readline(_LONGEST_ANSWER))
    if not isinstance(answer, dict):
        raise TypeError
    return answer
