"""Trains one network for one round and leaves it with the weights that `--keep` names. The loss is in `objective`."""

import copy
import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from common import augment, evaluation, fast, folding, imbalance, networks, objective, schedules
from common.errors import Diverged, InputError, reason
from common.evaluation import Fitted
from common.objective import Forward
from common.schema import LOSSES
from common.seeds import derive
from common.streams import Batch, Streams

READ_EVERY = 50  # updates between reads of the losses: a read makes the host wait for the GPU


def fit(args, run, this_round, net: nn.Module, decoder=None, targets=None, sampler=None) -> Fitted:
    """Trains `net` as `train` does; with `--fold_bn`, trains a version with batch norm and folds it into `net`."""
    with folding.folded(args, net, this_round) as trained:
        return train(args, run, this_round, trained, decoder, targets, sampler)


def train(args, run, this_round, net: nn.Module, decoder=None, targets=None, sampler=None) -> Fitted:
    """Trains `net` on the round's labelled pool for `train_epochs`; saves its state after each epoch, and resumes.

    Args:
        args: hyperparameters; an epoch is num_images // batch_size updates, whatever the labelled pool's size.
        this_round: the budget loop's round, with its pools and images.
        net: ends with the weights that `--keep` names: those of the best validation accuracy (the earliest if tied),
            those of the last epoch, or their moving average.
        decoder, targets: phi and the teacher's outputs; None trains without distillation.
        sampler: trained alongside the network if it learns; its weights are kept and restored with the network's.
    Raises Diverged when a loss is not finite.
    """
    session = Session(args, run, this_round, net, decoder, targets, sampler)
    try:
        session.resume()
        updates_a_round = args.train_epochs * session.updates
        done = this_round.number * updates_a_round + session.epoch * session.updates
        with run.bar(len(this_round.counts) * updates_a_round, done, this_round.label) as bar:
            while session.epoch < args.train_epochs:
                session.train_epoch(bar)
                session.save()
        return session.restore_kept()
    finally:  # frees its CUDA graph: collected later, it would take the workspace that the next training's has recorded
        session.compiled = None


