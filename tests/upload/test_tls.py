"""Certificates: whom the sender believes, and what it says when it does not."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.upload.given import KEY, job, outcome, target
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from pathlib import Path

    from xybridd.core.delivery import Outcome


class Authority:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.bundle = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.bundle))

    def certificate(self, name: str = "127.0.0.1", *, expired: bool = False) -> Path:
        issued = self.ca.issue_cert(name, not_after=datetime(2001, 1, 1, tzinfo=UTC) if expired else None)
        path = self.folder / f"{name}-{expired}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path


def self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "self-signed.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    return path


@pytest.fixture
def authority(folder: Path) -> Authority:
    return Authority(folder)


def sent_to(certificate: Path, ca_bundle: Path | None = None) -> tuple[Outcome, int]:
    """What came of it, and how many requests the receiver saw."""
    with Receiver(key=KEY, certificate=certificate) as receiver:
        found = outcome(job(target(receiver.url, ca_bundle=ca_bundle and str(ca_bundle))))
        return found, len(receiver.seen()["requests"])


def test_a_certificate_of_an_authority_that_was_named(authority: Authority) -> None:
    found, requests = sent_to(authority.certificate(), authority.bundle)
    assert (found.status, requests) == (200, 1)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_authority_from_the_environment(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.bundle))
    assert sent_to(authority.certificate())[0].status == 200


def test_the_named_authority_wins_over_the_environment(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Authority(tmp_path).bundle))
    assert sent_to(authority.certificate(), authority.bundle)[0].status == 200
    assert sent_to(authority.certificate())[0].failure == "tls"


def test_a_folder_of_certificates(authority: Authority, folder: Path) -> None:
    hashed = folder / "certs"
    hashed.mkdir()
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command here")
    # OpenSSL finds an authority in a folder by its subject's hash.
    asked = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.bundle)]
    name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    (hashed / f"{name}.0").write_bytes(authority.bundle.read_bytes())
    assert sent_to(authority.certificate(), hashed)[0].status == 200


def distrusted(found: Outcome, requests: int) -> str:
    assert (found.status, found.failure, found.sent_bytes, requests) == (None, "tls", 0, 0)
    return found.detail


def test_a_certificate_for_another_name(authority: Authority) -> None:
    assert "another" in distrusted(*sent_to(authority.certificate("ingest.example"), authority.bundle))


def test_a_certificate_that_has_expired(authority: Authority) -> None:
    assert "expired" in distrusted(*sent_to(authority.certificate(expired=True), authority.bundle))


def test_a_certificate_that_is_self_signed(folder: Path) -> None:
    assert "self-signed" in distrusted(*sent_to(self_signed(folder)))


def test_a_certificate_of_an_authority_that_nobody_knows(authority: Authority) -> None:
    assert "ca_bundle" in distrusted(*sent_to(authority.certificate()))


def test_a_bundle_that_is_not_there(authority: Authority) -> None:
    found, requests = sent_to(authority.certificate(), authority.folder / "nowhere.pem")
    assert (found.status, found.failure, requests) == (None, "tls", 0)
    assert "nowhere.pem" in found.detail


def test_a_bundle_that_is_none(authority: Authority) -> None:
    nonsense = authority.folder / "nonsense.pem"
    nonsense.write_text("no certificate")
    found, requests = sent_to(authority.certificate(), nonsense)
    assert (found.status, found.failure, requests) == (None, "tls", 0)
    assert "ca_bundle" in found.detail


def test_no_tls_at_all() -> None:
    with Receiver() as receiver:
        found = outcome(job(receiver.url.replace("http:", "https:")))
        assert receiver.seen()["requests"] == []
    assert found.failure == "tls"
    assert "does not speak TLS" in found.detail
