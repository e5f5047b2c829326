"""An application at an address of this machine, until somebody stops it."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from boxwright.errors import ConfigError

LOCAL = ("localhost", "127.0.0.1", "[::1]")


def is_local(host: str) -> bool:
    """Whether nobody but this machine can ask there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def listen(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and its address for a browser.

    Raises:
        ConfigError: the port is taken, or the address isn't this machine's.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # before its address is told: who asks at once waits
        except OSError as error:
            raise ConfigError(
                f"{host} port {port} can't be listened at: {error}. --port takes another."
            ) from error
        shown = "localhost" if host in LOCAL else f"[{host}]" if ":" in host else host
        yield listening, f"http://{shown}:{listening.getsockname()[1]}"


def protocol(seconds: float) -> type[H11Protocol]:
    """HTTP by uvicorn, which alone would wait for the head of a request for ever."""

    class Timely(H11Protocol):
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.forget_head()

        def watch_head(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self.forget_head()  # it is whole; the application watches over the rest
            elif self.deadline is None:
                self.deadline = self.loop.call_later(seconds, self.transport.abort)

        def forget_head(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    return Timely
