"""Which runs may be compared: what each was made with, as config.json records it, and where two differ in it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from common.errors import InputError
from common.schema import BEFORE

MARK = "‡"
SPLIT = ("num_images", "num_val", "val_labels")  # with the seed these decide which images train and which validate
IMAGES = ("image_size", *SPLIT, "data", "test_data")
UPDATES = "their number of updates"  # of the student: shown to a test's reader, never refused
ONE_SIDED = "one-sided"  # returned by `compare`: one of two runs has no record


@dataclass(frozen=True)
class Sitting:
    """What a run, or a part of it, was made with; empty if there is no record."""

    commit: str = ""  # with -dirty and a hash of the change appended if the code differed from it
    torch: str = ""
    machine: str = ""
    device: str = ""
    threads: str = ""
    amp: str = ""
    fast: str = ""
    compile: str = ""


@dataclass(frozen=True)
class Made:
    """What made a run: each sitting that differs from those before it, and its teacher."""

    sittings: tuple[Sitting, ...]
    teachers: tuple[str, ...]  # SHA-256, one per round if they differ
    shared_teacher: str  # name of the one for all rounds; empty if each round has its own
    images: tuple = ()  # what is recorded about them, as (key of config.json, value)

    def values(self, name: str) -> set[str]:
        """All values of commit, amp or teacher; an empty one if it is unknown."""
        if name == "teacher":
            return set(self.teachers) or {""}
        return {getattr(sitting, name) for sitting in self.sittings}


def made(config: dict, shared_teacher: str) -> Made:
    """The record in a run's configuration."""
    teachers = config.get("teacher_sha256") or []
    teachers = [teachers] if isinstance(teachers, str) else teachers
    sittings = []
    for record in config.get("made_with", [{}]):
        # Before made_with existed, amp was a flag like the others.
        known = {"amp": config.get("amp"), **{name: record[name] for name in Sitting.__annotations__ if name in record}}
        values = {name: "" if value is None else str(value) for name, value in known.items()}
        if values.get("commit") and record.get("dirty"):
            what = record["dirty"]  # True in older files, which did not tell changes apart
            values["commit"] += f"-dirty-{what}" if isinstance(what, str) else "-dirty"
        sittings.append(Sitting(**values))
    known = BEFORE | config if config.get("num_val") else config  # without validation images val_labels means nothing
    names = [name for name in IMAGES if name in known and (name != "val_labels" or config.get("num_val"))]
    images = tuple((name, str(known[name])) for name in names)
    return Made(tuple(sittings), tuple(teachers), shared_teacher, images)


def compare(found: dict[str, Made], pairs: Iterable[tuple[str, str]], mixed: bool) -> frozenset[str]:
    """What differs between the runs of each pair: commit, amp, teacher, images, ONE_SIDED.

    Machine, threads and torch may differ. What neither run has a record of counts as equal, and a run that was itself
    made with several builds equals no other.

    Args:
        found: what each run was made with.
        pairs: two runs of one seed each, whose results are subtracted.
        mixed: return a difference instead of raising InputError with the runs and what differs.
    """
    words: set[str] = set()
    for first, second in dict.fromkeys(pairs):
        a, b = found[first], found[second]
        teacher = ("teacher",) if a.shared_teacher and a.shared_teacher == b.shared_teacher else ()
        differing = {}
        for name in ("commit", "amp", *teacher):
            ours, theirs = a.values(name), b.values(name)
            if len((ours | theirs) - {""}) > 1:
                differing[name] = f"{name} ({_short(ours)} and {_short(theirs)})"
            elif ("" in ours) != ("" in theirs):
                words.add(ONE_SIDED)
        if names := _other_images(a, b):
            differing["images"] = f"images ({', '.join(names)})"
        if differing and not mixed:
            raise InputError(f"{first} and {second} would be compared but differ in {', '.join(differing.values())}; "
                             "make them alike, or --mixed makes the test and marks it")  # fmt: skip
        words |= differing.keys()
    return frozenset(words)


