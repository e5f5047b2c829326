"""A server that answers as the hub of weights does."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for one repository's files, which `files` holds."""

    files: dict[str, bytes]

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        name = self.path.rpartition("/")[2]
        content = self.files.get(self.path.lstrip("/"), self.files.get(name))
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        return content or b""

    def log_message(self, *arguments):
        """Be quiet."""


@contextmanager
def serve(folder: Path) -> Iterator[tuple[dict[str, str], dict[str, bytes]]]:
    """The environment of a process for which a server on the loopback interface is the hub, and its files.

    `folder` holds what is fetched.
    """
    files: dict[str, bytes] = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Hub,), {"files": files}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(folder / "hub"),
        "TORCH_HOME": str(folder / "torch"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    try:
        yield environment, files
    finally:
        server.shutdown()
