"""`bench fetch` against a server on this machine: cut, resumed, wrong, absent."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fetching import refused, run

from bench.errors import OK, RESUMABLE, USAGE
from bench.setup import fetch as download
from bench.setup import weights
from models import pins

DATA = bytes(range(256)) * 4000  # about 1 MB
CONFIG = b'{"a": 1}'
HASH = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """What it offers, how much of an answer it sends before it hangs up, and what it was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.ranges, self.asked = {}, None, True, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        data = server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin:][:server.cut])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def part(server, monkeypatch, tmp_path):
    """A CLIP of one megabyte on the server, which stands in the hub's place; caches of its own."""
    pinned = replace(pins.PARTS["clip"], files=(pins.File("open_clip_model.safetensors", len(DATA), HASH),
                                                pins.File("open_clip_config.json")))
    monkeypatch.setitem(pins.PARTS, "clip", pinned)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    place = f"/{pinned.repository}/resolve/{pinned.revision}"
    server.files = {f"{place}/open_clip_model.safetensors": DATA, f"{place}/open_clip_config.json": CONFIG}
    return pinned


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_part_is_fetched_into_the_users_folder_and_found_there(part, server, tmp_path):
    code, said = run("--what", "clip", "--weights", str(tmp_path / "mine"))
    folder = tmp_path / "mine" / "vit_large_patch14_clip_224.openai"
    assert code == OK
    assert files(tmp_path / "mine") == [f"{folder.name}/open_clip_config.json",
                                        f"{folder.name}/open_clip_model.safetensors"]
    assert (folder / "open_clip_model.safetensors").read_bytes() == DATA
    assert weights.check(["clip"], tmp_path / "mine")["clip"].path == str(folder)
    assert "clip  open_clip_model.safetensors  1.0 MB" in said
    assert "checked: clip" in said
    asked = len(server.asked)
    assert run("--what", "clip", "--weights", str(tmp_path / "mine"))[0] == OK
    assert len(server.asked) == asked == 2


def test_without_a_folder_it_lies_where_huggingfaces_library_finds_it(part, server):
    from huggingface_hub import try_to_load_from_cache

    assert run("--what", "clip")[0] == OK
    found = try_to_load_from_cache(part.repository, "open_clip_model.safetensors", cache_dir=weights.hub_cache(),
                                   revision=part.revision)
    assert found == str(weights.locate("clip")["open_clip_model.safetensors"])


def test_a_dry_run_asks_nobody_and_writes_nothing(part, server, tmp_path):
    code, said = run("--what", "clip,unet", "--weights", str(tmp_path / "mine"), "--dry-run")
    assert code == OK
    assert not server.asked
    assert not (tmp_path / "mine").exists()
    assert "unet  unet/diffusion_pytorch_model.safetensors  3.44 GB" in said
    assert "CreativeML-OpenRAIL-M" in said
    assert "to download: 3.44 GB" in said


def test_a_cut_download_is_gone_on_with_from_where_it_stopped(part, server, tmp_path):
    server.cut = 300_000
    with refused("was interrupted after 300,000 of 1,024,000 bytes; run again: the download resumes", RESUMABLE):
        run("--what", "clip", "--weights", str(tmp_path))
    assert files(tmp_path) == ["vit_large_patch14_clip_224.openai/open_clip_model.safetensors.part"]
    with refused("missing weights: clip"):
        weights.check(["clip"], tmp_path)
    server.cut = None
    assert run("--what", "clip", "--weights", str(tmp_path))[0] == OK
    assert [asked for path, asked in server.asked if "model" in path] == [None, "bytes=300000-"]
    assert (tmp_path / "vit_large_patch14_clip_224.openai" / "open_clip_model.safetensors").read_bytes() == DATA


def test_a_server_without_ranges_is_asked_for_the_whole_again(part, server, tmp_path):
    server.cut, server.ranges = 300_000, False
    with refused("was interrupted", RESUMABLE):
        run("--what", "clip", "--weights", str(tmp_path))
    server.cut = None
    assert run("--what", "clip", "--weights", str(tmp_path))[0] == OK


