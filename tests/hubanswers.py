"""What the stand-in for the Hub answers: repositories and blobs as files, and one method for each kind of request.

The part of `tests/hub.py` that is our reading of the Hub's protocol; knows no sockets and no faults.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import threading
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

WRITER, READER, EXPIRED = "hf_writerwriterwriterwriterwriterwrite", "hf_readerreaderreaderreaderreaderread", "hf_old"
USERS = {WRITER: "org", READER: "somebody"}  # who may write is the one whose name is the repository's
MAX_PAGE = 50  # entries of a tree in one answer: the Hub's is 1,000, and then a second page was never asked for
ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n"
CLOCK = "2026-01-01T00:00:00.000Z"


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Reply(NamedTuple):
    """What is answered."""

    body: Any = None  # bytes, or what becomes JSON
    status: int = 200
    headers: Mapping[str, str] = {}


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class State:
    """Repositories and blobs, as files: a repository is one JSON file that is replaced whole."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.lock = threading.RLock()
        for name in ("repos", "blobs", "cas"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def reset(self) -> None:
        with self.lock:
            for name in ("repos", "blobs", "cas"):
                shutil.rmtree(self.folder / name)
                (self.folder / name).mkdir()

    def path_of(self, repo_id: str) -> Path:
        return self.folder / "repos" / f"{repo_id.replace('/', '--')}.json"

    def load(self, repo_id: str) -> dict[str, Any]:
        try:
            return json.loads(self.path_of(repo_id).read_text())
        except FileNotFoundError:
            raise Refused(404, "Repository not found", "RepoNotFound") from None

    def save(self, repo: dict[str, Any]) -> None:
        path = self.path_of(repo["id"])
        path.with_suffix(".tmp").write_text(json.dumps(repo))
        path.with_suffix(".tmp").rename(path)

    def blob(self, sha256: str) -> Path:
        return self.folder / "blobs" / sha256

    def add_blob(self, data: bytes, *, is_lfs: bool) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blob(sha256).write_bytes(data)
        return self.entry(sha256, len(data), git_oid(data), is_lfs=is_lfs)

    def entry(self, sha256: str, size: int, oid: str, *, is_lfs: bool) -> dict[str, Any]:
        return {"sha256": sha256, "size": size, "oid": oid, "is_lfs": is_lfs}

    def commit(self, repo: dict[str, Any], ref: str, tree: dict[str, Any], title: str, message: str = "") -> str:
        parent = repo["refs"].get(ref)
        body = json.dumps([parent, tree, title, message, len(repo["commits"])], sort_keys=True)
        oid = hashlib.sha1(body.encode()).hexdigest()
        repo["commits"][oid] = {"parent": parent, "tree": tree, "title": title, "message": message}
        repo["refs"][ref] = oid
        self.save(repo)
        return oid


def resolve(repo: Mapping[str, Any], revision: str) -> str:
    """Return the commit of a branch, a tag, a pull request or a commit."""
    for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
        if name in repo["refs"]:
            return str(repo["refs"][name])
    if revision in repo["commits"]:
        return revision
    raise Refused(404, f"Revision {revision} not found", "RevisionNotFound")


def branch_ref(revision: str) -> str:
    return revision if revision.startswith("refs/") else f"refs/heads/{revision}"


# Routes: (method, pattern) -> method of Hub. `repo` is `org/name`, `rev` may hold %2F.
REPO, REV = r"(?P<repo>[\w.-]+/[\w.-]+)", r"(?P<rev>[^/?]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", rf"/api/datasets/{REPO}/refs", "refs"),
    ("GET", rf"/api/datasets/{REPO}/revision/{REV}", "info"),
    ("GET", rf"/api/datasets/{REPO}/tree/{REV}(?:/(?P<folder>.+))?", "tree"),
    ("POST", rf"/api/datasets/{REPO}/paths-info/{REV}", "paths_info"),
    ("GET", rf"/api/datasets/{REPO}/commits/{REV}", "commits"),
    ("POST", rf"/api/datasets/{REPO}/preupload/{REV}", "preupload"),
    ("POST", rf"/api/datasets/{REPO}/commit/{REV}", "commit"),
    ("POST", rf"/api/datasets/{REPO}/tag/{REV}", "tag"),
    ("POST", rf"/api/datasets/{REPO}/branch/{REV}", "branch"),
    ("GET", rf"/api/datasets/{REPO}/xet-(?:write|read)-token/{REV}", "xet_token"),
    ("GET", rf"/api/datasets/{REPO}/discussions", "discussions"),
    ("POST", rf"/api/datasets/{REPO}/discussions", "open_discussion"),
    ("GET", rf"/api/datasets/{REPO}/discussions/(?P<num>\d+)", "discussion"),
    ("POST", rf"/api/datasets/{REPO}/discussions/(?P<num>\d+)/status", "set_status"),
    ("POST", rf"/api/datasets/{REPO}/discussions/(?P<num>\d+)/merge", "merge"),
    ("GET", rf"/api/datasets/{REPO}", "info"),
    ("POST", rf"/datasets/{REPO}\.git/info/lfs/objects/batch", "batch"),
    ("POST", rf"/datasets/{REPO}\.git/info/lfs/objects/verify", "verify"),
    ("PUT", r"/-blobs/(?P<sha256>[0-9a-f]{64})", "put_blob"),
    ("GET", r"/-blobs/(?P<sha256>[0-9a-f]{64})", "get_blob"),
    ("GET", rf"/datasets/{REPO}/resolve/{REV}/(?P<path>.+)", "resolve_file"),
]


