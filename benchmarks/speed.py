"""Images a second of training: a plain loop against this project's, in one run, as ratios.

    python benchmarks/speed.py                     # CIFAR-10 if it is in data/, else random images of its shape
    python benchmarks/speed.py --cases KD --profile

The plain loop is what one writes first, and what the authors' release does: PIL resizing and transforms image by image
in a DataLoader, float32, the teacher's forward pass at each step, an optimizer for each network. It trains the same
networks with the same losses on batches of the same size. Counted are labelled images.
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
from torchvision import transforms

from common import cli, data, machine, networks, plan, runs, samplers, training
from common.budget import Round

ROOT = Path(__file__).resolve().parents[1]
CASES = {"Single": "Single", "KD": "KD", "EnCoDe": "EnCoDe", "teacher": "Single"}


class OneByOne(Dataset):
    """An image at a time through PIL, as torchvision's data sets give them."""

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
    build = {
        part: networks.build(args, part).to(memory_format=torch.contiguous_format) for part in ("teacher", "student")
    }
    net = build["teacher" if case == "teacher" else "student"]
    teacher = build["teacher"].eval() if case in ("KD", "EnCoDe") else None
    decoder = networks.build(args, "decoder").to(memory_format=torch.contiguous_format)
    sampler = sampler_of(net) if case == "EnCoDe" else None
    sgd = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
    optimizers = [torch.optim.SGD(net.parameters(), **sgd)]
    if teacher is not None:
        optimizers.append(torch.optim.SGD(decoder.parameters(), **sgd))
    noise = torch.Generator().manual_seed(0)

    def features(network, x):
        return network.avgpool(network.features(x))

    def step() -> None:
        x, y = next(labeled)
        z = features(net, x)
        logits = net.classifier(z.flatten(1))
        loss = F.cross_entropy(logits, y)
        if teacher is not None:
            with torch.no_grad():
                target = features(teacher, x)
                scores = teacher.classifier(target.flatten(1))
            loss = loss + 500 * F.mse_loss(decoder(z), target) + 5e-5 * F.mse_loss(logits, scores)
        if sampler is not None:
            z_unlabeled = features(net, next(unlabeled)[0])
            loss = loss + sampler.adversarial(z, z_unlabeled)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        loss.item()
        if sampler is not None:
            for value in sampler.step(z.detach(), z_unlabeled.detach(), None, None, noise).values():
                value.item()

    net.train()
    return step


def ours(args, images: data.Images, run: runs.Run, targets):
    """One update of this project's loop, as a function; half the pool is labelled, so that all streams run."""
    run.state["labeled"] = images.pool[: len(images.pool) // 2]
    round = Round(args, run, images, [1])
    net = networks.build(args, getattr(args, "network", "student"))
    decoder = networks.build(args, "decoder") if targets else None
    sampler = samplers.build(args, round, net, targets) if "sampler" in args else None
    if args.fold_bn:
        net = networks.compact(net, args.image_size)
    session = training.Session(args, round, net, decoder, targets, sampler)
    session.epoch = 100  # after the warm-up: with the adversarial term
    batches = itertools.chain.from_iterable(session.batches() for _ in itertools.count())
    noise = torch.Generator(device=images.device).manual_seed(0)
    session.modules.train()
    return lambda: session.step(next(batches), noise)


def rate(step, batch_size: int, updates: int, repeats: int) -> float:
    """Median images a second of `repeats` stretches of `updates`."""
    for _ in range(3):
        step()
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
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--data_dir", default=str(ROOT / "data"))
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes of the plain loop")
    parser.add_argument("--updates", type=int, default=12, help="updates in one timed stretch")
    parser.add_argument("--repeats", type=int, default=5, help="stretches; the median counts")
    parser.add_argument("--profile", action="store_true", help="where the time of ours goes, by operator")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(chosen, Path(folder))


def measure(chosen: argparse.Namespace, folder: Path) -> None:
    dataset = "cifar10"
    if not (Path(chosen.data_dir) / "cifar10.npz").exists():
        dataset = str(folder / "random.npz")
        pixels = np.random.default_rng(0).integers(0, 256, (20000, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(20000) % 10
        np.savez(dataset, x_train=pixels, y_train=labels, x_test=pixels[:100], y_test=labels[:100])
    images, source = None, None
    print(f"{dataset if dataset == 'cifar10' else 'random images'}, AlexNet pair")
    for case in chosen.cases:
        args = arguments(case, dataset, chosen.data_dir, folder)
        if images is None:
            images = data.load(args)
            pixels = data.datasets.load(args)
            source = OneByOne(pixels.x_train, pixels.y_train, args.image_size)
        run = runs.begin(args, images)
        targets = None
        if "teacher" in args:
            targets = plan.stand_in(args, images)
        step = ours(args, images, run, targets)
        round = Round(args, run, images, [1])
        base = plain(
            args, case, source, lambda net, a=args, r=round, t=targets: samplers.build(a, r, net, t), chosen.workers
        )
        updates = max(2, chosen.updates // 6) if case == "teacher" else chosen.updates
        slow, fast = (
            rate(base, args.batch_size, updates, chosen.repeats),
            rate(step, args.batch_size, updates, chosen.repeats),
        )
        print(
            f"\r{case:8} batch {args.batch_size}: plain {slow:6.0f}, ours {fast:6.0f} images/s, {fast / slow:.1f}x",
            flush=True,
        )
        if case == "teacher":
            report_utilization(args, fast)
        if chosen.profile:
            show_profile(step)
        run.close()


def report_utilization(args, images_per_second: float) -> None:
    """The teacher's arithmetic against a matrix product's."""
    light = networks.compact(networks.build(args, "teacher"), args.image_size)
    _, macs = networks.cost(light, args.image_size)
    dtype = torch.bfloat16 if machine.fast_bf16_cpu() else torch.float32
    reached, peak = 6 * macs * images_per_second / 1e9, matrix_rate(dtype)
    print(f"         {reached:.0f} GFLOP/s ({macs / 1e6:.1f} M MACs an image, x 2 x 3 for forward and backward) of a "
          f"{str(dtype).removeprefix('torch.')} matrix product's {peak:.0f}: {reached / peak:.0%}")  # fmt: skip


def show_profile(step) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(10):
            step()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


def arguments(case: str, dataset: str, data_dir: str, folder: Path) -> argparse.Namespace:
    """The flags of an experiment, all at one batch size, small rates: speed does not depend on them."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(case, ROOT / "AlexNet" / "CIFAR10" / CASES[case] / "main.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    count = "50000" if dataset == "cifar10" else "20000"
    words = ["--dataset", dataset, "--data_dir", data_dir, "--num_images", count, "--save_path", str(folder)]
    words += ["--expt", case, "--batch_size", "128", "--lr_task", "0.0001"]
    if case == "teacher":
        words += ["--network", "teacher", "--fold_bn"]
    return cli.parse(module.__doc__, module.DEFAULTS, words)


if __name__ == "__main__":
    main()
