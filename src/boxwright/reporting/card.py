"""Cards: what a model or a data set is, how good, where it fails; as Markdown for Hugging Face, and HTML.

Sections follow Mitchell et al., Model Cards for Model Reporting, FAT* 2019, and Gebru et al., Datasheets for
Datasets, 2018, as far as a run and a table can fill them; what they can't is said to be missing.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from boxwright.config import ExperimentConfig, load_config
from boxwright.config.zoo import ZOO
from boxwright.data import formats
from boxwright.data.checking import check
from boxwright.data.formats.files import write_atomic
from boxwright.data.statistics import stats
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.confidence import confidence
from boxwright.evaluation.confusion import confusion
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.evaluation.intervals import intervals
from boxwright.evaluation.slices import slices
from boxwright.reporting.page import Section, shown, write_page

RESAMPLES = 500
SLICES = ("size", "aspect", "position", "density")
ENOUGH = 10  # objects of a slice or class, to say that a detector fails there
POOR = 0.6  # of the overall AP50, below which it does
CONFUSED = 5  # pairs of classes
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class Card:
    """A card.

    Attributes:
        title: its heading.
        lead: what it is of, in a sentence.
        metadata: as Hugging Face reads it.
        sections: notes, numbers and tables.
    """

    title: str
    lead: str
    metadata: dict[str, Any]
    sections: list[Section]

    def markdown(self) -> str:
        """The card with its metadata before it."""
        head = yaml.safe_dump(self.metadata, sort_keys=False, allow_unicode=True)
        parts = [f"---\n{head}---\n", f"# {_plain(self.title)}\n", f"{_plain(self.lead)}\n"]
        for section in self.sections:
            parts.append(f"## {section.title}\n")
            parts += [f"{_plain(note)}\n" for note in section.notes]
            numbers = [{"": name, "value": value} for name, value in section.numbers.items()]
            parts += [_table(rows) for rows in (numbers, section.rows) if rows]
        return "\n".join(parts)


def card(
    source: str | os.PathLike,
    output: str | os.PathLike | None = None,
    licence: str | None = None,
    tables: Tables | None = None,
) -> list[Path]:
    """Write the card of a run, or of a data set.

    Args:
        source: a finished run's folder, or labels in any known format.
        output: a .md or .html; None: both, `card.md` and `card.html` in the run's folder or the working
            directory.
        licence: SPDX name, of the model or the data.
        tables: the labels, where they are read already.

    Returns:
        The files.

    Raises:
        DataError: it can't be read, or the run isn't finished.
        ConfigError: another suffix.

    Example:
        >>> boxwright.card("runs/bccd", licence="apache-2.0")
    """
    place = Path(source)
    of_run = tables is None and (place / "config.yaml").is_file()
    made = (
        model_card(place, licence)
        if of_run
        else data_card(tables or formats.read(place), place.name, licence)
    )
    if output is None:
        folder = place if of_run else Path()
        targets = [folder / "card.md", folder / "card.html"]
    else:
        targets = [Path(output)]
    for target in targets:
        if target.suffix == ".md":
            write_atomic(target, made.markdown().encode())
        elif target.suffix == ".html":
            write_page(target, made.title, made.lead, made.sections)
        else:
            raise ConfigError(f"{target}: expected a .md or .html to write.")
    return targets


def model_card(run: Path, licence: str | None = None) -> Card:
    """The card of a finished run.

    Raises:
        DataError: the run isn't finished.
    """
    for name in ("truth.parquet", "predictions.parquet", "evaluation.json"):
        if not (run / name).is_file():
            raise DataError(f"{run / name} is missing; has the run been finished? (--resume)")
    config, name = load_config(run / "config.yaml"), run.resolve().name
    evaluation = evaluate(formats.read(run / "truth.parquet"), formats.read(run / "predictions.parquet"))
    classes = evaluation.truth.categories["name"].to_list()
    sliced = _slices(evaluation)
    limits = _limits(evaluation, sliced)
    sections = [
        _model(config, classes),
        _data(config, evaluation.truth),
        _results(evaluation, json.loads((run / "evaluation.json").read_text()).get("operating", {})),
        *sliced,
        Section("Where it fails", notes=limits or ["Nowhere by far: no class and no slice stands out."]),
        _calibration(evaluation),
        _training(run, config),
        _licence(config, licence),
    ]
    numbers = f"AP {evaluation.coco['AP']:.3f}, AP50 {evaluation.coco['AP50']:.3f}"
    lead = (
        f"An object detector ({config.model.name}) that finds {_listed(classes)}: {numbers} on"
        f" {len(evaluation.truth.images):,} images that it has not learnt from."
    )
    return Card(name, lead, _model_metadata(name, config, evaluation, licence), sections)


def data_card(tables: Tables, name: str, licence: str | None = None) -> Card:
    """The card of a data set."""
    found, faults = stats(tables), check(tables, False)
    oriented = int(tables.boxes["angle"].is_not_null().sum())
    numbers = {
        "images": found["images"],
        "boxes": found["boxes"],
        "classes": len(found["classes"]),
        "oriented boxes": oriented,
        "images without boxes": found["empty_images"],
        "boxes an image": found["boxes_per_image"],
        "most boxes in an image": found["most_boxes"],
    }
    kept = (
        "name",
        "count",
        "images",
        "median_width",
        "median_height",
        "small",
        "medium",
        "large",
        "crowd",
        "ignore",
    )
    rows = [{key: row.get(key) for key in kept} for row in found["classes"]]
    counts = pl.Series([fault.code for fault in faults], dtype=pl.String).value_counts(
        sort=True, name="count"
    )
    wrong: list[dict[str, Any]] = [{"fault": fault, "count": count} for fault, count in counts.iter_rows()]
    sources = tables.boxes["source"].drop_nulls().unique(maintain_order=True).to_list()
    sections = [
        Section("Contents", numbers=numbers, rows=rows),
        Section("Sizes of the images", rows=found["image_sizes"][:12]),
        Section(
            "Sources", notes=[f"Labels are of {_listed(sources)}." if sources else "No source is named."]
        ),
        Section("Faults", rows=wrong, notes=[] if wrong else ["`boxwright data check` finds none."]),
        Section("Licence", notes=[licence or "Not stated."]),
    ]
    metadata = {"license": licence or "unknown", "pretty_name": name, "task_categories": ["object-detection"]}
    size = next((text for most, text in SIZES if found["images"] < most), "n>1M")
    lead = (
        f"{found['images']:,} images with {found['boxes']:,} boxes of {_listed([r['name'] for r in rows])}."
    )
    return Card(name, lead, metadata | {"size_categories": [size]}, sections)


def _listed(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _model(config: ExperimentConfig, classes: list[str]) -> Section:
    start, (width, height) = config.model.weights, config.image_size
    notes = [
        f"{config.model.name} of boxwright, on images fitted into {width} x {height} px.",
        f"{len(classes)} classes: {_listed(classes, 100)}.",
        f"Started from {start}." if start else "Started from random weights.",
        f"Judged in {len(config.views)} fused views: {', '.join(config.views)}."
        if len(config.views) > 1
        else "Judged in one view.",
        "For images like those it was judged on; nothing is known of others. Not for decisions about people"
        " that nobody looks at.",
    ]
    return Section("Model", notes=notes)


def _data(config: ExperimentConfig, truth: Tables) -> Section:
    rows = [
        {"source": source.root, "format": source.format or "", "list": source.list or "", "role": source.role}
        for source in config.data.sources
    ]
    judged = f"Judged on {len(truth.images):,} images with {len(truth.boxes):,} boxes."
    return Section("Data", rows=rows, notes=["Learnt from the sources below.", judged])


def _results(evaluation: Evaluation, operating: dict) -> Section:
    reading = intervals(evaluation, resamples=RESAMPLES)
    rows = [
        {"number": r["number"], "value": r["value"], "from": r["low"], "to": r["high"]} for r in reading.rows
    ]
    notes = [
        "COCO's metric; from and to: 95 % of draws of the images that it was judged on.",
        *evaluation.notes,
    ]
    for name, point in operating.get("points", {}).items():
        notes.append(
            f"{name} is drawn and served from a score of {point['threshold']:.2f}: precision"
            f" {point['precision']:.2f}, recall {point['recall']:.2f}."
        )
    return Section("Results", rows=rows, notes=notes)


def _slices(evaluation: Evaluation) -> list[Section]:
    made = []
    for by in SLICES:
        try:
            reading = slices(evaluation.truth, evaluation.predictions, by).reading
        except (ConfigError, DataError):
            continue  # images of unknown size have no positions
        made.append(Section(f"By {by}", rows=reading.rows, notes=["At IoU 0.5."]))
    return made


def _limits(evaluation: Evaluation, sections: list[Section]) -> list[str]:
    """Classes and slices in which it finds far less than elsewhere, and what it takes for what."""
    overall, notes = evaluation.coco["AP50"], []
    for row in evaluation.per_class:
        if row["truth"] >= ENOUGH and row["AP50"] < POOR * overall:
            mean = f"of all classes {overall:.2f}"
            notes.append(f"{row['name']}: AP50 {row['AP50']:.2f}, {mean} ({row['truth']:,} objects).")
    for section in sections:
        by = section.title.removeprefix("By ")
        for row in section.rows:
            truth = row["TP"] + row["FN"]
            if truth >= ENOUGH and row["AP"] is not None and row["AP"] < POOR * overall:
                never = f"{truth:,} objects, {row['FN']:,} of them never found"
                notes.append(f"{by} {row[by]}: AP50 {row['AP']:.2f} ({never}).")
    matrix = confusion(evaluation.truth, evaluation.predictions)
    last = len(matrix.names) - 1
    wrong = [
        (int(matrix.counts[r, c]), matrix.names[r], matrix.names[c])
        for r in range(last)
        for c in range(last)
        if r != c and matrix.counts[r, c]
    ]
    for count, truth, found in sorted(wrong, reverse=True)[:CONFUSED]:
        notes.append(f"{truth} is taken for {found} ({count:,}).")
    return notes


def _calibration(evaluation: Evaluation) -> Section:
    reading = confidence(evaluation.truth, evaluation.predictions)
    notes = ["How far a score is from the share of right detections among those that have it."]
    return Section(
        "Calibration", numbers=reading.overall, rows=reading.rows, notes=notes, source=reading.source
    )


def _training(run: Path, config: ExperimentConfig) -> Section:
    place = run / "environment.json"
    facts = json.loads(place.read_text()) if place.is_file() else {}
    together = config.train.images_a_step(facts.get("processes", 1))
    numbers: dict[str, Any] = {"epochs": config.train.epochs, "images a step": together}
    path = run / "metrics.parquet"
    if path.is_file():
        metrics = pl.read_parquet(path)
        numbers["minutes of training"] = float(metrics["seconds"].to_numpy().max()) / 60
    notes = [
        f"{config.train.optimizer.describe(together)}, seed {config.train.seed}.",
        "Energy was not measured.",
    ]
    rows = [{"what": name, "value": str(value)} for name, value in facts.items()]
    return Section("Training", numbers=numbers, rows=rows, notes=notes)


def _licence(config: ExperimentConfig, licence: str | None) -> Section:
    notes = [licence or "Of this model: not stated."]
    start = config.model.weights
    if start in ZOO:
        entry = ZOO[start]
        notes.append(f"It started from {start}: {entry.weights_licence}, published in {entry.source}.")
    elif start:
        notes.append(f"It started from {start}, whose licence is not known here.")
    return Section("Licence", notes=notes)


def _model_metadata(
    name: str, config: ExperimentConfig, evaluation: Evaluation, licence: str | None
) -> dict[str, Any]:
    values = [
        {"type": key, "name": key, "value": round(evaluation.coco[key], 4)} for key in ("AP", "AP50", "AP75")
    ]
    result = {
        "task": {"type": "object-detection"},
        "dataset": {"name": "validation images", "type": "custom"},
        "metrics": values,
    }
    return {
        "license": licence or "unknown",
        "library_name": "boxwright",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", config.model.name],
        "model-index": [{"name": name, "results": [result]}],
    }


def _table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(_plain(name) for name in names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_plain(shown(row[name])) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names of files and classes may hold anything."""
    escaped = re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)
    return re.sub(r"\s+", " ", escaped)
