"""The images that a finished run was made with, loaded again as its config.json says."""

from argparse import Namespace
from pathlib import Path

from common import cli, data, runs
from common.data import Images
from common.datasets.source import Source
from common.errors import InputError
from common.experiments import METHODS
from common.networks import PAIRS
from common.schema import BEFORE


def images(folder: Path, data_dir: Path, dataset: str = "", source: Source | None = None) -> tuple[Images, Namespace]:
    """A run's images, and its flags on this machine's CPU; those that came after the run are as they were before it.

    Args:
        data_dir, dataset: where the images are now; without `dataset` the run's own word for it.
        source: what is there, where it is read already.
    Raises InputError when there is no config.json of a known pair, or the images are not the run's.
    """
    config = runs.read_config(folder / "config.json")
    pair = {"model": config.get("model"), "method": config.get("method")}
    if pair["model"] not in PAIRS or pair["method"] not in METHODS:
        raise InputError(f"{folder / 'config.json'}: does not say whose run this is; it wants a known model and method")
    args = cli.parse("", pair, [])
    vars(args).update(BEFORE | config | {"data_dir": str(data_dir), "device": "cpu"})
    args.dataset = dataset or args.dataset
    found = data.load(args, source)
    if changes := runs.differing(config, runs.contents(found)):
        raise InputError(f"--data_dir {data_dir}: {folder} was made with {', '.join(changes)}")
    return found, args
