"""`boxwright model`: the parts of an experiment's model, what flows through it, what it has learnt to see."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.dataset import DetectionDataset
from boxwright.data.targets import Batch
from boxwright.errors import ConfigError, nearest
from boxwright.models.detector import collate_for
from boxwright.models.feature_maps import attention_of, feature_maps, filters_of
from boxwright.models.inspection import Flow, Part, fields_of, flows_of, parts_of
from boxwright.reporting.gallery import save_picture
from boxwright.reporting.inside import draw_attention, draw_filters, draw_map, inside_page, picture_of
from boxwright.reporting.page import Picture
from boxwright.training.opening import Opened, open_experiment

RANDOM = "The weights are random: parts that start at zero are marked too."


@dataclass(frozen=True)
class Summary:
    """What a model is made of, and how far it sees beside how large the data's boxes are.

    Attributes:
        parts: of the model, the whole last.
        fields: a dict a level of the pyramid: stride, reach, effective, and the share of the data's boxes
            whose longer side is within the effective field.
        sides: (5, 50 and 95 %) longer sides of the boxes, pixels of the network's input.
    """

    parts: list[Part]
    fields: list[dict[str, Any]]
    sides: tuple[float, float, float]


def summarize(experiment: str | os.PathLike, depth: int = 2, changes: list[str] | None = None) -> Summary:
    """The parts of an experiment's model, and the receptive fields of its levels.

    Args:
        experiment: a YAML file, a run folder or a checkpoint.
        depth: of the parts' names.
        changes: `a.b.c=value` on top of a YAML file.

    Raises:
        ConfigError, DataError, CheckpointError: as `open_experiment`.
    """
    opened = open_experiment(experiment, changes=changes)
    size = opened.config.image_size
    dataset = DetectionDataset(opened.tables, size)
    samples = (dataset.truth(n) for n in range(len(dataset)))
    sides = np.concatenate([(s.boxes[:, 2:] - s.boxes[:, :2]).max(axis=1, initial=0) for s in samples])
    fields = [
        {
            "stride": round(field.stride, 2),
            "reach": f"{field.reach[0]} x {field.reach[1]}",
            "effective": field.effective,
            "boxes within": float((sides <= field.effective).mean()),
        }
        for field in fields_of(opened.model, size)
    ]
    low, middle, high = np.percentile(sides, [5, 50, 95]).tolist()
    return Summary(parts_of(opened.model, size, depth), fields, (low, middle, high))


def activations(
    experiment: str | os.PathLike,
    report: str | os.PathLike | None = None,
    images: list[str] | None = None,
    changes: list[str] | None = None,
) -> tuple[list[Flow], list[str]]:
    """What flows through each layer in a training step on a real batch, and what to know of it.

    Args:
        experiment: a YAML file, a run folder or a checkpoint.
        report: where to write a page of it, with filters, feature maps and where queries look.
        images: file names; None: the first of the training data that have boxes, a batch of them.
        changes: `a.b.c=value` on top of a YAML file.

    Raises:
        ConfigError: an unknown image, or as `open_experiment`.
    """
    opened = open_experiment(experiment, changes=changes)
    batch = _batch(opened, images)
    flows = flows_of(opened.model, batch)
    notes = [] if opened.trained else [RANDOM]
    if report is not None:
        rows = [flow_row(f) for f in flows]
        name = Path(experiment).stem if Path(experiment).suffix else Path(experiment).name
        marked = sum(bool(f.marks) for f in flows)
        lead = f"{opened.config.model.name}; {len(flows):,} layers, {marked:,} marked."
        inside_page(Path(report), f"Inside {name}", lead, rows, _galleries(opened, batch), notes)
    return flows, notes


def filters(
    experiment: str | os.PathLike, output: str | os.PathLike, changes: list[str] | None = None
) -> tuple[str, int]:
    """Draw the filters of the first convolution; gives its name and how many there are."""
    opened = open_experiment(experiment, changes=changes)
    name, weights = filters_of(opened.model)
    save_picture(draw_filters(weights), output)
    return name, len(weights)


def flow_row(flow: Flow) -> dict[str, Any]:
    """A row of a table that people read; gradients are small, and have an exponent."""
    gradients = (flow.gradient_deviation, flow.gradient_greatest)
    deviation, greatest = ("" if value is None else f"{value:.1e}" for value in gradients)
    return {
        "layer": flow.name, "marks": ", ".join(flow.marks), "mean": flow.mean, "deviation": flow.deviation,
        "greatest": flow.greatest, "dead": flow.dead, "gradient": deviation, "its greatest": greatest,
        "kind": flow.kind,
    }  # fmt: skip


def _batch(opened: Opened, images: list[str] | None) -> Batch:
    names = opened.tables.images["file_name"].to_list()
    unknown = [name for name in images or [] if name not in names]
    if unknown:
        raise ConfigError(f"--image {unknown[0]}: no such image. {nearest(unknown[0], names)[:300]}")
    chosen = [names.index(name) for name in images or []]
    if not chosen:
        filled = np.unique(opened.tables.boxes["image_id"].to_numpy())
        chosen = filled[: opened.config.train.batch_size].tolist()
    dataset = DetectionDataset(opened.tables, opened.config.image_size)
    return collate_for(opened.model)([dataset[n] for n in chosen])


def _galleries(opened: Opened, batch: Batch) -> dict[str, list[Picture]]:
    """Pictures of the first image of a batch."""
    model = opened.model
    pixels = batch.images[0].permute(1, 2, 0).numpy()
    name, weights = filters_of(model)
    levels = []
    for n, (mean, channels) in enumerate(feature_maps(model, batch.images[:1])):
        shape = f"{mean.shape[1]} x {mean.shape[0]}"
        levels.append(picture_of(draw_map(mean, pixels), f"level {n + 1}: mean size", shape))
        levels += [picture_of(draw_map(c), f"level {n + 1}: a channel", shape) for c in channels]
    names = opened.tables.categories["name"].to_list()
    looks = []
    for found in attention_of(model, batch.images[:1]):
        title = f"{names[found.label]} {found.score:.2f}"
        picture = draw_attention(pixels, found.box, found.places, found.weights, title)
        looks.append(picture_of(picture, title, f"{len(found.weights):,} places"))
    return {
        f"Filters of {name}": [picture_of(draw_filters(weights), name, f"{len(weights)} filters")],
        "Feature maps": levels,
        "Where queries look": looks,
    }
