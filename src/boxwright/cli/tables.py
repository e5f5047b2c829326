"""What commands print: tables of at most 80 columns, and JSON files."""

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from boxwright.data.formats.files import write_atomic
from boxwright.evaluation.reading import side_by_side

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
    print_lost(lost)
    dropped = [f for f in tables.faults if f.dropped]
    if dropped:
        console.print(
            f"[red]{len(dropped):,} records of the source were left out[/], first: {_plain(str(dropped[0]))}"
        )


def print_lost(lost: dict[str, int]) -> None:
    """What a format couldn't hold."""
    for what, count in lost.items():
        console.print(f"[yellow]not held by this format:[/] {what} ({count:,})")


def print_operating(operating) -> None:
    """The score thresholds that pictures and reports use."""
    goal = "greatest F1" if operating.precision is None else f"precision {operating.precision:g}"
    table = Table("class", "score from", "precision", "recall", "F1", box=None, pad_edge=False)
    table.title, table.title_justify = f"operating thresholds, {goal} at IoU 0.5", "left"
    for name, point in operating.points.items():
        numbers = (point.threshold, point.precision, point.recall, point.f1)
        table.add_row(_plain(name), *(f"{n:.3f}" for n in numbers))
    console.print(table)


def print_formats() -> None:
    """Every format, whether it is read and written, and what it is."""
    import inspect

    from boxwright.data.formats import READERS, WRITERS

    table = Table("format", "read", "write", "what it is", box=None, pad_edge=False)
    for name in sorted({*READERS, *WRITERS}):
        module = inspect.getmodule(READERS.get(name) or WRITERS[name])
        about = ((module and module.__doc__) or "").partition("\n\n")[0].replace("\n", " ")
        table.add_row(name, *("yes" if name in known else "" for known in (READERS, WRITERS)), _plain(about))
    console.print(table)


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
    names = [row for row in COCO_ROWS if row[0] in numbers]
    recalls = [name for name in numbers if name.startswith("AR")]
    for row, recall in zip_longest(names, recalls):
        left = (row[1], _number(numbers[row[0]])) if row else ("", "")
        table.add_row(*left, "", *((recall, _number(numbers[recall])) if recall else ()))
    console.print(table)
    shown = ("truth", "detections", "AP", "AP50", "AP75")
    print_rows([{"class": r["name"]} | {c: r[c] for c in shown if c in r} for r in evaluation.per_class])
    print_notes(evaluation.notes)


def print_models(evaluations: dict) -> None:
    """Models as rows: COCO's numbers, then AP at each IoU threshold."""
    shown = [key for key, _ in COCO_ROWS]
    print_rows([{"model": n} | {k: e.coco[k] for k in shown if k in e.coco} for n, e in evaluations.items()])
    console.print()
    by_iou = {n: {f"{t:.2f}"[1:]: ap for t, ap in e.ap_by_iou.items()} for n, e in evaluations.items()}
    print_rows([{"model": name} | aps for name, aps in by_iou.items()], digits=3)
    for name, evaluation in evaluations.items():
        print_notes([f"{name}: {note}" for note in evaluation.notes])


def print_readings(readings: dict) -> None:
    """One metric, of one model or of several side by side (by name)."""
    first = next(iter(readings.values()))
    console.print(f"\n[bold]{_plain(first.title)}[/]", soft_wrap=True)
    if first.rows and "IoU" in first.rows[0]:
        _print_by_iou(readings)
    elif len(readings) > 1 and (rows := side_by_side(readings)):
        print_rows(rows)
    else:
        for name, reading in readings.items():
            if len(readings) > 1:
                console.print(_plain(name))
            print_rows([{"": key, " ": value} for key, value in reading.overall.items()], header=False)
            print_rows(reading.rows)
    for name, reading in readings.items():
        print_notes([f"{name}: {n}" if len(readings) > 1 else n for n in reading.notes])


def _print_by_iou(readings: dict) -> None:
    """AP, TP and FP with IoU thresholds as columns; models, or the classes of one, as rows."""
    if len(readings) > 1:
        overall = {
            name: {k if k == "AP" else f".{k[2:]}": v for k, v in reading.overall.items()}
            for name, reading in readings.items()
        }
        print_rows([{"model": name} | aps for name, aps in overall.items()], digits=3)
        return
    reading = next(iter(readings.values()))
    thresholds = sorted({row["IoU"] for row in reading.rows})
    # One width for all, so that the tables of the classes stand in line.
    layout = "{:<4}" + "{:>7}" * len(thresholds)

    def show(label: str, values: Iterable) -> None:
        console.print(layout.format(label, *(_cell(v, 3) for v in values)), highlight=False, soft_wrap=True)

    show("", [f"{t:.2f}" for t in thresholds])
    show("AP", [reading.overall[f"AP{100 * t:.0f}"] for t in thresholds])
    console.print(f"mean AP {_cell(reading.overall['AP'], 4)}")
    for name in dict.fromkeys(row["class"] for row in reading.rows):
        mine = [row for row in reading.rows if row["class"] == name]
        console.print(f"[bold]{_plain(name)}[/], {mine[0]['truth']:,} in truth")
        for key in ("AP", "TP", "FP"):
            show(key, [row[key] for row in mine])