class Session:
    """Everything one `train` updates: networks, optimizer, schedule, best weights. Saved and restored as a whole."""

    SAVED = ("epoch", "seconds", "best_accuracy", "best_epoch", "best")

    def __init__(self, args, run, this_round, net, decoder=None, targets=None, sampler=None):
        self.args, self.run, self.round, self.images = args, run, this_round, this_round.images
        self.net, self.decoder, self.targets = net, decoder, targets
        self.sampler = sampler if sampler is not None and sampler.learns and len(this_round.unlabeled) else None
        self.updates = args.num_images // args.batch_size
        self.modules = nn.ModuleDict({"net": net})
        groups = [{"params": list(net.parameters()), "lr": args.lr_task}]
        if decoder is not None:
            self.modules["decoder"] = decoder
            groups.append({"params": list(decoder.parameters()), "lr": args.lr_dec})
        sgd = {"momentum": 0.9, "weight_decay": args.weight_decay, "nesterov": args.nesterov, "fused": True}
        self.optimizers = {"task": torch.optim.SGD(groups, **sgd)}
        if self.sampler:
            self.modules["sampler"] = self.sampler.networks
            self.optimizers |= self.sampler.optimizers
        self.schedule = schedules.of(args, self.optimizers["task"], self.updates)
        self.average = None
        if args.keep == "ema":
            self.average = Average(self.modules, multi_avg_fn=get_ema_multi_avg_fn(args.ema_decay))
        self.epoch, self.seconds = 0, 0.0
        self.best_accuracy, self.best_epoch, self.best = -1.0, 0, None
        self.compiled = None
        if args.compile == "graph":
            self.compiled = fast.captured(self.update, self.optimizers.values())
        self.shown: dict[str, str] = {}  # next to the loss in the progress bar: the last validation accuracy

    def resume(self) -> None:
        """Resumes this round from the state of an interrupted run, if there is one."""
        state = self.run.state["training"]
        if state is None:
            return
        try:
            self.modules.load_state_dict(state["modules"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
                _lay_out(optimizer)
            self.schedule.load_state_dict(state["schedule"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            for name in self.SAVED:
                setattr(self, name, state[name])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self.run.folder / 'state.pt'}: is not of this run's networks ({reason(error)}); delete it to start "
                "the run anew"
            ) from None

    def save(self) -> None:
        """Writes the run's state, from which `resume` continues as if never interrupted."""
        self.run.state["training"] = {
            "modules": self.modules.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            **{name: getattr(self, name) for name in self.SAVED},
        }
        self.run.save()

    def restore_kept(self) -> Fitted:
        """Restores the kept weights; returns their validation accuracy and the cost of training."""
        self.modules.load_state_dict(self.best)
        return Fitted(self.best_epoch, self.best_accuracy, self.seconds, self.epoch * self.updates)

    def train_epoch(self, bar) -> None:
        """Takes `updates` steps, then validates; remembers the weights if they are to be kept."""
        args = self.args
        started, begun = time.perf_counter(), bar.n
        torch.manual_seed(derive(args.seed, "dropout", self.round.number, self.epoch))  # dropout takes no generator
        self.modules.train()
        sums: dict[str, Tensor] = {}
        for update, batch in enumerate(self.batches(), 1):
            for name, value in self.step(batch).items():
                sums[name] = sums[name] + value if name in sums else value
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.modules)
            if update % READ_EVERY == 0 or update == self.updates:
                means = self._read(sums, update)
                epoch = f"{self.epoch + 1}/{args.train_epochs}"
                bar.set_postfix(epoch=epoch, loss=f"{means['loss']:.3g}", **self.shown, refresh=False)
                bar.update(begun + update - bar.n)
        kept = self.modules if self.average is None else self.average.module
        validation = evaluation.validate(kept["net"], self.images)
        self.shown = {"val": evaluation.hundredths(validation)} if len(self.images.val) else {}
        self.epoch += 1
        better = validation > self.best_accuracy if args.keep == "best" else self.epoch == args.train_epochs
        if better:  # with --keep last or ema, no validation label chooses anything
            self.best_accuracy, self.best_epoch = validation, self.epoch
            self.best = copy.deepcopy(kept.state_dict())
        self.seconds += time.perf_counter() - started
        self._log(means, validation)
        if (self.round.number, self.epoch) == (0, 1) and (note := imbalance.note(args, means)):
            self.run.log(note)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update; after the warm-up it includes the adversarial term. Returns the losses."""
        args, sampler = self.args, self.sampler
        adversarial = bool(sampler) and sampler.reaches_student and self.epoch >= args.warmup_epochs and args.adv_wt > 0
        return (self.compiled or self.update)(batch, adversarial)

    def update(self, batch: Batch, adversarial: bool) -> dict[str, Tensor]:
        """Updates the student and phi, then the sampler. CUDA graphs record it: no Python number in it may change."""
        args, sampler = self.args, self.sampler
        with self._autocast():
            labeled, distilled, unlabeled = self.forward(batch, adversarial)
            terms = objective.task_loss(
                args, self.net, self.decoder, sampler, labeled, distilled, unlabeled if adversarial else None
            )
        loss = sum(terms.values())
        self.optimizers["task"].zero_grad()
        loss.backward()
        self.optimizers["task"].step()
        losses = {"loss": loss, **terms}
        if sampler:
            with self._autocast():
                losses |= sampler.step(labeled, unlabeled, batch.noise)
        return {name: value.detach() for name, value in losses.items()}

    def forward(self, batch: Batch, adversarial: bool) -> tuple[Forward | None, Forward | None, Forward | None]:
        """The labelled, distilled and unlabelled batches with the student's features; None for any that is not needed.

        Passes that serve the sampler alone leave the student's batch-norm statistics as they are, so that it trains as
        in KD. In such a pass no gradient flows through the unlabelled images' features.
        """
        args, F, images, targets = self.args, self.net.features, self.images, self.targets
        on_pool, features = batch.pool is not None, targets is not None and args.feat_wt > 0
        labeled = distilled = unlabeled = None
        if args.ce_wt or self.sampler or not on_pool:
            trains = bool(args.ce_wt) or adversarial or not on_pool
            x = augment.pixels(images.train, batch.labeled)
            with networks.still(self.net, not trains):
                z = F(x)
            teacher = targets.of(batch.labeled, features) if targets is not None and not on_pool else None
            labeled = Forward(x, z, images.labels[batch.labeled.index], teacher)
        if on_pool:
            x, teacher = augment.pixels(images.train, batch.pool), targets.of(batch.pool, features)
            if batch.mix is not None:
                x, teacher = objective.mixed(x, teacher, batch.mix, args.temperature)
            distilled = Forward(x, F(x), teacher=teacher)
        elif targets is not None:
            distilled = labeled
        if batch.unlabeled is not None:
            x = augment.pixels(images.train, batch.unlabeled)
            with torch.set_grad_enabled(adversarial), networks.still(self.net, not adversarial):
                unlabeled = Forward(x, F(x) if self.sampler.reaches_student else None)
        return labeled, distilled, unlabeled

    def batches(self) -> Iterator[Batch]:
        """The epoch's batches."""
        return Streams(self.args, self.round, self.targets, self.sampler, self.epoch).batches(self.updates)

    def _autocast(self) -> torch.autocast:
        """Autocast without its weight cache: a sampler updates its VAE inside and then runs the new weights."""
        enabled = self.args.precision == "bf16"
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)

    def _read(self, sums: dict[str, Tensor], count: int) -> dict[str, float]:
        """Mean losses so far, in one transfer from the device. Raises Diverged when one is not finite."""
        values = (torch.stack([value.float() for value in sums.values()]) / count).tolist()
        wrong = ", ".join(name for name, value in zip(sums, values, strict=True) if not math.isfinite(value))
        if wrong:
            what = f"{self.round.label}, epoch {self.epoch + 1}: loss is not finite ({wrong})"
            raise Diverged(what, f"--lr_task {self.args.lr_task}{self._also_lower()}")
        return dict(zip(sums, values, strict=True))

    def _also_lower(self) -> str:
        parts = [f", --lr_dec {self.args.lr_dec} or --feat_wt {self.args.feat_wt}"] if self.decoder is not None else []
        parts += [f", --lr_disc {self.args.lr_disc} or --adv_wt {self.args.adv_wt}"] if self.sampler else []
        parts += [f", --lr_vae {self.args.lr_vae}"] if self.sampler and self.sampler.draws else []
        return "".join(parts)

    def _log(self, losses: dict[str, float], validation: float) -> None:
        """Adds the finished epoch's row to history.csv and writes its log line."""
        left = tqdm.format_interval((self.args.train_epochs - self.epoch) * self.seconds / self.epoch)
        row = {name: f"{losses[name]:.6g}" for name in ("loss", *LOSSES) if name in losses}
        row["val_accuracy"] = evaluation.hundredths(validation)
        self.run.add("history", round=self.round.number, epoch=self.epoch, **row)
        parts = " ".join(f"{name} {value:.4g}" for name, value in losses.items())
        parts += "".join(f" {name} {value}" for name, value in self.shown.items())
        self.run.log(f"{self.round.label}: epoch {self.epoch}/{self.args.train_epochs} {parts}, {left} left")


class Average(AveragedModel):
    """torch's moving average of weights and buffers, without a synchronization at each update.

    torch's own copies its count of updates to the device each time, and the host waits for it.
    """

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        averaged, now = ([*each.parameters(), *each.buffers()] for each in (self.module, model))  # each of them once
        pairs = list(zip(averaged, now, strict=True))
        if self.n_averaged == 0:  # on the CPU: no synchronization
            for average, value in pairs:
                average.copy_(value)
        else:
            for floating in (True, False):  # batch norm's count of batches is an integer
                if kind := [pair for pair in pairs if pair[0].is_floating_point() == floating]:
                    self.multi_avg_fn(*map(list, zip(*kind, strict=True)), None)
        self.n_averaged += 1


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimizer's state of each weight that weight's memory format, which depends on `--fast`.

    A fused step pairs the two value by value, in memory order.
    """
    for weight, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                kept[name] = torch.empty_like(weight).copy_(value)
