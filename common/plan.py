"""`--dry_run`: what a run would do and about how long it would take, from a few timed updates."""

import copy
import dataclasses
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from common import budget, distillation, folding, memory, networks, samplers, training
from common.data import Images
from common.distillation import Targets
from common.teachers import per_round, precomputed, store, teacher
from common.teachers.trainer import shared_recipe

TIMED_UPDATES = 10
FIRST_UPDATES = 5  # untimed: they allocate, and record the graph that a GPU replays


def show(args, images: Images) -> None:
    """Prints images, pools, rounds, networks and an estimate of the time; trains nothing and writes nothing."""
    counts = budget.label_counts(args, len(images.pool))
    if "teacher" in args:  # refused here as it would be by the run
        teacher.check(args, images)
    updates = args.num_images // args.batch_size
    mirror = "mirrored views too" if images.mirror else "no mirroring"
    print(f"{args.model} {args.method} on {images.name}, {args.device}, amp {args.precision}, {args.threads} threads")
    inside = args.num_val > 0 and len(images.pool) == len(images.train)  # --val_labels bought
    print(
        f"images     {len(images.train)} training = {len(images.pool)} pool"
        f"{', of its first labels' if inside else ' +'} {len(images.val)} validation; "
        f"{len(images.test)} test; {images.size}x{images.size}, {len(images.classes)} classes, {mirror}"
    )
    logits_alone = "teacher" in args and precomputed.named(args)
    for part in ("student",) if logits_alone else ("teacher", "student"):
        parameters, macs = networks.cost(args.model, part, args.num_classes, args.image_size)
        print(f"{part:10} {parameters:,} parameters, {macs / 1e6:.2f} M multiply-accumulates an image")
    print(f"updates    {updates} an epoch x {args.train_epochs} epochs = {updates * args.train_epochs} a round")
    for number, count in enumerate(counts):
        asked = f", then {counts[number + 1] - count} queried" if number + 1 < len(counts) else ""
        print(f"round {number + 1:2}   {count} labels ({budget.percent(args, count, len(images.pool)):.4g}%){asked}")
    _show_memory(args, images)
    _show_disk(args, images, counts)
    seconds = seconds_a_round(args, images) * len(counts)
    if "teacher" in args and args.teacher_labels == "labeled":
        each = fair_seconds(args, images, counts)
        epochs = [sum(flags.train_epochs for flags in stages) for stages in _fair_stages(args, counts)]
        said = [f"{duration(seconds)} ({number} epochs)" for seconds, number in zip(each, epochs, strict=True)]
        print(f"teacher    one of each round's labels, {' + '.join(said)} where it is not there already")
        seconds += sum(each)
    elif "teacher" in args:
        path = args.teacher or store.shared_path(args)
        training_time = 0.0 if Path(path).exists() else teacher_seconds(args, images)
        where = f"{path} ({f'to train, about {duration(training_time)}' if training_time else 'there'})"
        print(f"teacher at {where}")
        seconds += training_time
    print(f"time       about {duration(seconds)} (from {TIMED_UPDATES} timed updates; without evaluation and queries)")


def _show_memory(args, images: Images) -> None:
    """Prints the memory that grows with the images: theirs, and that of the teacher's outputs."""
    parts = [f"images {memory.megabytes(images.train.numel() + images.test.numel())}"]
    if "teacher" in args:
        outputs = precomputed.size(args) if precomputed.named(args) else distillation.size(args, images)
        parts.append(f"teacher's outputs {memory.megabytes(outputs)}")
        if images.device.type == "cpu" and outputs > memory.SHARE * memory.available():
            parts[-1] += " (more than half of what is available: kept on the disk)"
    print(f"memory     {', '.join(parts)}; plus networks and a batch's activations")


def _show_disk(args, images: Images, counts: list[int]) -> None:
    """Prints what the teachers still to be trained leave under `--save_path`; a student takes far less."""
    if "teacher" not in args or args.teacher:
        return
    fair, path = args.teacher_labels == "labeled", store.shared_path(args)
    trainings = sum(map(len, _fair_stages(args, counts))) if fair else int(not path.exists())
    if trainings:
        parameters, _ = networks.cost(args.model, "teacher", args.num_classes, args.image_size)
        if fair:  # kept also as trained, before batch norm is folded: another may start from it
            flags = per_round.fair_recipe(args, counts[0])
            trained = folding.to_train(flags, networks.build(flags, "teacher"), 0)
            parameters += sum(weight.numel() for weight in trained.parameters())
        each = memory.megabytes(4 * parameters + distillation.size(args, images))
        many = f"{trainings} teachers at most, each" if fair else "a teacher,"
        print(f"disk       {many} with its outputs about {each}, in {path.parent}")