class Hub:
    """Answers: one method per route; arguments are what the route names, the query, headers and body."""

    def __init__(self, state: State) -> None:
        self.state = state

    def user(self, headers: Mapping[str, str]) -> str | None:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in USERS:
            raise Refused(401, "Invalid credentials in Authorization header")
        return USERS.get(token)

    def read(self, repo: str, headers: Mapping[str, str]) -> dict[str, Any]:
        found, user = self.state.load(repo), self.user(headers)
        if found["private"] and user is None:
            raise Refused(401, "Invalid username or password.", "RepoNotFound")
        return found

    def write(self, repo: str, headers: Mapping[str, str]) -> dict[str, Any]:
        found = self.read(repo, headers)
        if self.user(headers) != repo.partition("/")[0]:
            raise Refused(403, "You don't have the rights to write to this repository")
        return found

    def whoami(self, headers: Any, **_: Any) -> Reply:
        user = self.user(headers)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        return Reply({"type": "user", "name": user, "orgs": [{"name": "org"}] if user == "org" else []})

    def create(self, headers: Any, body: Any, **_: Any) -> Reply:
        asked = json.loads(body)
        repo_id, user = f"{asked.get('organization') or self.user(headers)}/{asked['name']}", self.user(headers)
        if user != repo_id.partition("/")[0]:
            raise Refused(403, "You don't have the rights to create a dataset under this namespace")
        if self.state.path_of(repo_id).exists():
            raise Refused(409, "You already created this dataset repo")
        repo = {"id": repo_id, "private": asked.get("visibility") != "public", "commits": {}, "refs": {}, "prs": {}}
        attributes = {".gitattributes": self.state.add_blob(ATTRIBUTES, is_lfs=False)}
        self.state.commit(repo, "refs/heads/main", attributes, "initial commit")
        return Reply({"url": f"http://127.0.0.1:{self.state.port}/datasets/{repo_id}", "name": repo_id})

    def validate_yaml(self, body: Any, **_: Any) -> Reply:
        parts = json.loads(body)["content"].split("---\n", 2)
        try:
            yaml.safe_load(parts[1] if len(parts) == 3 else "")
        except yaml.YAMLError as error:
            return Reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return Reply({"errors": [], "warnings": []})

    def info(self, repo: str, headers: Any, rev: str = "main", **_: Any) -> Reply:
        found = self.read(repo, headers)
        oid = resolve(found, rev)
        files = [{"rfilename": path} for path in found["commits"][oid]["tree"]]
        return Reply({"id": repo, "sha": oid, "private": found["private"], "siblings": files, "tags": []})

    def refs(self, repo: str, headers: Any, **_: Any) -> Reply:
        found = self.read(repo, headers)

        def those(prefix: str) -> list[dict[str, str]]:
            refs = {ref: oid for ref, oid in found["refs"].items() if ref.startswith(prefix)}
            return [{"name": r.removeprefix(prefix), "ref": r, "targetCommit": oid} for r, oid in refs.items()]

        body = {"branches": those("refs/heads/"), "tags": those("refs/tags/"), "converts": []}
        return Reply({**body, "pullRequests": those("refs/pr/")})

    def _shown(self, path: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        shown = {"type": "file", "path": path, "size": entry["size"], "oid": entry["oid"]}
        lfs = {"oid": entry["sha256"], "size": entry["size"], "pointerSize": 130}
        return {**shown, "lfs": lfs} if entry["is_lfs"] else shown

    def tree(self, repo: str, rev: str, headers: Any, query: Any, folder: str | None = None, **_: Any) -> Reply:
        found = self.read(repo, headers)
        tree = found["commits"][resolve(found, rev)]["tree"]
        inside = f"{urllib.parse.unquote(folder)}/" if folder else ""
        below = {path: entry for path, entry in tree.items() if path.startswith(inside)}
        if inside and not below:
            raise Refused(404, f"{inside} does not exist", "EntryNotFound")
        shown: dict[str, dict[str, Any]] = {}
        for path, entry in sorted(below.items()):
            name, _, rest = path[len(inside) :].partition("/")
            if rest:
                shown[inside + name] = {"type": "directory", "path": inside + name, "size": 0, "oid": "0" * 40}
            if not rest or query.get("recursive", "").lower() in ("true", "1"):
                shown[path] = self._shown(path, entry)
        begin = int(query.get("cursor", 0))
        entries, rest_of = [*shown.values()][begin : begin + MAX_PAGE], len(shown) > begin + MAX_PAGE
        path = f"http://127.0.0.1:{self.state.port}/api/datasets/{repo}/tree/{rev}" + (f"/{folder}" if folder else "")
        query_text = urllib.parse.urlencode({**query, "cursor": begin + MAX_PAGE})
        return Reply(entries, headers={"Link": f'<{path}?{query_text}>; rel="next"'} if rest_of else {})

    def paths_info(self, repo: str, rev: str, headers: Any, body: Any, **_: Any) -> Reply:
        found = self.read(repo, headers)
        tree = found["commits"][resolve(found, rev)]["tree"]
        asked = urllib.parse.parse_qs(body.decode()).get("paths", [])
        entries = [self._shown(path, tree[path]) for path in asked if path in tree]
        folders = [path for path in asked if any(name.startswith(f"{path}/") for name in tree)]
        return Reply([*entries, *({"type": "directory", "path": path, "oid": "0" * 40} for path in folders)])

    def commits(self, repo: str, rev: str, headers: Any, **_: Any) -> Reply:
        found = self.read(repo, headers)
        oid: str | None = resolve(found, rev)
        listed = []
        while oid is not None:
            commit = found["commits"][oid]
            text = {"title": commit["title"], "message": commit["message"]}
            listed.append({"id": oid, "authors": [{"user": "org"}], "date": CLOCK, **text})
            oid = commit["parent"]
        return Reply(listed)

    # Writing

    def preupload(self, repo: str, rev: str, headers: Any, body: Any, **_: Any) -> Reply:
        found = self.write(repo, headers)
        tree = found["commits"][resolve(found, rev)]["tree"]
        files = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            is_lfs = path.endswith((".parquet", ".png")) or file["size"] > 10 * 2**20
            entry = tree.get(path)
            oid = None if entry is None else entry["sha256"] if entry["is_lfs"] else entry["oid"]
            mode = "lfs" if is_lfs else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Reply({"files": files})

    def batch(self, repo: str, headers: Any, body: Any, **_: Any) -> Reply:
        self.write(repo, headers)
        objects = []
        for item in json.loads(body)["objects"]:
            base = f"http://127.0.0.1:{self.state.port}"
            verify = f"{base}/datasets/{repo}.git/info/lfs/objects/verify"
            actions = {"upload": {"href": f"{base}/-blobs/{item['oid']}?X-Amz-Signature=a-secret"}}
            is_held = self.state.blob(item["oid"]).exists()
            objects.append({**item} if is_held else {**item, "actions": {**actions, "verify": {"href": verify}}})
        return Reply({"transfer": "basic", "objects": objects})

    def put_blob(self, sha256: str, body: Any, note: dict[str, Any], **_: Any) -> Reply:
        note |= {"sha256": sha256, "was_held": self.state.blob(sha256).exists()}
        if hashlib.sha256(body).hexdigest() != sha256:
            raise Refused(400, "the content is not what was announced")
        self.state.add_blob(body, is_lfs=True)
        return Reply(b"", headers={"ETag": '"e"'})

    def verify(self, repo: str, headers: Any, body: Any, **_: Any) -> Reply:
        asked = json.loads(body)
        if not self.state.blob(asked["oid"]).exists():
            raise Refused(404, "the object was not uploaded")
        return Reply({"message": "Object is present"})

    def commit(self, repo: str, rev: str, headers: Any, body: Any, **_: Any) -> Reply:
        found = self.write(repo, headers)
        ref = branch_ref(urllib.parse.unquote(rev))
        head = resolve(found, ref)
        lines = [json.loads(line) for line in body.splitlines()]
        header, tree = lines[0]["value"], dict(found["commits"][head]["tree"])
        if header.get("parentCommit") not in (None, head):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            self._apply(tree, line["key"], line["value"])
        oid = self.state.commit(found, ref, tree, header["summary"], header.get("description", ""))
        return Reply(
            {"commitOid": oid, "commitUrl": f"http://127.0.0.1:{self.state.port}/datasets/{repo}/commit/{oid}"}
        )

    def _apply(self, tree: dict[str, Any], key: str, value: Mapping[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            tree[path] = self.state.add_blob(base64.b64decode(value["content"]), is_lfs=False)
        elif key == "lfsFile":
            is_xet = any((self.state.folder / "cas").iterdir())  # then its bytes lie there, under other names
            if not self.state.blob(value["oid"]).exists() and not is_xet:
                raise Refused(400, f"{path}: LFS object {value['oid']} was not uploaded")
            pointer = git_oid(f"pointer to {value['oid']}".encode())
            tree[path] = self.state.entry(value["oid"], value["size"], pointer, is_lfs=True)
        elif path in tree:
            del tree[path]
        else:
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")

    def tag(self, repo: str, rev: str, headers: Any, body: Any, **_: Any) -> Reply:
        found = self.write(repo, headers)
        name = f"refs/tags/{json.loads(body)['tag']}"
        if name in found["refs"]:
            raise Refused(409, "Tag reference exists already")
        found["refs"][name] = resolve(found, urllib.parse.unquote(rev))
        self.state.save(found)
        return Reply({})

    def branch(self, repo: str, rev: str, headers: Any, body: Any, **_: Any) -> Reply:
        found = self.write(repo, headers)
        start = json.loads(body or b"{}").get("startingPoint", "main")
        found["refs"][branch_ref(urllib.parse.unquote(rev))] = resolve(found, start)
        self.state.save(found)
        return Reply({})

    def xet_token(self, **_: Any) -> Reply:
        url, until = f"local://{self.state.folder / 'cas'}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": str(until)}
        return Reply({"casUrl": url, "accessToken": "t", "exp": until}, headers=headers)

    # Pull requests

    def _shown_pr(self, repo: Mapping[str, Any], num: int) -> dict[str, Any]:
        pr = repo["prs"][str(num)]
        changes = {"base": "refs/heads/main", "mergeCommitId": pr["merged"]}
        about = {"num": num, "title": pr["title"], "status": pr["status"], "author": {"name": pr["author"]}}
        where = {"repo": {"name": repo["id"], "type": "dataset"}, "createdAt": CLOCK, "isPullRequest": True}
        return {**about, **where, "changes": changes, "filesWithConflicts": [], "events": [], "diff": ""}

    def discussions(self, repo: str, headers: Any, query: Any, **_: Any) -> Reply:
        found = self.read(repo, headers)
        shown = [self._shown_pr(found, int(num)) for num in found["prs"]]
        if query.get("status") == "open":
            shown = [pr for pr in shown if pr["status"] in ("open", "draft")]
        return Reply({"discussions": shown, "count": len(shown), "start": 0})

    def open_discussion(self, repo: str, headers: Any, body: Any, **_: Any) -> Reply:
        found, user = self.read(repo, headers), self.user(headers)  # whoever may read may open one
        if user is None:
            raise Refused(401, "Invalid username or password.")
        num, head = len(found["prs"]) + 1, resolve(found, "main")
        title = json.loads(body)["title"]
        found["prs"][str(num)] = {"title": title, "author": user, "status": "draft", "base": head, "merged": None}
        found["refs"][f"refs/pr/{num}"] = head
        self.state.save(found)
        return Reply({"num": num})

    def discussion(self, repo: str, num: str, headers: Any, **_: Any) -> Reply:
        found = self.read(repo, headers)
        if num not in found["prs"]:
            raise Refused(404, "no such discussion")
        return Reply(self._shown_pr(found, int(num)))

    def set_status(self, repo: str, num: str, headers: Any, body: Any, **_: Any) -> Reply:
        found = self.write(repo, headers)
        status = found["prs"][num]["status"] = json.loads(body)["status"]
        self.state.save(found)
        event = {"id": "e", "type": "status-change", "createdAt": CLOCK, "data": {"status": status}}
        return Reply({"newStatus": event})

    def merge(self, repo: str, num: str, headers: Any, **_: Any) -> Reply:
        found = self.write(repo, headers)
        pr = found["prs"][num]
        if pr["status"] != "open":
            raise Refused(400, f"a pull request that is {pr['status']} cannot be merged")
        base, ours, main = (
            found["commits"][oid]["tree"]
            for oid in (pr["base"], found["refs"][f"refs/pr/{num}"], resolve(found, "main"))
        )
        merged = dict(main)
        for path in base.keys() | ours.keys():
            if base.get(path) != ours.get(path):
                if main.get(path) not in (base.get(path), ours.get(path)):
                    raise Refused(409, f"{path} was changed on both sides")
                merged.pop(path, None)
                merged |= {path: ours[path]} if path in ours else {}
        pr["status"] = "merged"
        pr["merged"] = self.state.commit(found, "refs/heads/main", merged, f"{pr['title']} (#{num})")
        self.state.save(found)
        return Reply({})

    # Reading

    def resolve_file(self, repo: str, rev: str, path: str, headers: Any, **_: Any) -> Reply:
        found = self.read(repo, headers)
        oid = resolve(found, urllib.parse.unquote(rev))
        entry = found["commits"][oid]["tree"].get(urllib.parse.unquote(path))
        about = {"X-Repo-Commit": oid}
        if entry is None:
            return Reply(b"", 404, {**about, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        if not entry["is_lfs"]:
            return self._ranged(entry["sha256"], headers, {**about, "ETag": f'"{entry["oid"]}"'})
        linked = {"X-Linked-Etag": f'"{entry["sha256"]}"', "X-Linked-Size": str(entry["size"])}
        where = f"http://localhost:{self.state.port}/-blobs/{entry['sha256']}"
        return Reply(b"", 302, {**about, **linked, "ETag": f'"{entry["sha256"]}"', "Location": where})

    def get_blob(self, sha256: str, headers: Any, **_: Any) -> Reply:
        return self._ranged(sha256, headers, {"ETag": f'"{sha256}"'})

    def _ranged(self, sha256: str, headers: Mapping[str, str], about: Mapping[str, str]) -> Reply:
        if not self.state.blob(sha256).exists():
            raise Refused(404, "no such blob", "EntryNotFound")
        data = self.state.blob(sha256).read_bytes()
        about = {**about, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if asked is None:
            return Reply(data, headers=about)
        begin, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if begin > end:
            raise Refused(416, "the range is beyond the end")
        return Reply(data[begin : end + 1], 206, {**about, "Content-Range": f"bytes {begin}-{end}/{len(data)}"})
