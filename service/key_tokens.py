"""The text of an API key, and the hash that is stored in its place.

A key reads `hyp_ID_SECRET`: the id finds its record, and the secret, 256 random bits, is compared
with the record's scrypt hash. The prefix lets scanners of published code recognise a leaked key.
"""

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

_TEXT = re.compile(r"hyp_(?P<number>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})")
_COST = 2**14
_BLOCK_SIZE = 8
_HASH_BYTES = 32
_SALT_BYTES = 16


@dataclass(frozen=True)
class KeyToken:
    """One key as its owner holds it."""

    key_id: str
    secret: str

    @property
    def text(self) -> str:
        """What is sent as the bearer token."""
        return f"hyp_{self.key_id.removeprefix('key-')}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """A fast hash, for comparisons within one process; it is stored nowhere."""
        return hashlib.sha256(self.text.encode()).digest()

    def __repr__(self) -> str:
        return f"KeyToken({self.key_id})"


def new_token() -> KeyToken:
    """A key that nobody has yet."""
    return KeyToken(f"key-{secrets.token_hex(8)}", secrets.token_urlsafe(32))


def parse_token(text: str) -> KeyToken | None:
    """Take a bearer token apart; None if it is no API key of this service's form."""
    match = _TEXT.fullmatch(text)
    return KeyToken(f"key-{match['number']}", match["secret"]) if match else None


def hash_secret(secret: str, cost: int = _COST) -> str:
    """Hash a secret with scrypt and a salt of its own; blocks for some 50 ms and takes 16 MiB.

    Args:
        secret: What only the key's owner has.
        cost: scrypt's N; stored with the hash, so that it can be raised later.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    hashed = _scrypt(secret, salt, cost, _BLOCK_SIZE)
    return f"scrypt${cost}${_BLOCK_SIZE}${_encoded(salt)}${_encoded(hashed)}"


def matches(secret: str, stored: str) -> bool:
    """Whether a secret is the one of a stored hash; blocks as `hash_secret` does."""
    _, cost, block_size, salt, expected = stored.split("$")
    hashed = _scrypt(secret, urlsafe_b64decode(salt), int(cost), int(block_size))
    return secrets.compare_digest(hashed, urlsafe_b64decode(expected))


def _scrypt(secret: str, salt: bytes, cost: int, block_size: int) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, n=cost, r=block_size, p=1, dklen=_HASH_BYTES)


def _encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).decode()
