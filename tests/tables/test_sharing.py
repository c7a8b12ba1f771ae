"""`bench push` and `bench pull` through the real huggingface_hub, against a stand-in of the hub on this machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import shutil
from pathlib import Path, PureWindowsPath

import pytest
from hub_server import TOKEN, serving
from huggingface_hub import constants

from bench.cli import main
from bench.errors import ENVIRONMENT, OK, USAGE, BenchError
from bench.tables import results
from bench.tables.sharing import contents
from bench.tables.sharing import hub as hub_of_results
from bench.tables.sharing.card import CARD, MARK
from bench.tables.sharing.contents import INDEX

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference" / "tiny"
NAMES = ("block_design", "supervision")
REPOSITORY = "lab/eeg-results"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub, with a token in HF_TOKEN; the working folder is empty."""
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its uploads are not HTTP of the hub
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.chdir(tmp_path)
        yield server


@pytest.fixture
def folder(tmp_path):
    """results/ with two ablations, files that stay here, and a submission; reports/ with a page."""
    tiny = tmp_path / "results" / "tiny"
    tiny.mkdir(parents=True)
    for name in NAMES:
        for ending in (".csv", ".items.csv.gz", ".sha256"):
            shutil.copyfile(REFERENCE / f"{name}{ending}", tiny / f"{name}{ending}")
    (tiny / "supervision.png").write_bytes(b"\x89PNG")
    (tiny / "supervision.runs.csv").write_text(",".join(results.RUNS) + "\n")
    submission = tmp_path / "results" / "mine"
    submission.mkdir()
    (submission / "spec.json").write_text("{}")
    (submission / "SHA256SUMS").write_text(f"{hashlib.sha256(b'{}').hexdigest()}  spec.json\n")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "supervision.html").write_text("<!doctype html>")
    return tmp_path / "results"


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file()}


def test_what_is_pushed_comes_back_byte_by_byte_and_is_only_results(hub, folder, tmp_path, capsys):
    assert main(["push", REPOSITORY, "--reports", "reports", "--dry-run"]) == OK
    assert "would push tiny/supervision.csv" in capsys.readouterr().out
    assert hub.repositories == {}
    assert main(["push", REPOSITORY, "--reports", "reports"]) == OK
    said = capsys.readouterr().out
    assert "9 new, 0 unchanged; left out: 1 .png, 1 .runs.csv" in said
    assert said.endswith(f"{hub.url}/datasets/{REPOSITORY}\n")
    assert hub.private == {REPOSITORY}
    shared = hub.files(REPOSITORY)
    ablations = {f"tiny/{name}{ending}" for name in NAMES for ending in (".csv", ".items.csv.gz", ".sha256")}
    assert set(shared) == {".gitattributes", CARD, INDEX, "reports/supervision.html", "mine/spec.json",
                           "mine/SHA256SUMS"} | ablations
    assert ("PUT", "/large/" + hashlib.sha256(shared["tiny/supervision.items.csv.gz"]).hexdigest()) in hub.asked
    assert main(["push", REPOSITORY]) == OK
    assert "0 new, 8 unchanged" in capsys.readouterr().out
    assert len(hub.repositories[REPOSITORY]) == 2  # the hub's first commit, and one push

    assert main(["pull", REPOSITORY, "--to", "got", "--reports", "pages"]) == OK
    assert "9 new, 0 unchanged, all with the hashes of commit" in capsys.readouterr().out
    expected = {name: data for name, data in tree(folder).items() if not name.endswith((".png", ".runs.csv"))}
    got = {name: data for name, data in tree(tmp_path / "got").items() if not name.endswith(".runs.csv")}
    assert got == expected
    assert tree(tmp_path / "pages") == tree(tmp_path / "reports")
    assert len(results.read(tmp_path / "got" / "tiny", "supervision").rows)
    assert main(["pull", REPOSITORY, "--to", "got", "--reports", "pages"]) == OK
    assert "0 new, 9 unchanged" in capsys.readouterr().out


def test_the_card_names_each_table_and_a_card_of_somebody_else_is_kept(hub, folder, capsys):
    assert main(["push", REPOSITORY, "results/tiny", "--at", "tiny", "--public"]) == OK
    assert hub.private == set()
    card = hub.files(REPOSITORY)[CARD].decode()
    rows = results.read(folder / "tiny", "supervision").rows
    counts = f"{rows['variant'].nunique()} | {rows['seed'].nunique()}"
    assert f"| tiny/supervision.csv | supervision | tiny | {counts} |" in card
    assert '  - "tiny/block_design.csv"\n' in card
    assert "they say nothing about brains" in card
    assert card.startswith("---\n")
    hub.change(REPOSITORY, **{CARD: b"# My own page\n"})
    assert main(["push", REPOSITORY, "results/mine", "--at", "mine"]) == OK
    assert "kept its README.md" in capsys.readouterr().out
    assert hub.files(REPOSITORY)[CARD] == b"# My own page\n"
    assert "mine/spec.json" in json.loads(hub.files(REPOSITORY)[INDEX])["files"]
    assert MARK not in hub.files(REPOSITORY)[CARD].decode()


