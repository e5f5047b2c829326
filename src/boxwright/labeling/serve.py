"""Run the review's server until somebody stops it."""

import ipaddress
import secrets
import socket

import uvicorn

from boxwright.errors import ConfigError
from boxwright.labeling.app import LOCAL, Help, create_app
from boxwright.labeling.store import Store
from boxwright.progress import console


def is_local(host: str) -> bool:
    """Whether nobody but this machine can ask there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    store: Store, help: Help, person: str, host: str = "127.0.0.1", port: int = 8765, token: str | None = None
) -> None:
    """Serve the page; Ctrl-C ends it, and everything is on the disk already.

    Args:
        store: of the review.
        help: what a model and an audit know.
        person: who corrects, where the page isn't told another name.
        host: address to listen at; others than this machine's want a token, made where none is given.
        port: to listen at.
        token: that a browser must bring.

    Raises:
        ConfigError: the port is taken, or the address isn't this machine's.
    """
    local = is_local(host)
    if not local and token is None:
        token = secrets.token_urlsafe(24)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # before its address is told: who asks at once waits
        except OSError as error:
            raise ConfigError(
                f"{host} port {port} can't be listened at: {error}. --port takes another."
            ) from error
        app = create_app(store, help, person, token, (*LOCAL, host) if local else ("*",))
        shown = "localhost" if host in LOCAL else f"[{host}]" if ":" in host else host
        end = "" if token is None else f"/?token={token}"
        console.print(f"http://{shown}:{listening.getsockname()[1]}{end}", soft_wrap=True)
        console.print("Ctrl-C ends it; every action is saved when it is made.")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
