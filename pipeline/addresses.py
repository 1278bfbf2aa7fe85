"""Addresses of streams and stores: what is shown of them never holds a password."""

from __future__ import annotations

import re
from urllib.parse import quote

# SCHEME://USER: of an address with a password. Digits before a path are a port instead; a path that
# was made of an address has one slash only.
_USER = r"([a-z][a-z0-9+.-]+:/{1,2})(?!\[)([^\s/:]*):(?!\d+[/?])"
_HOST = r"(?:[\w.-]+|\[[0-9a-f:.%]+\])(?::\d+)?(?:[/?]|$)"
# The first @ before what looks like a host ends the password; what is shown goes on at the last @,
# because a password may look like that, too.
_LOGIN = re.compile(rf"{_USER}(\S*?)@(?={_HOST})", re.IGNORECASE)
_HIDES = re.compile(rf"{_USER}\S*@", re.IGNORECASE)
_WHOLE = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}\S+", re.IGNORECASE)
_SECRET = re.compile(r"((?:pass|pwd|token|secret|key|auth|sig|cred)[a-z]*=)[^\s&]+", re.IGNORECASE)
_HIDDEN = "***"
_HEX = re.compile(r"%(?![0-9a-fA-F]{2})")
_KEPT = "%!$&'()*+,;=-._~"  # besides letters and digits; what is quoted already stays


def is_url(target: str) -> bool:
    """Whether a target is a URL, of a stream or a store, rather than a path of this machine."""
    return "://" in target


def masked(text: str) -> str:
    """A text with `***` for passwords in its addresses: `rtsp://USER:***@HOST/1?token=***`."""
    if ":/" not in text:
        return text
    hidden = _HIDES.sub(rf"\1\2:{_HIDDEN}@", text)
    return _WHOLE.sub(lambda found: _SECRET.sub(rf"\1{_HIDDEN}", found[0]), hidden)


def has_login(address: str) -> bool:
    """Whether an address holds a user name and a password."""
    return _HIDES.match(address) is not None


def quoted(address: str) -> str:
    """An address whose user name and password are percent-encoded where they would end it.

    A raw `@`, `#`, `?`, `/` or space in a password would; what is encoded already stays.
    """
    address = address.replace(" ", "%20")
    found = _LOGIN.match(address)
    if found is None:
        return address
    user, password = (quote(_HEX.sub("%25", part), safe=_KEPT) for part in found.group(2, 3))
    return f"{found[1]}{user}:{password}@{address[found.end() :]}"
