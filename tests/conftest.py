"""What several test files share: a store at scale micro in which the stages below fine-tuning stand ready."""

from __future__ import annotations

import pytest

from bench import FULL, plan
from bench.key import kind
from bench.scale import MICRO
from bench.store import Store


@pytest.fixture(scope="session")
def micro(tmp_path_factory):
    """A store that holds trials, corpus, targets, reference and Full's pre-training at scale micro."""
    from bench.build import build

    store = Store(tmp_path_factory.mktemp("micro"))
    for stage in plan.stages([plan.plan(FULL, MICRO.items(), MICRO, 0)]):
        if kind(stage) not in ("finetune", "generate", "score"):
            build(stage, store)
    return store
