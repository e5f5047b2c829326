"""The tiles' table of README: sliced prediction beside SAHI's, with the same detector on the same machine.

python -m benchmarks.tiling                   # about 10 minutes, most of it training the detector

A compact detector of upright boxes is trained on small synthetic scenes, then both look at the same large
ones: SAHI at 512 px slices with its own defaults (overlap 0.2, greedy merging by overlap over the smaller),
each slice a batch of its own, and eight at a time; ours at 512 px too, and with its defaults (tiles of 4.5
megapixels at most, overlap as much as objects are long), in torch and in onnxruntime, which SAHI has too.
Both get decoded pixels out of the same files, and the same weights, thresholds and number of threads; weights
are there before the clock starts. Rounds alternate, and each way's best counts.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction

import boxwright
from benchmarks.scenes import train_on_scenes
from boxwright.data.synthetic import make_scenes
from boxwright.data.tables import Tables
from boxwright.evaluation.evaluate import evaluate
from boxwright.models.checkpoint import LoadedDetector, load_detector
from boxwright.models.detector import Detector
from boxwright.models.folding import fold_norms
from boxwright.models.onnx import OnnxDetector
from boxwright.prediction.detect import detect_images, to_tables
from boxwright.prediction.predictor import RUNTIMES
from boxwright.prediction.tiles import detect_tiles

SLICE, LARGE = 512, (3840, 2160)
SCORE = 0.25  # SAHI's default threshold, for both
# A process of its own: the peak that getrusage tells of a child may be its parent's.
LOOK = """import sys, boxwright
boxwright.predict(*sys.argv[1:3], tiling=boxwright.TilingOptions(), runtime=sys.argv[3])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))"""
MANY = (100, 1000, 10_000)  # detections an image and class, so that no crowd is cut


class Ours(DetectionModel):
    """Our detector as SAHI calls one."""

    def __init__(self, loaded: LoadedDetector, network: Detector):
        self.loaded = loaded
        super().__init__(model=network, confidence_threshold=SCORE, device="cpu")

    def check_dependencies(self, packages: list[str] | None = None) -> None:
        """Nothing more is needed."""

    def set_model(self, model, **kwargs) -> None:
        self.model = model
        self.category_mapping = {str(n): name for n, name in enumerate(self.loaded.categories)}

    def load_model(self) -> None:
        """It is there."""

    @property
    def num_categories(self) -> int:
        return len(self.loaded.categories)

    @property
    def has_mask(self) -> bool:
        return False

    @property
    def category_names(self) -> list[str]:
        return self.loaded.categories

    def perform_inference(self, image: np.ndarray) -> None:
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        sizes = torch.tensor([i.shape[1::-1] for i in images], dtype=torch.float32)
        self._original_predictions = detect_images(self.model, pixels, sizes)

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list=None, full_shape_list=None
    ) -> None:
        found = []
        for n, detections in enumerate(self._original_predictions):
            shift = (
                [0, 0] if shift_amount_list is None else shift_amount_list[min(n, len(shift_amount_list) - 1)]
            )
            full = None if full_shape_list is None else full_shape_list[min(n, len(full_shape_list) - 1)]
            found.append(
                [
                    ObjectPrediction(
                        bbox=box, category_id=label, score=score, shift_amount=shift, full_shape=full,
                        category_name=self.loaded.categories[label],
                    )
                    for box, score, label in zip(
                        detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist()
                    )
                    if score >= SCORE
                ]
            )  # fmt: skip
        self._object_prediction_list_per_image = found


def as_photos(tables: Tables) -> Tables:
    """The tables with their images as JPEG, which drones write."""
    paths = [Path(path).with_suffix(".jpg") for path in tables.images["path"]]
    for source, path in zip(tables.images["path"], paths):
        Image.open(source).save(path, quality=95)
    images = tables.images.with_columns(path=pl.Series([str(path) for path in paths]))
    return replace(tables, images=images)


def by_sahi(model: Ours, tables: Tables, batch: int) -> tuple[Tables, float]:
    """What SAHI finds, and its seconds."""
    rows, began = [], time.perf_counter()
    for image, path in zip(tables.images["image_id"], tables.images["path"]):
        found = get_sliced_prediction(
            path, model, slice_height=SLICE, slice_width=SLICE, perform_standard_pred=False, verbose=0,
            batch_size=batch,
        )  # fmt: skip
        boxes = [
            (image, p.category.id, p.score.value, *p.bbox.to_xyxy()) for p in found.object_prediction_list
        ]
        rows.append(np.array(boxes, dtype=np.float64).reshape(-1, 7))
    seconds = time.perf_counter() - began
    return to_tables(rows, tables.images, model.loaded.categories, "sahi"), seconds


def by_ours(
    loaded: LoadedDetector, network: Detector, tables: Tables, tile: tuple[int, int] | None
) -> tuple[Tables, float]:
    """What our tiles find, and their seconds."""
    began = time.perf_counter()
    tiling = boxwright.TilingOptions(size=tile).resolve(loaded, None)
    rows, _, _ = detect_tiles(network, tables.images, tiling, torch.device("cpu"))
    seconds = time.perf_counter() - began
    return to_tables(rows, tables.images, loaded.categories, "boxwright"), seconds


def memory(checkpoint: Path, folder: Path, side: int, runtime: str) -> float:
    """Peak GiB of a process that looks at an image of `side` x `side`."""
    path = folder / f"huge_{side}.tif"
    if not path.is_file():
        import rasterio

        with rasterio.open(
            path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", compress="lzw"
        ) as target:
            for top in range(0, side, 500):
                noise = np.random.default_rng(top).integers(90, 120, (1, 500, side), dtype=np.uint8)
                target.write(noise.repeat(3, 0), window=((top, top + 500), (0, side)))
    words = [sys.executable, "-c", LOOK, str(path), str(checkpoint), runtime]
    told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(told.split()[-2]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench-tiling"), help="for scenes and weights"
    )
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--side", type=int, default=20_000, help="of the image whose memory is measured; 0: none"
    )
    arguments = parser.parse_args()
    folder = arguments.folder
    model = {"name": "compact", "selection": {"score_threshold": SCORE}}
    checkpoint = train_on_scenes(folder, "tiling", model, {"train": 240, "val": 40}, (320, 256), 12)
    truth = as_photos(make_scenes(folder / "large", arguments.scenes, LARGE, 7).without_angles())
    loaded = load_detector(checkpoint)
    folded = fold_norms(loaded.model)
    graph, theirs_graph = (OnnxDetector(fold_norms(loaded.model)) for _ in range(2))
    theirs, theirs_onnx = Ours(loaded, loaded.model.eval()), Ours(loaded, theirs_graph)
    tiling = boxwright.TilingOptions().resolve(loaded, None)
    folded.selection = graph.selection = tiling.selection_of(folded.selection)
    ways = {
        "SAHI, 512 px": lambda: by_sahi(theirs, truth, 1),
        "SAHI, 512 px, batches of 8": lambda: by_sahi(theirs, truth, 8),
        "SAHI, 512 px, onnxruntime": lambda: by_sahi(theirs_onnx, truth, 1),
        "boxwright, 512 px": lambda: by_ours(loaded, folded, truth, (SLICE, SLICE)),
        "boxwright": lambda: by_ours(loaded, folded, truth, None),
        "boxwright, onnxruntime": lambda: by_ours(loaded, graph, truth, None),
    }
    best: dict[str, tuple[float, Tables]] = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            found, seconds = way()
            if name not in best or seconds < best[name][0]:
                best[name] = (seconds, found)
    table = Table("way", box=None)
    for column in ("AP", "AP50", "boxes", "images/s", "ratio"):
        table.add_column(column, justify="right")
    first = best["SAHI, 512 px"][0]
    for name, (seconds, found) in best.items():
        numbers = evaluate(truth, found, MANY).coco
        speed = arguments.scenes / seconds
        cells = (f"{numbers['AP']:.3f}", f"{numbers['AP50']:.3f}", f"{len(found.boxes):,}", f"{speed:.2f}")
        table.add_row(name, *cells, f"{first / seconds:.2f}")
    console = Console(width=100)
    console.print(f"{arguments.scenes} scenes of {LARGE[0]} x {LARGE[1]}, {len(truth.boxes):,} vehicles")
    console.print(table)
    if arguments.side:
        for runtime in RUNTIMES:
            peak = memory(checkpoint, folder, arguments.side, runtime)
            console.print(
                f"peak memory on {arguments.side:,} x {arguments.side:,}, {runtime}: {peak:.2f} GiB"
            )


if __name__ == "__main__":
    main()
