"""Points far apart: k-center greedy and k-means++ seeding, exact, at the speed of matrix products.

Both make one choice at a time, each of which needs the distances of all points to the last center: thousands of passes
over all of them. Here choices are made in blocks, from distances known to be upper bounds, because they only shrink; a
matrix product then brings all of them up to date. The choices are those of the plain sequences.
"""

import torch
from torch import Tensor

BLOCK = 256
ROWS = 1024  # points whose distances to a block are held at once
ROUNDING = 1e-5  # a squared distance below this fraction of the two squared lengths counts as float32 rounding


class Points:
    """n points, never written out, whose inner products are products of their factors' inner products.

    One factor (n, d) is the points themselves. Two, (n, a) and (n, b), are the n outer products with a * b values.
    """

    def __init__(self, *factors: Tensor):
        self.factors = factors
        self.squares = torch.ones(len(factors[0]), dtype=torch.float64, device=factors[0].device)
        for factor in factors:  # in parts: torch copies whatever it sums in float64
            for rows, part in zip(self.squares.split(ROWS), factor.split(ROWS), strict=True):
                rows *= torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) ** 2

    def between(self, rows: Tensor | slice, centers: Tensor, other: "Points | None" = None) -> Tensor:
        """Squared distances (R, C), float64, from some points to some of these, or to some of `other`."""
        other = other or self
        products = 1.0
        for mine, theirs in zip(self.factors, other.factors, strict=True):
            products = products * (mine[rows] @ theirs[centers].T)
        both = self.squares[rows, None] + other.squares[centers]
        squared = both - 2 * products.double()
        return squared.masked_fill_(squared <= ROUNDING * both, 0)

    def nearest(self, centers: Tensor, other: "Points | None" = None) -> Tensor:
        """Squared distance (n,) of each point to the nearest of these centers, points of its own or of `other`."""
        found = torch.full_like(self.squares, float("inf"))
        for start in range(0, len(found), ROWS):
            rows = slice(start, start + ROWS)
            for some in centers.split(BLOCK):
                found[rows] = torch.minimum(found[rows], self.between(rows, some, other).amin(1))
        return found


def farthest_first(points: Points, count: int, near: Tensor) -> tuple[Tensor, Tensor]:
    """k-center greedy (Gonzalez 1985): repeatedly the point farthest from all centers, the first if tied.

    Args:
        near: squared distances (n,) to the nearest existing center, float64.
    Returns:
        the `count` points' numbers in the order of choice, and their distances then.
    """
    near, chosen, distances = near.clone(), [], []
    count = min(count, len(near))
    while len(chosen) < count:
        ranked = near.sort(descending=True, stable=True)
        if ranked.values[0] <= 0:  # all remaining points coincide with centers
            left = (near >= 0).nonzero()[:, 0][: count - len(chosen)]
            chosen, distances = chosen + left.tolist(), distances + [0.0] * len(left)
            break
        block = ranked.indices[:BLOCK].sort().values
        bound = ranked.values[BLOCK].item() if len(near) > BLOCK else -1.0
        mutual, now = points.between(block, block).cpu(), near[block].cpu()
        picked = []
        while len(chosen) < count:
            best = now.argmax().item()
            if picked and now[best] <= bound:  # a point outside the block may now be farther
                break
            picked.append(best)
            chosen.append(block[best].item())
            distances.append(now[best].item())
            now = torch.minimum(now, mutual[best])
            now[picked] = -1
        centers = torch.tensor(chosen[-len(picked) :]).to(near.device)
        near = torch.minimum(near, points.nearest(centers))
        near[centers] = -1
    return _found(chosen, distances, near.device)


def kmeans_plusplus(points: Points, count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """k-means++ seeding (Arthur & Vassilvitskii 2007): points drawn by their squared distance to the nearest center.

    The first is the longest. A block's proposals are drawn with the odds at its start and kept with probability (odds
    now / odds then), so that each kept one is drawn with its current odds. Points that coincide with centers come last,
    at random.

    Returns:
        the `count` points' numbers in the order they were drawn, and their distances then.
    """
    count = min(count, len(points.squares))
    first = points.squares.argmax()[None]
    chosen, distances = first.tolist(), [points.squares[first].item()]
    near = points.nearest(first)
    near[first] = 0
    while len(chosen) < count:
        odds = near.cpu()
        cumulated = odds.cumsum(0)
        if cumulated[-1] <= 0:
            left = torch.ones(len(near), dtype=torch.bool).index_fill_(0, torch.tensor(chosen), False).nonzero()[:, 0]
            left = left[torch.randperm(len(left), generator=source)][: count - len(chosen)]
            chosen, distances = chosen + left.tolist(), distances + [0.0] * len(left)
            break
        draws = torch.rand(2, BLOCK, dtype=torch.float64, generator=source)
        block = torch.searchsorted(cumulated, draws[0] * cumulated[-1], right=True).clamp_(max=len(near) - 1)
        mutual = points.between(block.to(near.device), block.to(near.device)).cpu()
        mutual.masked_fill_(block[:, None] == block, 0)
        then, now, picked = odds[block], odds[block], []
        for number in range(BLOCK):
            if draws[1, number] * then[number] < now[number] and len(chosen) < count:
                picked.append(block[number].item())
                chosen.append(picked[-1])
                distances.append(now[number].item())
                now = torch.minimum(now, mutual[number])
        centers = torch.tensor(picked).to(near.device)
        near = torch.minimum(near, points.nearest(centers))
        near[centers] = 0
    return _found(chosen, distances, near.device)


def _found(chosen: list[int], squared: list[float], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(chosen).to(device), torch.tensor(squared, dtype=torch.float64).sqrt().to(device)
