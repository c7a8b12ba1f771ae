"""Loads an ablation: a file of ablations/, or a user's file by its path."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Literal

from bench import modules
from bench.errors import BenchError
from bench.experiment.scale import HEADLINE, Scale
from bench.experiment.variant import FULL, On, Spec, sees_eeg
from bench.experiment.worlds import split_name
from bench.files import describe_content
from bench.metrics import DEFINITIONS, SINGLE

Published = str | tuple[str, str]  # a row of results/published/, or (row, data set)
FOLDER = Path(__file__).resolve().parents[2] / "ablations"


@dataclass(frozen=True)
class Ablation:
    """The variants of one question, and how their table is built.

    name        the name of its result files
    contrasts   pairs of variant names that differ in one factor
    primary     the contrasts that the ablation was made for; corrected as a family of their own, the rest as another
    published   stem of the table in results/published/ whose rows have the variants' names, or None
    costs       whether the table has columns for trained parameters and seconds
    literature  for a variant's name, the rows of results/published/ that report the same system
    headline    the per-image metric (a share) for intervals, verdicts and nulls; the first one that was recorded. Top-1
                stands for the accuracy of the scale (`Scale.headline`)
    metrics     further metrics that have a column
    curves      what `bench figure curves` draws: for each factor, its curves, and for each curve its points (value of
                the factor, row). A row in several worlds is named without its world
    """

    name: str
    title: str
    variants: tuple[Spec, ...]
    contrasts: tuple[tuple[str, str], ...]
    published: str | None
    costs: bool = False
    literature: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    headline: tuple[str, ...] = (HEADLINE,)
    metrics: tuple[str, ...] = ()
    primary: tuple[tuple[str, str], ...] = ()
    curves: Mapping[str, Mapping[str, tuple[tuple[float, str], ...]]] = field(default_factory=dict)

    def select(self, names: Sequence[str]) -> list[Spec]:
        """Returns the variants with these names, in the ablation's order. Raises BenchError for an unknown name."""
        known = [variant.name for variant in self.variants]
        for name in names:
            if name not in known:
                raise BenchError(f"no variant {name!r} in {self.name}; there are: {', '.join(known)}")
        return [variant for variant in self.variants if variant.name in names]


