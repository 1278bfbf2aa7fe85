"""Who may use a web server of this program: by host name, and by a key where others reach it."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

KEY_VARIABLE = "MASKSTREAM_KEY"
"""Environment variable with the key where others can reach a server; else it is random."""
COOKIE = "maskstream_key"
_SHARE_DOMAIN = ".gradio.live"
_LOCAL_NAMES = ("localhost", "testserver")  # the second is the test client's


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call.

    names: host names under which the server is reached, beside numeric addresses and `localhost`.
    share: it is also reached by Gradio's link. key: what a browser must present, None: nothing.
    cookie: the name of the cookie that holds it.
    """

    names: Sequence[str] = ()
    share: bool = False
    key: str | None = None
    cookie: str = COOKIE

    def knows_host(self, host: str) -> bool:
        """Whether the server may be reached under this value of the header `Host`.

        Sites that point their name at this machine (DNS rebinding) cannot use numeric addresses.
        """
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            shared = self.share and name.endswith(_SHARE_DOMAIN)
            return shared or name in _LOCAL_NAMES or name in {n.lower() for n in self.names}
        return True

    def has_key(self, headers: dict[str, str]) -> bool:
        """Whether a request presents the key: in its cookie, or as bearer token."""
        if self.key is None:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_key(bearer.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return cookie is not None and self.is_key(cookie.value)

    def is_key(self, text: str) -> bool:
        """Whether this is the key, in constant time."""
        return hmac.compare_digest(text.encode(), (self.key or "").encode())


def new_key() -> str:
    """The key of `KEY_VARIABLE`, or a random one."""
    return os.environ.get(KEY_VARIABLE) or secrets.token_urlsafe(24)
