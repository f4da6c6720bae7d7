"""The images of a finished run, loaded again as its config.json says."""

from argparse import Namespace
from pathlib import Path

from common import cli, data, runs
from common.data import Images
from common.datasets import DATASETS
from common.datasets.source import Source
from common.errors import InputError
from common.experiments import METHODS
from common.networks import PAIRS
from common.schema import BEFORE

NEEDED = {"dataset", "num_images", "num_val", "image_size", "seed"}  # without these it could be any run's images


def images(folder: Path, data_dir: Path, dataset: str = "", source: Source | None = None) -> tuple[Images, Namespace]:
    """A run's images, and its flags on this machine's CPU; flags newer than the run get their earlier behavior.

    Args:
        data_dir, dataset: where the images are now; without `dataset`, where the run had them.
        source: the data set there, if it is read already.
    Raises InputError when there is no config.json of a known pair, or the images are not the run's.
    """
    config = runs.read_config(folder / "config.json")
    pair = {"model": config.get("model"), "method": config.get("method")}
    if pair["model"] not in PAIRS or pair["method"] not in METHODS:
        raise InputError(f"{folder / 'config.json'}: does not say whose run this is; it needs a known model and method")
    args = _flags(folder / "config.json", pair, BEFORE | config)
    vars(args).update({"data_dir": str(data_dir), "device": "cpu"})
    args.dataset = dataset or args.dataset
    found = data.load(args, source)
    if changes := runs.differing(config, runs.contents(found)):
        where = f"--data_dir {data_dir}" if args.dataset.lower() in DATASETS else f"--dataset {args.dataset}"
        raise InputError(f"{where}: {folder} was made with {', '.join(changes)}")
    return found, args


def _flags(path: Path, pair: dict, config: dict) -> Namespace:
    """The flags of a config.json, over its pair's defaults. Raises InputError for a value that its flag refuses."""
    if missing := sorted(NEEDED - config.keys()):
        raise InputError(f"{path}: does not say {', '.join(missing)}; put a copy of the file back")
    known = {option.removeprefix("--") for option in cli.options(pair)} - {"recipe"}
    try:
        args = cli.preset(pair | {name: value for name, value in config.items() if name in known}, [])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    vars(args).update(config)
    return args
