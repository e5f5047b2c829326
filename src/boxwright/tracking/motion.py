"""Where boxes will be: a Kalman filter of constant velocity for many tracks at once.

Noise is independent for each number of a box, so each has a filter of its own: a position, a velocity and
their covariance, which is 2 by 2 and needs no inverse of a matrix. Lengths of noise are shares of a box's
size (the root of its area), as ByteTrack has them (Zhang et al., ECCV 2022) of its height.
"""

import numpy as np

from boxwright.geometry.conventions import respell_like

POSITION = 1 / 20  # deviation of a measurement and of a step, in sizes
VELOCITY = 1 / 160  # of a step
ANGLE = 0.1  # radians, in place of `POSITION`
SPIN = 0.01  # radians a frame, in place of `VELOCITY`
AT_FIRST = (2.0, 10.0)  # how much less is known of a new track's position and velocity


def start(boxes: np.ndarray) -> np.ndarray:
    """State (T, 5, D) of new tracks at boxes (T, D) of cx, cy, w, h and maybe angle: position, velocity, and
    the variance of the position, of both together, and of the velocity."""
    position, velocity = _deviations(boxes)
    nothing = np.zeros_like(boxes)
    return np.stack(
        [boxes, nothing, (AT_FIRST[0] * position) ** 2, nothing, (AT_FIRST[1] * velocity) ** 2], axis=1
    )


def predict(state: np.ndarray, frames: int = 1, rigid: np.ndarray | None = None) -> np.ndarray:
    """The state so many frames later. Tracks that are `rigid` (T,) bool keep their size and angle, as those
    that nobody sees should."""
    state = state.copy()
    if rigid is not None:
        state[rigid, 1, 2:] = 0.0
    for _ in range(frames):
        box, speed, spread, both, doubt = (state[:, n] for n in range(5))
        position, velocity = _deviations(box)
        state[:, 0] = box + speed
        state[:, 2] = spread + 2 * both + doubt + position**2
        state[:, 3] = both + doubt
        state[:, 4] = doubt + velocity**2
    state[:, 0, 2:4] = np.maximum(state[:, 0, 2:4], 1e-3)
    return state


def update(state: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The state after boxes (T, D) were seen, spelled as `spelled_as` does."""
    box, speed, spread, both, doubt = (state[:, n] for n in range(5))
    total = spread + _deviations(box)[0] ** 2
    gain, pull = spread / total, both / total
    off = boxes - box
    return np.stack(
        [box + gain * off, speed + pull * off, (1 - gain) * spread, (1 - gain) * both, doubt - pull * both],
        axis=1,
    )


def spelled_as(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Boxes (N, D) with the angle next to that of `others` (N, D): half and quarter turns, which detectors
    confuse, are undone, the latter by exchanging width and height. Upright boxes stay as they are."""
    return boxes if boxes.shape[1] == 4 else respell_like(boxes, others)


def _deviations(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, D) of position and of velocity in a step."""
    size = np.sqrt(np.maximum(boxes[:, 2] * boxes[:, 3], 1.0))[:, None]
    position, velocity = (np.repeat(share * size, boxes.shape[1], axis=1) for share in (POSITION, VELOCITY))
    position[:, 4:], velocity[:, 4:] = ANGLE, SPIN
    return position, velocity
