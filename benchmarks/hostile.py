"""A service under hostile requests: statuses, memory, and whether others get their boxes.

    python -m benchmarks.hostile [--requests 100000 --schemathesis]

A detector of random weights is served by `boxwright serve` on this machine. Strangers send malformed bodies,
images that lie, paths and addresses that lead elsewhere, heads and bodies that never end and connections that
break off, chosen at random; an honest client asks all the while, and every answer must be its first one. With
`--schemathesis` requests are made from `/openapi.json` too (pip install schemathesis).
"""

import argparse
import asyncio
import base64
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from PIL import Image
from rich.console import Console

from boxwright.config import check_config
from boxwright.models import build_detector
from boxwright.models.checkpoint import save_detector

SIZE = (192, 128)
STRANGERS = 16
LONG = 400  # one of so many requests is slow, or breaks off
ADDRESSES = (
    "file:///etc/passwd", "http://127.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "ftp://a/b",
    "../../../../etc/passwd", "..%2f..%2fetc/passwd", "/etc/passwd", "a\x00b", "x" * 5000, "\\\\host\\share",
    "http://localhost:22/", "gopher://x", "data:image/png;base64,AAAA", "", ".", "//", "nul", "~root",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schemathesis", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, address = start(Path(folder))
        try:
            asyncio.run(attack(process, address, given.requests, given.seed))
            if given.schemathesis:
                examine(address)
        finally:
            process.terminate()
            process.wait(40)


def start(folder: Path) -> tuple[subprocess.Popen, str]:
    """A service of a detector of random weights, and its address."""
    source = {"root": "nowhere"}
    config = check_config({"data": {"train": source, "val": source}, "image_size": list(SIZE)}, "hostile")
    torch.manual_seed(0)
    save_detector(build_detector(config.model, 2), config, ["a", "b"], folder / "random.safetensors")
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(picture())
    command = [sys.executable, "-m", "boxwright", "serve", str(folder / "random.safetensors"), "--port", "0"]
    command += ["--images", str(folder / "images"), "--timeout", "5", "--max-bytes", "300000"]
    command += ["--fetch", "localhost", "--fetch", "127.0.0.1", "--max-detections", "20"]
    log = folder / "log"
    process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT)
    while process.poll() is None:
        found = re.search(r"^http://\S+", log.read_text(), re.MULTILINE)
        if found:
            return process, found[0]
        time.sleep(0.1)
    raise SystemExit(log.read_text())


@cache
def picture(kind: str = "PNG", size: tuple[int, int] = SIZE) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


