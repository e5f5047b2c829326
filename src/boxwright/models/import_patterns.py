"""Patterns of other toolboxes' names that recur."""

import re

Rules = tuple[tuple[str, str], ...]  # patterns of their whole names, and ours


def numbered(theirs: str, ours: str, count: int) -> Rules:
    """Rules of parts that are counted from 1 there and from 0 here; "#" is the number."""
    return tuple(
        rule
        for n in range(count)
        for rule in conv_norm(theirs.replace("#", str(n + 1)), ours.replace("#", str(n)))
    )


def conv_norm(theirs: str, ours: str) -> Rules:
    """Rules of a convolution and its norm, which are layers 0 and 1 here."""
    rest = re.compile(theirs).groups + 1  # its place among the groups
    return ((rf"{theirs}\.conv\.(.+)", rf"{ours}.0.\{rest}"), (rf"{theirs}\.bn\.(.+)", rf"{ours}.1.\{rest}"))
