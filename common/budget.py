"""The active-learning loop: which labels each round has, what it records, and which it asks for next."""

import time
from collections.abc import Iterator
from itertools import pairwise

import torch

from common import machine, training
from common.data import Images
from common.errors import InputError
from common.networks import SplitNet
from common.runs import Run, save_weights
from common.samplers import Sampler
from common.seeds import generator

Tensor = torch.Tensor


def label_counts(args, pool: int) -> list[int]:
    """The labelled pool's size in each round: `--percents` of num_images, or initial_budget, then + budget.

    The last round has the whole pool unless `--rounds` stops before; a pool without budgets is one round.
    Raises InputError when the budgets do not fit the pool or a query asks for more than its candidates.
    """
    if "budget" not in args:
        return [pool]
    if args.percents:
        counts = [pool if percent == 100 else round(args.num_images * percent / 100) for percent in args.percents]
        if counts != sorted(set(counts)) or counts[0] < 1 or counts[-1] > pool:
            raise InputError(
                f"--percents {' '.join(map(str, args.percents))}: must grow, from more than 0 to at most "
                f"{100 * pool / args.num_images:g} (the pool has {pool} images) or 100, which means all of it"
            )
    else:
        if args.initial_budget > pool:
            raise InputError(
                f"--initial_budget {args.initial_budget}: the pool has {pool} images "
                f"(--num_images {args.num_images} less --num_val {args.num_val}); use at most that"
            )
        counts = [*range(args.initial_budget, pool, args.budget), pool]
    counts = counts[: args.rounds or None]
    for before, after in pairwise(counts):
        if after < pool and after - before > args.subset:
            raise InputError(f"--subset {args.subset}: {after - before} labels are queried from it; use at least that")
    return counts


def percent(args, labeled: int, pool: int) -> float:
    """Labelled images in percent of num_images; the full pool counts as 100."""
    return 100.0 if labeled == pool else 100 * labeled / args.num_images


def rounds(args, run: Run, images: Images) -> Iterator["Round"]:
    """The rounds that are still to do, each with its pools; what the loop's body did is saved when it comes back."""
    counts = label_counts(args, len(images.pool))
    if run.state["labeled"] is None:
        run.state["labeled"] = images.pool[: counts[0]].cpu()  # equal seeds start from equal labels
        note_queries(run, images, 0, run.state["labeled"])
    elif run.state["round"] < len(counts):
        run.log(f"{run.folder}: going on at round {run.state['round'] + 1} of {len(counts)}")
    while run.state["round"] < len(counts):
        this = Round(args, run, images, counts)
        run.log(f"{this.label}: training")
        yield this
        run.commit_round()
    run.log(f"done: {run.folder / 'results.csv'}")


def note_queries(run: Run, images: Images, number: int, chosen: Tensor, scores: list[str] | None = None) -> None:
    """Adds the images `chosen` for a round, by their place in the data set, with their labels, to queries.csv."""
    chosen = chosen.cpu()
    columns = images.origin[chosen].tolist(), images.labels.cpu()[chosen].tolist(), scores or [""] * len(chosen)
    for index, label, score in zip(*columns, strict=True):
        run.add("queries", round=number, index=index, score=score, label=label)


def _clock(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


class Round:
    """One round: the pools it trains on, and the two things that end it, `record` and `query`."""

    def __init__(self, args, run: Run, images: Images, counts: list[int]):
        self.args, self.run, self.images, self.counts = args, run, images, counts
        self.number = run.state["round"]
        self.labeled = run.state["labeled"].to(images.device)  # indices into images.train
        free = torch.ones(len(images.train), dtype=torch.bool, device=images.device)
        free[self.labeled] = False
        self.unlabeled = images.pool[free[images.pool]]
        self.percent = percent(args, len(self.labeled), len(images.pool))
        self.label = f"round {self.number + 1}/{len(counts)} ({len(self.labeled)} labels, {self.percent:.4g}%)"
        self.teacher_accuracy: float | str = ""

    def epoch_done(self, epoch: int, losses: dict[str, float], validation: float, left: float) -> None:
        """Notes an epoch in the run's history and log; `left` are the seconds that this round still takes."""
        self.run.add(
            "history", round=self.number, epoch=epoch, loss=f"{losses['loss']:.6g}", val_accuracy=f"{validation:.2f}"
        )
        parts = " ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self.run.log(
            f"{self.label}: epoch {epoch}/{self.args.train_epochs} {parts} val {validation:.2f}, {_clock(left)} left"
        )

    def fitted(self, best_epoch: int, validation: float, seconds: float, updates: int) -> None:
        """Takes note of how training went."""
        self.best_epoch, self.validation, self.seconds, self.updates = best_epoch, validation, seconds, updates

    def record(self, net: SplitNet, network: str = "student") -> float:
        """Tests the network, once, and keeps its weights and its row; returns the test accuracy in percent."""
        args, images = self.args, self.images
        self.accuracy = training.accuracy(net, images.test, images.test_labels)
        row = {
            "model": args.model,
            "dataset": images.name,
            "method": args.method,
            "network": network,
            "seed": args.seed,
            "round": self.number,
            "labeled": len(self.labeled),
            "percent": f"{self.percent:g}",
            "epochs": args.train_epochs,
            "updates": self.updates,
            "best_epoch": self.best_epoch,
            "val_accuracy": f"{self.validation:.2f}",
            "test_accuracy": f"{self.accuracy:.2f}",
            "teacher_accuracy": self.teacher_accuracy,
        }
        row |= {
            name: getattr(args, name)
            for name in ("sampler", "distill_on", "logit_loss", "teacher_labels")
            if name in args
        }
        save_weights(self.run.folder / f"round_{self.number:02d}.pt", net, **row)
        self.run.add("results", **row)
        self.run.add(
            "timing",
            round=self.number,
            train_seconds=f"{self.seconds:.1f}",
            images_per_second=f"{self.updates * args.batch_size / self.seconds:.0f}",
            device=str(images.device),
            threads=torch.get_num_threads(),
            **{name: f"{value:.0f}" for name, value in machine.peak_memory(images.device).items()},
        )
        left = (len(self.counts) - self.number - 1) * self.seconds
        self.run.log(
            f"{self.label}: test accuracy {self.accuracy:.2f}% (validation {self.validation:.2f}% at epoch "
            f"{self.best_epoch}), trained in {self.seconds:.0f} s"
            + (f", about {left / 60:.0f} min left" if left else "")
        )
        return self.accuracy

    def query(self, sampler: Sampler) -> None:
        """Moves the next round's labels from the unlabelled pool to the labelled one, as the sampler chooses."""
        if self.number + 1 == len(self.counts):
            return
        started = time.perf_counter()
        count = self.counts[self.number + 1] - len(self.labeled)
        candidates = self.unlabeled
        if count < len(candidates):
            source = generator(self.args.seed, "subset", self.number, device=candidates.device)
            order = torch.randperm(len(candidates), generator=source, device=candidates.device)
            candidates = candidates[order[: self.args.subset]]
        chosen, scores = sampler.query(count, candidates)
        self.run.state["labeled"] = torch.cat([self.labeled, chosen]).cpu()
        note_queries(self.run, self.images, self.number + 1, chosen, [f"{score:.6g}" for score in scores.tolist()])
        self.run.state["timing"][-1][3] = f"{time.perf_counter() - started:.2f}"
