"""API tokens that the sidecar issues itself: make them, end them, and recognise who shows one."""

from sidecar.tokens.authenticator import TokenAuthenticator
from sidecar.tokens.issuing import Issuer, Order

__all__ = ["Issuer", "Order", "TokenAuthenticator"]
