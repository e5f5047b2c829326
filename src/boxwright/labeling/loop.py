"""One round of active learning: learn what was reviewed, judge it, and choose what to review next."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from boxwright.config import ExperimentConfig, check_config
from boxwright.data import formats
from boxwright.data.formats.files import read_frame, write_frame
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError, import_extra
from boxwright.evaluation.pairing import align
from boxwright.labeling.corrections import corrections
from boxwright.labeling.queues import describe, entropy, unlike_order
from boxwright.labeling.store import Store

ACCOUNT, NEXT = "account.parquet", "next.parquet"
NUMBERS = ("AP50", "AP75", "AP")
ACCOUNT_SCHEMA: dict[str, pl.DataType] = {
    "round": pl.Int64(),
    "images": pl.Int64(),  # accepted
    "boxes": pl.Int64(),  # in them: what somebody looked at
    "corrected": pl.Int64(),  # of all that were there or are now
    "minutes": pl.Float64(),  # of people
    **{name: pl.Float64() for name in NUMBERS},  # on the config's validation data
}
NEXT_SCHEMA: dict[str, pl.DataType] = {"image_id": pl.Int64(), "file_name": pl.String()}


@dataclass(frozen=True)
class Round:
    """What a round has brought.

    Attributes:
        account: a row a round, `ACCOUNT_SCHEMA`.
        next: images to be reviewed next, the first first, `NEXT_SCHEMA`.
        predictions: of the images that were not accepted; None before the first round.
    """

    account: pl.DataFrame
    next: pl.DataFrame
    predictions: Path | None


def run_round(
    store: Store, config: ExperimentConfig, folder: str | os.PathLike, images: int = 50, seed: int = 0
) -> Round:
    """Train on the accepted images, judge by the config's validation data, and choose the next ones.

    Where none was accepted yet the next images are drawn at random and nothing is trained. A round that was
    stopped goes on with its training.

    Args:
        store: of the review.
        config: of the experiment, whose training data is replaced by what was accepted.
        folder: of rounds: runs, predictions, the account, and the images to be reviewed next.
        images: how many to choose.
        seed: of the first draw.

    Raises:
        ConfigError: nothing was accepted since the last round, or nothing is left to choose.
        DataError: the account can't be read.
    """
    place, tables = Path(folder), store.tables()
    accepted = np.array([row["state"] == "accepted" for row in store.images()])
    if accepted.all():
        raise ConfigError(f"all {len(accepted):,} images of {store.path} are accepted: nothing is left.")
    place.mkdir(parents=True, exist_ok=True)
    account = read_account(place)
    if not accepted.any():
        order = np.random.default_rng(seed).permutation(len(accepted))
        return Round(account, _write_next(tables, order[:images], place), None)
    if len(account) and account["images"][-1] == accepted.sum():
        raise ConfigError(
            f"no image was accepted since round {account['round'][-1]}, which had {accepted.sum():,}. Review"
            f" those of {place / NEXT}: boxwright label DATA -o {store.path} --next {place / NEXT}"
        )
    number = len(account) + 1
    run = _train(tables.select_images(accepted), config, place, f"round-{number}")
    predictions = place / f"round-{number}.predictions.parquet"
    rest = tables.select_images(~accepted)
    import_extra("boxwright.prediction.predict", "train").predict(rest, run, predictions)
    found = align(tables, formats.read(predictions))
    doubt = np.bincount(
        found.boxes["image_id"].to_numpy(),
        entropy(found.boxes["score"].to_numpy()),
        minlength=len(accepted),
    )
    seen = tables.with_boxes(tables.boxes.with_columns(score=pl.lit(1.0)))
    both = pl.concat([found.boxes, seen.boxes.filter(accepted[seen.boxes["image_id"].to_numpy()])])
    order = unlike_order(doubt, describe(tables.with_boxes(both)), accepted, most=images)
    row = _row(store, tables, accepted, run) | {"round": number}
    account = pl.concat([account, pl.DataFrame([row], schema=ACCOUNT_SCHEMA)])
    chosen = _write_next(tables, order[:images], place)
    write_frame(account, place / ACCOUNT)
    return Round(account, chosen, predictions)


def read_account(folder: Path) -> pl.DataFrame:
    """The account of the rounds so far, empty before the first.

    Raises:
        DataError: it isn't one.
    """
    path = folder / ACCOUNT
    if not path.is_file():
        return pl.DataFrame(schema=ACCOUNT_SCHEMA)
    return read_frame(path, ACCOUNT_SCHEMA, "the account of a loop").select([*ACCOUNT_SCHEMA])


def read_next(path: Path, tables: Tables) -> np.ndarray:
    """(I,) the greater the sooner an image is to be reviewed, 0 where it isn't among those of a round.

    Raises:
        DataError: another table, or of other images.
    """
    chosen = read_frame(path, NEXT_SCHEMA, "what a loop has chosen")
    place = {name: n for n, name in enumerate(tables.images["file_name"])}
    rows = [place.get(name, -1) for name in chosen["file_name"]]
    if -1 in rows:
        raise DataError(f"{path}: '{chosen['file_name'][rows.index(-1)]}' is none of these images.")
    values = np.zeros(len(tables.images))
    values[rows] = np.arange(len(rows), 0, -1)
    return values


def _train(labels: Tables, config: ExperimentConfig, folder: Path, name: str) -> Path:
    """The run of a round, which may have been begun."""
    path, run = folder / f"{name}.labels.parquet", folder / name
    begun = path.is_file() and (run / "config.yaml").is_file()
    if begun and not formats.read(path).boxes.equals(labels.boxes):
        raise ConfigError(f"{run} was begun with other labels: remove it, and the round begins anew.")
    formats.write(labels, path)
    if (run / "evaluation.json").is_file():
        return run
    content: dict[str, Any] = config.model_dump()
    if not content["data"]["classes"]:
        ignored = config.data.ignore
        content["data"]["classes"] = [n for n in labels.categories["name"] if n not in ignored]
    content["data"]["train"] = {"root": str(path.resolve()), "format": "parquet"}
    train = import_extra("boxwright.training.train", "train").train
    return train(check_config(content, name), name=name, runs=folder, resume=begun).folder


def _row(store: Store, tables: Tables, accepted: np.ndarray, run: Path) -> dict[str, Any]:
    judged = orjson.loads((run / "evaluation.json").read_bytes())["coco"]
    changed = corrections(store)["image_id"].to_numpy()
    return {
        "images": int(accepted.sum()),
        "boxes": int(accepted[tables.boxes["image_id"].to_numpy()].sum()),
        "corrected": int(accepted[changed].sum()),
        "minutes": sum(action["seconds"] for action in store.actions()) / 60,
    } | {name: judged[name] for name in NUMBERS}


def _write_next(tables: Tables, rows: np.ndarray, folder: Path) -> pl.DataFrame:
    names = tables.images["file_name"].gather(rows)
    chosen = pl.DataFrame({"image_id": rows, "file_name": names}, schema=NEXT_SCHEMA)
    write_frame(chosen, folder / NEXT)
    return chosen