def names() -> list[str]:
    """Returns the names of the suite's ablations: the files in ablations/."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def load(name: str, subjects: Sequence[int] = (), controls: bool = False) -> Ablation:
    """Loads an ablation by name or path; subjects: as `by_subject`; controls: as `with_controls`.

    Raises BenchError if it does not exist or is not well formed.
    """
    path = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if not path.is_file():
        if name.endswith(".py"):
            raise BenchError(f"no file {name}")
        raise BenchError(f"no ablation {name!r}; there are: {', '.join(names())}, or give a path to a .py file")
    if path.resolve().parent != FOLDER and path.stem in names():
        raise BenchError(f"{path}: the suite's ablation {path.stem!r} has the same name, and results are stored by "
                         "name; rename the file")
    try:
        module = modules.import_file(path.resolve(), f"ablation_{path.stem}")
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__))
                     if f.filename == str(path.resolve())), getattr(error, "lineno", None))
        where = f"{path}, line {line}" if line else str(path)
        kind = describe_content(path)
        cause = f"it is {kind}" if kind else " ".join(f"{type(error).__name__}: {error}".split())
        raise BenchError(f"{where}: does not import: {cause}") from error
    ablation = _validate(module, path)
    if subjects:
        ablation = by_subject(ablation, subjects)
    return with_controls(ablation) if controls else ablation


def resolve_subjects(subjects: Sequence[int] | Literal["all"], scale: Scale) -> list[int]:
    """Returns the subject numbers; for "all", those of the data set. Raises BenchError for unknown or repeated ones."""
    if subjects == "all":
        return list(scale.people)
    if not set(subjects) <= set(scale.people) or len(set(subjects)) < len(subjects):
        raise BenchError(f"--subjects {','.join(map(str, subjects))}: expected all, or some of "
                         f"{', '.join(map(str, scale.people))}, separated by commas, each once")
    return list(subjects)


def with_controls(ablation: Ablation) -> Ablation:
    """Adds control rows to the ablation: every variant that uses the EEG with shuffled, surrogate and zero EEG."""
    controls = [control_of(variant, eeg) for variant in ablation.variants if has_controls(variant)
                for eeg in ("shuffled", "surrogate", "zero")]
    return replace(ablation, variants=(*ablation.variants, *controls))


def has_controls(variant: Spec) -> bool:
    """Tells whether a row uses the EEG of its items, so that this can be replaced."""
    return sees_eeg(variant) and getattr(variant, "eeg", "real") == "real"


def control_of(variant: Spec, eeg: str) -> On:
    """Returns the row with its EEG replaced, called "<name> / EEG <eeg>"."""
    name = f"{variant.name} / EEG {eeg}"
    if isinstance(variant, On):
        return replace(variant, name=name, eeg=eeg, eeg_free=True)
    return On(variant, name, eeg=eeg, eeg_free=True)


def by_subject(ablation: Ablation, subjects: Sequence[int]) -> Ablation:
    """Repeats the ablation for each subject; the subject is added to the names of rows and contrasts.

    A row uses that subject's trials only. A row that leaves one subject out leaves out this subject and trains on the
    other subjects that the row names, or, if it names one or none, on all others of the scale.
    """
    def rename(name: str, subject: int) -> str:
        stem, control, eeg = name.partition(" / EEG ")
        return f"{stem} / subject {subject}{control}{eeg}"

    def restrict(spec: Spec, subject: int) -> Spec:
        name = rename(spec.name, subject)
        if isinstance(spec, On):
            named = spec.subjects or ()
            others = tuple(s for s in named if s != subject) if "subject" in spec.split and len(named) > 1 else ()
            return replace(spec, name=name, subjects=(*others, subject))
        return On(spec, name, subjects=(subject,), eeg_free=getattr(spec, "eeg_free", False))

    def renamed(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((rename(a, subject), rename(b, subject)) for subject in subjects for a, b in pairs)

    return replace(ablation, published=None,
                   variants=tuple(restrict(spec, subject) for subject in subjects for spec in ablation.variants),
                   contrasts=renamed(ablation.contrasts), primary=renamed(ablation.primary))


def _is_spec(value: object) -> bool:
    return is_dataclass(value) and all(isinstance(getattr(value, name, None), str) for name in ("name", "system"))


def _validate(module: object, path: Path) -> Ablation:
    """Builds the Ablation of an imported file. Raises BenchError if a definition in it is missing or wrong."""
    variants = getattr(module, "variants", None)
    if not isinstance(variants, (list, tuple)) or not variants or not all(map(_is_spec, variants)):
        raise BenchError(f"{path}: `variants` must be a list with at least one Variant, On or other Spec, such as: "
                         "variants = [FULL, replace(FULL, name='mine', mask_ratio=0.6)]")
    known = [variant.name for variant in variants]
    for variant in variants:
        name = variant.name
        if known.count(name) > 1:
            raise BenchError(f"{path}: two variants are called {name!r}; give each its own name")
        if "," in name:
            raise BenchError(f"{path}: the name {name!r} has a comma, which separates names in --variants; remove it")
        if name == FULL.name and variant != FULL:
            raise BenchError(f"{path}: a variant called {name!r} must be the suite's Full, because every table shows "
                             "Full's null; give it another name")
    contrasts = tuple(getattr(module, "contrasts", ()))
    for pair in contrasts:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(name in known for name in pair):
            raise BenchError(f"{path}: the contrast {pair!r} must be a pair of names among: {', '.join(known)}")
    primary = tuple(tuple(pair) for pair in getattr(module, "primary", ()))
    if unknown := set(primary) - {tuple(pair) for pair in contrasts}:
        raise BenchError(f"{path}: primary names {sorted(unknown)[0]!r}, which is not one of the contrasts; add it to "
                         "them, or remove it")
    literature = dict(getattr(module, "literature", {}))
    if unknown := set(literature) - set(known):
        raise BenchError(f"{path}: literature names {sorted(unknown)[0]!r}, which is not a variant; there are: "
                         f"{', '.join(known)}")
    headline, metrics = getattr(module, "headline", HEADLINE), tuple(getattr(module, "metrics", ()))
    headline = (headline,) if isinstance(headline, str) else tuple(headline)
    if wrong := [metric for metric in headline if metric not in SINGLE] or ["nothing"] * (not headline):
        raise BenchError(f"{path}: the headline {wrong[0]!r} must be a per-image metric that is a share: "
                         f"{', '.join(SINGLE)}")
    if unknown := set(metrics) - set(DEFINITIONS):
        raise BenchError(f"{path}: no metric {sorted(unknown)[0]!r} for a column; there are: {', '.join(DEFINITIONS)}")
    curves = dict(getattr(module, "curves", {}))
    drawn = {row for lines in curves.values() for points in lines.values() for _, row in points}
    if absent := sorted(drawn - set(known) - {split_name(name)[0] for name in known}):
        raise BenchError(f"{path}: curves name the row {absent[0]!r}, which is not a variant; there are: "
                         f"{', '.join(known)}")
    title = " ".join((getattr(module, "__doc__", None) or path.stem).strip().split("\n\n")[0].split())
    return Ablation(path.stem, title, tuple(variants), tuple((a, b) for a, b in contrasts),
                    getattr(module, "published", None), bool(getattr(module, "costs", False)),
                    {name: tuple(rows) for name, rows in literature.items()}, headline, metrics,
                    tuple((a, b) for a, b in primary), curves)
