"""The options of the service."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from pixelwise.errors import InputError

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServeOptions:
    """Where the service listens and what it accepts.

    Args:
        host: Address to listen on. Other machines reach the service only if it is not a loopback
            address.
        port: TCP port; 0 for any free port.
        token: Bearer token that clients must send, or None.
        queue: Largest number of accepted images that wait or run. Further ones are answered with
            status 503.
        max_bytes: Largest size of a request body, in bytes.
        max_pixels: Largest number of pixels of an image.
        timeout: Seconds after which a request is answered with status 504, and a body that is still
            being sent with 408.

    Raises:
        InputError: If a value is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    queue: int = 128
    max_bytes: int = 32 * MEBIBYTE
    max_pixels: int = 50_000_000
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port {self.port}: must be 0 to 65535")
        for name in ("queue", "max_bytes", "max_pixels", "timeout"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} {getattr(self, name)}: must be above 0")
        if self.token is not None and (not self.token.isascii() or not self.token.strip()):
            raise InputError("token: must be ASCII text that is not empty")

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the service."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True
