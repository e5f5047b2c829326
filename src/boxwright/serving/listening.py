"""An application at an address of this machine, until somebody stops it."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

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
