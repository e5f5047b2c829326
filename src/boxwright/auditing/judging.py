"""Which labels are wrong, how, and how likely: faults are planted, and their look is learnt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingClassifier

from boxwright.auditing.elsewhere import Elsewhere
from boxwright.auditing.evidence import (
    CANDIDATE_NUMBERS,
    LABEL_NUMBERS,
    SAME,
    Evidence,
    evidence_of_labels,
    evidence_of_predictions,
)
from boxwright.auditing.looks import Looks
from boxwright.auditing.mixture import probabilities
from boxwright.auditing.pairs import best, overlapping
from boxwright.auditing.planting import KINDS, Planted, corrupt
from boxwright.data.oriented import by_longer_side
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.progress import console

FOLDS = 5  # of the images: what is judged of an image is learnt from others
ENOUGH = 60_000  # boxes into which faults are planted, again and again
ROUNDS = 24  # of planting, at most
SEED = 1_000_003  # added, so that the faults aren't those of `corrupt` with the same seed
MOST_ROWS = 200_000  # that one classifier learns from
MOST_CATEGORIES = 255  # that can be told apart
LEAST = 1e-9  # of a chance, and of its lack
OF_LABELS = tuple(kind for kind in KINDS if kind != "missing")
HEADING, AHEAD = OF_LABELS.index("heading"), LABEL_NUMBERS.index("ahead")


@dataclass(frozen=True)
class Judgement:
    """Probabilities of faults.

    Attributes:
        labels: what the predictions and its picture tell of each label.
        faults: (N, K) the probability of each kind in `OF_LABELS`; rows add up to 1 at most.
        candidates: what is told of predictions without a label.
        missing: (M,) the probability that a label is missing there.
    """

    labels: Evidence
    faults: np.ndarray
    candidates: Evidence
    missing: np.ndarray


def judge(
    labels: Tables, predictions: Tables, seed: int = 0, tell: Callable[[int], None] = lambda count: None
) -> Judgement:
    """Judge labels by predictions of a model that hasn't learnt from them.

    Args:
        labels: of any images; those without predictions are judged as images where nothing was found. Files
            that can be read are looked at.
        predictions: over the same images and categories, with low scores too.
        seed: of the planted faults.
        tell: called after steps, with how many; `steps_of` in all.

    Raises:
        DataError: too few images or labels to learn from.
    """
    if not labels.has_headings():  # how a rectangle is spelled says nothing, and would only have to be learnt
        labels, predictions = by_longer_side(labels), by_longer_side(predictions)
    own, candidates = evidence_of_labels(labels, predictions), evidence_of_predictions(labels, predictions)
    if len(labels.images) < FOLDS or len(own.rows) < 10 * len(KINDS):
        raise DataError(
            f"{len(own.rows)} labels in {len(labels.images)} images are too few to learn how faults look; "
            f"expected {10 * len(KINDS)} in {FOLDS} or more."
        )
    plantings = [corrupt(labels, seed=SEED + seed + n) for n in range(rounds_of(labels))]
    elsewhere = Elsewhere(labels, tell)
    looks = Looks([labels, *(planted.tables for planted in plantings)], tell)
    if looks.unread:
        unread = f"{looks.unread:,} of {len(labels.images):,} images"
        console.print(f"{unread} can't be read: what their boxes look like tells nothing.")
    own = looks.beside(elsewhere.beside(own, labels, labels), labels)
    candidates = elsewhere.beside(candidates, predictions, labels)
    rounds = []
    for planted in plantings:
        rounds.append(_examples(planted, labels, predictions, elsewhere, looks))
        tell(1)
    image = labels.boxes["image_id"].to_numpy()[own.rows]
    image_of_candidates = predictions.boxes["image_id"].to_numpy()[candidates.rows]
    scores = _Scores(len(OF_LABELS), own, candidates)
    for fold in _folds(len(labels.images), seed):
        for part, rows, images in ((0, own, image), (1, candidates, image_of_candidates)):
            names = (LABEL_NUMBERS, CANDIDATE_NUMBERS)[part]
            learnt = [example[part].of_images(~fold) for example in rounds]
            model = _classifier(learnt, names, seed)
            tested = [example[part].of_images(fold) for example in rounds]
            scores.add(part, model, rows.numbers, fold[images], tested)
        tell(1)
    faults, missing = scores.probabilities()
    duplicate = faults[:, OF_LABELS.index("duplicate")]
    duplicate[_better_of_two(own, labels, duplicate)] = 0
    _without_a_cure(faults, own)
    return Judgement(own, _of_one_kind(faults), candidates, missing)


def _of_one_kind(faults: np.ndarray) -> np.ndarray:
    """(N, K) chances of kinds of which a label has one at most, from those of each kind by itself.

    Odds against no fault, which add up: a kind that is nearly certain keeps its chance beside faint ones.
    """
    odds = faults / np.maximum(1 - faults, LEAST)
    return odds / (1 + odds.sum(axis=1, keepdims=True))


def _without_a_cure(faults: np.ndarray, own: Evidence) -> None:
    """Where no prediction tells what a label should be it isn't suspected of being anything else."""
    for kind, means in (("location", own.partner), ("angle", own.partner), ("class", own.other)):
        faults[means < 0, OF_LABELS.index(kind)] = 0


