"""Writes the reference pages of the site from the code: every key, every command, every function.

python docs/generate.py        # before mkdocs build; see `make docs`

A key's meaning is the comment beside or above it in the config's source, or that of its name in `MEANINGS`; a
key without either stops the build.
"""

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import boxwright
from boxwright.config import ExperimentConfig
from boxwright.config.part import Part
from boxwright.data.formats import READERS, WRITERS

FOLDER = Path(__file__).parent / "reference"
# Keys that mean the same wherever they stand.
MEANINGS = {
    "alpha": "exponent of the class score in the alignment (TOOD), or the balance of the focal loss",
    "anchors": "sizes and shapes of the anchors",
    "angle": "weight of the loss of the angle",
    "assigner": "which anchors or points are assigned to which box",
    "augment": "random changes of the training images",
    "backbone": "the network that gives the feature maps",
    "beta": "exponent of the IoU in the alignment (TOOD)",
    "bias": "least weight of a sample before the power (PISA)",
    "box": "weight of the box loss",
    "box_iou": "IoU from which an anchor may be of a box's bag",
    "box_loss": "the box loss",
    "box_weight": "weight of the box loss",
    "boxes": "which box of a person: full, visible, head",
    "brightness": "greatest change of brightness, as a share",
    "candidates": "best scores of an image that are looked at before non-maximum suppression",
    "channels": "of the pyramid",
    "channels_last": "memory format of the network; faster on most devices",
    "clip_norm": "greatest norm of the gradient; null: no limit",
    "cls": "weight of the class loss",
    "cls_loss": "the class loss",
    "compile": "torch.compile the network",
    "contrast": "greatest change of contrast, as a share",
    "data": "what to train on and to judge by",
    "decay": "of the moving average of the weights, a step",
    "dfl": "weight of the distribution focal loss",
    "dfl_weight": "weight of the distribution focal loss",
    "drop_path": "greatest probability of dropping a residual branch",
    "ema": "moving average of the weights, which is what is judged and kept; null: none",
    "epochs": "passes over the training images",
    "epsilon": "of the entropy in the transport problem",
    "flip_vertical": "probability",
    "frozen_stages": "first stages of the backbone that aren't trained",
    "gamma": "exponent of the focal loss",
    "gaussian": "weight of the loss between Gaussians",
    "gsd": "metres of ground a pixel of the images, where they have one",
    "head_depth": "convolutions of a tower of the head",
    "head_norm": "norm of the head's towers",
    "ignore_coverage": "share of an anchor in an ignored region from which it isn't background",
    "images": "folder of the images, where it isn't where the format puts it",
    "iou": "weight of the IoU loss",
    "iou_threshold": "IoU from which non-maximum suppression removes the lower score",
    "iou_weight": "weight of the IoU in the cost of an assignment",
    "iterations": "of the Sinkhorn algorithm",
    "layout": "of the text format: xyxy, xywh, relative",
    "least_objectness": "below which a location is no candidate",
    "loss_weights": "of the parts of the loss",
    "low_quality": "the best anchors of a box are positive whatever their IoU",
    "lr": "greatest learning rate",
    "max_detections": "of an image",
    "model": "the detector",
    "name": "which of the alternatives",
    "neck": "the pyramid of feature maps",
    "negative_iou": "IoU below which an anchor is background",
    "norm": "normalisation layers",
    "norm_eval": "batch norms keep the statistics they came with",
    "optimizer": "how weights follow gradients",
    "positive_iou": "IoU from which an anchor is positive",
    "power": "exponent of a sample's rank (PISA)",
    "precision": "of training; auto: bf16 where the device gains by it",
    "pretrained": "load the hub's weights",
    "refined_weight": "weight of the loss of the refined boxes",
    "reg_max": "greatest distance of a side, in strides",
    "scale": "range of the random factor of size",
    "scales": "sizes of the anchors of a location, as factors",
    "schedule": "of the learning rate",
    "score_threshold": "of the class score, below which nothing is a detection; kept low for judging",
    "seed": "same seed, same run",
    "selection": "how dense predictions become detections",
    "smooth_l1_beta": "where the box loss turns from square to linear",
    "topk": "candidates of a box",
    "class_agnostic": "one box for all classes",
    "decoder_layers": "layers that refine the queries",
    "dropout": "share of features left out in training",
    "encoder_layers": "layers of attention within the image",
    "giou": "weight of the GIoU loss",
    "heads": "of the attention",
    "hidden": "channels of the perceptrons",
    "l1": "weight of the distance of the boxes",
    "positions": "how the places of the image are told apart",
    "queries": "predictions of an image",
    "regions": "how proposals are sampled, pooled, classified and refined",
    "rpn": "how proposals are made",
    "sampler": "which priors enter the loss",
    "stages": "region heads, each on the boxes of the one before",
    "size": "of the model, as published",
    "count": "priors an image",
    "ratio": "negatives to each positive",
    "denoising": "queries made of the truth in training",
    "DataConfig.sampling": "which training images are drawn more often, and which first",
    "labelled": "the teacher also adds what labelled images lack",
    "distill": "a trained detector is learnt beside the labels; null: none",
    "teacher": "the average of the weights labels images while they are learnt; null: none",
    "DataConfig.train": "what to learn from",
    "ExperimentConfig.train": "how to learn it",
    "val": "what to judge by",
    "weight_decay": "of the optimizer, on weights but not on norms and biases",
    "width": "factor of the channels",
}


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in (
        ("configuration", configuration()),
        ("commands", commands()),
        ("formats", formats()),
        ("api", api()),
    ):
        (FOLDER / f"{name}.md").write_text(text)


