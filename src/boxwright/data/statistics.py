"""`boxwright data stats`: what a data set holds, in numbers."""

from typing import Any

import numpy as np

from boxwright.data.tables import Tables
from boxwright.data.transforms import fitted_size

SMALL, LARGE = 32**2, 96**2  # COCO's borders, square pixels


def stats(tables: Tables) -> dict[str, Any]:
    """Counts, and sizes and aspect ratios of each class.

    Returns:
        images, boxes, empty_images, boxes_per_image (mean and greatest), image_sizes (by count), and
        classes: a dict a class with count, images, median_width, median_height, aspect (width over height:
        5th, 50th, 95th percentile), small, medium, large (shares), crowd, ignore, difficult.
    """
    boxes = tables.boxes
    image_id, category_id = boxes["image_id"].to_numpy(), boxes["category_id"].to_numpy()
    per_image = np.bincount(image_id, minlength=len(tables.images))
    sizes = tables.images.group_by("width", "height").len().sort("len", descending=True)
    width, height = boxes["w"].to_numpy(), boxes["h"].to_numpy()
    area = boxes["area"].to_numpy()
    classes = []
    for row in tables.categories.iter_rows(named=True):
        mine = category_id == row["category_id"]
        flat = mine & (height > 0)
        numbers = {"name": row["name"], "count": int(mine.sum()), "images": len(np.unique(image_id[mine]))}
        if mine.any():
            numbers |= {
                "median_width": float(np.median(width[mine])),
                "median_height": float(np.median(height[mine])),
                "small": float((area[mine] < SMALL).mean()),
                "medium": float(((area[mine] >= SMALL) & (area[mine] < LARGE)).mean()),
                "large": float((area[mine] >= LARGE).mean()),
            }
            if flat.any():
                numbers["aspect"] = np.percentile(width[flat] / height[flat], [5, 50, 95]).tolist()
        flags = ("crowd", "ignore", "difficult")
        classes.append(numbers | {f: int(boxes[f].to_numpy()[mine].sum()) for f in flags})
    return {
        "images": len(tables.images),
        "boxes": len(boxes),
        "empty_images": int((per_image == 0).sum()),
        "boxes_per_image": float(per_image.mean()) if len(per_image) else 0.0,
        "most_boxes": int(per_image.max()) if len(per_image) else 0,
        "image_sizes": [
            {"size": f"{r['width']} x {r['height']}", "count": r["len"]} for r in sizes.iter_rows(named=True)
        ],
        "classes": classes,
    }


def input_statistics(tables: Tables, image_size: tuple[int, int]) -> dict[str, float]:
    """What a network sees of a data set whose images are fitted into `image_size`.

    Returns:
        scale: median of the pixels of the input a pixel of the image; object_width: median of the shorter
        sides of the objects in pixels of the input; object_length: what 99 % of the longer ones don't exceed.
        Without what images or boxes don't tell.
    """
    shapes = tables.images.select("width", "height").drop_nulls().to_numpy()
    if len(shapes) == 0:
        return {}
    scales = np.array([fitted_size((w, h), image_size)[0] / w for w, h in shapes.tolist()])
    numbers = {"scale": float(np.median(scales))}
    counted = (~tables.boxes["crowd"] & ~tables.boxes["ignore"]).to_numpy()
    if len(shapes) == len(tables.images) and counted.any():
        sides = tables.rotated()[counted, 2:4] * scales[tables.boxes["image_id"].to_numpy()[counted], None]
        numbers["object_width"] = float(np.median(sides.min(axis=1)))
        numbers["object_length"] = float(np.percentile(sides.max(axis=1), 99))
    return numbers
