"""Columns of the table of suspicions, which whoever reads one needs without scikit-learn."""

import polars as pl

BOX = ("x", "y", "w", "h", "angle")

SUSPICION_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),  # missing, spurious, location, class, duplicate, angle, heading
    "probability": pl.Float64(),  # that it is this fault
    "gain": pl.Float64(),  # of AP by repairing it, times the probability
    "detail": pl.String(),  # how a location is off, a class from and to, what other images of the place say
    "image_id": pl.Int64(),
    "file_name": pl.String(),
    "row": pl.Int64(),  # of the label in its table; null: there is none
    "category": pl.String(),
    "x": pl.Float64(),  # as it is labelled; null: there is no label
    "y": pl.Float64(),
    "w": pl.Float64(),
    "h": pl.Float64(),
    "angle": pl.Float64(),
    "score": pl.Float64(),  # of the prediction that speaks for the repair; null: none
    "new_category": pl.String(),  # repaired; null: the label goes
    "new_x": pl.Float64(),
    "new_y": pl.Float64(),
    "new_w": pl.Float64(),
    "new_h": pl.Float64(),
    "new_angle": pl.Float64(),
    "source": pl.String(),  # data set or annotator of the label
    "others": pl.String(),  # what other people drew there, person by person; null: nobody else was asked
}
