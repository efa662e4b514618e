"""What an exception of requests and urllib3 means: the failure, and a sentence that says what to do.

requests wraps urllib3's exceptions, which wrap http.client's and the operating system's, in arguments, reasons and
causes. So the whole chain is laid out, and the first row of the table that one of its links fits decides.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING

import requests
import urllib3.exceptions as u3

from xybridd.core.delivery import Failure, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

#: From what the chain holds to the failure. A proxy's trouble is the proxy's, whatever it consists of;
#: RemoteDisconnected is a BadStatusLine to http.client, but what it means is that the connection broke.
_TABLE: tuple[tuple[tuple[type[BaseException], ...], Failure], ...] = (
    ((u3.ProxyError, requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL), "proxy"),
    ((u3.ProxySchemeUnknown, requests.exceptions.InvalidSchema), "proxy"),
    ((u3.NameResolutionError, socket.gaierror), "dns"),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), "broken"),
    ((ssl.SSLError, u3.SSLError, requests.exceptions.SSLError), "tls"),
    ((u3.ConnectTimeoutError, u3.NewConnectionError, requests.exceptions.ConnectTimeout), "connect"),
    ((TimeoutError, u3.TimeoutError, requests.exceptions.Timeout), "timeout"),
    ((ConnectionError, u3.IncompleteRead, u3.InvalidChunkLength, http.client.IncompleteRead), "broken"),
    ((http.client.HTTPException, u3.DecodeError, u3.InvalidHeader), "garbage"),
    ((requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, u3.LocationValueError), "refused"),
    ((UnicodeError, requests.exceptions.MissingSchema), "refused"),
    ((u3.HTTPError, OSError, requests.exceptions.RequestException), "broken"),
)

#: What to do about it.
_SENTENCES: dict[Failure, str] = {
    "proxy": "the proxy did not let us through to {where}; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    "dns": "no address was found for {where}; check the name in upload.endpoint, and this device's DNS",
    "tls": "{where} cannot be trusted: {distrust}",
    "connect": "{where} takes no connection{because}; check that it runs and that no firewall is between",
    "timeout": "{where} did not answer in time",
    "broken": "the connection to {where} broke before the whole answer came{because}",
    "garbage": "what {where} answered is not HTTP; check the port in upload.endpoint",
    "refused": "the endpoint, the key or a header holds what cannot be sent; check [upload] in the config",
}

#: What is told of a certificate, by OpenSSL's number for what is wrong with it.
_CERTIFICATES = {
    9: "its certificate is not valid yet; is this device's clock right?",
    10: "its certificate has expired; if it has not, this device's clock is wrong",
    18: "its certificate is self-signed; set upload.ca_bundle to a file that holds it if you trust it",
    19: "its certificate's chain ends in one we do not know; set upload.ca_bundle to a file that holds that one",
    20: "its certificate is signed by somebody we do not know; set upload.ca_bundle to a file that holds the signer's",
    62: "its certificate is for another name; check upload.endpoint",
    64: "its certificate is for another address; check upload.endpoint",
}


def blamed(error: BaseException, where: str) -> Outcome:
    """``where`` is the host and port that were spoken to."""
    chain = list(_chain(error))
    failure: Failure = next(
        (name for kinds, name in _TABLE if any(isinstance(link, kinds) for link in chain)), "broken"
    )
    return Outcome(failure=failure, detail=_sentence(failure, chain, where))


def _sentence(failure: Failure, chain: list[BaseException], where: str) -> str:
    system = next((link.strerror for link in chain if isinstance(link, OSError) and link.strerror), None)
    return _SENTENCES[failure].format(
        where=where,
        because=f" ({system.rstrip('.').lower()})" if system else "",
        distrust=_distrust(chain) if failure == "tls" else "",
    )


def _distrust(chain: list[BaseException]) -> str:
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            code = getattr(link, "verify_code", None)
            said = str(getattr(link, "verify_message", "") or "its certificate could not be verified").rstrip(".")
            return _CERTIFICATES.get(code if isinstance(code, int) else -1, said)
    words = " ".join(str(link) for link in chain)
    if "WRONG_VERSION_NUMBER" in words or "HTTP_REQUEST" in words or "UNKNOWN_PROTOCOL" in words:
        return "it does not speak TLS there; check scheme and port in upload.endpoint"
    return "the TLS handshake failed; check upload.endpoint and upload.ca_bundle"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it was made of, the outermost first, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        made_of = (*link.args, getattr(link, "reason", None), link.__cause__, link.__context__)
        waiting += [part for part in made_of if isinstance(part, BaseException)]
