"""Prints what must not change when code moves: the key of every stage and the digest of every variant and scale.

python tests/fingerprint.py > before.json, and the same command on the other version; equal files are equal plans.
All ablations, at scales tiny, micro, paper and rehearsal, with seeds 0 and 1. The rehearsal's files are made anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.errors import NotAvailable
from bench.experiment import ablation
from bench.experiment.graph import stages
from bench.experiment.key import digest
from bench.experiment.scale import SCALES
from bench.experiment.stages import Scored
from bench.setup import places
from bench.setup.rows import rows

SEEDS = (0, 1)


def fingerprint(store: Path) -> dict[str, object]:
    """Keys by scale, ablation and row; digests of the scales and of all variants."""
    found: dict[str, object] = {}
    for name in SCALES:
        at = places.resolve_paths(places.load_scale(name), store, needed=name == "rehearsal")
        found[f"scale {name}"] = digest(at)
        for asked in ablation.names():
            loaded = ablation.with_controls(ablation.load(asked))
            for variant in loaded.variants:
                found.setdefault(f"variant {asked}: {variant.name}", digest(variant))
                try:
                    table = rows([variant], at, SEEDS)
                except NotAvailable:
                    found[f"{name}: {asked}: {variant.name}"] = "left out"
                    continue
                for row in table:
                    plan = [stage.key for stage in stages([row.stage])]
                    kind = "scored" if isinstance(row.stage, Scored) else "read out"
                    place = f"{name}: {asked}: {variant.name}: {row.variant}, {row.items}, seed {row.seed}, {kind}"
                    found.setdefault(f"{place} {row.stage.key[:8]}", plan)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        json.dump(fingerprint(Path(folder)), sys.stdout, indent=0, sort_keys=True)
