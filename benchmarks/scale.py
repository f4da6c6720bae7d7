"""A query over a large pool: seconds and peak memory of every strategy, each in a process of its own.

    python benchmarks/scale.py                                     # a million 32x32 images, the ResNet pair
    python benchmarks/scale.py --count 100000 --strategies vaal

The pool is random pixels in memory; every image of it is a candidate. Networks have their initial weights: time and
memory do not depend on them. VAAL's networks are two hundred times the student's, so it is left out unless named.
"""

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common import cli, machine, networks, samplers
from common.distillation import Targets
from common.experiments import script

WORDS = {"vaal": ["--sampler", "vae", "--sampler_input", "images"]}
STRATEGIES = {name: WORDS.get(name, ["--sampler", name]) for name in [*samplers.SAMPLERS, "vaal"]}


def measure(model: str, strategy: str, count: int, budget: int, results) -> None:
    """Puts (seconds, peak memory in MB) of one query in `results`."""
    module = script(model, "CIFAR10", "EnCoDe")
    args = cli.parse(module.__doc__, module.DEFAULTS, STRATEGIES[strategy])
    machine.prepare(args)
    size = args.image_size
    pixels = torch.empty(count, size, size, 3, dtype=torch.uint8).random_(generator=torch.Generator().manual_seed(0))
    index = torch.arange(count)
    images = SimpleNamespace(train=pixels, device=pixels.device, size=size)
    this_round = SimpleNamespace(number=0, images=images, labeled=index[:100], unlabeled=index[100:])
    logits = (
        torch.randn(1, count, args.num_classes)
        if samplers.SAMPLERS.get(strategy, samplers.Sampler).needs_teacher
        else None
    )
    targets = Targets(torch.nn.Identity(), torch.empty(0), logits)
    sampler = samplers.build(args, this_round, networks.build(args, "student"), targets)
    started = time.perf_counter()
    chosen, _ = sampler.query(budget, this_round.unlabeled)
    assert len(chosen.unique()) == budget
    results.put((time.perf_counter() - started, machine.peak_memory(images.device)["peak_memory_mb"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=networks.PAIRS, default="ResNet")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=[*samplers.SAMPLERS])
    parser.add_argument("--count", type=int, default=1_000_000, help="images of the pool")
    parser.add_argument("--budget", type=int, default=5000, help="images queried")
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for strategy in chosen.strategies:
        results = context.Queue()
        process = context.Process(target=measure, args=(chosen.model, strategy, chosen.count, chosen.budget, results))
        process.start()
        seconds, peak = results.get()
        process.join()
        print(f"{strategy:20} {chosen.budget} of {chosen.count:,}: {seconds:7.1f} s, peak {peak:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
