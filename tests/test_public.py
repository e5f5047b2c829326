"""What the package offers: each name, its home, its extra."""

from importlib import import_module

import boxwright


def test_every_public_name_is_listed_and_found():
    assert sorted(boxwright._HOMES) == boxwright.__all__
    for name, home in boxwright._HOMES.items():
        assert getattr(boxwright, name) is getattr(import_module(home), name)
        assert getattr(boxwright, name).__doc__
