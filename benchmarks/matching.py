"""One-to-one matching on the processor, or on the device: scipy's Hungarian method beside a batched auction.

python -m benchmarks.matching                    # on a GPU where there is one

Costs are those of a set predictor whose boxes lie about objects, near ones in training's middle, far ones at
its start. The auction (Bertsekas, The Auction Algorithm, Annals of Operations Research 1988) lets each object
of every image bid at once and needs no transfer; its total is within `--epsilon` an object of the least.
Boxwright uses scipy's.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from boxwright.assign.hungarian import hungarian_assign
from boxwright.models.set_boxes import UPRIGHT
from boxwright.models.sets import FOCAL_ALPHA, FOCAL_GAMMA, Costs

MOST = 20_000  # rounds of bids, after which an auction is given up


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--objects", type=int, nargs="+", default=[5, 20, 100])
    parser.add_argument("--epsilon", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = Table("objects", "boxes off", "scipy, ms", "auction, ms", "auction dearer, an object", box=None)
    auction = partial(auction_assign, epsilon=options.epsilon)
    for spread, count in product((0.05, 0.5), options.objects):
        cost, mask = made_costs(options, count, spread, device)
        least, seconds = measured(hungarian_assign, cost, mask, options.rounds)
        other, auctioned = measured(auction, cost, mask, options.rounds)
        worse = total(cost, other) - total(cost, least)
        table.add_row(
            str(count), f"{spread:g}", f"{1000 * seconds:.1f}", f"{1000 * auctioned:.1f}",
            f"{worse / (options.images * options.layers * count):.5f}",
        )  # fmt: skip
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    Console(width=100).print(f"{options.images} images, {options.layers} layers, {name}", table)


def made_costs(
    options: argparse.Namespace, count: int, spread: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Costs (B, L, Q, G) of boxes that lie `spread` off, in shares, and which objects (B, G) are there."""
    rng = np.random.default_rng(0)
    batch, layers, queries = options.images, options.layers, options.queries
    truth = rng.uniform([0.1, 0.1, 0.03, 0.03], [0.9, 0.9, 0.2, 0.2], (batch, count, 4))
    near = truth[np.arange(batch)[:, None, None], rng.integers(0, count, (batch, layers, queries))]
    boxes = near + rng.normal(0, spread, near.shape)
    boxes[..., 2:] = boxes[..., 2:].clip(0.01)
    boxes, wanted = (torch.tensor(b, dtype=torch.float32, device=device) for b in (boxes, truth))
    score = torch.tensor(rng.beta(1, 8, (batch, layers, queries, count)), dtype=torch.float32, device=device)
    found = FOCAL_ALPHA * (1 - score) ** FOCAL_GAMMA * -(score + 1e-8).log()
    background = (1 - FOCAL_ALPHA) * score**FOCAL_GAMMA * -(1 - score + 1e-8).log()
    l1, unlike = UPRIGHT.costs(boxes[:, :, :, None], wanted[:, None, None])
    costs = Costs()
    mask = torch.ones(batch, count, dtype=torch.bool, device=device)
    return costs.cls * (found - background) + costs.l1 * l1 + costs.giou * unlike, mask


@torch.no_grad()
def auction_assign(cost: Tensor, gt_mask: Tensor, epsilon: float) -> Tensor:
    """As `hungarian_assign`, of as many queries as objects at least, by bids.

    Every object without a query bids for the one of greatest value to it, so much more than its price that
    the second best would do as well; the highest bid takes the query, and who had it bids again.
    """
    batch, layers, queries, count = cost.shape
    value = -cost.flatten(0, 1).transpose(1, 2)  # (N, G, Q)
    active = gt_mask[:, None].expand(-1, layers, -1).flatten(0, 1)  # (N, G)
    price = torch.zeros_like(value[:, 0])  # (N, Q)
    owner = torch.full(price.shape, -1, device=cost.device)  # object of each query
    places = torch.arange(count, device=cost.device).expand_as(active)
    for _ in range(MOST):
        has = torch.zeros_like(places).scatter_reduce(1, owner.clamp(min=0), (owner >= 0).long(), "amax")
        bidding = active & (has == 0)
        if not bidding.any():
            break
        best, query = (value - price[:, None]).topk(2, dim=2)
        own = value.gather(2, query[..., :1])[..., 0] - best[..., 1] + epsilon
        bids = torch.where(bidding, own, -torch.inf)
        highest = torch.full_like(price, -torch.inf).scatter_reduce(1, query[..., 0], bids, "amax")
        wins = bidding & (bids >= highest.gather(1, query[..., 0]))
        # Of equal bids the last object's.
        winner = torch.full_like(owner, -1).scatter_reduce(
            1, query[..., 0], torch.where(wins, places, -1), "amax"
        )
        owner = torch.where(winner >= 0, winner, owner)
        price = torch.where(winner >= 0, highest, price)
    return owner.view(batch, layers, queries)


def measured(
    assign: Callable[[Tensor, Tensor], Tensor], cost: Tensor, mask: Tensor, rounds: int
) -> tuple[Tensor, float]:
    """What a function gives, and the least seconds of some rounds."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        result = assign(cost, mask)
        if result.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return result, min(seconds)


def total(cost: Tensor, matched_gt: Tensor) -> float:
    own = cost.gather(3, matched_gt.clamp(min=0)[..., None])[..., 0]
    return float(torch.where(matched_gt >= 0, own, 0.0).sum())


if __name__ == "__main__":
    main()
