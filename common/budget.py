"""The active-learning loop: which labels each round has, and which it asks for next."""

import time
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from common import annotation, proposal
from common.data import Images
from common.errors import InputError
from common.runs import Run
from common.samplers import Sampler
from common.seeds import generator
from common.state import REMEDY


def label_counts(args, pool: int) -> list[int]:
    """The labelled pool's size in each round: `--percents` of num_images, or initial_budget, plus budget each round.

    With budgets, the last round has the whole pool unless `--rounds` stops earlier; without, the only round has it.
    Raises InputError when the budgets do not fit the pool or a query asks for more than its candidates.
    """
    if "budget" not in args:
        return [pool]
    if args.percents:
        counts = [pool if percent == 100 else round(args.num_images * percent / 100) for percent in args.percents]
        if counts != sorted(set(counts)) or counts[0] < 1 or counts[-1] > pool:
            raise InputError(
                f"--percents {' '.join(map(str, args.percents))}: {', '.join(map(str, counts))} labels; must grow, "
                "from one label to at most "
                f"{100 * pool / args.num_images:g} (the pool has {pool} images) or 100, which means all of it"
            )
    else:
        if args.initial_budget > pool:
            bought = args.val_labels == "bought"
            found = proposal.counts(args.num_images, validation=args.num_val, bought=bought)
            raise InputError(
                f"--initial_budget {args.initial_budget}: the pool has {pool} images (--num_images {args.num_images}"
                + ("" if bought else f" less --num_val {args.num_val}")
                + f"); these fit: {proposal.words(found, args, proposal.BUDGETS)}"
            )
        counts = [*range(args.initial_budget, pool, args.budget), pool]
    if args.val_labels == "bought" and counts[0] <= args.num_val:
        raise InputError(f"--val_labels bought --num_val {args.num_val}: round 1 has {counts[0]} labels: none is left "
                         "to train on; lower --num_val to a tenth of them, say")  # fmt: skip
    counts = counts[: args.rounds or None]
    for before, after in pairwise(counts):
        if after < pool and after - before > args.subset:
            raise InputError(f"--subset {args.subset}: {after - before} labels are queried from it; use at least that")
    return counts


def percent(args, labeled: int, pool: int) -> float:
    """Labelled images as a percentage of num_images; the full pool counts as 100."""
    return 100.0 if labeled == pool else 100 * labeled / args.num_images


def rounds(args, run: Run, images: Images) -> Iterator["Round"]:
    """Yields the remaining rounds, each with its pools; a round is saved when the caller asks for the next one."""
    counts = label_counts(args, len(images.pool))
    annotation.check(args, run)
    if run.state["labeled"] is None:
        run.state["labeled"] = images.pool[: counts[0]].cpu()  # equal seeds start from equal labels
        _note_queries(run, images, 0, run.state["labeled"])
    else:
        _check(run, images, counts)
        annotation.hold(args, run, images)
        if run.state["round"] < len(counts):
            run.log(f"{run.folder}: going on at round {run.state['round'] + 1} of {len(counts)}")
    while run.state["round"] < len(counts):
        this_round = Round(args, run, images, counts)
        annotation.await_labels(args, run, this_round)
        run.log(f"{this_round.label}: training")
        yield this_round
        run.commit_round()
    run.log(f"done: {run.folder / 'results.csv'}")


def _check(run: Run, images: Images, counts: list[int]) -> None:
    """Raises InputError if no run with these flags can have the state's round and labelled pool."""
    labeled, number = run.state["labeled"], run.state["round"]
    known = torch.isin(labeled, images.pool.cpu()).all()
    size = counts[min(number, len(counts) - 1)]
    if number > len(counts) or not known or len(labeled) != size or len(labeled.unique()) != size:
        raise InputError(
            f"{run.folder / 'state.pt'}: is of another run (of {len(counts)} rounds {number} are done, with "
            f"{len(labeled)} labels); {REMEDY}"
        )


class Round:
    """One round's pools, and the query that determines the next round's."""

    def __init__(self, args, run: Run, images: Images, counts: list[int]):
        """
        Args:
            run: its state holds the round's number and labelled pool.
            counts: the labelled pool's size in each round.
        """
        self.args, self.run, self.images, self.counts = args, run, images, counts
        self.number = run.state["round"]
        self.bought = run.state["labeled"].to(images.device)  # indices into images.train
        free = torch.ones(len(images.train), dtype=torch.bool, device=images.device)
        free[images.val] = False
        self.labeled = self.bought[free[self.bought]]  # without those that `--val_labels bought` holds out
        free[self.bought] = False
        self.unlabeled = images.pool[free[images.pool]]
        self.percent = percent(args, len(self.bought), len(images.pool))
        self.label = f"round {self.number + 1}/{len(counts)} ({len(self.bought)} labels, {self.percent:.4g}%)"

    def query(self, sampler: Sampler) -> None:
        """Moves the images that the sampler chooses from the unlabelled to the labelled pool of the next round."""
        if self.number + 1 == len(self.counts):
            return
        started = time.perf_counter()
        count = self.counts[self.number + 1] - len(self.bought)
        candidates = self.unlabeled
        if count < len(candidates):
            order = torch.randperm(len(candidates), generator=generator(self.args.seed, "subset", self.number))
            candidates = candidates[order[: self.args.subset].to(candidates.device)]
        chosen, scores = (each.cpu() for each in sampler.query(count, candidates))
        sampler.check(count, chosen, scores)
        self.run.state["labeled"] = torch.cat([self.bought.cpu(), chosen])
        scores = [f"{score:.6g}" for score in scores.tolist()]
        _note_queries(self.run, self.images, self.number + 1, chosen, scores)
        self.run.amend("timing", query_seconds=f"{time.perf_counter() - started:.2f}")


def _note_queries(run: Run, images: Images, number: int, chosen: Tensor, scores: list[str] | None = None) -> None:
    """Adds the images `chosen` for a round to queries.csv, with their data-set indices, labels and scores."""
    chosen = chosen.cpu()
    columns = images.origin[chosen].tolist(), images.labels.cpu()[chosen].tolist(), scores or [""] * len(chosen)
    for index, label, score in zip(*columns, strict=True):
        run.add("queries", round=number, index=index, score=score, label=label if label >= 0 else "")
