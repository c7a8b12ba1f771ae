"""A corrupted input of any reader is refused in one line that names it, or read as what it was: no traceback, and no
changed value where a hash covers it."""

from __future__ import annotations

import resource
from collections import Counter

import pytest
from corrupted import READERS
from corruption import sweep, table

FEW = 3  # inputs of each reader in `make test`
MEMORY = 8 << 30  # bytes that a damaged header may ask for beyond what the process has
COUNTED: dict[str, Counter[str]] = {}
slow = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def printed(request):
    """Prints what came of the inputs of all readers that were swept."""
    yield
    if COUNTED:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print("\n" + table(COUNTED))


@pytest.fixture
def limited():
    """A header that asks for all memory gets a MemoryError, and the test does not end the other processes."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.replace(" ", "_"))
def test_a_corrupted_input_is_refused_in_one_line_or_harmless(reader, tmp_path, limited):
    _, wrong = sweep(reader, tmp_path, FEW)
    assert not wrong, "\n".join(wrong)


@slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.replace(" ", "_"))
def test_of_a_thousand_corrupted_inputs_none_gives_a_traceback_or_a_changed_value_that_a_hash_covers(reader, tmp_path,
                                                                                                   limited):
    counts, wrong = sweep(reader, tmp_path, reader.inputs, commands=True)
    COUNTED[reader.name] = counts
    assert counts["inputs"] == reader.inputs
    assert not wrong, f"{len(wrong)} of {reader.inputs}:\n" + "\n".join(wrong)


def test_the_sweep_has_at_least_a_thousand_inputs():
    assert sum(reader.inputs for reader in READERS) >= 1000
