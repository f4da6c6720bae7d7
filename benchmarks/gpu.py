"""Milliseconds per update on a GPU: kernel by kernel, as one CUDA graph, and as a CUDA graph in bfloat16.

    python benchmarks/gpu.py                       # random images of CIFAR-10's shape, AlexNet
    python benchmarks/gpu.py --models ResNet VGG

The teacher's outputs are stand-ins of the right shape. EnCoDe's updates include the adversarial term.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from common import cli, data, entry, machine, networks, plan
from common.experiments import script

FIRST = "--initial_budget 1000 --budget 1000 --subset 4000 --rounds 2"
TEACHER = "--network teacher --recipe quick"
CASES = {
    "Random": ("Random", FIRST),
    "KD": ("KD", FIRST),
    "EnCoDe": ("EnCoDe", f"{FIRST} --batch_size 128"),
    "fair KD": ("KD", f"--recipe fair {FIRST}"),
    "teacher, batch 32": ("Single", f"{TEACHER} --batch_size 32"),
    "teacher, batch 256": ("Single", f"{TEACHER} --batch_size 256"),
}
HOW = {"plain": "--compile off --amp off", "graph": "--compile graph --amp off", "bf16": "--compile graph --amp bf16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=networks.PAIRS, default=["AlexNet"])
    parser.add_argument("--updates", type=int, default=300, help="timed updates")
    parser.add_argument("--device", default="cuda")
    chosen = parser.parse_args()
    device = machine.device(chosen.device)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; milliseconds an update")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.npz")
        pixels, labels = np.random.default_rng(0).integers(0, 256, (10000, 32, 32, 3), np.uint8), np.arange(10000) % 10
        np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:100], y_test=labels[:100])
        words = ["--dataset", path, "--num_images", "10000", "--num_val", "500", "--flip", "yes"]
        for model, case in itertools.product(chosen.models, CASES):
            method, more = CASES[case]
            module, found = script(model, "CIFAR10", method), {}
            for name, how in HOW.items():
                own = [*words, "--device", chosen.device, *more.split(), *how.split()]
                args = cli.parse(module.__doc__, module.DEFAULTS, own)
                machine.prepare(args)
                found[name] = 1000 * plan.seconds_an_update(args, data.load(args), chosen.updates)
            times = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            ratios = ", ".join(f"{found['plain'] / found[name]:.1f}x" for name in ("graph", "bf16"))
            print(f"{model} {case:20} {times} ({ratios})", flush=True)


if __name__ == "__main__":
    entry.run(main)
