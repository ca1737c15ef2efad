"""An authentication sidecar: a reverse proxy that signs people in and gives them an account in the application."""

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """True where the modules that nearly every request passes are machine code (see docs/performance.md)."""
    spec = find_spec("sidecar.express")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
