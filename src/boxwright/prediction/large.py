"""Images too large for one worker of a prediction in parts: their tiles are shared out.

A part that holds such images is set aside at first, and `large-000012.json` tells the shares of their tiles.
What is seen in one of them is in `tiles-000012-3.npz`, put there whole. Once all are there the part is
predicted as any other, but for the tiles that were seen already.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from boxwright.data.formats.files import write_atomic
from boxwright.data.shards import place_images
from boxwright.data.windows import large_image_size
from boxwright.errors import DataError
from boxwright.prediction.predictor import Predictor
from boxwright.prediction.tiles import Seen, see_tiles
from boxwright.prediction.tiling import AREA

SHARE = 32 * AREA  # px of the network's input: some tens of seconds of a core


@dataclass(frozen=True)
class Share:
    """Tiles of a large image that a worker looks at.

    Attributes:
        image: its row in the part.
        predictor: which of several.
        start, stop: of the tiles.
    """

    image: int
    predictor: int
    start: int
    stop: int


def large_file(folder: Path, part: int) -> Path:
    return folder / f"large-{part:06d}.json"


def tiles_file(folder: Path, part: int, share: int) -> Path:
    return folder / f"tiles-{part:06d}-{share}.npz"


def set_aside(
    folder: Path, part: int, places: list[tuple[str, str]], predictors: Sequence[Predictor]
) -> bool:
    """Whether a part holds images whose tiles are to be shared out, which is noted then."""
    shares = [
        share
        for image, (_, path) in enumerate(places)
        for number, predictor in enumerate(predictors)
        for share in _shares_of(image, path, number, predictor)
    ]
    if shares:
        write_atomic(large_file(folder, part), json.dumps([asdict(s) for s in shares]).encode())
    return bool(shares)


def _shares_of(image: int, path: str, number: int, predictor: Predictor) -> list[Share]:
    """Of an image for a predictor; none where it is small enough for one worker, or can't be read."""
    if predictor.tiling is None:
        return []
    try:
        size = large_image_size(path)
    except DataError:
        return []  # told where the part is predicted
    tile = predictor.tiling.tile_of(size, predictor.model)
    count = len(predictor.tiling.windows_of(size, tile))
    step = max(1, SHARE // (tile[0] * tile[1]))
    if count <= step:
        return []
    return [Share(image, number, start, min(start + step, count)) for start in range(0, count, step)]


def shares_of(folder: Path, part: int) -> list[Share]:
    """The shares of a part; none where it isn't set aside.

    Raises:
        DataError: what was noted can't be read.
    """
    place = large_file(folder, part)
    if not place.is_file():
        return []
    try:
        return [Share(**share) for share in json.loads(place.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{place}: can't be read: {error}.") from error


def see_share(
    folder: Path, images: pl.DataFrame, part: int, number: int, predictors: Sequence[Predictor],
    batch_size: int | None,
) -> None:  # fmt: skip
    """Look at a share's tiles and put what is seen into the folder; `images` are the part's."""
    share = shares_of(folder, part)[number]
    predictor = predictors[share.predictor]
    assert predictor.tiling is not None
    with tempfile.TemporaryDirectory(prefix="boxwright-") as unpacked:
        ((_, path),) = place_images(images[share.image : share.image + 1], Path(unpacked))
        width, height = large_image_size(path)
        table = pl.DataFrame({"image_id": [0], "path": [path], "width": [width], "height": [height]})
        (seen,) = see_tiles(
            predictor.model, table, predictor.tiling, predictor.device, predictor.find_tiles, batch_size,
            tiles=slice(share.start, share.stop),
        )  # fmt: skip
    content = io.BytesIO()
    np.savez(content, **vars(seen))
    write_atomic(tiles_file(folder, part, number), content.getvalue())


def seen_of(folder: Path, part: int, predictors: int) -> list[dict[int, Seen]]:
    """What each predictor saw of a part's large images, by their rows.

    Raises:
        DataError: a share isn't there, or can't be read.
    """
    seen: list[dict[int, list[Seen]]] = [{} for _ in range(predictors)]
    for number, share in enumerate(shares_of(folder, part)):
        seen[share.predictor].setdefault(share.image, []).append(_load(tiles_file(folder, part, number)))
    return [{image: Seen.joined(parts) for image, parts in own.items()} for own in seen]


def _load(place: Path) -> Seen:
    try:
        with np.load(place) as file:
            arrays = {name: file[name] for name in file.files}
        return Seen(**arrays | {"full": bool(arrays["full"]), "error": str(arrays["error"])})
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{place}: can't be read: {error}.") from error


def remove_shares(folder: Path) -> None:
    """Remove what was seen in shares, once every part is there."""
    for pattern in ("tiles-*.npz", "large-*.json"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
