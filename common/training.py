"""Trains one network for one round and leaves it with its best validation weights."""

import copy
import math
import time

import torch
from torch import nn
from torch.nn import functional as F

from common import augment, distillation, networks
from common.errors import Diverged
from common.networks import SplitNet
from common.seeds import derive, generator

Tensor = torch.Tensor
READ_EVERY = 50  # updates between two looks at the losses, so that a GPU is not made to wait at each


def fit(args, round, net: SplitNet, decoder=None, targets=None, sampler=None) -> None:
    """Trains `net` on the round's labelled pool for `train_epochs`; state is saved, and resumed, at each epoch's end.

    Args:
        args: hyperparameters; an epoch is num_images // batch_size updates whatever the labelled pool's size.
        round: the budget loop's round: pools, images, run.
        net: its weights are replaced by those of best validation accuracy (the earliest of equals).
        decoder, targets: phi and the teacher's outputs; None trains without distillation.
        sampler: trained beside the network where it learns, and left as it was when the network was best.
    Raises Diverged when a loss is not finite.
    """
    trained = net
    if args.fold_bn:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(args.seed, "compact", round.number))
            trained = networks.compact(net, args.image_size)
    session = Session(args, round, trained, decoder, targets, sampler)
    session.resume()
    with round.run.bar(args.train_epochs * session.updates, session.epoch * session.updates, round.label) as bar:
        while session.epoch < args.train_epochs:
            session.train_epoch(bar)
            session.save()
    session.restore_best()
    if args.fold_bn:
        sample = augment.batch(round.images.train, round.labeled[:250])
        networks.expand(trained, net, sample)


@torch.no_grad()
def accuracy(net: SplitNet, images: Tensor, labels: Tensor, batch_size: int = 250) -> float:
    """Percent of unmirrored images (N, S, S, 3) uint8 that `net`, in eval mode, classifies as labels (N,)."""
    training = net.training
    net.eval()
    correct = torch.zeros((), dtype=torch.long, device=images.device)
    for index in torch.arange(len(images), device=images.device).split(batch_size):
        correct += (net(augment.batch(images, index)).argmax(1) == labels[index]).sum()
    net.train(training)
    return 100 * correct.item() / len(images)


