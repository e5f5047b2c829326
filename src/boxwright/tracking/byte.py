"""ByteTrack: weak boxes too go on a track, strong ones alone begin one.

Source: Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box, ECCV 2022,
algorithm 1; thresholds of its published code. The camera's motion isn't estimated.
"""

import numpy as np

from boxwright.tracking import motion
from boxwright.tracking.pairs import associate, overlaps

WEAK_OVERLAP = 0.5  # of a weak box with its track
NEW_OVERLAP = 0.3  # of a box with a track that was seen once
BEGINS = 0.1  # that a score must be above the threshold for a track to begin
TWIN = 0.85  # IoU from which a lost track is the same as one that is seen


class ByteTracker:
    """The tracks of one class in one video.

    Args:
        dimensions: 4 for upright boxes, 5 for oriented ones.
        high, low, overlap, lost: as `TrackOptions` has them.
    """

    def __init__(self, dimensions: int, high: float, low: float, overlap: float, lost: int):
        self.high, self.low, self.overlap, self.lost = high, low, overlap, lost
        self.state = np.zeros((0, 5, dimensions))
        self.ids, self.seen = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self.begun, self.sure = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
        self.confirmed: set[int] = set()
        self._frame: int | None = None
        self._next = 0

    def step(self, frame: int, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Track of each box (N, D) of cx, cy, w, h and maybe angle in a later frame: (N,) int64, -1 for none.

        A track counts once it is among `confirmed`.
        """
        first, before, self._frame = self._frame is None, self._frame, frame
        lost = self.seen < (frame if before is None else before)
        self.state = motion.predict(self.state, 0 if before is None else frame - before, rigid=lost)
        ious = overlaps(self.state[:, 0], boxes)
        worth = ious * scores  # of two boxes on an object the surer one is taken
        strong, weak = scores >= self.high, (scores >= self.low) & (scores < self.high)
        found = np.full(len(boxes), -1)
        associate(found, worth, self.overlap, self.sure, strong)
        associate(found, ious, WEAK_OVERLAP, self.sure & ~lost, weak)
        associate(found, worth, NEW_OVERLAP, ~self.sure, strong)
        hit = found >= 0
        self._update(found[hit], boxes[hit], frame)
        kept = (self.seen == frame) | (self.sure & (frame - self.seen <= self.lost))
        kept &= ~self._twins(frame)
        ids = np.where(hit, self.ids[found] if len(self.ids) else -1, -1)
        self._keep(kept)
        new = np.flatnonzero(strong & ~hit & (scores >= self.high + BEGINS))
        ids[new] = self._begin(boxes[new], frame, sure=first)
        return ids

    def _update(self, tracks: np.ndarray, boxes: np.ndarray, frame: int) -> None:
        seen = motion.spelled_as(boxes, self.state[tracks, 0])
        self.state[tracks] = motion.update(self.state[tracks], seen)
        self.seen[tracks], self.sure[tracks] = frame, True
        self.confirmed.update(self.ids[tracks].tolist())

    def _twins(self, frame: int) -> np.ndarray:
        """(T,) bool: of a lost track and a seen one at the same place, the one that has lived less."""
        twin = np.zeros(len(self.ids), dtype=bool)
        seen, lost = np.flatnonzero(self.seen == frame), np.flatnonzero(self.seen < frame)
        ious = overlaps(self.state[seen, 0], self.state[lost, 0])
        for s, o in np.argwhere(ious > TWIN):
            own, other = seen[s], lost[o]
            older = frame - self.begun[own] > self.seen[other] - self.begun[other]
            twin[other if older else own] = True
        return twin

    def _keep(self, kept: np.ndarray) -> None:
        self.state, self.ids, self.seen = self.state[kept], self.ids[kept], self.seen[kept]
        self.begun, self.sure = self.begun[kept], self.sure[kept]

    def _begin(self, boxes: np.ndarray, frame: int, sure: bool) -> np.ndarray:
        """Ids of new tracks."""
        count = len(boxes)
        ids = np.arange(self._next, self._next + count)
        self._next += count
        self.state = np.concatenate([self.state, motion.start(boxes)])
        self.ids = np.concatenate([self.ids, ids])
        self.seen, self.begun = (np.append(a, np.full(count, frame)) for a in (self.seen, self.begun))
        self.sure = np.append(self.sure, np.full(count, sure))
        if sure:
            self.confirmed.update(ids.tolist())
        return ids