def test_a_complete_partial_file_is_checked_and_not_fetched_again(part, server, tmp_path):
    folder = tmp_path / "vit_large_patch14_clip_224.openai"
    folder.mkdir()
    (folder / "open_clip_model.safetensors.part").write_bytes(DATA)
    assert run("--what", "clip", "--weights", str(tmp_path))[0] == OK
    assert [path for path, _ in server.asked if "model" in path] == []
    assert files(folder) == ["open_clip_config.json", "open_clip_model.safetensors"]


def test_another_file_is_refused_and_nothing_of_it_is_kept(part, server, tmp_path):
    [model] = [path for path in server.files if "model" in path]
    server.files[model] = DATA[::-1]
    with refused(r"is not the pinned file: SHA-256 .{8}\.\.\., not the published .{8}\.\.\.; the download was removed"):
        run("--what", "clip", "--weights", str(tmp_path))
    assert files(tmp_path) == []
    server.files[model] = DATA + b"more"
    with refused("offers 1024004 bytes, not the published 1024000"):
        run("--what", "clip", "--weights", str(tmp_path))
    assert files(tmp_path) == []


def test_a_file_without_a_published_hash_begins_anew_after_a_cut(server, tmp_path):
    server.files["/x.pth"] = DATA
    path, file = tmp_path / "x.pth", pins.File("x.pth")
    server.cut = 1000
    with refused("was interrupted after 1,000 of 1,024,000 bytes", RESUMABLE):
        download.download(f"{server.url}/x.pth", path, file, lambda *_: None)
    server.cut = None
    seen = []
    download.download(f"{server.url}/x.pth", path, file, lambda *now: seen.append(now))
    assert [asked for _, asked in server.asked] == [None, None]
    assert path.read_bytes() == DATA
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))


def test_a_file_that_lies_there_and_is_wrong_is_left_for_its_owner_to_remove(part, server, tmp_path):
    folder = tmp_path / "vit_large_patch14_clip_224.openai"
    folder.mkdir()
    (folder / "open_clip_model.safetensors").write_bytes(b"mine")
    with refused("has 4 bytes, not the published 1024000: remove it, and run again"):
        run("--what", "clip", "--weights", str(tmp_path))
    assert files(folder) == ["open_clip_model.safetensors"]
    assert not server.asked


def test_what_cannot_be_had_is_said_with_its_address(part, server, tmp_path, monkeypatch):
    server.files.clear()
    with refused(f"{server.url}/timm/.* answers 404 Not Found; download it by hand"):
        run("--what", "clip", "--weights", str(tmp_path / "a"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with refused("cannot be reached .*refused"):
        run("--what", "clip", "--weights", str(tmp_path / "b"))
    with refused("no weights 'nothing'; there are: vae", USAGE):
        run("--what", "clip,nothing")
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(part, server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with refused("file/.* is not writable"):
        run("--what", "clip", "--weights", str(tmp_path / "file"))


def test_a_page_or_a_pointer_in_place_of_weights_is_named(part, server, tmp_path):
    page = b"<!DOCTYPE html><html><body>Please accept our cookies.</body></html>"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + HASH.encode() + b"\nsize 1024000\n"
    config, model = sorted(server.files)
    server.files[config] = page
    with refused(r"open_clip_config.json is not the pinned file: it is an HTML page \(a login, consent or error page"):
        run("--what", "clip", "--weights", str(tmp_path / "a"))
    server.files |= {config: CONFIG, model: page}
    with refused(f"offers {len(page)} bytes, not the published 1024000: it is an HTML page"):
        run("--what", "clip", "--weights", str(tmp_path / "b"))
    assert not [name for name in files(tmp_path) if name.endswith(".part")]
    folder = tmp_path / "cloned" / "vit_large_patch14_clip_224.openai"
    folder.mkdir(parents=True)
    (folder / "open_clip_model.safetensors").write_bytes(pointer)
    (folder / "open_clip_config.json").write_bytes(CONFIG)
    with refused(r"has 1.. bytes, not the published 1024000 \(it is a Git LFS pointer, .*git lfs pull"):
        weights.check(["clip"], tmp_path / "cloned")
