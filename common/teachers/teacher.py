"""The experiment's teacher: found or trained, checked against this experiment's data, its outputs cached."""

from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from common import annotation, budget, data, distillation, evaluation, networks, recipes, samplers
from common.data import Images
from common.distillation import Targets
from common.errors import InputError
from common.networks import SplitNet
from common.runs import TEACHER_FLAGS, Run
from common.teachers import precomputed, trainer
from common.teachers.per_round import fair
from common.teachers.store import KEPT, folder, load, needed, publish, replaced, shared_path

ROWS = "are the rows of `train` in the order of the data set's images, its columns in that of the classes?"
CHECKPOINT = "was it trained with the classes in this order, its images normalized as in common/augment.py?"


def provide(args) -> None:
    """Trains the shared teacher that a KD or EnCoDe run with these flags needs, unless it exists."""
    path = needed(args)
    if path is not None and not path.exists():
        _train_shared(args, path)


def check(args, images: Images) -> None:
    """Raises InputError for a teacher that does not fit these images, or needs labels that are still missing, before
    anything is trained."""
    if args.teacher:
        precomputed.load(args, images) if precomputed.named(args) else load(args, images, Path(args.teacher))
    elif args.teacher_labels == "all":
        annotation.need_all(args, images)


class Teacher:
    """One teacher for all rounds, trained on every label; with `--teacher_labels labeled`, one per round."""

    def __init__(self, args, run: Run, images: Images):
        self.args, self.run, self.images = args, run, images
        self.views = distillation.fixed_views(args, images)
        self._targets: Targets | None = None
        check(args, images)

    def targets(self, this_round: budget.Round) -> Targets:
        """The teacher's outputs for the round's training views; trains the teacher first if there is none."""
        if self.args.teacher_labels == "labeled":
            return self._fair(this_round)
        if self._targets is None:
            logits = precomputed.named(self.args)
            self._targets = self._precomputed() if logits else self._shared()
            if logits or not self._targets.accuracy:
                self._compare(self._targets, this_round, ROWS if logits else CHECKPOINT)
        return self._targets

    def _fair(self, this_round: budget.Round) -> Targets:
        """Outputs of this round's teacher: found by its labels, recipe and seed, or trained, once for all runs."""
        counts = this_round.counts[: this_round.number] if self.args.teacher_start == "before" else []
        held_out = len(this_round.bought) - len(this_round.labeled)  # the first of them, with --val_labels bought
        before = [this_round.labeled[: count - held_out] for count in counts]
        net, accuracy = fair(self.args, self.images, this_round.labeled, before)
        key = networks.fingerprint(net)
        self.run.record_teacher(key, this_round.number)
        self.run.log(f"{this_round.label}: its teacher has {accuracy:.2f}% test accuracy")
        return self._cache(net, key, f"{accuracy:.2f}", self.images.origin[this_round.bought.cpu()])

    def _cache(self, net: SplitNet, key: str, accuracy: str, seen: Tensor | None) -> Targets:
        self._mention(accuracy, self.images.test_labels, "train it longer, or with another learning rate")
        features = self.args.feat_wt > 0
        found = distillation.cache(net, self.images, folder(self.args), key, accuracy, self.views, features)
        found.seen = seen
        if self.args.targets == "mean":
            found = found.averaged()
        if samplers.kind(self.args).needs_dropout:
            found.net = net
        return found

    def _mention(self, accuracy: str, labels: Tensor, remedy: str, of: str = "") -> None:
        """Logs a note if a teacher's `accuracy` on images with these labels suggests that its training failed.

        The accuracy is in percent, or empty if unknown.
        """
        if accuracy and float(accuracy) < evaluation.hardly_better(labels):
            self.run.log(
                f"note: a teacher of {accuracy}%{of} is hardly better than guessing and has little to teach; {remedy}"
            )

    def _compare(self, found: Targets, this_round: budget.Round, remedy: str) -> None:
        """Logs a note if a teacher that says little of itself is hardly better than guessing on this round's labels."""
        labeled = this_round.labeled
        right = (found.logits[0, labeled].argmax(1) == self.images.labels[labeled]).double().mean().item()
        self._mention(
            f"{100 * right:.2f}", self.images.labels[labeled], remedy, f" on this round's {len(labeled)} labels"
        )

    def _precomputed(self) -> Targets:
        """Outputs from a file of logits."""
        found, key = precomputed.load(self.args, self.images)
        known = "unknown" if found.seen is None else len(found.seen.unique())
        self.run.log(
            f"teacher {self.args.teacher}: {found.accuracy or 'unknown'}% test accuracy, {known} labels"
            + ("" if found.seen is None else _leak(found.seen, self.images))
        )
        self._keep_to(key, self.args.teacher)
        return found

    def _keep_to(self, key: str, path: Path | str) -> None:
        """Records the teacher of all rounds. Raises InputError if the run began with another."""
        if self.run.state.setdefault("teacher", key) != key:
            raise InputError(
                f"{path}: is not the teacher this run began with; restore it or start under another --expt"
            )
        self.run.record_teacher(key)

    def _shared(self) -> Targets:
        """Outputs of the teacher at `--teacher`, or of the one in `<save_path>/teachers`, which is trained if missing.

        If that one was replaced, a run goes on with the teacher it began with.
        """
        args, images, run = self.args, self.images, self.run
        path = Path(args.teacher) if args.teacher else shared_path(args)
        if not args.teacher and (own := replaced(path, run.state.get("teacher", ""))).exists():
            path = own
        if not path.exists():
            epochs = trainer.shared_recipe(args).train_epochs
            run.log(
                f"no teacher at {path}: training one first ({epochs} one-cycle epochs, seed {args.teacher_seed}); "
                "Single --network teacher trains another, --teacher PATH names one"
            )
            _train_shared(args, path)
        net, record = load(args, images, path)
        accuracy = record.get("test_accuracy", "")
        trained = record.get("trained", {})
        known = f"{accuracy or 'unknown'}% test accuracy, {_labels(record)} labels"
        known += f", epochs {trained['train_epochs']}" if "train_epochs" in trained else ""
        key = networks.fingerprint(net)
        smaller = trained.get("num_images", args.num_images) < args.num_images
        if smaller and not args.teacher and run.state.get("teacher") != key:
            raise InputError(
                f"{path}: was trained with --num_images {trained['num_images']}, this run has {args.num_images}; "
                f"delete it or use another --save_path to train another, or add --teacher {path} to take it as it is"
            )
        run.log(f"teacher {path}: {known}{_split(record, args, images)}")
        if idle := [] if args.teacher else _idle(trained, args):
            run.log(f"note: {', '.join(idle)}; delete it or use another --save_path to train another")
        self._keep_to(key, path)
        if not args.teacher and (flags := _otherwise(trained, args)):
            run.note(TEACHER_FLAGS, flags)
        return self._cache(net, key, accuracy, record.get("seen"))