def print_comparison(comparison) -> None:
    """Counts and overlaps by class."""
    columns = ("group", "matched", "only A", "only B", "other class", "ignored A", "ignored B")
    print_rows([{k: row[k] for k in columns} for row in comparison.rows])
    console.print()
    columns = ("group", "agreement", "mean IoU", "IoU A on B", "IoU B on A")
    columns += tuple(key for key in comparison.rows[0] if key.startswith("IoU ") and key.endswith("%"))
    print_rows([{k.removeprefix("IoU "): row[k] for k in columns} for row in comparison.rows], digits=3)
    print_notes(comparison.notes)


def print_calibration(calibration) -> None:
    """Corrections by group, and what they brought."""
    print_rows(
        [
            {"group": name or "all", "w": c.w, "h": c.h, "angle, degrees": math.degrees(c.angle)}
            for name, c in calibration.corrections.items()
        ]
    )
    numbers = {"temperature": calibration.temperature} | calibration.fitted
    print_rows([{"": key, " ": value} for key, value in numbers.items()], header=False)


def print_anchors(fit) -> None:
    """Anchors by area, what they reach, and their lines for a config."""
    rows = [
        {"width": float(w), "height": float(h), "h / w": float(h / w), "boxes": int(n)}
        for (w, h), n in zip(fit.anchors, fit.counts)
    ]
    print_rows(rows, digits=2)
    console.print(f"mean IoU {fit.mean_iou:.4f}; best possible recall at IoU 0.5: {fit.recall:.4f}")
    if fit.certain_recall is not None:
        console.print(f"on strides 8, 16 and 32, wherever a box lies: recall {fit.certain_recall:.4f}")
    console.print(
        f"longest twentieth of the boxes: {fit.long_ratio:.1f}:1 or more; a square anchor reaches IoU "
        f"{fit.square_iou:.2f} with such a box at most"
    )
    if len(rows) % 3 == 0:
        third = len(rows) // 3
        pairs = [[round(r["width"]), round(r["height"])] for r in rows]
        levels = [pairs[n : n + third] for n in range(0, len(pairs), third)]
        console.print(
            f"YOLOv3: --set 'model.anchors={levels}'", soft_wrap=True, markup=False, highlight=False
        )


def print_rows(rows: list[dict[str, Any]], digits: int = 4, header: bool = True) -> None:
    """A table of plain values, a dict a row; text to the left, numbers to the right."""
    if not rows:
        return
    wide = len(rows[0]) > 9
    table = Table(box=None, pad_edge=False, show_header=header, padding=(0, 1), collapse_padding=wide)
    for name in rows[0]:
        text = any(isinstance(row[name], str) for row in rows)
        justify = "left" if text else "right"
        table.add_column(_plain(name), justify=justify, overflow="fold", no_wrap=not text)
    for row in rows:
        table.add_row(*(_cell(value, digits) for value in row.values()))
    console.print(table)


def print_notes(notes: list[str]) -> None:
    """What to know before believing a number."""
    for note in notes:
        console.print(f"[yellow]note:[/] {_plain(note)}")


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value is None or value == -1:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:,.2f}"


def print_runs(rows: list) -> None:
    """Runs as rows; what differs between their configs below the table."""
    table = Table("run", box=None, pad_edge=False)
    for column in ("AP", "50", "60", "70", "80", "90", "epochs", "time"):
        table.add_column(column, justify="right")
    for row in rows:
        aps = [row.ap, *(row.ap_by_iou.get(f"0.{t}0") for t in (5, 6, 7, 8, 9))]
        minutes = "" if row.seconds is None else f"{row.seconds / 60:.1f} min"
        name = _plain(row.name) + ("" if row.finished else " [yellow](unfinished)[/]")
        table.add_row(name, *(_number(a, 3) for a in aps), str(row.epochs), minutes)
    console.print(table)
    for row in rows:
        if row.differs:
            console.print(f"{_plain(row.name)}: [dim]{_plain(', '.join(row.differs))}[/]", highlight=False)


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or value < 0 else f"{value:.{digits}f}"


def _plain(text: str) -> str:
    """Text that rich doesn't read as markup."""
    return text.replace("[", r"\[")
