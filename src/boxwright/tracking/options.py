"""What a user may say about tracks."""

from dataclasses import dataclass

from boxwright.errors import ConfigError

METHODS = ("byte", "ocsort")


@dataclass(frozen=True)
class TrackOptions:
    """Options of a tracker.

    Attributes:
        method: "byte" (ByteTrack) or "ocsort" (OC-SORT).
        high: score from which a box is strong; None: the operating threshold of its class where the table has
            one, else 0.5.
        low: score below which a box is left out.
        overlap: least IoU of a box with the place that is predicted for its track; for ByteTrack times the
            box's score. None: 0.2 for ByteTrack, 0.3 for OC-SORT, as published.
        lost: frames after which a track that nobody sees ends.
        across_classes: boxes of any class go on a track, whose class is that of the greatest sum of scores.

    Raises:
        ConfigError: an unknown method, or a number that can't be meant.
    """

    method: str = "byte"
    high: float | None = None
    low: float = 0.1
    overlap: float | None = None
    lost: int = 30
    across_classes: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method '{self.method}', expected one of {', '.join(METHODS)}.")
        shares = (self.high or 0.0, self.low, self.overlap or 0.0)
        if not all(0 <= share <= 1 for share in shares) or self.lost < 0:
            raise ConfigError(f"{self}: expected scores and an overlap of 0 to 1, and frames from 0 on.")
