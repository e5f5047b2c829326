"""Which images an epoch holds, in which order, on which process: told by the seed and the epoch alone.

A virtual epoch draws a number of images of each source, without putting them back: of each the draws of all
epochs are one stream of shuffled passes, so that every image is seen before any is seen twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch.utils.data import Sampler

from boxwright.config.data import SourceConfig
from boxwright.errors import ConfigError

FIRST = 0.2  # of a source's images, the easiest, with which a curriculum begins


@dataclass(frozen=True)
class Draws:
    """What an epoch draws.

    Attributes:
        sizes: images of each source, one source behind the other.
        rates: of them drawn an epoch, in the mean.
        total: images of an epoch, the sum of the rates.
        often: (images,) how much more often than others each is drawn; None: all of a source alike.
        hardness: (images,) by which they come in, the least first, where a run begins with easy ones.
        groups: (images,) of which a step holds one, as far as they go round; None: any.
        together: images of a step of all processes.
    """

    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    total: int
    often: tuple[float, ...] | None = None
    hardness: tuple[float, ...] | None = None
    groups: tuple[int, ...] | None = None
    together: int = 1

    @property
    def virtual(self) -> bool:
        """Whether an epoch is anything else than every image once."""
        return self.sizes != self.rates or self.often is not None

    def counts(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(S,) what the epochs before one have drawn of each source, and what it draws itself.

        Whole numbers that keep to the rates from epoch to epoch: a source of a tenth of an image an epoch has
        its turn too.
        """
        rates, before = np.array(self.rates), np.zeros(len(self.rates), dtype=np.int64)
        counts = before
        for epoch in range(number + 1):
            before = before + counts
            due = np.maximum(rates * (epoch + 1) - before, 0)
            counts = np.floor(due).astype(np.int64)
            left = self.total - counts.sum()
            order = np.argsort(counts - due, kind="stable")  # those that lack most first
            if left >= 0:
                counts[order[:left]] += 1
            else:
                counts[[n for n in order[::-1] if counts[n]][:-left]] -= 1
        return before, counts

    def epoch(self, number: int, seed: int, ramp: int = 0) -> np.ndarray:
        """(total,) the images of an epoch, in its order; before epoch `ramp` of easy ones alone."""
        order = self._drawn(number, seed, ramp)
        if self.groups is None:
            return order
        return in_like_steps(order, np.array(self.groups)[order], self.together, [seed, number])

    def _drawn(self, number: int, seed: int, ramp: int) -> np.ndarray:
        easy = number < ramp and self.hardness is not None
        if not (self.virtual or easy):
            return np.random.default_rng([seed, number]).permutation(self.total)
        starts = np.cumsum([0, *self.sizes])
        often = np.array(self.often or np.ones(starts[-1]))
        hardness = np.array(self.hardness or ())
        parts = []
        for source, (start, size, first, count) in enumerate(zip(starts, self.sizes, *self.counts(number))):
            own, stream = slice(start, start + size), [seed, source]
            if easy:
                chosen = start + _easiest(hardness[own], number / ramp)
                # What there is to draw from grows, so that each epoch has a stream of its own.
                parts.append(chosen[_stream(often[chosen], 0, count, [*stream, number])])
            else:
                parts.append(start + _stream(often[own], first, count, stream))
        order = np.concatenate(parts)
        # One source's stream is in random order; several are mixed.
        return order if len(parts) == 1 else np.random.default_rng([seed, number]).permutation(order)


