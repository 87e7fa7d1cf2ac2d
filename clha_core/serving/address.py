"""Where a server listens, and who may ask there."""

import ipaddress
import os
from dataclasses import dataclass

from clha_core.errors import UserError

KEY_VARIABLE = "CLHA_SERVE_API_KEY"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def names(self) -> list[str]:
        """What clients on this machine call it in a request's Host header, without the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return list(dict.fromkeys([*LOOPBACK_NAMES, host]))


def api_key(host: str) -> str | None:
    """The key of the environment.

    Raises:
        UserError: none, and others than this machine could ask.
    """
    key = os.environ.get(KEY_VARIABLE) or None
    if key is None and not is_loopback(host):
        raise UserError(
            f"{host} is not this machine alone: set {KEY_VARIABLE} to a secret that clients send as their API key, or "
            "leave --host at 127.0.0.1."
        )
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of names, only localhost is known to be one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
