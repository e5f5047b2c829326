"""Connections: one that never ends its request's head is cut off, others are not."""

import asyncio
import socket
import threading
import time

import httpx
import uvicorn

from boxwright.serving.listening import listen, protocol


async def slow_app(scope, receive, send):
    """Reads the body, and takes longer than a head may."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(1.6)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_a_head_that_never_ends_is_cut_off_and_a_slow_answer_is_not():
    with listen("127.0.0.1", 0) as (listening, address):
        config = uvicorn.Config(slow_app, http=protocol(1.0), lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        with socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=20) as hanging:
            hanging.sendall(b"POST / HTTP/1.1\r\n")
            start, cut = time.monotonic(), False
            while not cut and time.monotonic() < start + 20:
                time.sleep(0.05)
                try:
                    hanging.sendall(b"X-a: b\r\n")
                except OSError:
                    cut = True
            assert cut
        with httpx.Client() as client:
            for _ in range(2):  # the second on the same connection
                assert client.post(address, content=b"x" * 100_000, timeout=20).text == "ok"
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
