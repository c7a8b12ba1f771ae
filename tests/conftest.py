"""What several test files share: a store at scale micro in which the stages below fine-tuning stand ready."""

from __future__ import annotations

import importlib.util
import shutil
import socket

import pytest

from bench import FULL, systems
from bench.errors import BenchError
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.runtime import device
from bench.store.store import Store

GROUPED = (  # files whose tests share a slow fixture: with pytest-xdist one worker runs them all, and first
    "execute/test_runner", "setup/test_rehearsal", "systems/test_comparison", "systems/test_adding",
    "systems/test_retrieval", "cost/test_price", "commands/test_data", "commands/test_notebook", "tables/test_tables",
    "tables/test_report", "tables/test_submission", "networks/test_pretended_gpu")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Groups slow files for pytest-xdist; skips tests that need what is not here, and says what that is."""
    for item in items:
        if (group := next((name for name in GROUPED if f"{name}.py" in item.nodeid), None)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)  # stable: slow files begin
    for item in items:
        if item.get_closest_marker("gpu") and device("auto") == "cpu":
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; the driver shows none"))
        if item.get_closest_marker("browser") and (reason := browser_missing()):
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("hub"):
            from perceptual import backbone

            try:
                backbone("alex")
            except BenchError as error:
                item.add_marker(pytest.mark.skip(reason=str(error)))


def browser_missing():
    """Why no page can be opened: the name of what must be installed; "" if nothing is missing."""
    if importlib.util.find_spec("playwright") is None:
        return 'NO BROWSER TEST RUNS: Playwright is missing; pip install "eeg2image-bench[test]"'
    if shutil.which("chromium") is None:
        return "NO BROWSER TEST RUNS: no `chromium` on PATH; on Debian: apt-get install chromium"
    return ""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing leaves this machine in a test."""
    connect = socket.socket.connect

    def own(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", own)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No network, not even this machine's, and caches of weights of the test's own."""
    def refuse(*_):
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def one_thread():
    """One thread for torch: two on a busy machine wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def micro(tmp_path_factory):
    """A store that holds trials, corpus, targets, reference and Full's pre-training at scale micro."""
    from bench.execute.build import build

    store = Store(tmp_path_factory.mktemp("micro"))
    for stage in graph.stages([systems.plan(FULL, MICRO.items(), MICRO, 0)]):
        if stage.kind not in ("finetune", "generate", "score"):
            build(stage, store)
    return store