def draws_of(
    sizes: Sequence[int],
    sources: Sequence[SourceConfig],
    epoch_images: int | None,
    together: int,
    often: np.ndarray | None = None,
    hardness: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Draws:
    """What an epoch draws of sources of these sizes.

    Args:
        sizes: images of each source.
        sources: their `samples` and `repeat`.
        epoch_images: of all sources, by the shares that those give; None: as many as they give.
        together: images of a step of all processes: a virtual epoch is a multiple, so that none is left out.
        often, hardness, groups: (images,) of all sources, see `Draws`.

    Raises:
        ConfigError: an epoch would have less than a step's images.
    """
    starts = np.cumsum([0, *sizes])
    given = sizes if often is None else [often[a:b].sum() for a, b in pairwise(starts)]
    wanted = np.array([float((s.samples or s.repeat * n) if n else 0) for s, n in zip(sources, given)])
    factors, order, alike = (None if a is None else tuple(a.tolist()) for a in (often, hardness, groups))
    if often is None and epoch_images is None and np.array_equal(wanted, sizes):
        return Draws(tuple(sizes), tuple(sizes), sum(sizes), None, order, alike, together)
    total = epoch_images or round(wanted.sum())
    if total < together:
        raise ConfigError(
            f"an epoch of {total:,} images is less than a step of {together:,}. See train.epoch_images,"
            " data.train.samples and train.batch_size."
        )
    total -= total % together
    rates = tuple((wanted * (total / wanted.sum())).tolist())
    return Draws(tuple(sizes), rates, total, factors, order, alike, together)


def in_like_steps(order: np.ndarray, group: np.ndarray, together: int, seed: Sequence[int]) -> np.ndarray:
    """The same images, those of a group side by side, in steps of so many that come in random order.

    A last step that isn't full is of any group, so that none is always left out.

    Args:
        order: (N,) images.
        group: (N,) of each of them.
        together: images of a step.
        seed: of the order of steps.
    """
    full = len(order) - len(order) % together
    steps = order[np.argsort(group[:full], kind="stable")].reshape(-1, together)
    return np.concatenate([np.random.default_rng(seed).permutation(steps).ravel(), order[full:]])


def repeat_factors(image: np.ndarray, group: np.ndarray, images: int, share: float) -> np.ndarray:
    """(images,) how much more often each image is to be drawn: the root of how many times fewer images than
    this share hold the rarest of its groups, 1 at least.

    Gupta, Dollár and Girshick, LVIS, CVPR 2019, section 4 (repeat factor sampling).

    Args:
        image, group: (N,) of each box, from 0.
        images: how many there are.
        share: in (0, 1].
    """
    held, group = np.unique(np.stack([image, group]), axis=1)
    factors = np.sqrt(share * images / np.bincount(group)[group])
    often = np.ones(images)
    np.maximum.at(often, held, factors)
    return often


def _easiest(hardness: np.ndarray, progress: float) -> np.ndarray:
    """Places of those that take part at a progress in [0, 1): first FIRST of them, then by the root of time.

    Platanios et al., Competence-based Curriculum Learning, NAACL 2019, eq. 7 with p = 2.
    """
    share = np.sqrt(FIRST**2 + progress * (1 - FIRST**2))
    return np.sort(np.argsort(hardness, kind="stable")[: int(np.ceil(share * len(hardness)))])


def _stream(often: np.ndarray, start: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """(count,) the part from `start` on of an endless stream of shuffled passes over images.

    After n passes image i has been drawn floor or ceil of often[i] * n times.
    """
    if not count:
        return np.zeros(0, dtype=np.int64)
    phase = np.random.default_rng(seed).random(len(often))

    def drawn(passes: int) -> np.ndarray:
        return np.floor(often * passes + phase).astype(np.int64)

    number = int(start / often.sum())
    while drawn(number).sum() > start:
        number -= 1
    while drawn(number + 1).sum() <= start:
        number += 1
    first, parts = start - int(drawn(number).sum()), []
    while sum(map(len, parts)) < first + count:
        rows = np.repeat(np.arange(len(often)), drawn(number + 1) - drawn(number))
        parts.append(np.random.default_rng([*seed, number]).permutation(rows))
        number += 1
    return np.concatenate(parts)[first:][:count]


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, image) in an order that the seed and the epoch alone decide.

    Args:
        draws: what an epoch draws; a number: so many images, each once.
        seed: of the order.
        shuffle: False: as the table has them.
        rank, world: of this process; each takes every `world`-th image, so that a step of all processes
            holds the images of one process's step with a batch `world` times as large.
        even: leave out the last images where they don't go round.
    """

    def __init__(
        self,
        draws: Draws | int,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        even: bool = True,
    ):
        self.draws = Draws((draws,), (draws,), draws) if isinstance(draws, int) else draws
        self.seed, self.shuffle = seed, shuffle
        self.rank, self.world = rank, world
        length = self.draws.total
        self.whole = length - length % world if even else length
        self.number = 0
        self.ramp = 0  # epochs in which images come in from easy to hard
        self.start = 0  # of this process's images to pass over, when a run goes on within an epoch

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and where in it to begin."""
        self.number, self.start = epoch, start

    def __len__(self) -> int:
        return len(range(self.rank, self.whole, self.world)) - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.draws.total)
        if self.shuffle:
            order = self.draws.epoch(self.number, self.seed, self.ramp)
        mine = order[: self.whole][self.rank :: self.world][self.start :]
        return iter([(self.number, int(i)) for i in mine])
