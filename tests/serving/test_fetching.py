"""Images that requests name: of one folder, of allowed hosts, and of nothing else."""

import ipaddress
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from fastapi.testclient import TestClient

from boxwright.errors import ConfigError
from boxwright.serving.app import create_app
from boxwright.serving.fetching import Sources, is_public
from boxwright.serving.limits import Limits
from boxwright.serving.served import Served
from tests.prediction.test_video import finder
from tests.serving.test_service import SQUARE, is_square

LIMITS = Limits(bytes=300_000, seconds=60.0)


class Pictures(BaseHTTPRequestHandler):
    """A host with a picture, and with what a bad one may send."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.startswith("/square.png"):
            self.answer(SQUARE)
        elif self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest")
            self.end_headers()
        elif self.path == "/huge":
            self.answer(bytes(1_000_000))
        elif self.path == "/short":
            self.answer(SQUARE, length=10 * len(SQUARE))
        elif self.path == "/text":
            self.answer(b"no picture")
        elif self.path == "/noise":
            self.wfile.write(b"220 mail ready")
        else:
            self.send_error(404)

    def answer(self, content: bytes, length: int | None = None):
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def host():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def served():
    made = Served(finder(), LIMITS)
    yield made
    made.close()


def client_of(served: Served, sources: Sources) -> TestClient:
    app = create_app({"bright": served}, LIMITS, sources=sources)
    return TestClient(app, raise_server_exceptions=False)


def status(client: TestClient, image: str) -> int:
    return client.get("/predict", params={"image": image}).status_code


def test_a_file_of_the_folder_and_none_beside_it(served, tmp_path):
    folder = tmp_path / "allowed"
    (folder / "day 1").mkdir(parents=True)
    (folder / "day 1" / "square.png").write_bytes(SQUARE)
    (folder / "large.png").write_bytes(bytes(400_000))
    (folder / "text.png").write_text("no picture")
    (tmp_path / "secret.png").write_bytes(SQUARE)
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "secret.png").write_bytes(SQUARE)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    with client_of(served, Sources(folder, most=LIMITS.bytes)) as client:
        found = client.get("/predict", params={"image": "day 1/square.png"}).json()
        assert is_square(found["images"][0]["boxes"][0])
        outside = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "day 1/../../secret.png"]
        outside += ["../allowed-not/secret.png", "loop.png", "pipe.png", "", ".", "day 1", "none.png", "a\0b"]
        outside += ["~/secret.png", "/etc/passwd", "x" * 5000, "..\\secret.png", "%2e%2e/secret.png"]
        answers = [client.get("/predict", params={"image": name}) for name in outside]
        assert {a.status_code for a in answers} == {404}
        assert {a.text for a in answers} == {'{"error":"no such image"}'}
        assert status(client, "large.png") == 413
        assert status(client, "text.png") == 422
        assert status(client, "http://example.org/a.png") == 403
        assert client.get("/predict").status_code == 422


def test_addresses_of_allowed_hosts_alone(served, host):
    Pictures.asked.clear()
    with client_of(served, Sources(None, [host], LIMITS.bytes, lambda address: True)) as client:
        found = client.get("/predict", params={"image": f"http://{host}/square.png?day=1&night=a b"}).json()
        assert is_square(found["images"][0]["boxes"][0])
        assert Pictures.asked == ["/square.png?day=1&night=a%20b"]
        for path, expected in {
            "away": 422,
            "huge": 413,
            "short": 422,
            "text": 422,
            "noise": 422,
            "no": 422,
        }.items():
            assert status(client, f"http://{host}/{path}") == expected, path
        port = host.partition(":")[2]
        refused = [
            f"http://localhost:{port}/square.png",
            f"http://me@{host}/square.png",
            "http:///square.png",
        ]
        refused += [f"ftp://{host}/square.png", "file:///etc/passwd", f"http://{host}@example.org/square.png"]
        refused += [f"http://{host}.example.org/", "http://127.0.0.1/square.png", "gopher://x", "://"]
        refused += [f"http://example.org#@{host}/", f"http://example.org\\@{host}/"]
        assert {status(client, image) for image in refused} <= {403, 422}
        assert status(client, "http://[::1/square.png") == 422
        assert status(client, "square.png") == 403  # no folder is allowed
    assert len(Pictures.asked) == 7


def test_a_private_address_is_never_asked(served, host):
    Pictures.asked.clear()
    port = host.partition(":")[2]
    with client_of(served, Sources(None, [host, f"localhost:{port}"], LIMITS.bytes)) as client:
        assert status(client, f"http://{host}/square.png") == 403
        assert status(client, f"http://localhost:{port}/square.png") == 403
    assert not Pictures.asked


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("255.255.255.255", False), ("::1", False), ("fe80::1", False), ("fd00::1", False),
        ("::ffff:10.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("ff02::1", False),
    ],
)  # fmt: skip
def test_what_counts_as_public(address, expected):
    assert is_public(ipaddress.ip_address(address)) is expected


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        Sources(tmp_path / "none")