def change(folder):
    """Records other numbers of an ablation, as another run would."""
    rows = (folder / "tiny" / "supervision.csv").read_bytes()
    items = gzip.decompress((folder / "tiny" / "supervision.items.csv.gz").read_bytes())
    results.restore(folder / "tiny", "supervision", {
        "supervision.csv": rows.replace(b",tiny,", b",tiny ,"), "supervision.items.csv.gz": gzip.compress(items)})


def test_other_results_are_replaced_only_by_force(hub, folder, tmp_path, capsys):
    assert main(["push", REPOSITORY]) == OK
    before = tree(folder)
    change(folder)
    capsys.readouterr()
    assert main(["push", REPOSITORY]) == USAGE
    said = capsys.readouterr().err
    assert said == (f"bench: {REPOSITORY} has other content in tiny/supervision.csv, tiny/supervision.items.csv.gz, "
                    "tiny/supervision.sha256; nothing was pushed; push to another folder with --at, or replace it with "
                    "--force\n")
    assert len(hub.repositories[REPOSITORY]) == 2
    changed = tree(folder)
    assert main(["pull", REPOSITORY]) == USAGE
    assert "supervision.csv" in (said := capsys.readouterr().err)
    assert "nothing was written" in said
    assert tree(folder) == changed
    assert main(["pull", REPOSITORY, "--force", "--only", "tiny/supervision.csv"]) == OK
    assert {name: data for name, data in tree(folder).items() if name in before} == before
    change(folder)
    assert main(["push", REPOSITORY, "--force"]) == OK
    assert hub.files(REPOSITORY)["tiny/supervision.csv"] == (folder / "tiny" / "supervision.csv").read_bytes()


@pytest.mark.parametrize(("name", "message"), [
    ("tiny/supervision.csv", "tiny/supervision.csv of lab/eeg-results differs from its hash in bench-index.json"),
    ("mine/spec.json", "mine/spec.json of lab/eeg-results differs from its hash"),
    (INDEX, "bench-index.json of lab/eeg-results is damaged"),
])
def test_a_changed_file_is_found_before_anything_is_written(hub, folder, tmp_path, capsys, name, message):
    assert main(["push", REPOSITORY]) == OK
    hub.change(REPOSITORY, **{name: hub.files(REPOSITORY)[name][:-3] + b"999"})
    capsys.readouterr()
    assert main(["pull", REPOSITORY, "--to", "got"]) == USAGE
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "got").exists()


def test_a_damaged_index_is_replaced_by_force(hub, folder, capsys):
    assert main(["push", REPOSITORY]) == OK
    hub.change(REPOSITORY, **{INDEX: b"{}"})
    assert main(["push", REPOSITORY]) == USAGE
    assert "its owner can replace it: bench push --force" in capsys.readouterr().err
    assert main(["push", REPOSITORY, "--force"]) == OK
    assert "tiny/supervision.csv" in json.loads(hub.files(REPOSITORY)[INDEX])["files"]
    assert main(["pull", REPOSITORY]) == OK
    assert "0 new, 8 unchanged" in capsys.readouterr().out


@pytest.mark.parametrize("name", [
    "../evil.csv", "/etc/evil.csv", "a\\..\\evil.csv", "C:/evil.csv", "a/../../evil.csv", "tiny/.ssh/evil.csv",
    "tiny/evil.py", "tiny/x.runs.csv", "a//b.csv", "tiny/evil.csv "])
