"""A video predicted: memory over its frames, and its rate beside decoding, detecting and writing alone.

    python -m benchmarks.video --checkpoint runs/cars [--size 3840x2160 --frames 200] [--tiles]
    python -m benchmarks.video --checkpoint runs/cars --size 320x240 --frames 10000

The video is synthetic traffic of 50 frames (10 of 4K), again and again. Memory is the process's own, after a
tenth of the frames and at the end.
"""

import argparse
import tempfile
import time
from contextlib import closing, contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from boxwright.cli.options import size_of
from boxwright.data.drawing import Annotator, of_image
from boxwright.data.traffic import drive
from boxwright.data.video import Frame, VideoReader, VideoWriter
from boxwright.prediction import video as module
from boxwright.prediction.outputs import open_outputs
from boxwright.prediction.predictor import open_predictor
from boxwright.prediction.tiling import TilingOptions
from boxwright.prediction.video import VideoOptions, predict_video


def resident() -> float:
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--size", default="3840x2160")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--tiles", action="store_true", help="frames aren't shrunk, as of small vehicles")
    parser.add_argument("--views", nargs="+", help="those of the checkpoint if left out")
    given = parser.parse_args()
    size, count = size_of("--size", given.size), given.frames
    tiling = TilingOptions() if given.tiles else None
    predictor = open_predictor(given.checkpoint, "cpu", given.views, tiling=tiling, runtime=given.runtime)
    with tempfile.TemporaryDirectory() as folder:
        clip, seen = Path(folder) / "clip.mp4", Path(folder) / "seen.mp4"
        drawn = [np.asarray(pixels) for pixels, _ in drive(min(count, 10 if size[0] > 2000 else 50), size, 0)]
        with VideoWriter(clip, size, 25) as writer:
            for pixels in islice(cycle(drawn), count):
                writer.write(pixels)
        rates = {"decode": _decode(clip, count), "detect": _detect(predictor, drawn, count)}
        rates["draw and write"] = _write(predictor, drawn, count, seen)
        memory: list[float] = []
        tell, module.live_figures = module.live_figures, _watched(memory)
        start = time.perf_counter()
        predict_video(str(clip), [predictor], open_outputs([seen]), None, VideoOptions())
        rates["all together"] = count / (time.perf_counter() - start)
        module.live_figures = tell
    table = Table(title=f"{count:,} frames of {given.size}", box=None)
    table.add_column("what")
    table.add_column("frames/s", justify="right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.3g}")
    alone = sum(1 / rate for name, rate in rates.items() if name != "all together")
    table.add_row("one after the other", f"{1 / alone:.3g}")
    Console().print(table)
    tenth = memory[len(memory) // 10]
    Console().print(f"memory: {tenth:.0f} MB after a tenth of the frames, {memory[-1]:.0f} MB at the end")


def _watched(memory: list[float]):
    """In place of the terminal's figures."""

    @contextmanager
    def figures(what, total):
        yield lambda count, text: memory.append(resident())

    return figures


def _decode(clip: Path, count: int) -> float:
    start = time.perf_counter()
    with closing(VideoReader(clip)) as reader:
        for _ in reader:
            pass
    return count / (time.perf_counter() - start)


def _detect(predictor, drawn: list[np.ndarray], count: int) -> float:
    few = max(1, min(8, module.PIXELS // drawn[0][:, :, 0].size))
    frames = cycle(Frame(n, 0.0, pixels) for n, pixels in enumerate(drawn))
    batches = [list(islice(frames, few)) for _ in range(max(2, min(count, 200) // few))]
    for part in (batches[:2], batches):  # graphs are made first
        start = time.perf_counter()
        for _ in module._results([predictor], iter(part)):
            pass
    return few * len(batches) / (time.perf_counter() - start)


def _write(predictor, drawn: list[np.ndarray], count: int, place: Path) -> float:
    height, width = drawn[0].shape[:2]
    images = module.image_table("clip", (width, height), [(n + 1, 0.0) for n in range(len(drawn))])
    rows = [predictor.find([pixels])[0].rows for pixels in drawn]
    for n, own in enumerate(rows):
        own[:, 0] = n
    tables = predictor.tables(rows, images)
    parts, annotator = [of_image(tables, n) for n in range(len(drawn))], Annotator()
    start = time.perf_counter()
    with VideoWriter(place, (width, height), 25) as writer:
        for n in range(min(count, 200)):
            writer.write(annotator.draw(drawn[n % len(drawn)], parts[n % len(drawn)]))
    return min(count, 200) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
