"""What commands print: tables of at most 80 columns, and JSON files."""

from collections import defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from boxwright.data.formats.files import write_atomic

console = Console()
COCO_ROWS = (
    ("AP", "AP 0.50:0.95"), ("AP50", "AP 0.50"), ("AP75", "AP 0.75"),
    ("APs", "AP small"), ("APm", "AP medium"), ("APl", "AP large"),
)  # fmt: skip


def write_json(content: Any, path: Path) -> None:
    """Write plain values as indented JSON."""
    write_atomic(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))


def print_faults(tables, faults: list, every: bool, json: Path | None) -> None:
    """Faults by kind with an example each, or every one of them."""
    by_code = defaultdict(list)
    for fault in faults:
        by_code[(fault.severity, fault.code)].append(fault)
    if tables is not None:
        counts = {"images": tables.images, "boxes": tables.boxes, "categories": tables.categories}
        console.print(", ".join(f"{len(table):,} {what}" for what, table in counts.items()))
    if every:
        for fault in faults:
            console.print(
                f"{fault.severity}: {fault.code}: {fault}", markup=False, highlight=False, soft_wrap=True
            )
    elif faults:
        for (severity, code), group in sorted(by_code.items()):
            color = "red" if severity == "error" else "yellow"
            dropped = sum(f.dropped for f in group)
            left_out = f", {dropped:,} left out" if dropped else ""
            console.print(f"[{color}]{severity}[/] [bold]{code}[/]: {len(group):,}{left_out}, first:")
            console.print(f"  {group[0]}", markup=False, highlight=False, soft_wrap=True)
    errors = sum(f.severity == "error" for f in faults)
    console.print(f"{errors:,} errors, {len(faults) - errors:,} warnings")
    if json is not None:
        write_json([vars(f) for f in faults], json)


def print_conversion(tables, target: Path, lost: dict[str, int]) -> None:
    """What was written, and what the format couldn't hold."""
    console.print(f"{len(tables.images):,} images, {len(tables.boxes):,} boxes: {target}")
    for what, count in lost.items():
        console.print(f"[yellow]not held by this format:[/] {what} ({count:,})")
    dropped = [f for f in tables.faults if f.dropped]
    if dropped:
        console.print(
            f"[red]{len(dropped):,} records of the source were left out[/], first: {_plain(str(dropped[0]))}"
        )


def print_split(parts: dict, written: dict[str, Path]) -> None:
    """Images and boxes of each part by class."""
    table = Table("part", "images", "boxes", "file", box=None, pad_edge=False)
    for name, part in parts.items():
        table.add_row(name, f"{len(part.images):,}", f"{len(part.boxes):,}", str(written[name]))
    console.print(table)
    by_class = Table("class", *parts, box=None, pad_edge=False)
    first = next(iter(parts.values()))
    for row in first.categories.iter_rows(named=True):
        counts = (int((p.boxes["category_id"] == row["category_id"]).sum()) for p in parts.values())
        by_class.add_row(_plain(row["name"]), *(f"{c:,}" for c in counts))
    console.print(by_class)


def print_statistics(numbers: dict[str, Any], json: Path | None) -> None:
    """Counts, sizes and aspect ratios by class."""
    console.print(
        f"{numbers['images']:,} images ({numbers['empty_images']:,} without boxes), "
        f"{numbers['boxes']:,} boxes, {numbers['boxes_per_image']:.1f} an image, "
        f"{numbers['most_boxes']:,} at most"
    )
    shown = ", ".join(f"{s['size']} ({s['count']:,})" for s in numbers["image_sizes"][:4])
    console.print(f"image sizes: {shown}", highlight=False)
    table = Table("class", box=None, pad_edge=False)
    for column in ("boxes", "images", "median w x h", "w/h 5..50..95 %", "S/M/L %"):
        table.add_column(column, justify="right")
    for row in numbers["classes"]:
        cells = ["", "", ""]
        if row["count"]:
            cells[0] = f"{row['median_width']:.0f} x {row['median_height']:.0f}"
            cells[1] = " ".join(f"{a:.2f}" for a in row.get("aspect", []))
            cells[2] = "/".join(f"{100 * row[s]:.0f}" for s in ("small", "medium", "large"))
        table.add_row(_plain(row["name"]), f"{row['count']:,}", f"{row['images']:,}", *cells)
    console.print(table)
    if json is not None:
        write_json(numbers, json)


def print_evaluation(evaluation) -> None:
    """The twelve numbers, the table by class, and the notes."""
    numbers = evaluation.coco
    table = Table(box=None, pad_edge=False, show_header=False)
    recalls = [name for name in numbers if name.startswith("AR")]
    for row, recall in zip_longest(COCO_ROWS, recalls):
        left = (row[1], _number(numbers[row[0]])) if row else ("", "")
        table.add_row(*left, "", *((recall, _number(numbers[recall])) if recall else ()))
    console.print(table)
    by_class = Table("class", box=None, pad_edge=False)
    for column in ("truth", "detections", "AP", "AP50", "AP75"):
        by_class.add_column(column, justify="right")
    for row in evaluation.per_class:
        cells = (_number(row[k]) for k in ("AP", "AP50", "AP75"))
        by_class.add_row(_plain(row["name"]), f"{row['truth']:,}", f"{row['detections']:,}", *cells)
    console.print(by_class)
    for note in evaluation.notes:
        console.print(f"[yellow]note:[/] {note}")


def print_runs(rows: list) -> None:
    """Runs as rows; what differs between their configs below each name."""
    table = Table("run", box=None, pad_edge=False)
    for column in ("AP", "50", "60", "70", "80", "90", "epochs", "time"):
        table.add_column(column, justify="right")
    for row in rows:
        aps = [row.ap, *(row.ap_by_iou.get(f"0.{t}0") for t in (5, 6, 7, 8, 9))]
        minutes = "" if row.seconds is None else f"{row.seconds / 60:.1f} min"
        name = _plain(row.name) + ("" if row.finished else " [yellow](unfinished)[/]")
        table.add_row(name, *(_number(a, 3) for a in aps), str(row.epochs), minutes)
        for change in row.differs:
            table.add_row(f"  [dim]{_plain(change)}[/]")
    console.print(table)


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or value < 0 else f"{value:.{digits}f}"


def _plain(text: str) -> str:
    """Text that rich doesn't read as markup."""
    return text.replace("[", r"\[")
