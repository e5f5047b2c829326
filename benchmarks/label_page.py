"""How fluently the review page pans: 10,000 boxes on an image of 8,000 px.

python -m benchmarks.label_page

Chromium (Debian's, without a GPU) draws the page at 1280 x 800 px through Playwright, while the picture is
dragged; frames are counted by the page itself, at three zooms.
"""

import argparse
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import uvicorn
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from boxwright.data.builder import TableBuilder
from boxwright.labeling.app import Help, create_app
from boxwright.labeling.store import Store

SECONDS = 3
ZOOMS = {"whole image": 0.09, "half size": 0.5, "every pixel": 1.0}
PAN = """async (ms) => {
    const began = performance.now(), first = review.view.painted;
    let step = 0, last = began;
    while (last - began < ms) {
        review.view.pan(step % 80 < 40 ? 7 : -7, step % 60 < 30 ? 5 : -5);
        step++;
        last = await new Promise(requestAnimationFrame);
    }
    return 1000 * (review.view.painted - first) / (last - began);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boxes", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=8_000, help="px of the image")
    parser.add_argument("--out", type=Path, default=Path("runs/label-page"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "review.sqlite"
    path.unlink(missing_ok=True)
    store = Store(path, make(options))
    server = uvicorn.Server(uvicorn.Config(create_app(store, Help(), "bench"), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    table = Table("zoom", "frames a second", box=None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://localhost:{port}")
        for name, rate in rates(page).items():
            table.add_row(name, f"{rate:.0f}")
        page.screenshot(path=options.out / "page.png")
        browser.close()
    server.should_exit = True
    thread.join()
    Console(width=100).print(table)


def make(options: argparse.Namespace):
    """One image of noise and its boxes, oriented."""
    rng = np.random.default_rng(0)
    side = options.side
    small = rng.integers(0, 255, (side // 16, side // 16, 3), dtype=np.uint8)
    cv2.imwrite(str(options.out / "large.jpg"), cv2.resize(small, (side, side)))
    builder = TableBuilder("bench", angles="radians")
    image = builder.image("large.jpg", str(options.out / "large.jpg"), side, side)
    for name in ("car", "truck", "bus", "van"):
        builder.category(name)
    shapes = np.column_stack(
        [
            rng.uniform(50, side - 50, (options.boxes, 2)),
            rng.uniform(20, 80, (options.boxes, 2)),
            rng.uniform(-1.5, 1.5, options.boxes),
        ]
    )
    for n, shape in enumerate(shapes.tolist()):
        builder.box(("box", n), image, n % 4, tuple(shape))
    return builder.build()


def rates(page: Page) -> dict[str, float]:
    """Frames a second at each zoom."""
    for _ in range(600):
        if page.evaluate("Boolean(window.review?.view?.levels) && review.state.boxes.length > 0"):
            break
        page.wait_for_timeout(100)
    found = {}
    for name, scale in ZOOMS.items():
        page.evaluate("(k) => review.view.zoom(k / review.view.scale, [640, 400])", scale)
        page.wait_for_timeout(1500)
        found[name] = page.evaluate(PAN, 1000 * SECONDS)
    return found


if __name__ == "__main__":
    main()
