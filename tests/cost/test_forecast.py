"""The forecast of a run's duration."""

from __future__ import annotations

import pytest

from bench import FULL, systems
from bench.cost import forecast
from bench.experiment import graph
from bench.experiment.scale import TINY

TODO = graph.stages([systems.plan(FULL, TINY.items(), TINY, 0)])


@pytest.mark.parametrize(("slowness", "text"), [
    (1.0, "about {} minutes on CPU cores"), (1.2, "about {} minutes on CPU cores"),
    (3.0, "about {} minutes on CPU cores; about {} at this machine's present speed"),
    (0.5, "about {} minutes on CPU cores; about {} at this machine's present speed")])
def test_a_machine_that_is_slower_or_faster_than_the_reference_has_a_forecast_of_its_own(monkeypatch, slowness, text):
    monkeypatch.setattr(forecast, "measure_slowness", lambda: slowness)
    minutes = (forecast.STARTUP + sum(map(forecast.seconds, TODO))) / 60
    assert forecast.describe_duration(TODO, 1) == text.format(round(minutes), round(slowness * minutes))


def test_a_short_run_measures_nothing(monkeypatch):
    monkeypatch.setattr(forecast, "measure_slowness", lambda: 1 / 0)
    trials = [stage for stage in TODO if stage.kind == "trials"]
    assert forecast.describe_duration(trials, 1) == "about a minute on CPU cores"
    assert forecast.describe_duration([], 1) == "nothing to do"


def test_a_machine_takes_some_time_for_a_product():
    assert forecast.measure_slowness() > 0
