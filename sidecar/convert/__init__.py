"""Turn configurations of other proxies into ours; what cannot be carried over is said in comments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sidecar.convert.draft import Draft, Left
from sidecar.convert.mellon import read_mellon
from sidecar.convert.mod_auth_openidc import read_mod_auth_openidc
from sidecar.convert.oauth2_proxy import read_oauth2_proxy

__all__ = ["KINDS", "Draft", "Left"]

# Kind → reader of a file's text. A reader raises ValueError, which names the line, for what it cannot read at all.
KINDS: Mapping[str, Callable[[str], Draft]] = {
    "oauth2-proxy": read_oauth2_proxy,
    "mod_auth_openidc": read_mod_auth_openidc,
    "mellon": read_mellon,
}
