"""Loads an ablation: a file of ablations/, or a user's own file by its path."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Literal

from bench import modules
from bench.errors import BenchError
from bench.experiment.scale import Scale
from bench.experiment.variant import FULL, On, Spec, sees_eeg
from bench.metrics import DEFINITIONS, SINGLE

HEADLINE = "top1_label"
Published = str | tuple[str, str]  # a row of results/published/, or that row on one data set
FOLDER = Path(__file__).resolve().parents[2] / "ablations"


@dataclass(frozen=True)
class Ablation:
    """name: what its results are called. contrasts: pairs of names that differ in one factor. published: the stem of a
    table in results/published/ whose rows carry the variants' names, or None. costs: whether the table has columns for
    trained parameters and seconds. literature: of a variant's name, under which names results/published/ has numbers of
    that system's; as (name, dataset) those on that alone. headline: the metric of single items, a share, that
    intervals, verdicts and nulls are of; of several the first that is recorded. metrics: others that have a column."""

    name: str
    title: str
    variants: tuple[Spec, ...]
    contrasts: tuple[tuple[str, str], ...]
    published: str | None
    costs: bool = False
    literature: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    headline: tuple[str, ...] = (HEADLINE,)
    metrics: tuple[str, ...] = ()

    def chosen(self, names: Sequence[str]) -> list[Spec]:
        """The variants of these names, in the ablation's order. Raises BenchError naming those that exist."""
        known = [variant.name for variant in self.variants]
        for name in names:
            if name not in known:
                raise BenchError(f"no variant {name!r} in {self.name}; there are: {', '.join(known)}")
        return [variant for variant in self.variants if variant.name in names]


