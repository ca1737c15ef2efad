"""Say why an LDAP server's certificate is not accepted, of which the library says "Connect error" alone."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from sidecar.config.sync_source import LdapSource
from sidecar.core.unaccepted import certificate_fault

# RFC 4511, section 4.14.1: message 1, an extended request for 1.3.6.1.4.1.1466.20037.
_START_TLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
_LONGEST_ANSWER = 4096
_PORTS = {"ldap": 389, "ldaps": 636}


def unaccepted(section: LdapSource) -> str:
    """Shake hands once more, and say nothing else; "" when it is not the certificate, or there is no TLS."""
    url = urlsplit(section.url)
    if not (section.start_tls or url.scheme == "ldaps") or not url.hostname:
        return ""
    place = url.hostname, url.port or _PORTS.get(url.scheme, 0)
    try:
        context = ssl.create_default_context(cafile=section.ca)
        with socket.create_connection(place, section.timeout.total_seconds()) as plain:
            if section.start_tls:
                plain.sendall(_START_TLS)
                plain.recv(_LONGEST_ANSWER)
            with context.wrap_socket(plain, server_hostname=url.hostname):
                return ""
    except OSError as error:
        return certificate_fault(error)