def test_an_index_with_an_unsafe_path_is_refused(hub, folder, tmp_path, capsys, name):
    assert main(["push", REPOSITORY]) == OK
    index = json.loads(hub.files(REPOSITORY)[INDEX])
    index["files"][name] = hashlib.sha256(b"evil").hexdigest()
    hub.change(REPOSITORY, **{INDEX: json.dumps(index).encode(), name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    assert main(["pull", REPOSITORY, "--to", "got/inner"]) == USAGE
    assert "is no path of a shared file" in (said := capsys.readouterr().err) or "is no result" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_an_ablation_of_which_a_part_is_missing_is_refused(hub, folder, tmp_path, capsys):
    assert main(["push", REPOSITORY]) == OK
    index = json.loads(hub.files(REPOSITORY)[INDEX])
    del index["files"]["tiny/supervision.items.csv.gz"], index["files"]["tiny/block_design.sha256"]
    hub.change(REPOSITORY, **{INDEX: json.dumps(index).encode()})
    for part, message in (("tiny/supervision", "supervision.items.csv.gz was changed"),
                          ("tiny/block_design", "no .sha256 and no SHA256SUMS beside it names tiny/block_design.csv")):
        assert main(["pull", REPOSITORY, "--to", "got", "--only", part]) == USAGE
        assert message in capsys.readouterr().err
    assert not (tmp_path / "got").exists()


def test_files_changed_by_hand_and_folders_without_results_are_not_pushed(hub, folder, tmp_path, capsys):
    (folder / "mine" / "spec.json").write_text("{ }")
    assert main(["push", REPOSITORY, "results/mine"]) == USAGE
    assert "spec.json differs from its hash in SHA256SUMS" in capsys.readouterr().err
    with (folder / "tiny" / "supervision.csv").open("a") as file:
        file.write("x")
    assert main(["push", REPOSITORY, "results/tiny"]) == USAGE
    assert "supervision.csv was changed since bench wrote it" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    for place, message in (("empty", "empty has no results"), ("absent", "no folder absent")):
        assert main(["push", REPOSITORY, place]) == USAGE
        assert message in capsys.readouterr().err
    assert main(["push", "eeg-results"]) == USAGE
    assert "expected OWNER/NAME" in capsys.readouterr().err
    assert hub.asked == []


def test_a_push_by_somebody_else_meanwhile_is_not_overwritten(hub, folder, capsys):
    assert main(["push", REPOSITORY, "results/mine"]) == OK
    hub.before_commit = lambda: hub.change(REPOSITORY, **{"other.csv": b"1"})
    assert main(["push", REPOSITORY, "results/tiny"]) == ENVIRONMENT
    assert "somebody else has pushed meanwhile: repeat the command" in capsys.readouterr().err
    assert "supervision.csv" not in hub.files(REPOSITORY)


def test_without_a_token_or_a_permission_the_cure_is_named(hub, folder, capsys, monkeypatch):
    assert main(["push", "others/eeg-results"]) == ENVIRONMENT
    assert "set HF_TOKEN to a token that may write there" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", REPOSITORY]) == ENVIRONMENT
    assert "log in: hf auth login, or set HF_TOKEN" in capsys.readouterr().err
    assert main(["pull", REPOSITORY]) == ENVIRONMENT
    assert f"no data set {REPOSITORY} on {hub.url} that this account may see" in capsys.readouterr().err


def test_another_data_set_has_no_index(hub, folder, capsys):
    hub.repositories["lab/images"] = [{"train.csv": b"1"}]
    assert main(["pull", "lab/images"]) == USAGE
    assert "lab/images has no bench-index.json: it was not written by bench push" in capsys.readouterr().err
    assert main(["push", REPOSITORY]) == OK
    assert main(["pull", REPOSITORY, "--only", "huge/"]) == USAGE
    assert "has nothing under huge/; there are: mine, tiny" in capsys.readouterr().err


def test_the_token_is_in_no_output_log_or_file(hub, folder, tmp_path, capsys, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    assert main(["push", REPOSITORY, "--reports", "reports"]) == OK
    assert main(["pull", REPOSITORY, "--to", "got"]) == OK
    assert main(["push", "others/eeg-results"]) == ENVIRONMENT
    hub.before_commit = lambda: hub.change(REPOSITORY, **{"other.csv": b"1"})
    assert main(["push", REPOSITORY, "results/mine", "--at", f"{TOKEN[:3]}x"]) == ENVIRONMENT
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:1/{TOKEN}")  # an error's message names the address
    assert main(["push", REPOSITORY]) == ENVIRONMENT
    output = capsys.readouterr()
    for text in (output.out, output.err, caplog.text):
        assert TOKEN not in text
    every = [*tree(tmp_path).values(), *(data for commit in hub.repositories[REPOSITORY] for data in commit.values())]
    assert len(every) > 30
    assert not [data for data in every if TOKEN.encode() in data]
    assert ("POST", f"/api/datasets/{REPOSITORY}/commit/main") in hub.asked


def test_without_huggingface_hub_the_extra_is_named(monkeypatch, folder, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert main(["push", REPOSITORY]) == ENVIRONMENT
    assert 'pip install "eeg2image-bench[hub]"' in capsys.readouterr().err


def test_paths_on_windows_have_its_separators_here_and_slashes_there():
    folder = PureWindowsPath(r"D:\lab\results")
    assert contents.find_place(folder / "tiny" / "clip.csv", folder, "theirs") == "theirs/tiny/clip.csv"
    there = hub_of_results.find_place("theirs/tiny/clip.csv", folder, PureWindowsPath("pages"))
    assert str(there) == r"D:\lab\results\theirs\tiny\clip.csv"
    assert str(hub_of_results.find_place("reports/clip.html", folder, PureWindowsPath("pages"))) == r"pages\clip.html"


def test_paths_of_shared_files():
    for path in ("tiny/clip.csv", "tiny/clip.items.csv.gz", "tiny/judge mine/clip.sha256", "a/SHA256SUMS", "é/x.json"):
        assert contents.check_path(path) == path
    with pytest.raises(BenchError, match="is no result; shared are"):
        contents.check_path("tiny/weights.safetensors")
