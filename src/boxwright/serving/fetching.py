"""Images that a request names instead of bringing them: files of one folder, addresses of allowed hosts."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httpcore
from starlette.exceptions import HTTPException

from boxwright.errors import ConfigError
from boxwright.serving.limits import Held

# IPv6 that leads to IPv4: mapped, NAT64, 6to4, Teredo. What is behind them can't be told from the outside.
EMBEDDING = [ipaddress.ip_network(n) for n in ("::ffff:0:0/96", "64:ff9b::/32", "2002::/16", "2001::/32")]
PORTS = {"http": 80, "https": 443}
CONNECTIONS = 16


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the internet, and of no network behind this machine."""
    embedding = any(address in network for network in EMBEDDING)
    return address.is_global and not address.is_multicast and not embedding


class Sources:
    """Where the images that requests name may be.

    Args:
        folder: whose files may be named by their paths below it; None: none may.
        hosts: whose http and https addresses may be named, `host` or `host:port`; none if empty.
        most: bytes of an image.
        may_connect: to an address that the name of a host leads to.

    Raises:
        ConfigError: there is no such folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        hosts: Iterable[str] = (),
        most: int = 20_000_000,
        may_connect: Callable[[IPv4Address | IPv6Address], bool] = is_public,
    ):
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder, expected one whose images may be asked for.")
        self._folder = None if folder is None else folder.resolve()
        self._hosts, self._most = {host.lower() for host in hosts}, most
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=CONNECTIONS, keepalive_expiry=5, network_backend=_Guarded(may_connect)
        )

    async def read(self, image: str, held: Held) -> bytes:
        """A named file's content.

        Raises:
            HTTPException: it isn't allowed, isn't there, or is too large.
        """
        if "://" in image:
            return await self._fetch(image, held)
        if self._folder is None:
            raise HTTPException(403, "images can't be named here; send them")
        content = await asyncio.to_thread(self._read_file, self._folder, image)
        held.take(len(content))
        return content

    async def close(self) -> None:
        await self._pool.aclose()

    def _read_file(self, folder: Path, name: str) -> bytes:
        try:
            path = (folder / name).resolve(strict=True)  # links that lead outside are outside
            if not path.is_relative_to(folder) or not path.is_file():
                raise FileNotFoundError  # what is outside is told as what isn't there
            if path.stat().st_size > self._most:
                raise HTTPException(413, f"more than {self._most:,} bytes")
            return path.read_bytes()
        except (OSError, ValueError, RuntimeError) as error:  # a loop of links is a RuntimeError
            raise HTTPException(404, "no such image") from error

    async def _fetch(self, address: str, held: Held) -> bytes:
        url, host = self._checked(address)
        parts: list[bytes] = []
        size = 0
        try:
            headers = [("Host", host), ("Accept-Encoding", "identity"), ("User-Agent", "boxwright")]
            async with self._pool.stream("GET", url, headers=headers) as response:
                if response.status != 200:  # redirects too: they could lead anywhere
                    raise HTTPException(422, f"its server answered {response.status}, expected 200")
                async for part in response.aiter_stream():
                    size += len(part)
                    if size > self._most:
                        raise HTTPException(413, f"more than {self._most:,} bytes")
                    held.take(len(part))
                    parts.append(part)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise HTTPException(422, "its server can't be reached, or doesn't speak HTTP") from error
        return b"".join(parts)

    def _checked(self, address: str) -> tuple[httpcore.URL, str]:
        """An address taken apart once, so that what is checked is what is asked for, and its host."""
        try:
            parts = urlsplit(address)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise HTTPException(422, "not an address") from error
        if parts.scheme not in PORTS or not host.isascii() or "@" in parts.netloc:
            raise HTTPException(403, "expected an address http://host/path or https://host/path")
        named = host if port is None else f"{host}:{port}"
        if named not in self._hosts:
            raise HTTPException(403, "no pictures are fetched from there")
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        url = httpcore.URL(
            scheme=parts.scheme.encode(),
            host=host.encode(),
            port=port or PORTS[parts.scheme],
            target=target.encode(),
        )
        return url, named


class _Guarded(httpcore.AsyncNetworkBackend):
    """Connections to public addresses alone: those that are connected to are those that were checked."""

    def __init__(self, may_connect: Callable[[IPv4Address | IPv6Address], bool]):
        self._may_connect = may_connect
        self._inner = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
        if not all(self._may_connect(address) for address in addresses):
            raise HTTPException(403, "no pictures are fetched from there")
        return await self._inner.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.AsyncNetworkStream:
        raise HTTPException(403, "no pictures are fetched from there")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
