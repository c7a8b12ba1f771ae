"""A judge's classes: their names, and whether they are in ImageNet-1k's order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from bench.data.imagenet_eeg import imagenet_classes
from bench.errors import join_names

SHOWN = 3  # names at each place in a note


def describe_classes(count: int, labels: Sequence[str]) -> str:
    """Describes the classes in one line: how many, their names, and their order if they are ImageNet-1k's.

    labels: names by number in the judge's file, WordNet ids or words; (): the file has none.
    """
    if labels and len(labels) != count:
        return f"{count:,} classes, but the file names {len(labels):,}; their order is unknown"
    words = [name for _, name in _classes()]
    if not labels:
        if count != len(words):
            return f"{count:,} classes; the file does not name them"
        return (f"{count:,} classes; the file does not name them, so ImageNet-1k's order is assumed: "
                f"{join_names(words, SHOWN)}")
    wrong = misplaced(labels)
    if wrong:
        number, place = wrong[0]
        return (f"{count:,} classes, not in ImageNet-1k's order: {labels[number]} is class {number} here and class "
                f"{place} there ({len(wrong):,} differ); labels must be numbers of this judge")
    if count == len(words) == placed(labels):
        return f"{count:,} classes in ImageNet-1k's order, by the names in the file: {join_names(words, SHOWN)}"
    return f"{count:,} classes: {join_names(labels, SHOWN)}"


def name_classes(count: int, labels: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of a judge's classes by number: those of its file, WordNet ids in words; without labels
    ImageNet-1k's if there are 1,000; () if they are unknown."""
    if not labels and count == len(_classes()):
        return tuple(name for _, name in _classes())
    words = dict(_classes())
    return tuple(words.get(label, label) for label in labels) if len(labels) == count else ()


def count_classes(judged: Sequence[int], names: Sequence[str]) -> str:
    """Describes the classes that images were given, the most frequent first: "espresso (3), tripod (1)"."""
    counts = sorted(Counter(judged).items(), key=lambda entry: (-entry[1], entry[0]))
    return join_names([f"{names[number]} ({count})" for number, count in counts], SHOWN)


def misplaced(labels: Sequence[str]) -> list[tuple[int, int]]:
    """Returns (number, ImageNet-1k's number) of each class of ImageNet-1k that has another number; [] unless at least
    half of the labels are classes of ImageNet-1k."""
    places = [(number, place) for number, place in enumerate(map(_places().get, map(_simplify, labels)))
              if place is not None]
    return [(number, place) for number, place in places if number != place] if 2 * len(places) >= len(labels) else []


def placed(labels: Sequence[str]) -> int:
    """Counts the labels whose number is that of their class in ImageNet-1k. Two classes of ImageNet-1k share a name;
    their label counts at either number. At most 1,000 labels."""
    return sum(_simplify(label) in (wnid, _simplify(name))
               for label, (wnid, name) in zip(labels, _classes()[:len(labels)], strict=True))


@cache
def _classes() -> list[tuple[str, str]]:
    """Returns WordNet id and name of ImageNet-1k's classes, by number."""
    return [(wnid, name) for wnid, (_, name) in sorted(imagenet_classes().items(), key=lambda entry: entry[1])]


def is_same_class(name: str, other: str) -> bool:
    """Returns whether two names are of one class: equal first names, or one class of ImageNet-1k."""
    first, second = _simplify(name), _simplify(other)
    place = _places().get(first)
    return first == second or (place is not None and place == _places().get(second))


def _places() -> dict[str, int]:
    """Returns ImageNet-1k's number by WordNet id, and by name where it is the name of one class."""
    counts = Counter(_simplify(name) for _, name in _classes())
    places = {wnid: number for number, (wnid, _) in enumerate(_classes())}
    return places | {_simplify(name): number for number, (_, name) in enumerate(_classes())
                     if counts[_simplify(name)] == 1}


def _simplify(label: str) -> str:
    """Returns a label's first name in lower case with spaces: "Egyptian_cat" and "Egyptian cat, ..." are equal."""
    return label.partition(",")[0].strip().lower().replace("_", " ")
