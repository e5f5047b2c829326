"""`boxwright data corrupt`, `audit` and `repair`, one after the other."""

import polars as pl
import pytest

from boxwright.cli import main
from boxwright.data import formats
from tests.auditing.crowds import detections, labels