def _better_of_two(own: Evidence, labels: Tables, duplicate: np.ndarray) -> np.ndarray:
    """(N,) bool, labels with a likelier duplicate beside them that fits worse: one of the two is to go."""
    category = labels.boxes["category_id"].to_numpy()[own.rows]
    boxes, image = labels.rotated()[own.rows], labels.boxes["image_id"].to_numpy()[own.rows]
    pairs = overlapping(boxes, image, boxes, image, SAME)
    pairs = pairs.where((pairs.first != pairs.second) & (category[pairs.first] == category[pairs.second]))
    fit = np.nan_to_num(own.numbers[:, LABEL_NUMBERS.index("iou")])
    a, b = pairs.first, pairs.second
    better = (fit[a] > fit[b]) | ((fit[a] == fit[b]) & (a < b))
    kept = np.zeros(len(boxes), dtype=bool)
    kept[a[better & (duplicate[b] > 0)]] = True
    return kept


def steps_of(labels: Tables) -> int:
    """Images that are looked at, twice, rounds of planting and folds."""
    return 2 * len(labels.images) + rounds_of(labels) + FOLDS


def rounds_of(labels: Tables) -> int:
    """How often faults are planted: more often into few labels."""
    return int(np.clip(ENOUGH // max(1, len(labels.boxes)), 1, ROUNDS))


@dataclass(frozen=True)
class _Examples:
    """Rows to learn from: numbers (N, F), kind (N,) with 0 for what was there, image (N,)."""

    numbers: np.ndarray
    kind: np.ndarray
    image: np.ndarray

    def of_images(self, wanted: np.ndarray) -> "_Examples":
        """Those of some images, (I,) bool."""
        rows = wanted[self.image]
        return _Examples(self.numbers[rows], self.kind[rows], self.image[rows])


def _examples(
    planted: Planted, labels: Tables, predictions: Tables, elsewhere: Elsewhere, looks: Looks
) -> tuple[_Examples, _Examples]:
    """Labels, and predictions without one, of a planting."""
    own = elsewhere.beside(evidence_of_labels(planted.tables, predictions), planted.tables, planted.tables)
    own = looks.beside(own, planted.tables)
    place = np.array([OF_LABELS.index(kind) + 1 if kind in OF_LABELS else 0 for kind in KINDS] + [0])
    # Which of two alike boxes was drawn last, nothing tells: both are learnt as duplicates.
    kinds = planted.kinds()
    kinds[planted.answers["twin"].drop_nulls().to_numpy()] = KINDS.index("duplicate")
    kind = place[kinds[own.rows]]
    image = planted.tables.boxes["image_id"].to_numpy()[own.rows]
    found = evidence_of_predictions(planted.tables, predictions)
    found = elsewhere.beside(found, predictions, planted.tables)
    target, counts = _missing_there(planted, labels, predictions, found)
    image_of_found = predictions.boxes["image_id"].to_numpy()[found.rows]
    free = _Examples(found.numbers[counts], target[counts], image_of_found[counts])
    return _Examples(own.numbers, kind, image), free


def _missing_there(
    planted: Planted, labels: Tables, predictions: Tables, found: Evidence
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) 1 where a prediction is the best of a label that was taken out, and (M,) bool which ones count:
    not those that merely overlap such a label.
    """
    gone = planted.answers.filter(pl.col("kind") == "missing")["original"].to_numpy()
    boxes = predictions.boxes[found.rows]
    pairs = overlapping(
        labels.rotated()[gone],
        labels.boxes["image_id"].to_numpy()[gone],
        predictions.rotated()[found.rows],
        boxes["image_id"].to_numpy(),
        SAME,
    )
    chosen = best(boxes["score"].to_numpy()[pairs.second], pairs.first, len(gone))
    target, counts = np.zeros(len(boxes), dtype=int), np.ones(len(boxes), dtype=bool)
    counts[pairs.second] = False
    target[pairs.second[chosen[chosen >= 0]]] = 1
    return target, counts | (target > 0)


def _folds(images: int, seed: int) -> list[np.ndarray]:
    """(I,) bool of each fold."""
    place = np.random.default_rng(seed).permutation(images) % FOLDS
    return [place == n for n in range(FOLDS)]


def _classifier(
    examples: list[_Examples], names: tuple[str, ...], seed: int
) -> HistGradientBoostingClassifier | None:
    """What tells the kinds apart; None where there is one kind alone."""
    numbers = np.concatenate([e.numbers for e in examples])
    kind = np.concatenate([e.kind for e in examples])
    if len(np.unique(kind)) < 2:
        return None
    if len(kind) > MOST_ROWS:
        some = np.random.default_rng(seed).choice(len(kind), MOST_ROWS, replace=False)
        numbers, kind = numbers[some], kind[some]
    unknown = np.isnan(numbers).all(axis=0)
    numbers[:, unknown] = 0  # no thresholds are found in what has no number at all
    category = names.index("category")
    few = numbers[:, category].max() < MOST_CATEGORIES
    categorical: Any = [category] if few else None  # scikit-learn's stubs know text alone
    model = HistGradientBoostingClassifier(
        learning_rate=0.1,
        max_iter=120,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        l2_regularization=1.0,
        categorical_features=categorical,
        random_state=seed,
    )
    return model.fit(numbers, kind)


class _Scores:
    """Scores of all rows and of the planted ones, each by a model that hasn't seen their images.

    Args:
        kinds: of labels.
        labels, candidates: what is judged.
    """

    def __init__(self, kinds: int, labels: Evidence, candidates: Evidence):
        self.rows = [np.full((len(labels.rows), kinds), -np.inf), np.full((len(candidates.rows), 1), -np.inf)]
        self.sure = bool(labels.numbers[:, AHEAD].any())  # how certain headings are, predictions tell
        self.planted: list[list[list[np.ndarray]]] = [[[] for _ in range(kinds)], [[]]]

    def add(
        self,
        part: int,
        model: HistGradientBoostingClassifier | None,
        numbers: np.ndarray,
        wanted: np.ndarray,
        tested: list[_Examples],
    ) -> None:
        """Score some rows, and what was planted into their images."""
        if model is None:
            return
        if wanted.any():
            self.rows[part][wanted] = self._of(model, numbers[wanted], part)
        for examples in tested:
            for kind in range(len(self.planted[part])):
                own = examples.kind == kind + 1
                if own.any():
                    self.planted[part][kind].append(self._of(model, examples.numbers[own], part)[:, kind])

    def _of(self, model: HistGradientBoostingClassifier, numbers: np.ndarray, part: int) -> np.ndarray:
        """(N, K) log odds of each kind, or what rises with them.

        Against all else, other kinds too: against no fault alone, whatever is a fault looks like each kind.
        """
        told = np.zeros((len(numbers), 1 + len(self.planted[part])))
        told[:, np.asarray(model.classes_)] = model.predict_proba(numbers)
        odds = logit(told[:, 1:].clip(LEAST, 1 - LEAST))
        if part == 0 and self.sure:  # which says all there is to say, and needs no learning
            odds[:, HEADING] = -numbers[:, AHEAD]
        return odds

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) of labels and (M,) of candidates."""
        parts = []
        for rows, planted in zip(self.rows, self.planted):
            columns = [
                probabilities(np.concatenate(own), rows[:, n]) if own else np.zeros(len(rows))
                for n, own in enumerate(planted)
            ]
            parts.append(np.column_stack(columns))
        return parts[0], parts[1][:, 0]