def shuffled(pool: Tensor, count: int, source: torch.Generator) -> Tensor:
    """`count` indices from `pool`, which is gone through in a new order each time it is used up."""
    passes = [torch.randperm(len(pool), generator=source, device=pool.device) for _ in range(-(-count // len(pool)))]
    return pool[torch.cat(passes)[:count]]


class Session:
    """Everything one `fit` updates: networks, optimizer, schedule, best weights. Saved and restored as a whole."""

    def __init__(self, args, round, net, decoder, targets, sampler):
        self.args, self.round, self.images = args, round, round.images
        self.net, self.decoder, self.targets = net, decoder, targets
        self.sampler = sampler if sampler is not None and sampler.trained and len(round.unlabeled) else None
        self.updates = args.num_images // args.batch_size
        self.modules = nn.ModuleDict({"net": net})
        sgd = {"momentum": 0.9, "weight_decay": args.weight_decay, "nesterov": args.nesterov, "fused": True}
        groups = [{"params": list(net.parameters()), "lr": args.lr_task}]
        if decoder is not None:
            self.modules["decoder"] = decoder
            groups.append({"params": list(decoder.parameters()), "lr": args.lr_dec})
        if self.sampler:
            self.modules["sampler"] = self.sampler.networks
        self.optimizers = {"task": torch.optim.SGD(groups, **sgd)}
        if self.sampler:
            self.optimizers |= self.sampler.optimizers
        self.schedule = schedule(args, self.optimizers["task"], self.updates)
        self.epoch, self.seconds = 0, 0.0
        self.best_accuracy, self.best_epoch, self.best = -1.0, 0, None

    def resume(self) -> None:
        """Goes on from the state of a killed run, if there is one of this round."""
        state = self.round.run.state["training"]
        if state is None:
            return
        self.modules.load_state_dict(state["modules"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.schedule.load_state_dict(state["schedule"])
        for name in ("epoch", "seconds", "best_accuracy", "best_epoch", "best"):
            setattr(self, name, state[name])

    def save(self) -> None:
        """Writes the run's state: what `resume` needs to go on as if nothing had happened."""
        self.round.run.state["training"] = {
            "modules": self.modules.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedule": self.schedule.state_dict(),
            **{name: getattr(self, name) for name in ("epoch", "seconds", "best_accuracy", "best_epoch", "best")},
        }
        self.round.run.save()

    def restore_best(self) -> None:
        """Puts the best validation weights back and tells the round how good they were."""
        self.modules.load_state_dict(self.best)
        self.round.fitted(self.best_epoch, self.best_accuracy, self.seconds, self.epoch * self.updates)

    def train_epoch(self, bar) -> None:
        """`updates` steps, then the validation accuracy; remembers the weights if they are the best so far."""
        args, epoch = self.args, self.epoch
        started = time.perf_counter()
        torch.manual_seed(derive(args.seed, "dropout", self.round.number, epoch))  # dropout takes no generator
        noise = self._generator("noise")
        batches = self.batches()
        self.modules.train()
        sums: dict[str, Tensor] = {}
        for update, batch in enumerate(batches):
            for name, value in self.step(batch, noise).items():
                sums[name] = sums[name] + value if name in sums else value
            self.schedule.step()
            if (update + 1) % READ_EVERY == 0 or update + 1 == self.updates:
                means = self._read(sums, update + 1)
                bar.set_postfix(epoch=epoch + 1, val=f"{self.best_accuracy:.2f}", **_short(means), refresh=False)
                bar.update(epoch * self.updates + update + 1 - bar.n)
        validation = accuracy(self.net, self.images.train[self.images.val], self.images.labels[self.images.val])
        if validation > self.best_accuracy:
            self.best_accuracy, self.best_epoch = validation, epoch + 1
            self.best = copy.deepcopy(self.modules.state_dict())
        self.epoch += 1
        self.seconds += time.perf_counter() - started
        left = (args.train_epochs - self.epoch) * self.seconds / self.epoch
        self.round.epoch_done(self.epoch, means, validation, left)

    def step(self, batch: dict[str, tuple[Tensor, Tensor, Tensor | None]], noise: torch.Generator) -> dict[str, Tensor]:
        """One update of the task networks on the paper's task loss, then one of the sampler; returns the losses."""
        args, net = self.args, self.net
        adversarial = bool(self.sampler) and self.sampler.sees_features and self.epoch >= args.warmup_epochs
        index, mirrored, _ = batch["labeled"]
        with self._autocast():
            x = self._see(*batch["labeled"])
            z = net.embed(x)
            logits = net.classify(z)
            losses = {"ce": F.cross_entropy(logits, self.images.labels[index], label_smoothing=args.label_smoothing)}
            if self.targets is not None:
                distilled = net.spread(z), logits, index, mirrored
                if "pool" in batch:
                    z_pool = net.embed(self._see(*batch["pool"]))
                    distilled = net.spread(z_pool), net.classify(z_pool), *batch["pool"][:2]
                losses["feat"], losses["logit"] = distillation.loss(args, self.decoder, self.targets, *distilled)
            if self.sampler:
                x_unlabeled = self._see(*batch["unlabeled"])
                with torch.set_grad_enabled(adversarial):
                    z_unlabeled = net.embed(x_unlabeled) if self.sampler.sees_features else x_unlabeled
                if adversarial:
                    losses["adv"] = args.adv_wt * self.sampler.adversarial(z, z_unlabeled)
        loss = sum(losses.values())
        self.optimizers["task"].zero_grad()
        loss.backward()
        self.optimizers["task"].step()
        losses = {"loss": loss, **losses}
        if self.sampler:
            with self._autocast():
                losses |= self.sampler.step(z, z_unlabeled, x, x_unlabeled, noise)
        return {name: value.detach() for name, value in losses.items()}

    def batches(self):
        """The epoch's batches: for each stream the indices (B,), mirror flags (B,) and offsets (B, 2)."""
        args, images = self.args, self.images
        pools = {"labeled": self.round.labeled}
        if self.targets is not None and args.distill_on == "pool":
            pools["pool"] = torch.cat([self.round.labeled, self.round.unlabeled])
        if self.sampler:
            pools["unlabeled"] = self.round.unlabeled
        count = self.updates * args.batch_size
        streams = {}
        for name, pool in pools.items():
            source = self._generator(name)  # each stream its own: one more does not change the others
            order = shuffled(pool, count, source)
            mirrored = torch.rand(count, generator=source, device=images.device) < (0.5 if images.mirror else 0.0)
            offsets = None
            if args.shift:
                offsets = torch.randint(-args.shift, args.shift + 1, (count, 2), generator=source, device=images.device)
            streams[name] = (order, mirrored, offsets)
        for start in range(0, count, args.batch_size):
            part = slice(start, start + args.batch_size)
            yield {name: tuple(t if t is None else t[part] for t in stream) for name, stream in streams.items()}

    def _see(self, index: Tensor, mirrored: Tensor, offsets: Tensor | None) -> Tensor:
        return augment.batch(self.images.train, index, mirrored if self.images.mirror else None, offsets)

    def _autocast(self):
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.args.amp == "bf16")

    def _generator(self, purpose: str) -> torch.Generator:
        return generator(self.args.seed, purpose, self.round.number, self.epoch, device=self.images.device)

    def _read(self, sums: dict[str, Tensor], count: int) -> dict[str, float]:
        """Mean losses so far, in one transfer from the device. Raises Diverged when one is not finite."""
        values = (torch.stack([value.float() for value in sums.values()]) / count).tolist()
        if not all(math.isfinite(value) for value in values):
            wrong = ", ".join(name for name, value in zip(sums, values, strict=True) if not math.isfinite(value))
            raise Diverged(
                f"{self.round.label}, epoch {self.epoch + 1}: loss is not finite ({wrong}); lower --lr_task "
                f"{self.args.lr_task}{self._also_lower()} and start under another --expt"
            )
        return dict(zip(sums, values, strict=True))

    def _also_lower(self) -> str:
        parts = [f", --lr_dec {self.args.lr_dec} or --feat_wt {self.args.feat_wt}"] if self.decoder is not None else []
        parts += [f", --lr_disc {self.args.lr_disc} or --adv_wt {self.args.adv_wt}"] if self.sampler else []
        return "".join(parts)


def _short(losses: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.3g}" for name, value in losses.items()}


def schedule(args, optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LRScheduler:
    """`step`: the rate times 0.1 every `step_size` epochs (paper: 80). `onecycle`: up to lr in a quarter, then down.

    Stepped once an update; onecycle is Smith & Topin 2017, https://arxiv.org/abs/1708.07120.
    """
    if args.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, args.step_size * updates, gamma=0.1)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=args.train_epochs * updates + 1,
        pct_start=0.25,
        div_factor=10,
        final_div_factor=100,
        cycle_momentum=False,
    )
