"""Where the experiments are, and their main.py as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("Single", "Random", "KD", "EnCoDe")
LOOPS = ("Random", "KD", "EnCoDe")  # with a budget loop
DISTILLED = ("KD", "EnCoDe")  # with a teacher
PLAIN = ("Single", "Random")  # without one


def script(model: str, dataset: str, method: str) -> ModuleType:
    """The module of `<model>/<dataset>/<method>/main.py`: its docstring, DEFAULTS and main(args)."""
    path = ROOT / model / dataset / method / "main.py"
    spec = importlib.util.spec_from_file_location(f"{model}_{dataset}_{method}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def available() -> list[tuple[str, str, str]]:
    """(model, dataset, method) of each experiment's folder."""
    return sorted(path.relative_to(ROOT).parts[:3] for path in ROOT.glob("*/*/*/main.py"))
