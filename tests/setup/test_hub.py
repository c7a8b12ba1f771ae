"""`bench fetch NAME` against a server on this machine that answers as the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fetching import refused, run
from formats import write_alljoined, write_things

from bench import cli
from bench.errors import INTERRUPTED, OK, RESUMABLE, USAGE
from bench.setup import hub

DATA = bytes(range(1, 256)) * 1200  # about 300 kB
PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>"
OTHER = "1" * 40
THINGS, ALLJOINED = hub.SOURCES["things_eeg2"], hub.SOURCES["alljoined"]
NAMES = [f"sub-{subject:02d}/preprocessed_eeg_{part}.npy" for subject in (1, 2, 8) for part in ("test", "training")]


class Server(ThreadingHTTPServer):
    """The repositories it has, by commit; how it fails; what it was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.branches = {}, {}
        self.cut, self.slow, self.token, self.error, self.page, self.storage = [], 0.0, None, None, "", None
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self):
        return [(path, asked) for method, path, asked, _ in self.asked if method == "GET" and "/storage/" in path]


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.respond()

    def do_GET(self):
        self.respond()

    def respond(self):
        server, path = self.server, unquote(urlsplit(self.path).path)
        server.asked.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if path.startswith("/storage/"):
            self.send_bytes(path.removeprefix("/storage/"))
        elif server.page == "everywhere":
            self.answer(200, PAGE, {"Content-Type": "text/html"})
        elif server.error:
            self.answer(*server.error)
        elif server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            self.answer(401, b"", {"X-Error-Message": "Invalid username or password."})
        elif path.startswith("/api/datasets/"):
            repository, _, revision = path.removeprefix("/api/datasets/").partition("/revision/")
            self.send_listing(repository, revision or "main")
        elif "/resolve/" not in path:
            self.answer(404)
        else:
            repository, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            self.send_address(repository, *rest.split("/", 1))

    def commit(self, repository, revision):
        commits = self.server.repositories.get(repository)
        if commits is None:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.server.branches.get(revision, revision)
        if commit not in commits:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def send_listing(self, repository, revision):
        if commit := self.commit(repository, revision):
            files = self.server.repositories[repository][commit]
            listing = {"id": repository, "sha": commit, "siblings": [
                {"rfilename": name, "size": len(data), "blobId": "0" * 40,
                 "lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}}
                for name, data in files.items()]}
            self.answer(200, json.dumps(listing).encode())

    def send_address(self, repository, revision, name):
        if commit := self.commit(repository, revision):
            data = self.server.repositories[repository][commit][name]
            digest = hashlib.sha256(data).hexdigest()
            storage = self.server.storage or self.server.url.replace("127.0.0.1", "localhost")  # another host
            self.answer(302, b"", {"Location": f"{storage}/storage/{digest}?Signature=secret", "X-Repo-Commit": commit,
                                   "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))})

    def send_bytes(self, digest):
        server = self.server
        every = [data for commits in server.repositories.values() for files in commits.values()
                 for data in files.values()]
        data = next(data for data in every if hashlib.sha256(data).hexdigest() == digest)
        if server.page == "in place of data":
            self.answer(200, PAGE, {"Content-Type": "text/html"})
            return
        if server.page == "of the same size":
            data = PAGE.ljust(len(data))
        asked = self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        rest = data[begin:]
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        sent = rest[:server.cut.pop(0)] if server.cut else rest
        if server.slow:
            self.answer(206 if begin else 200, sent[:100_000], headers, len(rest))
            self.wfile.flush()
            time.sleep(server.slow)
            return
        self.answer(206 if begin else 200, sent, headers, len(rest))

    def answer(self, code, body=b"", headers=None, length=None):
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def server(monkeypatch, tmp_path_factory):
    """A hub with three subjects of THINGS-EEG2 and two files of Alljoined1; no token and no cache of the machine's."""
    with serving() as running:
        files = {f"{THINGS.folder}{name}": DATA + name.encode() for name in NAMES}
        running.repositories = {
            THINGS.repository: {THINGS.revision: {"README.md": b"x", "emb_eeg/x.pt": b"x", **files}},
            ALLJOINED.repository: {OTHER: {f"data/{part}-00000-of-00001.parquet": DATA + part.encode()
                                           for part in ("train", "test")}}}
        running.branches = {"main": OTHER}
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path_factory.mktemp("home") / "token"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(hub, "PAUSE", 0.0)
        yield running


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_two_subjects_are_fetched_by_name_to_where_they_are_prepared_from(server, tmp_path):
    folder = tmp_path / "things"
    code, text = run("things_eeg2", "--subjects", "1,8", "--to", str(folder))
    chosen = [name for name in NAMES if "sub-02" not in name]
    assert code == OK
    assert files(folder) == [hub.RECEIPT, *chosen]
    assert all((folder / name).read_bytes() == DATA + name.encode() for name in chosen)
    assert f"4 files of {THINGS.page} at revision {THINGS.revision} (pinned)" in text
    assert "sub-01/preprocessed_eeg_training.npy  306,0" in text
    assert text.index("to download: 1.2 MB") < text.index("checked: 4 files")
    assert f"{folder}/image_metadata.npy: download https://osf.io/download/qkgtf/" in text
    assert (f"then: bench data prepare things_eeg2 --from {folder} --subjects 1,8 --set pictures={folder}/images"
            in text)
    receipt = json.loads((folder / hub.RECEIPT).read_text())
    assert (receipt["repository"], receipt["revision"]) == (THINGS.repository, THINGS.revision)
    assert receipt["files"][chosen[0]] == {"bytes": len(DATA) + len(chosen[0]),
                                           "sha256": hashlib.sha256(DATA + chosen[0].encode()).hexdigest()}


@pytest.mark.parametrize("name", ["things_eeg2", "alljoined"])
def test_the_next_command_that_is_printed_prepares_what_was_fetched(server, tmp_path, name):
    published, folder, source = tmp_path / "published", tmp_path / "a folder", hub.SOURCES[name]
    if name == "things_eeg2":
        write_things(published, "gifford", subjects=(1, 2, 8))  # the smaller of the two variants
        arguments, options = ["--subjects", "1,8"], ["--set", "val_concepts=2"]
    else:
        write_alljoined(published)
        arguments, options = [], []
    below = published if name == "things_eeg2" else published / "data"
    server.repositories[source.repository] = {source.revision or OTHER: {
        f"{source.folder}{path.relative_to(below).as_posix()}": path.read_bytes()
        for path in sorted(below.rglob("*")) if path.is_file()}}
    _, text = run(name, *arguments, "--to", str(folder))
    for line in text.split("by hand:\n")[1].splitlines()[:-1]:  # a user puts there what is named
        place = line.split(":")[0].strip()
        shutil.copytree(published / "images", folder / "images", dirs_exist_ok=True) if "images" in place else \
            shutil.copy(published / Path(place).name, place)
        assert Path(place).exists()
    command = text.splitlines()[-1].removeprefix("then: bench ")
    assert cli.main([*shlex.split(command), "--set", "size=16", "--data", str(tmp_path / "data"), *options]) == OK
    manifest = json.loads((tmp_path / "data" / name / "manifest.json").read_text())
    assert manifest["subjects"] == ([1, 8] if name == "things_eeg2" else [1, 2])
    assert "by hand" not in run(name, *arguments, "--to", str(folder), "--dry-run")[1]


def test_a_second_call_downloads_only_what_is_new_and_checks_the_rest(server, tmp_path):
    run("things_eeg2", "--subjects", "1", "--to", str(tmp_path))
    before = len(server.downloads())
    _, text = run("things_eeg2", "--subjects", "1,2", "--to", str(tmp_path))
    assert len(server.downloads()) == before + 2
    assert text.count("present") == 2
    assert sorted(json.loads((tmp_path / hub.RECEIPT).read_text())["files"]) == NAMES[:4]
    (tmp_path / NAMES[0]).write_bytes(b"x" + (tmp_path / NAMES[0]).read_bytes()[1:])
    with refused("has SHA-256 .*, not the published .*: remove it, and run again"):
        run("things_eeg2", "--subjects", "1,2", "--to", str(tmp_path))


def test_a_dry_run_states_the_size_and_writes_nothing(server, tmp_path):
    code, text = run("things_eeg2", "--subjects", "1", "--to", str(tmp_path / "x"), "--dry-run")
    assert code == OK
    assert "to download: 0.6 MB" in text or "to download: 612,0" in text
    assert not (tmp_path / "x").exists()
    assert not server.downloads()


def test_a_cut_download_is_resumed_by_the_same_command_and_from_where_it_stopped(server, tmp_path):
    server.cut = [100_000, 50_000]
    assert run("things_eeg2", "--subjects", "1", "--to", str(tmp_path))[0] == OK
    assert [asked for _, asked in server.downloads()] == [None, "bytes=100000-", "bytes=150000-", None]
    assert (tmp_path / NAMES[0]).read_bytes() == DATA + NAMES[0].encode()


def test_a_connection_that_brings_no_more_bytes_ends_and_the_next_command_resumes(server, tmp_path):
    server.cut = [100_000] + [0] * hub.ATTEMPTS
    with refused("interrupted after 100,000 of 306,0.. bytes; run again: the download resumes", RESUMABLE):
        run("things_eeg2", "--subjects", "1", "--to", str(tmp_path))
    assert files(tmp_path) == [hub.RECEIPT, f"{NAMES[0]}.part"]
    server.cut.clear()
    assert run("things_eeg2", "--subjects", "1", "--to", str(tmp_path))[0] == OK
    assert server.downloads()[-2][1] == "bytes=100000-"


def test_a_folder_with_files_of_another_revision_is_not_completed(server, tmp_path):
    server.repositories[THINGS.repository][OTHER] = server.repositories[THINGS.repository][THINGS.revision]
    run("things_eeg2", "--subjects", "1", "--revision", "main", "--to", str(tmp_path))
    assert json.loads((tmp_path / hub.RECEIPT).read_text())["revision"] == OTHER
    with refused(f"holds files of {THINGS.repository} at revision {OTHER}, and not of .* at {THINGS.revision}.*"
                 f"another folder with --to, or go on with --revision {OTHER}", USAGE):
        run("things_eeg2", "--subjects", "2", "--to", str(tmp_path))
    assert run("things_eeg2", "--subjects", "2", "--revision", OTHER, "--to", str(tmp_path))[0] == OK


def test_without_a_pin_the_revision_of_the_first_download_holds(server, tmp_path):
    code, text = run("alljoined", "--to", str(tmp_path))
    assert code == OK
    assert f"at revision {OTHER} (not pinned by bench)" in text
    assert files(tmp_path) == [hub.RECEIPT, "test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    server.repositories[ALLJOINED.repository]["2" * 40] = {"data/train-00000-of-00001.parquet": b"new"}
    server.branches["main"] = "2" * 40
    assert f"at revision {OTHER}" in run("alljoined", "--to", str(tmp_path))[1]
    with refused("leave out --subjects here, and give it to bench data prepare", USAGE):
        run("alljoined", "--subjects", "1", "--to", str(tmp_path))


def test_an_unknown_subject_is_refused_with_those_there_are(server, tmp_path):
    with refused("things_eeg2: no subject 11; available: 1, 2, 8", USAGE):
        run("things_eeg2", "--subjects", "1,11", "--to", str(tmp_path))
    assert files(tmp_path) == []


def test_a_private_or_gated_repository_asks_for_a_token_and_takes_it(server, tmp_path, monkeypatch):
    server.token = "hf_right"
    with refused(r"refuses access \(401\): set HF_TOKEN"):
        run("things_eeg2", "--subjects", "1", "--to", str(tmp_path))
    server.error = 403, b"", {"X-Error-Code": "GatedRepo"}
    with refused("asks for an account and its terms: accept them there, and set HF_TOKEN"):
        run("things_eeg2", "--subjects", "1", "--to", str(tmp_path))
    server.error = None
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    with serving() as storage:
        storage.repositories, server.storage = server.repositories, storage.url
        assert run("things_eeg2", "--subjects", "1", "--to", str(tmp_path))[0] == OK
        assert len(storage.downloads()) == 2
        assert {authorization for *_, authorization in storage.asked} == {None}  # the storage is another server
    assert {authorization for *_, authorization in server.asked} == {None, "Bearer hf_right"}


def test_what_the_hub_does_not_have_is_named(server, tmp_path, monkeypatch):
    with refused(f"{THINGS.page} has no revision {'3' * 40}; .*name another with --revision"):
        run("things_eeg2", "--revision", "3" * 40, "--to", str(tmp_path))
    del server.repositories[THINGS.repository][THINGS.revision][f"{THINGS.folder}{NAMES[0]}"]
    with refused("does not have all 2 files of subject 01"):
        run("things_eeg2", "--to", str(tmp_path))
    server.repositories[THINGS.repository][THINGS.revision] = {"README.md": b"x"}
    with refused("has no file Preprocessed_data_250Hz/sub-.*: its layout has changed"):
        run("things_eeg2", "--to", str(tmp_path))
    server.repositories.clear()
    with refused("answers 404 Not Found: its files were removed or renamed"):
        run("things_eeg2", "--to", str(tmp_path))
    server.error = 503, b"", {}
    with refused("answers 503 Service Unavailable: run again later"):
        run("things_eeg2", "--to", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with refused("cannot be reached through http://127.0.0.1:9 .*check the network and run again"):
        run("things_eeg2", "--to", str(tmp_path))
    assert files(tmp_path) == []


def test_a_page_in_place_of_the_listing_or_of_the_data_is_named(server, tmp_path):
    server.page = "everywhere"
    with refused(r"whose answer is not that of a hub \(a proxy's or a login page\?\)"):
        run("things_eeg2", "--to", str(tmp_path))
    server.page = "in place of data"
    with refused(f"offers {len(PAGE)} bytes, not the published 306.*: it is an HTML page"):
        run("things_eeg2", "--to", str(tmp_path))
    server.page = "of the same size"
    with refused(r"is not the pinned file: SHA-256 .* \(it is an HTML page .*the download was removed"):
        run("things_eeg2", "--to", str(tmp_path))
    assert files(tmp_path) == [hub.RECEIPT]


def test_a_full_disk_is_said_before_the_first_byte(server, tmp_path, monkeypatch):
    wanted = hub.plan("things_eeg2", tmp_path / "x", "1")
    huge = replace(wanted, files={name: replace(file, bytes=10 ** 18) for name, file in wanted.files.items()})
    with refused("2000000000.00 GB are missing, and the disk of .* left; free some space, or name another", RESUMABLE):
        hub.fetch(huge, lambda *_: None)
    assert not server.downloads()


def test_a_receipt_that_was_damaged_is_named(server, tmp_path):
    (tmp_path / hub.RECEIPT).write_text('{"repository": 1}')
    with refused("fetch.json is not the receipt of a download; remove it and run again", USAGE):
        run("things_eeg2", "--to", str(tmp_path))


def test_a_data_set_that_is_not_on_the_hub_is_told_file_by_file(tmp_path):
    with refused("nothing of imagenet_eeg can be downloaded by name: put the 4 files and folders above there by hand"):
        run("imagenet_eeg", "--to", str(tmp_path))
    code, text = run("imagenet_eeg", "--to", str(tmp_path), "--dry-run")
    assert code == OK
    assert f"{tmp_path}/eeg_5_95_std.pth: follow the links of https://github.com/perceivelab" in text
    assert f"then: bench data prepare imagenet_eeg --from {tmp_path} --set pictures={tmp_path}/images" in text
    for place, _ in hub.SOURCES["imagenet_eeg"].by_hand:
        (tmp_path / place).touch()
    assert run("imagenet_eeg", "--to", str(tmp_path))[0] == OK


def test_options_of_the_other_kind_are_refused(tmp_path):
    with refused("--subjects is for a data set; name one: things_eeg2", USAGE):
        run("--subjects", "1")
    with refused("--what is for the weights", USAGE):
        run("things_eeg2", "--what", "clip")
    with refused("no data set 'clip' to fetch; .*weights: bench fetch --what A,B", USAGE):
        run("clip")


def test_ctrl_c_ends_in_one_line_and_the_same_command_resumes(server, tmp_path):
    """As a user gives it, in a process of its own."""
    program = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # may come ignored
               "from bench.cli import main; sys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-c", program, "fetch", "things_eeg2", "--subjects", "1", "--to", str(tmp_path / "x")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    server.slow = 60.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment) as running:
        part = tmp_path / "x" / f"{NAMES[0]}.part"
        while running.poll() is None and not (part.exists() and part.stat().st_size > 80_000):
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, text = running.communicate()
    assert running.returncode == INTERRUPTED
    assert text == "bench: interrupted; complete stages are kept, and the same command resumes\n"
    kept = part.stat().st_size
    assert 80_000 < kept <= 100_000
    server.slow = 0.0
    server.asked.clear()
    assert run("things_eeg2", "--subjects", "1", "--to", str(tmp_path / "x"))[0] == OK
    assert (tmp_path / "x" / NAMES[0]).read_bytes() == DATA + NAMES[0].encode()
    assert [asked for _, asked in server.downloads()] == [f"bytes={kept}-", None]
