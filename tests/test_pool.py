"""Workers: one that dies takes its stage along and no more."""

from __future__ import annotations

from bench.pool import Pool
from bench.scale import MICRO
from bench.stages import Trials
from bench.store import Store

TRIALS = Trials(MICRO.world, MICRO.subjects, MICRO.band)


def last_word(pool):
    while True:
        for event in pool.events(1.0):
            if event.what not in ("started", "progress"):
                return event


def test_a_worker_that_died_while_it_waited_is_replaced_and_one_that_dies_at_work_fails_its_stage(tmp_path):
    store = Store(tmp_path / "store")
    with Pool(1, store.root, "cpu") as pool:
        pool._processes[0].kill()
        pool._processes[0].join()
        pool.submit(TRIALS)
        assert last_word(pool).what == "done"
        assert store.sound(TRIALS)
        pool.submit(Trials(MICRO.world, (1, 2, 3), MICRO.band))
        assert next(pool.events(60)).what == "started"
        pool._processes[0].kill()
        event = last_word(pool)
        assert (event.what, event.begun) == ("died", True)
        assert "its worker process died (signal 9" in str(event.error)
        assert pool.idle == 1
        pool.submit(Trials(MICRO.world, (1,), MICRO.band))
        assert last_word(pool).what == "done"
