"""The card of a data set on the hub: README.md with what the tables are, how to get them, and how to read them."""

from __future__ import annotations

from bench.tables.sharing.contents import REPORTS, SUMS, Index

CARD = "README.md"
MARK = "<!-- made by `bench push`, which replaces this page -->"
SMALL = ("tiny", "micro", "rehearsal")  # scales that check the software


def render(repository: str, index: Index) -> bytes:
    """Returns the card of a repository with these files."""
    tables = sorted(index.tables)
    head = ["---", "tags:", "- eeg", "- eeg2image-bench", "- benchmark"]
    if tables:
        head += ["configs:", "- config_name: results", "  data_files:", *(f"  - {_quote(path)}" for path in tables)]
    lines = [*head, "---", MARK, "", f"# {repository}", "", "Results of eeg2image-bench, an ablation benchmark for "
             "EEG-to-image generation.", "", f"    bench pull {repository} --to results", "",
             "checks every file against its SHA-256 before anything is written; `bench table NAME` prints a table.", ""]
    if tables:
        lines += ["| table | ablation | scale | rows | seeds | judge |", "| :-- | :-- | :-- | --: | --: | :-- |"]
        for path in tables:
            facts = index.tables[path]
            cells = (path, *(facts.get(name, "") for name in ("ablation", "scale", "rows", "seeds", "judge")))
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
        lines.append("")
    lines += _list("Submissions", [path.removesuffix(f"/{SUMS}") for path in index.files if path.endswith(SUMS)])
    lines += _list("Reports", [path for path in index.files if path.startswith(f"{REPORTS}/")])
    lines += ["## How to read", "", "Numbers of different scales, judges or items must not be compared. A number says "
              "little without its null (shuffled EEG) and its ceiling, which are rows of the same table."]
    if any(facts.get("scale") in SMALL for facts in index.tables.values()):
        lines.append(f"Results at scale {', '.join(SMALL)} check the software; they say nothing about brains.")
    return ("\n".join(lines) + "\n").encode()


def _list(title: str, names: list[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {_cell(name)}" for name in sorted(names)), ""] if names else []


def _quote(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
