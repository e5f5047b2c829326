"""The page of what is wrong with images: pairs side by side, others by kind."""

from pathlib import Path

import polars as pl
from PIL import Image

from boxwright.data.images import load_image
from boxwright.errors import DataError
from boxwright.progress import progress_bar
from boxwright.reporting.gallery import sheet_of, to_data_uri
from boxwright.reporting.page import Picture, Section, write_page

TILE = 240  # px


def write_images_page(findings: pl.DataFrame, path: Path, title: str, count: int = 48) -> None:
    """Write the page.

    Args:
        findings: of `audit_images`.
        path, title: of the page.
        count: pictures a kind.
    """
    kinds = findings["kind"].unique(maintain_order=True).to_list()
    rows = summarize_images(findings)
    sections = [Section("Findings", rows=rows)] if rows else []
    with progress_bar("draw images", len(kinds)) as tell:
        for kind in kinds:
            own = findings.filter(pl.col("kind") == kind)
            pictures = [_picture(row) for row in own.head(count).iter_rows(named=True)]
            notes = [f"the first {count} of {len(own):,}"] if len(own) > count else []
            sections.append(Section(kind, galleries={kind: pictures}, notes=notes))
            tell(1)
    lead = "Of two pictures the second is the one that is named first." if rows else "Nothing was found."
    write_page(path, title, lead, sections)


def summarize_images(findings: pl.DataFrame) -> list[dict]:
    """How many findings of each kind and part."""
    counts = findings.group_by("severity", "kind", "part", maintain_order=True).len("images")
    return counts.to_dicts()


def _picture(row: dict) -> Picture:
    paths = [p for p in (row["other_path"], row["path"]) if p is not None]
    try:
        source = to_data_uri(sheet_of([_tile(path) for path in paths], len(paths)))
    except DataError:
        source = None
    keys = {"value": row["value"]} if row["value"] is not None else {}
    return Picture(source, f"{row['file_name']} of {row['part']}", row["detail"], keys)


def _tile(path: str) -> Image.Image:
    picture = Image.fromarray(load_image(path))
    picture.thumbnail((TILE, TILE), Image.Resampling.BOX)
    return picture