def _other_images(a: Made, b: Made) -> list[str]:
    """The keys of config.json in which two runs have different images to train or test on.

    The same images at two sizes have different SHA-256: then only their split can be compared.
    """
    ours, theirs = dict(a.images), dict(b.images)
    alike = ours.get("image_size") == theirs.get("image_size")
    names = IMAGES[1:] if alike else SPLIT
    return [name for name in names if name in ours and name in theirs and ours[name] != theirs[name]]


def mark(words: frozenset[str]) -> str:
    """The mark of a test whose runs differ, or of which only some have a record."""
    return MARK if words else ""


def explain(words: Iterable[str]) -> list[str]:
    """The lines under tests marked with these words."""
    differing, lines = sorted(set(words) - {ONE_SIDED}), []
    if differing:
        lines.append(f"{MARK} runs of one seed differ in {' and '.join(differing)}: the difference may come from that.")
    if ONE_SIDED in words:
        lines.append(f"{MARK} one of two runs has no record of its commit, amp or teacher: they may differ in that.")
    return lines


def footnote(rows: pd.DataFrame, found: dict[str, Made]) -> list[str]:
    """What the runs were made with: a line for each build and teacher, naming its rows and seeds."""
    groups: dict[str, dict[str, dict[str, set[int]]]] = {}  # build -> setting -> row -> seeds
    several: dict[tuple, set[str]] = {}  # (setting, row, seed) -> builds
    for row in rows.drop_duplicates(["run", "label"]).itertuples():
        setting = f"{row.model} on {row.dataset}"
        for text in _texts(found[row.run]):
            groups.setdefault(text, {}).setdefault(setting, {}).setdefault(row.label, set()).add(row.seed)
            several.setdefault((setting, row.label, row.seed), set()).add(text)
    unknown = any("" in run.values("commit") for run in found.values())
    warning = "; runs without a record of their commit cannot be checked for having been made alike" if unknown else ""
    lines = [f"Made with (seeds){warning}:"]
    for text, settings in groups.items():
        parts = []
        for setting, labels in settings.items():
            names = []
            for label, seeds in labels.items():
                part = {seed for seed in seeds if len(several[setting, label, seed]) > 1}
                shown = [ranges(seeds - part)] if seeds - part else []
                shown += [f"in part {ranges(part)}"] if part else []
                names.append(f"{label} ({', '.join(shown)})")
            parts.append(f"{setting} {', '.join(names)}")
        lines.append(f"- {text}: {'; '.join(parts)}")
    return lines


def _texts(run: Made) -> list[str]:
    """The beginning of a line for each sitting of a run."""
    teacher = [f"{len(run.teachers)} teachers, one a round"] if len(run.teachers) > 1 else []
    if len(run.teachers) == 1:
        teacher = [f"teacher {_short(set(run.teachers))}"]
    texts = []
    for sitting in run.sittings:
        parts = [f"commit {_short({sitting.commit})}" if sitting.commit else "commit unknown"]
        if not (sitting.commit or sitting.torch or sitting.machine):
            parts = ["no record of commit, torch or machine"]
        parts += [f"torch {sitting.torch}"] if sitting.torch else []
        parts += [part for part in (sitting.machine, sitting.device) if part]
        parts += [f"{sitting.threads} thread{'' if sitting.threads == '1' else 's'}"] if sitting.threads else []
        parts += [f"{name} {getattr(sitting, name)}" for name in ("amp", "fast", "compile") if getattr(sitting, name)]
        texts.append(", ".join(parts + teacher))
    return list(dict.fromkeys(texts))


def _short(values: set[str]) -> str:
    """Hashes shortened to ten digits."""
    return " + ".join(re.sub(r"^([0-9a-f]{10})[0-9a-f]+", r"\1", value) or "unknown" for value in sorted(values))


def ranges(seeds: set[int]) -> str:
    """{1, 2, 3, 7} -> 1-3, 7"""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in spans)
