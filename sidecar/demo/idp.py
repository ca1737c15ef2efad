"""Serve the demo's identity provider alone: `python -m sidecar.demo.idp --port 9000`."""

import argparse
from collections.abc import Sequence

from aiohttp import web

from sidecar.demo.people import PEOPLE, DemoClient, DemoPerson
from sidecar.demo.provider import DemoProvider

__all__ = ["PEOPLE", "DemoClient", "DemoPerson", "DemoProvider", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the provider alone, for trying any relying party against it."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.demo.idp", description=DemoProvider.__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--client-id", default="demo")
    parser.add_argument("--client-secret", default="demo-secret", help="default: %(default)s")
    parser.add_argument("--redirect-uri", action="append", default=[], help="may be given more than once")
    parser.add_argument("--post-logout-redirect-uri", action="append", default=[])
    chosen = parser.parse_args(arguments)
    client = DemoClient(chosen.client_secret, chosen.redirect_uri, chosen.post_logout_redirect_uri)
    provider = DemoProvider(f"http://127.0.0.1:{chosen.port}/id", {chosen.client_id: client})
    print(f"issuer {provider.issuer}", flush=True)  # noqa: T201 - it is what the command is for
    web.run_app(provider.app(), host="127.0.0.1", port=chosen.port, print=None)


if __name__ == "__main__":
    main()