async def attack(process: subprocess.Popen, address: str, count: int, seed: int) -> None:
    statuses: Counter[str] = Counter()
    memory, watched = [], psutil.Process(process.pid)
    done = 0
    start = time.perf_counter()
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        honest = asyncio.create_task(be_honest(client, statuses))

        async def stranger(number: int) -> None:
            nonlocal done
            rng = random.Random(f"{seed} {number}")
            while done < count:
                done += 1
                if done % (count // 20) == 0:
                    memory.append(watched.memory_info().rss / 1e6)
                    Console().print(f"{done:,} requests, {memory[-1]:.0f} MB, {dict(statuses)}")
                if rng.randrange(LONG) == 0:
                    statuses[await break_off(address, rng)] += 1
                    continue
                method, path, options = hostile(rng)
                try:
                    answer = await client.request(method, path, **options)
                except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
                    statuses[type(error).__name__] += 1
                    continue
                statuses[str(answer.status_code)] += 1
                assert not re.search(r"Traceback|site-packages|\.py", answer.text), answer.text

        await asyncio.gather(*(stranger(n) for n in range(STRANGERS)))
        honest.cancel()
    seconds = time.perf_counter() - start
    faults = sum(n for status, n in statuses.items() if status.startswith("5"))
    Console().print(
        f"{done:,} requests in {seconds:.0f} s: {dict(statuses)}; 5xx: {faults}; "
        f"memory {memory[1]:.0f} MB after a tenth, {memory[-1]:.0f} MB at the end"
    )


async def be_honest(client: httpx.AsyncClient, statuses: Counter) -> None:
    """Asks for the same picture's boxes, again and again."""
    content, first = picture(), None
    while True:
        answer = await client.post("/predict?score=0", content=content)
        if answer.status_code == 429:  # told to come back
            statuses["honest, told to wait"] += 1
        else:
            assert answer.status_code == 200, answer.text
            boxes = [
                [b[k] for k in ("x", "y", "w", "h", "score")] for b in answer.json()["images"][0]["boxes"]
            ]
            first = first or boxes
            assert boxes
            assert np.allclose(boxes, first, atol=1e-3)
            statuses["honest, answered"] += 1
        await asyncio.sleep(0.02)


def hostile(rng: random.Random) -> tuple[str, str, dict]:
    """A request: method, path and what it brings."""
    kind = rng.randrange(8)
    whole = picture(rng.choice(("PNG", "JPEG", "WEBP", "BMP", "TIFF")))
    if kind == 0:  # damaged
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 30)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return "POST", "/predict", {"content": bytes(damaged[: rng.randrange(1, len(damaged) + 1)])}
    if kind == 1:
        return "POST", "/predict", {"content": bomb(rng.choice((10_000, 60_000, 2**31 - 1)))}
    if kind == 2:
        return "GET", "/predict", {"params": {"image": rng.choice(ADDRESSES)}}
    if kind == 3:
        query = {"model": rng.choice(ADDRESSES), "score": rng.choice(("nan", "-1", "1e999", "x", ""))}
        query |= {"format": rng.choice(("xml", "coco", "")), "tiles": rng.choice(("maybe", "true", ""))}
        chosen = dict(rng.sample(sorted(query.items()), rng.randrange(1, 4)))
        return "POST", "/predict", {"content": whole, "params": chosen}
    if kind == 4:
        images: list = [rng.choice(ADDRESSES), base64.b64encode(whole).decode(), None, 1, [], "=", {}]
        value = rng.choice(([rng.choice(images)], {"images": rng.sample(images, 3)}, {"images": images[1]}))
        text = json.dumps(value) if rng.random() < 0.8 else "[" * rng.randrange(100_000)
        return "POST", "/predict", {"content": text, "headers": {"Content-Type": "application/json"}}
    if kind == 5:
        name = rng.choice(ADDRESSES).replace("\x00", "")
        content = rng.choice((b"", b"\x00" * 1000, whole, bytes(400_000)))
        return "POST", "/predict", {"files": [("images", (name, content))] * rng.choice((1, 2, 40))}
    if kind == 6:
        content = b"--x\r\n" + rng.randbytes(rng.randrange(2000))
        boundary = rng.choice(("", "; boundary=x", "; boundary=" + "y" * 300, "; boundary=\x7f"))
        headers = {"Content-Type": rng.choice(("multipart/form-data", "text/html")) + boundary}
        return "POST", "/predict", {"content": content, "headers": headers}
    method = rng.choice(("PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "GET"))
    paths = (
        "/predict",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/models/../..",
        "/docs",
        "//",
        "/metrics",
    )
    return method, rng.choice(paths), {"headers": {"Authorization": rng.choice(("Bearer", "x" * 2000))}}


def bomb(side: int) -> bytes:
    """A PNG whose header announces more pixels than a machine holds."""
    whole = bytearray(picture())
    whole[16:24] = side.to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    return bytes(whole)


async def break_off(address: str, rng: random.Random) -> str:
    """A connection that stalls in its head or body, speaks no HTTP, or leaves before its answer."""
    host, _, port = address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    lengthy = head + b"Content-Length: 100000\r\n\r\n"
    kind = rng.randrange(5)
    try:
        if kind == 0:  # the head never ends
            writer.write(head)
        elif kind == 1:  # the body never ends
            writer.write(lengthy + b"x" * 1000)
        elif kind == 2:
            writer.write(rng.randbytes(3000))
        elif kind == 3:
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n")
        else:
            content = picture()
            writer.write(head + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()
            return "left"
        answer = await asyncio.wait_for(reader.read(100), 30)
        return answer[9:12].decode("latin-1") if answer else "cut off"
    except ConnectionError:
        return "cut off"
    finally:
        writer.close()


def examine(address: str) -> None:
    """Requests that Schemathesis makes of the service's own description; it exits with 1 if one is a 5xx."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which(
        "schemathesis"
    )
    if program is None:
        raise SystemExit("schemathesis isn't installed: pip install schemathesis")
    subprocess.run(
        [
            program,
            "run",
            f"{address}/openapi.json",
            "--checks",
            "not_a_server_error",
            "--max-examples",
            "2000",
        ],
        check=True,
        cwd=tempfile.gettempdir(),  # where it leaves notes
    )


if __name__ == "__main__":
    main()
