"""Time and memory of a query over a large pool, for every strategy, each in its own process.

    python benchmarks/scale.py                                     # a million 32x32 images, the ResNet pair
    python benchmarks/scale.py --model AlexNet --count 40000       # every strategy, a whole CIFAR-10 pool of candidates
    python benchmarks/scale.py --model AlexNet --count 40000 --query_by teacher --strategies badge coreset
    python benchmarks/scale.py --model VGG --image_size 32 --strategies bald    # needs a teacher with dropout

The pool is random pixels in memory; `--subset` of its images are candidates, by default all. Networks have initial
weights, and teacher outputs are random: time and memory do not depend on them. VAAL's networks are two hundred times
the student's size, so it is left out unless named; so is BALD where the pair has no dropout. Teacher features are on
disk if the program would keep them there. Peak is the whole process's memory, including what it has mapped from files;
extra is what the query added to it. CPU seconds say what a busy machine would take if it were idle, on one core.
"""

import argparse
import math
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common import cli, distillation, machine, memory, networks, samplers
from common.distillation import Targets
from common.errors import InputError
from common.experiments import script

WORDS = {"vaal": ["--sampler", "vae", "--sampler_input", "images"]}
STRATEGIES = {name: WORDS.get(name, ["--sampler", name]) for name in [*samplers.SAMPLERS, "vaal"]}
JOINT = [name for name, kind in samplers.SAMPLERS.items() if kind.asks and kind.choose is not samplers.Sampler.choose]


def measure(options: argparse.Namespace, strategy: str, subset: int) -> tuple[float, float, float, float]:
    """One query: (seconds, CPU seconds, peak memory in MB, how much of it the query added)."""
    module, kind = script(options.model, "CIFAR10", "EnCoDe"), samplers.SAMPLERS.get(strategy, samplers.Sampler)
    asked = "teacher" if kind.asks and (options.query_by == "teacher" or kind.needs_dropout) else "student"
    words = [*STRATEGIES[strategy], "--query_by", asked]
    words += ["--image_size", str(options.image_size)] if options.image_size else []
    args = cli.parse(module.__doc__, module.DEFAULTS, words)
    machine.prepare(args)
    size, count, source = args.image_size, options.count, torch.Generator().manual_seed(0)
    pixels = torch.empty(count, size, size, 3, dtype=torch.uint8).random_(generator=source)
    index = torch.arange(count)
    labels = torch.randint(args.num_classes, (count,), generator=source)
    images = SimpleNamespace(train=pixels, device=pixels.device, size=size, labels=labels)
    labeled = index[: options.labeled]
    this_round = SimpleNamespace(number=0, images=images, labeled=labeled, unlabeled=index[options.labeled :])
    teacher = networks.build(args, "teacher") if kind.needs_teacher or asked == "teacher" else None
    targets = None
    if teacher is not None:
        with torch.no_grad():
            example = teacher.eval().features(torch.zeros(1, 3, size, size))
        z = torch.zeros(1, 1, *example.shape[1:]).expand(-1, count, *example.shape[1:])
        if asked == "teacher" and (strategy in JOINT or kind.needs_dropout):  # no other strategy reads its features
            z = features(z.shape, source)
        targets = Targets(teacher.pool, z, torch.randn(1, count, args.num_classes, generator=source))
        targets.net = teacher if kind.needs_dropout else None
    sampler = samplers.build(args, this_round, networks.build(args, "student"), targets)
    candidates = this_round.unlabeled[:subset]
    before = machine.peak_memory(images.device)["peak_memory_mb"]
    started, cpu = time.perf_counter(), time.process_time()
    chosen, _ = sampler.query(options.budget, candidates)
    assert len(chosen.unique()) == options.budget
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = machine.peak_memory(images.device)["peak_memory_mb"]
    return seconds, cpu, peak, peak - before


def features(shape: tuple[int, ...], source: torch.Generator) -> torch.Tensor:
    """Random features (1, N, C, h, w), kept as `distillation.compute` keeps them."""
    with tempfile.TemporaryDirectory() as folder:  # the mapping outlives the file
        z = memory.empty(shape, distillation.kept_as(math.prod(shape)), Path(folder) / "z")
        for rows in z[0].split(1000):
            rows.copy_(torch.randn(rows.shape, generator=source).relu_())
    return z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=networks.PAIRS, default="ResNet")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES)
    parser.add_argument("--count", type=int, default=1_000_000, help="images in the pool")
    parser.add_argument("--labeled", type=int, default=5000, help="labelled images among them")
    parser.add_argument("--subset", type=int, default=0, help="candidates among the unlabelled ones; 0: all")
    parser.add_argument("--budget", type=int, default=5000, help="images queried")
    parser.add_argument("--image_size", type=int, default=0, help="pixels a side; 0: the pair's own")
    parser.add_argument("--query_by", choices=["student", "teacher"], default="student", help="network that is asked")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    droppable = networks.drops(options.model, "teacher")
    usual = [name for name, kind in samplers.SAMPLERS.items() if droppable or not kind.needs_dropout]
    strategies = options.strategies or usual
    for strategy in strategies:
        subset = min(options.subset or options.count, options.count - options.labeled)
        if len(strategies) == 1:  # no other process is needed
            seconds, cpu, peak, extra = measure(options, strategy, subset)
        else:
            with ProcessPoolExecutor(1, context) as process:
                seconds, cpu, peak, extra = process.submit(measure, options, strategy, subset).result()
        print(
            f"{strategy:20} {options.budget} of {subset:,}: {seconds:7.1f} s ({cpu:.1f} s of the CPU), "
            f"peak {peak:,.0f} MB, extra {extra:,.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"scale.py: {error}")
