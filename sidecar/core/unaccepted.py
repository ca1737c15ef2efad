"""Say why a certificate was not accepted, where the error that arrives says only that nothing can be reached."""

from __future__ import annotations

# Libraries wrap what they caught; a chain that is longer is no chain.
_MOST_LAYERS = 8


def certificate_fault(error: BaseException) -> str:
    """What is wrong with the certificate, in OpenSSL's words, which quote no secret; "" for any other *error*."""
    seen: BaseException | None = error
    for _ in range(_MOST_LAYERS):
        if seen is None:
            return ""
        # An attribute of ssl.SSLCertVerificationError alone.
        said = getattr(seen, "verify_message", "")
        if isinstance(said, str) and said:
            return f"its certificate is not accepted: {said.rstrip('.')}"
        seen = seen.__cause__ or seen.__context__
    return ""
