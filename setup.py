"""Adds to the wheel what a checkout has in results/: published numbers, and reference runs.

Of the reference runs, Table 2 and the instrument, without the columns of items that no table reads; the source
distribution has all.
"""

import csv
import gzip
import hashlib
import io
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = "bench/shipped"  # bench.modules.shipped_results
FILES = ("published/*.csv", "reference/tiny/table2.*", "reference/instrument/tiny/*")  # below results/
LEFT_OUT = (".png", ".runs.csv")
UNREAD = ("clip_similarity", "correlation_", "judge_distance", "pixcorr", "ssim_released", "train_distance_",
          "two_way_")  # what the names of left out columns begin with


class BuildWithResults(build_py):
    """Copies FILES into the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / SHIPPED
        shutil.rmtree(target, ignore_errors=True)
        for pattern in FILES:
            for file in sorted((ROOT / "results").glob(pattern)):
                if not file.name.endswith(LEFT_OUT):
                    copy = target / file.relative_to(ROOT / "results")
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copy)
        for items in target.rglob("*.items.csv.gz"):
            leave_out_columns(items)


def leave_out_columns(items: Path) -> None:
    """Removes from a file of items the columns that begin with one of UNREAD, and corrects its line in the hashes."""
    before = hashlib.sha256(items.read_bytes()).hexdigest()
    with gzip.open(items, "rt", encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    kept = [column for column, name in enumerate(lines[0]) if not name.startswith(UNREAD)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([line[column] for column in kept] for line in lines)
    items.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    hashes = items.with_name(items.name.replace(".items.csv.gz", ".sha256"))
    hashes.write_text(hashes.read_text().replace(before, hashlib.sha256(items.read_bytes()).hexdigest()))


setup(cmdclass={"build_py": BuildWithResults})
