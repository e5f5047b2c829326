"""Images of two files by their names: a file that stands elsewhere calls the same image by another path."""

from collections.abc import Sequence

from boxwright.errors import DataError


def join_names(names: Sequence[str | None], wanted: Sequence[str]) -> list[int]:
    """Of each wanted name, the row of the name that is the same, or that ends as it does; -1 for none.

    `train/a.jpg` and `a.jpg` are one image where no other ends so; `train/a.jpg` and `val/a.jpg` never are.

    Args:
        names: without duplicates.
        wanted: without duplicates.

    Raises:
        DataError: two wanted names would be of one row.
    """
    whole = {_ends(name)[0]: n for n, name in enumerate(names) if name is not None}
    exact = {name: n for n, name in enumerate(names)}
    ends: dict[str, int] = {}
    for n, name in enumerate(names):
        for end in _ends(name or ""):
            ends[end] = -1 if end in ends else n
    rows: list[int] = []
    taken: dict[int, str] = {}
    for name in wanted:
        own = _ends(name)
        row = exact.get(name, -1)
        row = ends.get(own[0], -1) if row < 0 else row
        row = next((whole[end] for end in own[1:] if end in whole), -1) if row < 0 else row
        if row >= 0 and taken.setdefault(row, name) != name:
            raise DataError(f"'{name}' and '{taken[row]}' of the predictions both are '{names[row]}'.")
        rows.append(row)
    return rows


def join_stems(names: Sequence[str | None], wanted: Sequence[str]) -> dict[str, int]:
    """Of wanted names the row of the name that is the same, or is so without its suffix, as `join_names`
    joins them; those of no row are left out.

    Raises:
        DataError: two wanted names would be of one row.
    """
    known = [name or "" for name in names]
    rows = dict(zip(wanted, join_names(known, wanted)))
    if stems := [name for name, row in rows.items() if row < 0]:
        rows |= zip(stems, join_names([name.rpartition(".")[0] for name in known], stems))
    return {name: row for name, row in rows.items() if row >= 0}


def _ends(name: str) -> list[str]:
    """A file name without what leads up, and with less and less of its folders."""
    parts = [p for p in name.split("/") if p not in ("", ".", "..")]
    return ["/".join(parts[n:]) for n in range(len(parts))] or [name]
