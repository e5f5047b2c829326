"""Around every request: its number and token, what is counted and logged, headers that protect a page."""

import json
import logging
import random
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATHS = ("/", "/health", "/ready", "/models", "/metrics", "/predict", "/openapi.json")
OPEN = ("/health", "/ready")  # to everyone, for whoever watches over the service
POLICY = "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
logger = logging.getLogger("boxwright.serving")


@dataclass(frozen=True)
class Meters:
    """What Prometheus reads."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    images: Counter
    waiting: Gauge

    @classmethod
    def of(cls, models: Iterable[str]) -> "Meters":
        """Of models of these names."""
        registry = CollectorRegistry()
        meters = cls(
            registry,
            Counter("boxwright_requests", "Requests answered.", ["path", "status"], registry=registry),
            Histogram("boxwright_request_seconds", "Time to the answer.", ["path"], registry=registry),
            Counter("boxwright_images", "Images predicted.", ["model"], registry=registry),
            Gauge("boxwright_waiting", "Images that wait for a batch.", ["model"], registry=registry),
        )
        for name in models:
            meters.images.labels(name)
        return meters


class Watch:
    """Middleware that everything goes through.

    Args:
        app: what is watched over.
        meters: that count.
        token: that every request must bring, but those of `OPEN`; None: none.
    """

    def __init__(self, app: ASGIApp, meters: Meters, token: str | None):
        self.app, self.meters = app, meters
        self.expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # No secret, and asking the system for one would give up the interpreter's lock.
        number, start, status = f"{random.getrandbits(64):016x}", time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=cast(dict, message))
                headers["X-Request-Id"] = number
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            if self.may_ask(scope):
                await self.app(scope, receive, send_on)
            else:
                refusal = JSONResponse({"error": "a token is wanted"}, 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send_on)
        except Exception:
            logger.exception("request %s", number)
            if not status:
                told = {"error": "something went wrong here", "request": number}
                await JSONResponse(told, 500)(scope, receive, send_on)
        seconds = time.perf_counter() - start
        path = scope["path"] if scope["path"] in PATHS else "other"
        self.meters.requests.labels(path, str(status)).inc()
        self.meters.seconds.labels(path).observe(seconds)
        told = {"request": number, "method": scope["method"], "path": path, "status": status}
        logger.info(json.dumps(told | {"ms": round(1000 * seconds, 2)}))

    def may_ask(self, scope: Scope) -> bool:
        """Whether a request brings the token, or needs none."""
        if self.expected is None or scope["path"] in OPEN:
            return True
        given = Headers(scope=scope).get("authorization", "")
        return secrets.compare_digest(given.encode(), self.expected)