# --teacher_* flags and their names in a teacher's record (store.KEPT)
ASKED = {"epochs": "train_epochs", "batch_size": "batch_size", "lr": "lr_task", "weight_decay": "weight_decay"}
ASKED |= {"feature_rms": "feature_rms", "seed": "seed"}


def _labels(record: dict) -> int | str:
    """How many labels a teacher saw, by its file's record: the shared teacher's, or a run's round's."""
    return record.get("labels", record.get("labeled", "unknown"))


def _idle(trained: dict, args) -> list[str]:
    """Notes on the flags that ask for another teacher than the existing one, by the record of its training."""
    usual = recipes.quick(args.model) | {"seed": recipes.SHARED_SEED}
    made, found = trainer.shared_recipe(args), []
    for flag, name in ASKED.items():
        asked, comes_to = getattr(args, f"teacher_{flag}"), getattr(made, name)  # few images or passes cap it
        if asked != usual[name] and comes_to != trained.get(name, comes_to):
            found += [f"--teacher_{flag} {asked:g} changes nothing, this teacher was trained with {trained[name]:g}"]
    if args.teacher_passes and made.train_epochs != (epochs := trained.get("train_epochs", made.train_epochs)):
        asked = f"--teacher_passes {args.teacher_passes:g} ({made.train_epochs} epochs)"
        found += [f"{asked} changes nothing, this teacher was trained for {epochs}"]
    return found


def _otherwise(trained: dict, args) -> dict:
    """The flags, by a shared teacher's record, that this run would not have trained it with, and their values."""
    usual = vars(trainer.shared_recipe(args))
    return {name: trained[name] for name in KEPT.split() if name in trained and trained[name] != usual[name]}


def _leak(seen: Tensor, images: Images) -> str:
    """What the log says about a teacher that saw these labels (data-set indices); empty if none is for validation."""
    leak = torch.isin(images.origin[images.val.cpu()], seen).any()
    return "; it has seen some of this run's validation labels" if leak else ""


def _split(record: dict, args, images: Images) -> str:
    """What the log says about a teacher whose validation images differ from the run's or are not recorded."""
    trained = record.get("trained", {})
    if not args.num_val:
        return ""
    if trained.get("seed") is None:
        seen = record.get("seen")
        return "; which images it was trained on is not recorded" if seen is None else _leak(seen, images)
    if trained["seed"] != args.seed:
        return f"; its validation split is seed {trained['seed']}'s, so it has seen some of this run's"
    # if a run takes all of the data set's images, --take does not matter
    names = ("num_images", "take", "num_val") if args.num_images < images.available else ("num_images", "num_val")
    own = {name: getattr(args, name) for name in names}
    parts = [f"--{name} {trained[name]}" for name in own if trained.get(name, own[name]) != own[name]]
    parts += ["--val_labels extra"] if args.val_labels == "bought" else []
    return f"; its validation split is that of {' '.join(parts)}, so it has seen some of this run's" if parts else ""


def _train_shared(args, path: Path) -> None:
    """Trains the shared teacher on its own seed's split and publishes it: the same one, whichever run comes first."""
    args = trainer.shared_recipe(args)
    images = data.load(args)
    annotation.need_all(args, images)
    net, accuracy, run = trainer.teacher(
        args, images, images.pool, path.with_name(f"{path.stem}-seed{args.seed}-training")
    )
    with closing(run):
        if not path.exists():  # another process may have trained it while this one waited
            publish(args, run, images, net, accuracy)
