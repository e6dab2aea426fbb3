"""HTTP and RTSP Digest login as devices ask for it (RFC 7616): MD5, which most still offer, and SHA-256."""

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from urllib.request import parse_http_list, parse_keqv_list

NONCE_SECONDS = 300.0
_DIGESTS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass(slots=True)
class Digest:
    """One user of one device."""

    realm: str
    user: str
    password: str
    nonces: dict[str, float] = field(default_factory=dict)

    def challenge(self) -> str:
        """Return a WWW-Authenticate header with a new nonce."""
        now = time.monotonic()
        self.nonces = {nonce: until for nonce, until in self.nonces.items() if until > now}
        nonce = secrets.token_hex(16)
        self.nonces[nonce] = now + NONCE_SECONDS
        return f'Digest realm="{self.realm}", qop="auth", nonce="{nonce}", algorithm=MD5'

    def knows(self, method: str, authorization: str, path: str | None = None) -> bool:
        """Return whether an Authorization header is right; `path` must be what was asked for, where it is given."""
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() != "digest":
            return False
        try:
            told = parse_keqv_list(parse_http_list(rest))
            digest = _DIGESTS[told.get("algorithm", "MD5").upper()]
            secret = digest(f"{self.user}:{self.realm}:{self.password}".encode()).hexdigest()
            asked = digest(f"{method}:{told['uri']}".encode()).hexdigest()
            # RTSP clients still speak the older form without qop (RFC 2069).
            parts = (told["nc"], told["cnonce"], told["qop"]) if "qop" in told else ()
            expected = digest(":".join((secret, told["nonce"], *parts, asked)).encode()).hexdigest()
        except (KeyError, ValueError, IndexError):
            return False
        fresh = self.nonces.get(told["nonce"], 0.0) > time.monotonic()
        right = told.get("username") == self.user and path in {None, told["uri"]}
        return fresh and right and secrets.compare_digest(told.get("response", ""), expected)