def configuration() -> str:
    """Every part of an experiment with its keys."""
    lines = [
        "# Configuration",
        "",
        "An experiment is a YAML file. Every key has a default but those of `data`; a wrong key is an error",
        "that names the nearest right one. On the command line `--set a.b.c=value` changes one.",
        "",
    ]
    parts = _parts(ExperimentConfig)
    for part in parts:
        title = _title(part)
        lines += [f"## {title}", ""]
        doc = inspect.getdoc(part)
        if doc and not doc.startswith(inspect.getdoc(Part) or "?"):
            lines += [doc, ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key, field in part.model_fields.items():
            default = _default(field)
            lines.append(f"| `{key}` | {_type(field.annotation)} | {default} | {_meaning(part, key)} |")
        lines.append("")
    return "\n".join(lines)


def commands() -> str:
    """The help of every command."""
    lines = ["# Commands", "", "Every command has `--help`.", ""]
    for words in _command_names():
        text = _help(words)
        lines += [f"## boxwright {' '.join(words)}", "", "```text", text.strip(), "```", ""]
    return "\n".join(lines)


def formats() -> str:
    """What is read and written."""
    lines = ["# Formats", "", "| name | read | written | what it is |", "|---|---|---|---|"]
    for name in sorted({*READERS, *WRITERS}):
        module = sys.modules[(READERS.get(name) or WRITERS[name]).__module__]
        about = (module.__doc__ or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        marks = ["yes" if name in known else "" for known in (READERS, WRITERS)]
        lines.append(f"| `{name}` | {marks[0]} | {marks[1]} | {about} |")
    lines += ["", "The format is told from the path; `--format` names it where that isn't enough.", ""]
    return "\n".join(lines)


def api() -> str:
    """The public functions, for mkdocstrings."""
    lines = ["# Python", "", "Each command is a function of `boxwright`, imported when it is first used.", ""]
    for name in boxwright.__all__:
        home = boxwright._HOMES[name]
        lines += [f"## {name}", "", f"::: {home}.{name}", ""]
    return "\n".join(lines)


def _parts(root: type[Part]) -> list[type[Part]]:
    found: list[type[Part]] = []

    def visit(part: type[Part]) -> None:
        if part in found:
            return
        found.append(part)
        for field in part.model_fields.values():
            for inner in _inner(field.annotation):
                visit(inner)

    visit(root)
    return found


def _inner(annotation: Any) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _inner(argument)]


def _title(part: type[Part]) -> str:
    return part.__name__.removesuffix("Config") or part.__name__


def _type(annotation: Any) -> str:
    """A type as a person would say it."""
    parts = _inner(annotation)
    if parts:
        names = [f"[{_title(p)}](#{_title(p).lower()})" for p in parts]
        return " or ".join(dict.fromkeys(names))
    text = re.sub(r"typing\.|Annotated\[(\w+), [^]]*\]\)?\]?", lambda m: m.group(1) or "", str(annotation))
    text = text.replace("NoneType", "null").replace("None", "null")
    text = re.sub(r"<class '(\w+)'>", r"\1", text).replace("|", "or")
    text = re.sub(
        r"Literal\[(.*?)\]",
        lambda m: " or ".join(f"`{w.strip(chr(39))}`" for w in m.group(1).split(", ")),
        text,
    )
    text = re.sub(r"Optional\[(\w+)\]", r"\1 or null", text).replace("tuple[", "[").replace(", ...]", ", …]")
    return text.replace("str", "text").replace("bool", "true or false")


def _words(text: str) -> list[str]:
    return [f"`{word.strip(chr(39))}`" for word in text.split(", ")]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, Part):
        return "see there"
    value = "null" if field.default is None else field.default
    value = [round(v, 4) if isinstance(v, float) else v for v in value] if isinstance(value, tuple) else value
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(part: type[Part], key: str) -> str:
    for owner in part.__mro__:
        if key not in inspect.get_annotations(owner):
            continue
        lines = inspect.getsource(owner).splitlines()
        at = next(n for n, line in enumerate(lines) if re.match(rf"    {key}\s*:", line))
        beside = re.search(r"#\s*(.*)$", lines[at])
        above = []
        while lines[at - 1 - len(above)].strip().startswith("#"):
            above.insert(0, lines[at - 1 - len(above)].strip(" #"))
        text = beside.group(1) if beside else " ".join(above)
        text = text or MEANINGS.get(f"{owner.__name__}.{key}") or MEANINGS.get(key, "")
        if not text:
            raise SystemExit(
                f"{part.__name__}.{key} has no meaning: a comment beside it, or docs/generate.py."
            )
        return text.replace("|", "\\|").replace("None:", "null:")
    raise SystemExit(f"{part.__name__}.{key}: no source.")


def _command_names() -> list[list[str]]:
    from boxwright.cli import app

    names = [[c.name or c.callback.__name__] for c in app.registered_commands if c.callback]
    for group in app.registered_groups:
        inner = group.typer_instance.registered_commands if group.typer_instance else []
        names += [[str(group.name), c.name or c.callback.__name__] for c in inner if c.callback]
    return names


def _help(words: list[str]) -> str:
    command = [sys.executable, "-m", "boxwright", *words, "--help"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"COLUMNS": "90", "NO_COLOR": "1"}
    )
    return textwrap.dedent(done.stdout)


if __name__ == "__main__":
    main()