def seconds_a_round(args, images: Images, epochs: int = 0) -> float:
    """An estimate from a few timed updates, without evaluation, query and teacher; `epochs` 0 means `train_epochs`."""
    updates = args.num_images // args.batch_size * (epochs or args.train_epochs)
    return seconds_an_update(args, images) * updates


def teacher_seconds(args, images: Images) -> float:
    """An estimate for training the shared teacher of a run with these flags."""
    return seconds_a_round(shared_recipe(args), images)


def fair_seconds(args, images: Images, counts: list[int]) -> list[float]:
    """An estimate for each fair teacher, of `counts` labels, including the second one that learns from it."""
    epoch = seconds_a_round(per_round.fair_recipe(args, counts[0]), images, epochs=1)
    # FixMatch: labelled and pool images forward and backward (3 passes each), an easy view forward (1): 7 against 3
    return [
        epoch * sum(flags.train_epochs * (7 / 3 if "own_outputs" in flags else 1) for flags in stages)
        for stages in _fair_stages(args, counts)
    ]


def _fair_stages(args, counts: list[int]) -> list[list]:
    """The stages of training of each round's fair teacher, as flags."""
    goes_on = Path("before") if args.teacher_start == "before" else None
    held_out = args.num_val if args.val_labels == "bought" else 0
    return [
        per_round.stages(args, count - held_out, goes_on if number else None) for number, count in enumerate(counts)
    ]


def runs_that_fit(device: torch.device) -> int:
    """How many runs of the size just timed fit in the GPU's memory: a tenth stays free, each context takes 0.5 GB."""
    _, total = torch.cuda.mem_get_info(device)
    return max(1, int(0.9 * total // (torch.cuda.max_memory_reserved(device) + 2**29)))


def duration(seconds: float) -> str:
    """For display: hours, or minutes."""
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.1f} min"


def seconds_an_update(args, images: Images, timed: int = TIMED_UPDATES) -> float:
    """Times real updates of the first round, with stand-in teacher outputs of the right shape."""
    args = copy.copy(args)
    args.warmup_epochs = 0  # with the adversarial term, the longer part of training
    images = dataclasses.replace(images, labels=images.labels.clamp(min=0))  # also those that --labels still lacks
    labeled = images.pool[: budget.label_counts(args, len(images.pool))[0]]
    this_round = SimpleNamespace(number=0, labeled=labeled, unlabeled=images.pool[len(labeled) :], images=images)
    net, decoder, targets, sampler = networks.build(args, getattr(args, "network", "student")), None, None, None
    if "teacher" in args:
        decoder, targets = networks.build(args, "decoder"), stand_in(args, images)
    if "sampler" in args:
        sampler = samplers.build(args, this_round, net, targets)
    session = training.Session(args, None, this_round, folding.to_train(args, net, 0), decoder, targets, sampler)
    batches = session.batches()
    for update in range(FIRST_UPDATES + timed):
        if update == FIRST_UPDATES:
            _synchronize(images.device)
            started = time.perf_counter()
        session.step(next(batches, None) or next(batches := session.batches()))
    _synchronize(images.device)
    seconds = time.perf_counter() - started
    session.compiled = None  # frees its graph and memory before another configuration is timed
    return seconds / timed


def stand_in(args, images: Images) -> Targets:
    """Teacher outputs of the right shape that take no memory per image."""
    count = len(images.train)
    if precomputed.named(args):  # from a network outside the pair, whose teacher may not take these images
        return Targets(torch.nn.Identity(), None, torch.zeros(1, count, args.num_classes, device=images.device))
    net = networks.build(args, "teacher")
    example, _ = distillation.compute(net, images, only=1)
    views = 2 if images.mirror else 1
    z = torch.zeros(1, 1, *example.shape[2:], device=images.device).expand(views, count, -1, -1, -1)
    return Targets(net.pool, z, torch.zeros(views, count, args.num_classes, device=images.device))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
