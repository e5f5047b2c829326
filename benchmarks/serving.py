"""Requests answered a second at so many clients, beside LitServe with the same network and runtime.

    make bench-serving CHECKPOINT=runs/bccd IMAGES=../shared/data/bccd/JPEGImages
    python -m benchmarks.serving --checkpoint runs/bccd --images DIR [--clients 64 --seconds 20]

Each client sends one picture after the other as a form, on a connection of its own, all from one process on
the server's machine. Decoding, network, thresholds and the answer's JSON are the same code in both
servers, batches are of 8 at most and wait 5 ms; LitServe is measured with one and with two workers. Servers
take turns, `--rounds` each; of all stands the median round. What no server can exceed takes its turn too: the
network by itself, on as many threads as ours has, with images that are there already.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

import httpx
import torch
from rich.console import Console
from rich.table import Table

from boxwright.cli.options import views_of
from boxwright.data.images import decode_upload, find_images, open_upload
from boxwright.prediction.predictor import open_detector
from boxwright.serving.limits import Limits
from boxwright.serving.serve import open_served
from boxwright.serving.served import share_threads

BATCH, WAIT = 8, 0.005
BOUNDARY = "picture"


@dataclass
class Round:
    """What clients saw."""

    rate: float
    p50: float
    p99: float
    refused: int
    boxes: int  # of the first picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--views", default="plain", help="that each image is looked at in")
    parser.add_argument("--only", nargs="*", help="servers by a part of their names")
    given = parser.parse_args()
    paths = find_images(given.images)[:64]
    bodies = [form(path.read_bytes()) for path in paths]
    own = [sys.executable, "-m", "boxwright", "serve", f"it={given.checkpoint}", "--batch", str(BATCH)]
    own += ["--wait", str(1000 * WAIT), "--queue", str(2 * given.clients), "--views", given.views]
    rival = [sys.executable, "-m", "benchmarks.litserve_server", given.checkpoint, "--views", given.views]
    servers = {"boxwright": own}
    servers |= {f"LitServe, workers: {n}": [*rival, "--workers", str(n)] for n in (1, 2)}
    if given.only:
        servers = {name: c for name, c in servers.items() if any(part in name for part in given.only)}
    rounds: dict[str, list[Round]] = {name: [] for name in servers}
    alone: list[float] = []
    for _ in range(given.rounds):
        for name, command in servers.items():
            rounds[name].append(measure(command, bodies, given.clients, given.seconds))
        alone.append(network_alone(given.checkpoint, given.views, paths, given.seconds))
    size = "x".join(map(str, open_detector(given.checkpoint).config.image_size))
    report(rounds, statistics.median(alone), f"{given.clients} clients, {size}, {os.cpu_count()} cores")


def network_alone(checkpoint: str, views: str, paths: list[Path], seconds: float) -> float:
    """Images a second of the detector, whose images are decoded and fitted already."""
    served = open_served(checkpoint, None, None, None, Limits(), views_of(views))
    samples = [served.predictor.fitted(decode_upload(open_upload(path.read_bytes()))) for path in paths]
    batches = [samples[n : n + BATCH] for n in range(0, len(samples), BATCH)]
    workers, threads = share_threads(served.predictor.device)
    start = time.perf_counter()
    end = start + seconds

    def work(first: int) -> int:
        turn, count = first, 0
        while time.perf_counter() < end:
            count += len(served._find(batches[turn % len(batches)]))
            turn += 1
        return count

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        count = sum(pool.map(work, range(workers)))
    rate = count / (time.perf_counter() - start)
    served.close()
    return rate


def report(rounds: dict[str, list[Round]], alone: float, title: str) -> None:
    table = Table(title=title)
    for column in ("server", "images/s", "beside ours", "p50 ms", "p99 ms", "refused"):
        table.add_column(column, justify="left" if column == "server" else "right")
    ours = statistics.median(r.rate for r in next(iter(rounds.values())))
    boxes = {r.boxes for own in rounds.values() for r in own}
    assert len(boxes) == 1, f"the servers found different numbers of boxes: {boxes}"
    for name, own in rounds.items():
        middle = sorted(own, key=lambda r: r.rate)[len(own) // 2]
        ratio = f"{middle.rate / ours:.2f}"
        p50, p99 = f"{1000 * middle.p50:.0f}", f"{1000 * middle.p99:.0f}"
        table.add_row(name, f"{middle.rate:.1f}", ratio, p50, p99, str(middle.refused))
    table.add_row("the network alone", f"{alone:.1f}", f"{alone / ours:.2f}", "", "", "")
    Console().print(table)


def measure(command: list[str], bodies: list[bytes], clients: int, seconds: float) -> Round:
    """A server started, asked and stopped."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/predict", bodies[0])
        asyncio.run(ask(port, bodies, clients, 3.0))  # warm
        return asyncio.run(ask(port, bodies, clients, seconds))
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # LitServe's workers outlive it, and would slow the next one
        process.wait()


def form(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def wait_until_ready(address: str, body: bytes) -> None:
    headers, end = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}, time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if httpx.post(address, content=body, headers=headers, timeout=60).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit(f"{address} doesn't answer.")


async def ask(port: int, bodies: list[bytes], clients: int, seconds: float) -> Round:
    """Clients that ask until the time is over; answers that come later don't count."""
    times: list[float] = []
    refused, boxes = 0, -1
    start = time.perf_counter()
    end = start + seconds

    async def client(number: int) -> None:
        nonlocal refused, boxes
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while (began := time.perf_counter()) < end:
            body = bodies[turn % len(bodies)]
            status, answer = await post(reader, writer, body)
            if status != 200:
                refused += 1
                await asyncio.sleep(0.1)
            elif time.perf_counter() < end:
                times.append(time.perf_counter() - began)
                if turn % len(bodies) == 0:
                    boxes = len(json.loads(answer)["images"][0]["boxes"])
            turn += 1
        writer.close()

    await asyncio.gather(*(client(n) for n in range(clients)))
    cuts = statistics.quantiles(times, n=100)
    return Round(len(times) / seconds, cuts[49], cuts[98], refused, boxes)


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bytes]:
    writer.write(
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
        + body
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


if __name__ == "__main__":
    main()
