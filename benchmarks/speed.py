"""Training images per second: two plain loops against this project's, in one run, as ratios.

    python benchmarks/speed.py                     # CIFAR-10 if it is in data/, else random images of its shape
    python benchmarks/speed.py --models VGG --cases KD teacher --profile

The plain loop is what one writes first, and what the authors' release does: PIL resizing and transforms image by image
in a DataLoader, float32, the teacher's forward pass at each step, one optimizer per network. It trains the same
networks with the same losses at the same batch size; but a teacher without `--fold_bn`, so with the copies of weights
that ours leaves out of AlexNet's and VGG11's first linear layer. All of it runs on the CPU; `gpu.py` is for a GPU.

The second is a careful loop: this project's with `--fast off`. Images are resident as uint8 and gathered by the
batch, the teacher's outputs are looked up, and the networks are plain torch.nn.

Only labelled images are counted. All loops run with the process settings of `machine.prepare`, including freed memory
that is kept; the fraction counts the products that ours actually computes.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from common import cli, data, folding, machine, networks, plan, recipes, runs, samplers, training
from common.budget import Round
from common.experiments import ROOT, script
from common.objective import Forward, adversarial_loss, frozen

CASES = {"Single": "Single", "KD": "KD", "EnCoDe": "EnCoDe", "teacher": "Single"}


class OneByOne(Dataset):
    """One image at a time through PIL, as in torchvision's data sets."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, size: int):
        self.pixels, self.labels = pixels, labels
        self.transform = transforms.Compose(
            [
                transforms.Resize(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def forever(loader: DataLoader):
    while True:
        yield from loader


def plain(args, case: str, source: Dataset, sampler_of, workers: int):
    """One update of the plain loop, as a function."""
    options = {"batch_size": args.batch_size, "shuffle": True, "num_workers": workers, "drop_last": True}
    labeled = forever(DataLoader(source, **options))
    unlabeled = forever(DataLoader(source, **options))
    build = {part: getattr(networks.PAIRS[args.model], part)(args.num_classes) for part in ("teacher", "student")}
    decoder = networks.PAIRS[args.model].decoder()
    net = build["teacher" if case == "teacher" else "student"]
    teacher = build["teacher"].eval() if case in ("KD", "EnCoDe") else None
    sampler = sampler_of(net) if case == "EnCoDe" else None
    sgd = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
    optimizers = [torch.optim.SGD(net.parameters(), **sgd)]
    if teacher is not None:
        optimizers.append(torch.optim.SGD(decoder.parameters(), **sgd))

    def step() -> None:
        x, y = next(labeled)
        z = net.features(x)
        logits = net.classifier(z)
        loss = F.cross_entropy(logits, y)
        if teacher is not None:
            with torch.no_grad():
                z_teacher = teacher.features(x)
                target, scores = teacher.pool(z_teacher), teacher.classifier(z_teacher)
            loss = loss + 500 * F.mse_loss(decoder(z), target) + 5e-5 * F.mse_loss(logits, scores)
        if sampler is not None:
            z_unlabeled = net.features(next(unlabeled)[0])
            with frozen(sampler.networks):
                loss = loss + adversarial_loss(sampler.judge(z), sampler.judge(z_unlabeled))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        loss.item()
        if sampler is not None:
            noise = torch.randn(sampler.draws, 2 * args.batch_size, args.latent_dim)
            for value in sampler.step(Forward(x, z), Forward(x, z_unlabeled), noise).values():
                value.item()

    net.train()
    return step


def ours(args, images: data.Images, this_round: Round, targets):
    """One update of this project's loop, as a function."""
    net = networks.build(args, getattr(args, "network", "student"))
    decoder = networks.build(args, "decoder") if targets else None
    sampler = samplers.build(args, this_round, net, targets) if "sampler" in args else None
    session = training.Session(args, None, this_round, folding.to_train(args, net, 0), decoder, targets, sampler)
    session.epoch = 100  # after the warm-up: with the adversarial term
    batches = itertools.chain.from_iterable(session.batches() for _ in itertools.count())
    session.modules.train()
    return lambda: session.step(next(batches))


def rate(step, batch_size: int, seconds: float, repeats: int) -> float:
    """Median images per second over `repeats` stretches of about `seconds` each, at least two updates."""
    step()
    started = time.perf_counter()
    step()
    updates = max(2, round(seconds / (time.perf_counter() - started)))
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(updates):
            step()
        rates.append(batch_size * updates / (time.perf_counter() - started))
    return statistics.median(rates)


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """GFLOP/s of a square matrix product."""
    a, b = torch.randn(2, size, size).to(dtype)
    a @ b
    started = time.perf_counter()
    for _ in range(5):
        a @ b
    return 5 * 2 * size**3 / (time.perf_counter() - started) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=networks.PAIRS, default=list(networks.PAIRS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--data_dir", default=str(ROOT / "data"))
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes of the plain loop")
    parser.add_argument("--seconds", type=float, default=2, help="length of a timed stretch, of at least two updates")
    parser.add_argument("--repeats", type=int, default=3, help="timed stretches; the median is reported")
    parser.add_argument("--profile", action="store_true", help="show where our loop spends its time, by operator")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for model in chosen.models:
            measure(chosen, model, Path(folder) / model)


def measure(chosen: argparse.Namespace, model: str, folder: Path) -> None:
    folder.mkdir()
    dataset = "cifar10"
    if not (Path(chosen.data_dir) / "cifar10.npz").exists():
        dataset = str(folder / "random.npz")
        pixels = np.random.default_rng(0).integers(0, 256, (20000, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(20000) % 10
        np.savez(dataset, x_train=pixels, y_train=labels, x_test=pixels[:100], y_test=labels[:100])
    images = None
    for case in chosen.cases:
        args = arguments(model, case, dataset, chosen.data_dir, folder)
        if images is None:
            images = data.load(args)
            pixels = data.datasets.load(args)
            source = OneByOne(pixels.x_train, pixels.y_train, args.image_size)
            dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
            peak = matrix_rate(dtype)
            where = "CIFAR-10" if dataset == "cifar10" else "random images"
            print(f"{model} pair on {where}, batch {args.batch_size}, {args.threads} threads, "
                  f"{str(dtype).removeprefix('torch.')} matrix product {peak:.0f} GFLOP/s")  # fmt: skip
        run = runs.begin(args, images)
        targets = plan.stand_in(args, images) if "teacher" in args else None
        run.state["labeled"] = images.pool[: len(images.pool) // 2]  # half of them, so that all streams run
        this_round = Round(args, run, images, [1])
        base = plain(args, case, source, lambda net: samplers.build(args, this_round, net, targets), chosen.workers)  # noqa: B023
        slow = rate(base, args.batch_size, chosen.seconds, chosen.repeats)
        del base  # ends its DataLoader's processes
        careful = argparse.Namespace(**{**vars(args), "fast": "off"})
        resident = rate(ours(careful, images, this_round, targets), args.batch_size, chosen.seconds, chosen.repeats)
        step = ours(args, images, this_round, targets)
        fast = rate(step, args.batch_size, chosen.seconds, chosen.repeats)
        with FlopCounterMode(display=False) as counter:
            step()
        reached = counter.get_total_flops() / args.batch_size * fast / 1e9
        print(f"{case:8} plain {slow:6.0f}, --fast off {resident:6.0f}, ours {fast:6.0f} images/s, "
              f"{fast / slow:4.1f}x and {fast / resident:4.1f}x; {reached:4.0f} GFLOP/s, "
              f"{reached / peak:.0%} of a matrix product's", flush=True)  # fmt: skip
        if chosen.profile:
            show_profile(step)
        run.close()


def show_profile(step) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(10):
            step()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


def arguments(model: str, case: str, dataset: str, data_dir: str, folder: Path) -> argparse.Namespace:
    """An experiment's flags, all at one batch size and a small learning rate: speed does not depend on the rate."""
    module = script(model, "CIFAR10", CASES[case])
    count = "50000" if dataset == "cifar10" else "20000"
    words = ["--dataset", dataset, "--data_dir", data_dir, "--num_images", count, "--save_path", str(folder)]
    words += ["--expt", case, "--batch_size", "128", "--lr_task", "0.0001", "--device", "cpu"]
    if case == "teacher":
        words += ["--network", "teacher", *(["--fold_bn"] if recipes.quick(model)["fold_bn"] else [])]
    args = cli.parse(module.__doc__, module.DEFAULTS, words)
    machine.prepare(args)
    return args


if __name__ == "__main__":
    main()
