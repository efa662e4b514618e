"""Which certificates are believed.

The first of: the target's ``ca_bundle``; ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE``, as requests has it; the system's
own trust (truststore: the files of the distribution, the keychain on macOS), because a fleet or a company installs its
own authority there; and where a system has none, as in a bare container, certifi's.
"""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import Any

import truststore
from requests.adapters import HTTPAdapter

#: Where distributions keep them, for a Python that was built elsewhere: Fedora and Alpine, older Fedora, Debian, SUSE.
#: The same that truststore looks for.
_BUNDLES = (
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/ca-bundle.pem",
)


def bundle(configured: str | None) -> str | None:
    """The file or folder that was named, None for the system's trust."""
    return configured or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None


def adapter(ca_bundle: str | None) -> HTTPAdapter:
    """What carries requests; none is tried twice."""
    context = None if ca_bundle else system_context()
    return HTTPAdapter(max_retries=0) if context is None else _SystemTrust(context)


def system_context() -> ssl.SSLContext | None:
    """None where the system has no certificates that it trusts."""
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if _system_trusts_somebody() else None


def _system_trusts_somebody() -> bool:
    if sys.platform == "darwin":
        return True
    # Both obey SSL_CERT_FILE and SSL_CERT_DIR, and name only what is there.
    paths = ssl.get_default_verify_paths()
    folder = Path(paths.capath) if paths.capath else None
    return bool(paths.cafile or (folder and any(folder.iterdir())) or any(Path(each).is_file() for each in _BUNDLES))


class _SystemTrust(HTTPAdapter):
    """The system's certificates alone: requests would add certifi's to them."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        if verify is True:
            conn.cert_reqs = "CERT_REQUIRED"
        else:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
