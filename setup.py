"""Adds to the wheel what a checkout has in results/: published numbers, and reference runs.

Of the reference runs, Table 2 and the instrument; the source distribution has all.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = "bench/shipped"  # bench.modules.shipped_results
FILES = ("published/*.csv", "reference/tiny/table2.*", "reference/instrument/tiny/*")  # below results/
LEFT_OUT = (".png", ".runs.csv")


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


setup(cmdclass={"build_py": BuildWithResults})