def names() -> list[str]:
    """The ablations of the suite: the files in ablations/."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def load(name: str) -> Ablation:
    """The ablation of that name or path. Raises BenchError for one that is unknown or not well formed."""
    path = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if not path.is_file():
        if name.endswith(".py"):
            raise BenchError(f"no file {name}")
        raise BenchError(f"no ablation {name!r}; there are: {', '.join(names())}, or give a path to a .py file")
    if path.resolve().parent != FOLDER and path.stem in names():
        raise BenchError(f"{path}: the suite has an ablation {path.stem!r} of its own, whose results lie under that "
                         "name; give the file another")
    try:
        module = modules.from_file(path.resolve(), f"ablation_{path.stem}")
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__))
                     if f.filename == str(path.resolve())), getattr(error, "lineno", None))
        where = f"{path}, line {line}" if line else str(path)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise BenchError(f"{where}: does not import: {what}") from error
    return _checked(module, path)


def asked(name: str, subjects: Sequence[int] = (), controls: bool = False) -> Ablation:
    """`load`, once for each subject where any is given, and with the rows of `with_controls`."""
    ablation = load(name)
    if subjects:
        ablation = by_subject(ablation, subjects)
    return with_controls(ablation) if controls else ablation


def chosen_subjects(subjects: Sequence[int] | Literal["all"], at: Scale) -> list[int]:
    """The numbers of subjects; of "all" those that the data set has. Raises BenchError for one that it does not have,
    or that is given twice."""
    if subjects == "all":
        return list(at.people)
    if not set(subjects) <= set(at.people) or len(set(subjects)) < len(subjects):
        raise BenchError(f"--subjects {','.join(map(str, subjects))}: all, or some of "
                         f"{', '.join(map(str, at.people))}, separated by commas, are expected")
    return list(subjects)


def with_controls(ablation: Ablation) -> Ablation:
    """The ablation with rows beside every variant that sees the EEG: shuffled, replaced by a surrogate, set to zero."""
    controls: list[Spec] = []
    for v in ablation.variants:
        for eeg in ("shuffled", "surrogate", "zero"):
            name = f"{v.name} / EEG {eeg}"
            if not sees_eeg(v):
                continue
            if not isinstance(v, On):
                controls.append(On(v, name, eeg=eeg, eeg_free=True))
            elif v.eeg == "real":
                controls.append(replace(v, name=name, eeg=eeg, eeg_free=True))
    return replace(ablation, variants=(*ablation.variants, *controls))


def by_subject(ablation: Ablation, subjects: Sequence[int]) -> Ablation:
    """The ablation once for each subject: rows and contrasts are named after them. A row has the trials of that subject
    alone; one that leaves a subject out leaves out that one, of those that it names and that one."""
    def name(of: str, subject: int) -> str:
        stem, control, eeg = of.partition(" / EEG ")
        return f"{stem} / subject {subject}{control}{eeg}"

    def one(v: Spec, subject: int) -> Spec:
        if isinstance(v, On):
            others = tuple(other for other in v.subjects or () if other != subject) if "subject" in v.split else ()
            return replace(v, name=name(v.name, subject), subjects=(*others, subject))
        return On(v, name(v.name, subject), subjects=(subject,), eeg_free=getattr(v, "eeg_free", False))

    return replace(ablation, published=None,
                   variants=tuple(one(v, subject) for subject in subjects for v in ablation.variants),
                   contrasts=tuple((name(a, subject), name(b, subject)) for subject in subjects
                                   for a, b in ablation.contrasts))


def _is_spec(value: object) -> bool:
    return is_dataclass(value) and all(isinstance(getattr(value, name, None), str) for name in ("name", "system"))


def _checked(module: object, path: Path) -> Ablation:
    variants = getattr(module, "variants", None)
    if not isinstance(variants, (list, tuple)) or not variants or not all(map(_is_spec, variants)):
        raise BenchError(f"{path}: `variants` must be a list of Variant, On or other Spec that is not empty, such as: "
                         "variants = [FULL, replace(FULL, name='mine', mask_ratio=0.6)]")
    known = [variant.name for variant in variants]
    for name in known:
        if known.count(name) > 1:
            raise BenchError(f"{path}: two variants are called {name!r}; give each its own name")
    if commas := [name for name in known if "," in name]:
        raise BenchError(f"{path}: the name {commas[0]!r} has a comma, which --variants takes for the end of a name; "
                         "leave it out")
    for variant in variants:
        if variant.name == FULL.name and variant != FULL:
            raise BenchError(f"{path}: a variant called {FULL.name!r} must be the suite's Full, whose null stands in "
                             "every table; give it another name")
    contrasts = tuple(getattr(module, "contrasts", ()))
    for pair in contrasts:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(name in known for name in pair):
            raise BenchError(f"{path}: the contrast {pair!r} must be a pair of names among: {', '.join(known)}")
    contrasts = tuple((a, b) for a, b in contrasts)
    title = " ".join((module.__doc__ or path.stem).strip().split("\n\n")[0].split())
    literature = dict(getattr(module, "literature", {}))
    if unknown := set(literature) - set(known):
        raise BenchError(f"{path}: literature names {sorted(unknown)[0]!r}, which is no variant; there are: "
                         f"{', '.join(known)}")
    headline, others = getattr(module, "headline", HEADLINE), tuple(getattr(module, "metrics", ()))
    headline = (headline,) if isinstance(headline, str) else tuple(headline)
    if wrong := [metric for metric in headline if metric not in SINGLE] or ["nothing"] * (not headline):
        raise BenchError(f"{path}: the headline {wrong[0]!r} must be a metric of single items that is a share: "
                         f"{', '.join(SINGLE)}")
    if unknown := set(others) - set(DEFINITIONS):
        raise BenchError(f"{path}: no metric {sorted(unknown)[0]!r} to have a column; there are: "
                         f"{', '.join(DEFINITIONS)}")
    return Ablation(path.stem, title, tuple(variants), contrasts, getattr(module, "published", None),
                    bool(getattr(module, "costs", False)), {name: tuple(rows) for name, rows in literature.items()},
                    headline, others)
