"""Pages of readings: numbers, tables that sort, curves and pictures, in one self-contained file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from boxwright.data.formats.files import write_atomic
from boxwright.evaluation.reading import Reading, side_by_side
from boxwright.reporting import plots


@dataclass(frozen=True)
class Picture:
    """One example: a data URI (None: its image can't be read), its caption, and numbers to sort by."""

    source: str | None
    title: str
    detail: str
    keys: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        numbers: by name, shown large.
        rows: a table, a dict a row.
        figures: SVG by title.
        galleries: pictures by title.
        notes: what to know before believing it.
        source: the paper it follows.
        folded: galleries are closed until somebody opens them.
    """

    title: str
    numbers: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Markup] = field(default_factory=dict)
    galleries: dict[str, list[Picture]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    source: str = ""
    folded: bool = False


def section_of(readings: dict[str, Reading]) -> Section:
    """The section of one metric, of one model or of several side by side (by name)."""
    first = next(iter(readings.values()))
    figures = {
        title if len(readings) == 1 else f"{title}, {name}": Markup(plots.reading_plot(curves))
        for name, reading in readings.items()
        for title, curves in reading.curves.items()
        if curves.series
    }
    notes = [n if len(readings) == 1 else f"{name}: {n}" for name, r in readings.items() for n in r.notes]
    if len(readings) == 1:
        return Section(first.title, first.overall, first.rows, figures, {}, notes, first.source)
    rows = side_by_side(readings)
    return Section(first.title, {}, rows, figures, {}, notes, first.source)


def write_page(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write the page, atomically."""
    page = (
        environment()
        .get_template("page.html")
        .render(title=title, lead=lead, sections=sections, version=version("boxwright"))
    )
    write_atomic(path, page.encode())


def environment() -> Environment:
    """Templates that escape whatever they are given and refuse names they weren't."""
    result = Environment(
        loader=PackageLoader("boxwright.reporting"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters["shown"] = shown
    return result


def shown(value: Any) -> str:
    """A cell's text: four decimals, thousands apart, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"
