"""A stand-in of the Hugging Face hub on this machine: the requests of huggingface_hub's client for one data set.

Create, preupload, upload of large files, commit, tree, and resolve, with tokens and commits that follow each other.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "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"
LARGE = (".csv.gz",)  # endings of files that travel as large files


class Hub(ThreadingHTTPServer):
    """repositories: name -> commits, the oldest first, each a dict of path -> content; private: their names; asked:
    (method, path) of requests; before_commit: called before a commit is made, for a push by somebody else."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.before_commit = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repository: str) -> dict[str, bytes]:
        """The files of the newest commit."""
        return self.repositories[repository][-1]

    def change(self, repository: str, **files: bytes) -> None:
        """Makes a commit as somebody else would."""
        self.repositories[repository].append({**self.files(repository), **files})


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers while the context lasts."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def commit_name(repository: str, number: int) -> str:
    """The name of a commit, 40 hex digits."""
    return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.asked.append((self.command, path))
        authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if path.startswith("/large/"):  # a storage service, without the hub's token
            self.server.large[path.removeprefix("/large/")] = body
            self.answer(200)
        elif path == "/api/validate-yaml":
            self.answer(200, {"warnings": [], "errors": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body), authorised)
        else:
            self.of_repository(path, body, authorised)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self, asked: dict[str, str], authorised: bool) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not authorised or asked["organization"] != "lab":
            self.answer(403 if authorised else 401, {"error": f"You may not write to {asked['organization']}"})
            return
        self.server.repositories.setdefault(name, [{".gitattributes": b""}])
        if asked.get("visibility") == "private" or asked.get("private"):
            self.server.private.add(name)
        self.answer(200, {"url": f"{self.server.url}/datasets/{name}"})

    def of_repository(self, path: str, body: bytes, authorised: bool) -> None:
        parts = path.strip("/").removeprefix("api/").removeprefix("datasets/").replace(".git/info/lfs", "").split("/")
        name, what = "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""
        commits = self.server.repositories.get(name)
        if commits is None or (name in self.server.private and not authorised):
            self.answer(404 if authorised else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return
        by_name = {commit_name(name, number): files for number, files in enumerate(commits)}
        newest = commit_name(name, len(commits) - 1)
        revision = newest if len(parts) < 4 or parts[3] == "main" else parts[3]
        if what in ("", "revision"):
            self.answer(200, {"id": name, "sha": revision, "siblings": [], "tags": [], "private": False, "downloads": 0,
                              "likes": 0})
        elif what == "tree":
            self.answer(200, [{"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                              for file, data in by_name[revision].items()])
        elif what == "resolve":
            self.resolve(by_name[revision].get("/".join(parts[4:])), revision)
        elif not authorised:
            self.answer(401, {"error": "Invalid username or password."})
        elif what == "preupload":
            self.answer(200, {"files": [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                 "shouldIgnore": False} for each in json.loads(body)["files"]]})
        elif what == "objects":
            self.answer(200, {"transfer": "basic", "objects": [
                {"oid": each["oid"], "size": each["size"], "actions": {
                    "upload": {"href": f"{self.server.url}/large/{each['oid']}"}}}
                for each in json.loads(body)["objects"]]})
        else:
            self.commit(name, [json.loads(line) for line in body.splitlines()])

    def resolve(self, data: bytes | None, revision: str) -> None:
        if data is None:
            self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        else:
            self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=revision)

    def commit(self, name: str, lines: list[dict]) -> None:
        self.server.before_commit()
        commits = self.server.repositories[name]
        parent = next(line["value"].get("parentCommit") for line in lines if line["key"] == "header")
        if parent not in (None, commit_name(name, len(commits) - 1)):
            self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        new = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) if line["key"] == "file"
               else self.server.large[line["value"]["oid"]] for line in lines if line["key"] != "header"}
        commits.append({**commits[-1], **new})
        self.answer(200, {"success": True, "commitOid": commit_name(name, len(commits) - 1),
                          "commitUrl": f"{self.server.url}/datasets/{name}/commit/1", "hookOutput": ""})
