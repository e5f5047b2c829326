"""Run the review's server until somebody stops it."""

import secrets

import uvicorn

from boxwright.labeling.app import Help, create_app
from boxwright.labeling.store import Store
from boxwright.progress import console
from boxwright.serving.listening import LOCAL, is_local, listen


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
    with listen(host, port) as (listening, address):
        app = create_app(store, help, person, token, (*LOCAL, host) if local else ("*",))
        end = "" if token is None else f"/?token={token}"
        console.print(f"{address}{end}", soft_wrap=True)
        console.print("Ctrl-C ends it; every action is saved when it is made.")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
