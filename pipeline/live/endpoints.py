"""Addresses of servers, [HOST:]PORT: one form for all of them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, replace

from maskstream.pipeline.errors import ConfigError

LOOPBACK = "127.0.0.1"
_PORTS = 65536


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens. host: a name or an IP address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        """Address family to listen with."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def beside(self, number: int) -> Endpoint:
        """The endpoint of the next but `number` server; port 0, any free one, stays.

        Raises `ConfigError` if there is no such port.
        """
        if not self.port or not number:
            return self
        if self.port + number >= _PORTS:
            raise ConfigError(f"{number} ports after {self} there is none; choose a smaller one")
        return replace(self, port=self.port + number)


def parse_endpoint(text: str, option: str) -> Endpoint:
    """Parse PORT (of the loopback), HOST:PORT or [IPv6]:PORT.

    option: names it in the message, such as `--preview`. Raises `ConfigError`.
    """
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = _ipv6(host[1:-1])
    elif ":" in host or (separator and not host):  # an IPv6 address without brackets, `:PORT`
        port = ""
    if not (port.isascii() and port.isdigit() and int(port) < _PORTS):
        raise ConfigError(
            f"{option} takes [HOST:]PORT, for example 9105, 0.0.0.0:9105 or [::1]:9105, "
            f"not '{text}'"
        )
    return Endpoint(host or LOOPBACK, int(port))


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise ConfigError(f"[{host}] is not an IPv6 address") from error
