"""OC-SORT: what was seen is trusted more than what was predicted.

The direction in which a track was seen to move weighs in (momentum), a track that comes back is filtered
again over the frames in which nobody saw it (re-update), and what is left over is compared with where tracks
were seen last (recovery). Weak boxes go on a track as ByteTrack's do, an option of the published code.
Source: Cao et al., Observation-Centric SORT, CVPR 2023, sections 4.1 to 4.3.
"""

import numpy as np

from boxwright.tracking import motion
from boxwright.tracking.pairs import associate, overlaps

SPAN = 3  # frames over which a direction is measured
INERTIA = 0.2  # weight of a direction beside an IoU
WEAK_OVERLAP = 0.5  # of a weak box with its track
HITS = 3  # frames in a row after which a track counts


class OcSortTracker:
    """The tracks of one class in one video; arguments and `step` as `ByteTracker`'s."""

    def __init__(self, dimensions: int, high: float, low: float, overlap: float, lost: int):
        self.dimensions = dimensions
        self.high, self.low, self.overlap, self.lost = high, low, overlap, lost
        self.state = np.zeros((0, 5, dimensions))
        self.at_last = self.state.copy()  # the state when last seen
        # Boxes in the last frames, the newest last; NaN: not seen.
        self.past = np.zeros((0, SPAN + 1, dimensions))
        self.last = np.zeros((0, dimensions))  # box when last seen
        self.direction = np.zeros((0, 2))  # unit vector; zero: unknown
        self.ids, self.seen = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self.hits = np.zeros(0, dtype=np.int64)
        self.confirmed: set[int] = set()
        self._frame: int | None = None
        self._next = self._steps = 0

    def step(self, frame: int, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """See `ByteTracker.step`."""
        before, self._frame = self._frame, frame
        self._steps += 1
        self.state = motion.predict(self.state, 0 if before is None else frame - before)
        strong = scores >= self.high
        found = np.full(len(boxes), -1)
        ious = overlaps(self.state[:, 0], boxes)
        worth = np.where(ious >= self.overlap, ious + self._momentum(boxes, scores), 0.0)
        every = np.ones(len(self.ids), dtype=bool)
        associate(found, worth, 0.0, every, strong)
        associate(found, ious, WEAK_OVERLAP, every, (scores >= self.low) & ~strong)
        associate(found, overlaps(self.last, boxes), self.overlap, every, strong)
        hit = found >= 0
        if before is not None:
            self._update(found[hit], boxes[hit], frame, before)
        ids = np.where(hit, self.ids[found] if len(self.ids) else -1, -1)
        self._keep(frame - self.seen <= self.lost)
        new = np.flatnonzero(strong & ~hit)
        ids[new] = self._begin(boxes[new], frame)
        self.confirmed.update(self.ids[(self.hits >= HITS) | (self._steps <= HITS)].tolist())
        return ids

    def _momentum(self, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """(T, N) how well a box lies in the direction that a track was moving in, weighted."""
        given = np.isfinite(self.past[:, :, 0])
        # The oldest of the last frames in which it was seen; else where it was seen last.
        oldest = np.where(given.any(axis=1), given.argmax(axis=1), 0)
        origin = self.past[np.arange(len(oldest)), oldest, :2]
        origin = np.where(np.isfinite(origin), origin, self.last[:, :2])
        way = boxes[None, :, :2] - origin[:, None]
        way = way / np.maximum(np.linalg.norm(way, axis=2, keepdims=True), 1e-6)
        angle = np.arccos(np.clip((way * self.direction[:, None]).sum(axis=2), -1, 1))
        known = (self.direction != 0).any(axis=1)[:, None]
        return np.where(known, INERTIA * (np.pi / 2 - angle) / np.pi * scores, 0.0)

    def _update(self, tracks: np.ndarray, boxes: np.ndarray, frame: int, before: int) -> None:
        seen = motion.spelled_as(boxes, self.state[tracks, 0])
        for track, box in zip(tracks[self.seen[tracks] < before], seen[self.seen[tracks] < before]):
            self.state[track] = self._seen_again(track, box, frame)
        self.state[tracks] = motion.update(self.state[tracks], seen)
        given = np.isfinite(self.past[tracks, :, 0])
        oldest = self.past[tracks, given.argmax(axis=1), :2]
        way = seen[:, :2] - np.where(given.any(axis=1, keepdims=True), oldest, self.last[tracks, :2])
        self.direction[tracks] = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6)
        self.past = np.roll(self.past, -1, axis=1)
        self.past[:, -1] = np.nan
        self.past[tracks, -1] = self.last[tracks] = seen
        hit = np.isin(np.arange(len(self.ids)), tracks)
        self.hits = np.where(hit, self.hits + 1, 0)
        self.seen[tracks], self.at_last[tracks] = frame, self.state[tracks]

    def _seen_again(self, track: int, box: np.ndarray, frame: int) -> np.ndarray:
        """The state before `frame`'s update, had the track been seen on a straight line since it was last."""
        state, last = self.at_last[track : track + 1], self.last[track]
        gap = frame - int(self.seen[track])
        box = motion.spelled_as(box[None], last[None])[0]
        for n in range(1, gap):
            state = motion.update(motion.predict(state), (last + (box - last) * n / gap)[None])
        return motion.predict(state)[0]

    def _keep(self, kept: np.ndarray) -> None:
        for name in ("state", "at_last", "past", "last", "direction", "ids", "seen", "hits"):
            setattr(self, name, getattr(self, name)[kept])

    def _begin(self, boxes: np.ndarray, frame: int) -> np.ndarray:
        """Ids of new tracks."""
        count, state = len(boxes), motion.start(boxes)
        ids = np.arange(self._next, self._next + count)
        self._next += count
        past = np.full((count, SPAN + 1, self.dimensions), np.nan)
        past[:, -1] = boxes
        self.state, self.at_last = (np.concatenate([a, state]) for a in (self.state, self.at_last))
        self.past, self.last = np.concatenate([self.past, past]), np.concatenate([self.last, boxes])
        self.direction = np.concatenate([self.direction, np.zeros((count, 2))])
        self.ids, self.seen = np.append(self.ids, ids), np.append(self.seen, np.full(count, frame))
        self.hits = np.append(self.hits, np.ones(count, dtype=np.int64))
        return ids
