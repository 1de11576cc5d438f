"""Publishing against a local stand-in for the Hub: the real command, the real clients, real requests, real kills."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.build import build_tables
from factory.hubclient import Hub, find_token
from factory.objects import ObjectPath
from factory.publish_source import require_same, snapshot
from jobs.bench.drill import wait_until
from schemas.config import PreferenceConfig, SelectConfig, parse_config
from schemas.errors import NoPermissionError, PartialError
from tests.hub import HubServer, hub_server
from tests.hubanswers import EXPIRED, READER, WRITER
from tests.objectstore import BUCKET, s3_server
from tests.publisher import (
    FAULTS,
    REPO,
    Done,
    Publisher,
    arguments,
    history,
    lives,
    publish_killed_at,
    publisher,
    require_nothing_half_visible,
    require_one_version,
    shards_of,
    tree_of,
)
from tests.runs import make_problem, start_run
from tests.selections import JOB, add_attempts, write_run

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with hub_server(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(scope="module")
def forker(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with publisher(tmp_path_factory.mktemp("publisher"), server.environment()) as found:
        yield found


@pytest.fixture(scope="module")
def small_commits(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    """Yield one that puts four files into a commit at most."""
    with publisher(tmp_path_factory.mktemp("small"), server.environment(), max_files=4) as found:
        yield found


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("made") / "run", select={"configs": ["sft"]})


@pytest.fixture
def hub(server: HubServer) -> HubServer:
    server.control("reset")
    return server


@pytest.fixture
def run(made_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_run, tmp_path / "run"))


def writes(hub: HubServer) -> list[str]:
    """Return what changed something, or would have."""
    asks = ("/preupload/", "/batch", "/validate-yaml", "/verify")
    return [r["path"] for r in hub.log() if r["method"] in ("POST", "PUT") and not any(a in r["path"] for a in asks)]


# One version, whole.


def test_a_version_appears_in_one_commit_with_its_tag_and_private(hub, forker, run):
    done = forker.run(*arguments(run, "--json"))
    assert done.code == 0, done.err
    require_one_version(hub, run)
    repo = hub.repo()
    found = json.loads(done.out)
    assert repo["private"]
    assert (found["tag"], found["commit"], found["is_new"]) == ("v1", repo["refs"]["refs/heads/main"], True)
    assert found["num_bytes"] > 0


def test_the_same_again_changes_nothing(hub, forker, run):
    assert forker.run(*arguments(run)).code == 0
    before, sent = hub.repo(), len(writes(hub))
    done = forker.run(*arguments(run, "--json"))
    assert done.code == 0, done.err
    assert hub.repo() == before
    assert len(writes(hub)) == sent
    assert not json.loads(done.out)["is_new"]


@pytest.mark.slow
def test_the_same_from_elsewhere_changes_nothing_either(hub, forker, run):
    assert forker.run(*arguments(run)).code == 0
    before, sent = hub.repo(), len(writes(hub))
    shutil.rmtree(run / "publish")  # the journal
    hub.stop()
    hub.start()
    assert forker.run(*arguments(run)).code == 0
    assert hub.repo() == before
    assert len(writes(hub)) == sent


@pytest.mark.slow
def test_a_changed_selection_is_the_next_version_and_tables_that_it_lacks_are_gone(hub, forker, run):
    build_tables(run, SelectConfig(configs=("sft", "preference")))
    assert forker.run(*arguments(run)).code == 0
    build_tables(run, SelectConfig(configs=("sft",)))
    done = forker.run(*arguments(run, "--json"))
    assert done.code == 0, done.err
    repo = hub.repo()
    first, second = (tree_of(repo, repo["refs"][f"refs/tags/v{n}"]) for n in (1, 2))
    assert first.keys() - second.keys() == {"preference/train-00000-of-00001.parquet"}
    assert repo["refs"]["refs/heads/main"] == repo["refs"]["refs/tags/v2"]
    assert len(history(repo)) == 3
    assert json.loads(done.out)["deleted"] == ["preference/train-00000-of-00001.parquet"]


def test_a_version_of_many_files_comes_by_a_pull_request_that_is_merged(hub, small_commits, run):
    done = small_commits.run(*arguments(run))
    assert done.code == 0, done.err
    require_one_version(hub, run)
    (pr,) = hub.repo()["prs"].values()
    assert pr["status"] == "merged"


@pytest.mark.slow
def test_a_run_that_goes_on_is_published_as_what_it_has_committed(hub, forker, tmp_path):
    problems = [make_problem(number) for number in range(3)]
    run = tmp_path / "run"
    config = parse_config({**JOB, "select": {"configs": ["sft"]}}, origin="test").model_dump(mode="json")
    committer = start_run(run, problems, num_samples=2, config=config)
    for number, problem in enumerate(problems, start=1):
        add_attempts(run, committer, [problem], sequence=number)  # no tables are built by anybody else
        done = forker.run(*arguments(run, "--json"))
        assert done.code == 0, done.err
        assert json.loads(done.out)["tag"] == f"v{number}"
        manifest = json.loads((run / "tables" / "default" / "manifest.json").read_text())
        assert manifest["counts"]["traces"] == 2 * number
    assert len(history(hub.repo())) == 4


@pytest.mark.slow
def test_what_load_dataset_gives_by_tag_is_what_the_manifest_says(hub, run, tmp_path):
    no_pairs = PreferenceConfig(rules=())
    build_tables(run, SelectConfig(configs=("sft", "preference"), preference=no_pairs))
    environment = {**os.environ, **hub.environment(), "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "jobs", "publish", str(run), "--repo", REPO, "--tag", "first"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    require_one_version(hub, run, "first")
    manifest = json.loads((run / "tables" / "default" / "manifest.json").read_text())
    said = {name: body["splits"]["train"] for name, body in manifest["configs"].items()}
    assert said["preference"]["rows"] == 0
    said = {name: split for name, split in said.items() if split["rows"]}
    code = (
        "import json, sys; from datasets import load_dataset; from factory.rowdigest import RowDigest\n"
        "for name in sys.argv[1:]:\n"
        f"    rows = load_dataset({REPO!r}, name, revision='first')['train']\n"
        "    digest = RowDigest(); digest.update(rows.data.table); print(name, len(rows), digest.hexdigest())"
    )
    environment["HF_HOME"] = str(tmp_path / "fresh")
    command = [sys.executable, "-c", code, *said]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    lines = [f"{name} {split['rows']} {split['rows_sha256']}" for name, split in said.items()]
    assert loaded.stdout.splitlines() == lines, loaded.stderr


@pytest.mark.slow
def test_a_run_on_an_object_store_is_published_like_one_on_a_disk(hub, run, tmp_path, forker):
    assert forker.run(*arguments(run)).code == 0
    digest = tree_of(hub.repo(), hub.repo()["refs"]["refs/tags/v1"])["SHA256SUMS"]
    hub.control("reset")
    with s3_server(tmp_path / "log") as store:
        path = ObjectPath(BUCKET, "run")
        for file in sorted(file for file in run.rglob("*") if file.is_file() and "publish" not in file.parts):
            target = path
            for part in file.relative_to(run).parts:
                target /= part
            target.write_bytes(file.read_bytes())
        environment = {**hub.environment(), **store.environment, "TMPDIR": str(tmp_path)}
        with publisher(tmp_path / "publisher", environment) as other:
            done = other.run(str(path), "--repo", REPO, "--verify", "files")
    assert done.code == 0, done.err
    require_one_version(hub, run)
    assert tree_of(hub.repo(), hub.repo()["refs"]["refs/tags/v1"])["SHA256SUMS"] == digest


# Kills and faults, at every request (all of them: tests/drills/test_publishing.py).


NUM_REQUESTS = 26  # of a publication of the small run whose rows are not read back; the last test below counts them
SAMPLED = sorted(random.Random(9).sample(range(1, NUM_REQUESTS + 1), 4))


@pytest.mark.slow
@pytest.mark.parametrize("number", SAMPLED)
def test_a_publication_that_is_killed_at_a_request_and_run_again_is_one_version(hub, forker, run, number):
    for kind in ("hold", "hold_done"):  # before the Hub did what was asked, and after
        hub.control("reset")
        shutil.rmtree(run / "publish", ignore_errors=True)
        publish_killed_at(hub, forker, arguments(run), number, kind)
        require_nothing_half_visible(hub, run)
        done = forker.run(*arguments(run))
        assert done.code == 0, done.err
        require_one_version(hub, run)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_publication_with_a_fault_at_a_request_is_one_version_in_the_end(hub, forker, run, fault):
    for number in random.Random(fault).sample(range(1, NUM_REQUESTS + 1), 1):
        hub.control("reset")
        shutil.rmtree(run / "publish", ignore_errors=True)
        hub.order({"at": number, **FAULTS[fault]})
        done = forker.run(*arguments(run))
        assert done.code in (0, 6), (number, done.err)
        if done.code:
            hub.order()
            done = forker.run(*arguments(run))
        assert done.code == 0, (number, done.err)
        require_one_version(hub, run)


@pytest.mark.parametrize(
    "kind", ["lost", pytest.param("503", marks=pytest.mark.slow), pytest.param("412", marks=pytest.mark.slow)]
)
def test_a_commit_whose_reply_is_lost_or_bad_is_looked_up(hub, forker, run, kind):
    hub.order({"path": "/commit/", "nth": 1, "kind": kind})
    done = forker.run(*arguments(run))
    assert done.code == 0, done.err
    require_one_version(hub, run)
    sent = [path for path in writes(hub) if "/commit/" in path]
    assert len(sent) == (1 if kind == "lost" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/repos/create", "/tag/", "/commit/"])
def test_a_429_is_obeyed(hub, forker, run, path):
    headers = {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    hub.order({"path": path, "nth": 1, "kind": "429", "headers": headers})
    done = forker.run(*arguments(run))
    assert done.code == 0, done.err
    assert "in 2.0 s" in done.err, "one second as the Hub says, and one for rounding"
    require_one_version(hub, run)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["discussions$", "/merge$"])
def test_a_lost_reply_on_the_way_of_a_pull_request_costs_nothing(hub, small_commits, run, path):
    hub.order({"method": "POST", "path": path, "nth": 1, "kind": "lost"})
    done = small_commits.run(*arguments(run))
    assert done.code == 0, done.err
    require_one_version(hub, run)
    assert len(hub.repo()["prs"]) == 1


# New tables meanwhile.


@pytest.mark.slow
def test_tables_that_are_replaced_while_they_are_uploaded_are_published_as_they_were(hub, forker, run):
    before = shards_of(run)
    hub.order({"path": "/preupload/", "nth": 1, "kind": "pause"})
    pid = forker.start(*arguments(run))
    wait_until(lambda: hub.is_held() or not lives(pid), 60, "the upload to be held")
    build_tables(run, SelectConfig(configs=("sft",), system="Think."))
    assert shards_of(run) != before
    hub.order()
    done = forker.wait()
    assert done.code == 0, done.err
    repo = hub.repo()
    assert before.items() <= tree_of(repo, repo["refs"]["refs/tags/v1"]).items()
    assert not [path for path in (run / "publish").rglob("*") if "snapshot" in path.name]


def test_a_snapshot_stays_as_it_was_and_says_when_the_tables_are_others(run, tmp_path):
    folder, before = run / "tables" / "default", shards_of(run)
    left = tmp_path / "kept" / f"snapshot-{2**22 + 1}-x"  # above every process id
    left.mkdir(parents=True)
    with snapshot(folder, tmp_path / "kept") as copy:
        assert not left.exists(), "of a process that was killed"
        require_same(folder, copy)
        build_tables(run, SelectConfig(configs=("sft",), system="Think."))
        found = {name: hashlib.sha256((copy / name).read_bytes()).hexdigest() for name in before}
        assert found == before
        with pytest.raises(PartialError, match="replaced meanwhile"):
            require_same(folder, copy)
    assert not list((tmp_path / "kept").iterdir())


# Others at the same repository.


def commit_meanwhile(hub: HubServer, forker: Publisher, run: Path, path: str) -> Done:
    """Publish, and have somebody commit a file between our look and our commit."""
    hub.order({"path": "/commit/", "nth": 1, "kind": "pause"})
    pid = forker.start(*arguments(run))
    wait_until(lambda: hub.is_held() or not lives(pid), 60, "the commit to be held")
    add_file(hub, path, b"somebody's")
    hub.order()
    return forker.wait()


def add_file(hub: HubServer, path: str, data: bytes, revision: str = "main") -> None:
    """Commit a file as somebody else would."""
    content = {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}
    lines = [{"key": "header", "value": {"summary": "by hand"}}, {"key": "file", "value": content}]
    hub.post(f"/api/datasets/{REPO}/commit/{revision}", "\n".join(map(json.dumps, lines)).encode())


def create_repo(hub: HubServer, *, private: bool = True) -> None:
    """Create the repository as somebody else would."""
    organization, _, name = REPO.partition("/")
    asked = {"organization": organization, "name": name, "visibility": "private" if private else "public"}
    hub.post("/api/repos/create", json.dumps(asked).encode())


@pytest.mark.slow
def test_somebody_elses_commit_in_between_is_kept_and_ours_comes_on_top(hub, forker, run):
    done = commit_meanwhile(hub, forker, run, "notes.txt")
    assert done.code == 0, done.err
    repo = hub.repo()
    tree = repo["commits"][repo["refs"]["refs/tags/v1"]]["tree"]
    assert "notes.txt" in tree
    assert "sft/train-00000-of-00001.parquet" in tree
    assert len(history(repo)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("path", ["README.md", "sft/train-00099-of-00100.txt"])
def test_somebody_elses_commit_to_what_is_ours_is_a_conflict(hub, forker, run, path):
    done = commit_meanwhile(hub, forker, run, path)
    assert done.code == 5, done.err
    assert path in done.err
    assert len(history(hub.repo())) == 2, "theirs, and none of ours"
    assert not [ref for ref in hub.repo()["refs"] if "tags" in ref]


@pytest.mark.slow
def test_a_file_that_somebody_puts_among_the_tables_before_a_merge_is_a_conflict(hub, small_commits, run):
    hub.order({"path": "/commit/", "nth": 2, "kind": "pause"})
    pid = small_commits.start(*arguments(run))
    wait_until(lambda: hub.is_held() or not lives(pid), 60, "the commit to be held")
    add_file(hub, "sft/extra.txt", b"somebody's")
    hub.order()
    done = small_commits.wait()
    assert done.code == 5, done.err
    assert "sft/extra.txt" in done.err
    assert [pr["status"] for pr in hub.repo()["prs"].values()] == ["draft"], "nothing was merged"


@pytest.mark.slow
@pytest.mark.parametrize("token", [READER, WRITER])
def test_a_pull_request_that_holds_what_is_not_ours_is_not_merged_whatever_its_title(hub, small_commits, run, token):
    title = f"Publish {json.loads(small_commits.run(*arguments(run, '--dry-run', '--json')).out)['digest'][:12]}"
    create_repo(hub)
    hub.post(f"/api/datasets/{REPO}/discussions", json.dumps({"title": title}).encode(), token=token)
    add_file(hub, "evil.py", b"import this", revision="refs%2Fpr%2F1")
    done = small_commits.run(*arguments(run))
    assert done.code == 0, done.err
    require_one_version(hub, run)
    assert [pr["status"] for pr in hub.repo()["prs"].values()] == ["draft", "merged"]


@pytest.mark.slow
def test_a_pull_request_that_somebody_adds_to_while_it_is_filled_is_not_merged(hub, small_commits, run):
    hub.order({"path": "/commit/", "nth": 2, "kind": "pause"})
    pid = small_commits.start(*arguments(run))
    wait_until(lambda: hub.is_held() or not lives(pid), 60, "the commit to be held")
    add_file(hub, "evil.py", b"import this", revision="refs%2Fpr%2F1")
    hub.order()
    done = small_commits.wait()
    assert done.code == 5, done.err
    assert "pull request 1" in done.err
    done = small_commits.run(*arguments(run))
    assert done.code == 0, done.err
    require_one_version(hub, run)


def test_a_version_with_a_file_more_among_its_tables_is_not_this_version(hub, forker, run):
    assert forker.run(*arguments(run)).code == 0
    shutil.rmtree(run / "publish")  # the journal, which knows that it was verified
    repo = hub.repo()
    tree = repo["commits"][repo["refs"]["refs/tags/v1"]]["tree"]
    tree["sft/train-00001-of-00002.parquet"] = tree["sft/train-00000-of-00001.parquet"]
    hub.change(repo)
    done = forker.run(*arguments(run))
    assert done.code == 5, done.err
    assert "sft/train-00001-of-00002.parquet" in done.err
    done = forker.run(*arguments(run, "--tag", "v1"))
    assert done.code == 5, done.err
    assert "names another version" in done.err


def test_a_repository_with_files_of_others_is_left_alone_unless_it_is_to_be_adopted(hub, forker, run):
    create_repo(hub)
    add_file(hub, "mine.csv", b"1,2")
    add_file(hub, "sft/extra.txt", b"3,4")
    before = hub.repo()
    done = forker.run(*arguments(run))
    assert done.code == 5, done.err
    assert "mine.csv" in done.err
    assert "--adopt" in done.err
    assert hub.repo() == before
    done = forker.run(*arguments(run, "--adopt"))
    assert done.code == 0, done.err
    repo = hub.repo()
    tree = repo["commits"][repo["refs"]["refs/heads/main"]]["tree"]
    assert "mine.csv" in tree
    assert "sft/extra.txt" not in tree


def test_somebodys_own_checksums_do_not_make_their_files_ours(hub, forker, run):
    create_repo(hub)
    files = {"data/model.bin": b"weights", "notes.txt": b"mine", "manifest.json": b'{"name": "app"}'}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in files.items()).encode()
    for path, data in {**files, "SHA256SUMS": sums}.items():
        add_file(hub, path, data)
    before = hub.repo()
    done = forker.run(*arguments(run))
    assert done.code == 5, done.err
    assert "data/model.bin" in done.err
    assert hub.repo() == before
    done = forker.run(*arguments(run, "--adopt", "--json"))
    assert done.code == 0, done.err
    assert json.loads(done.out)["deleted"] == []
    assert {"data/model.bin", "notes.txt"} <= tree_of(hub.repo(), hub.repo()["refs"]["refs/tags/v1"]).keys()


@pytest.mark.slow
def test_a_card_that_was_edited_on_the_hub_is_not_written_over(hub, forker, run):
    assert forker.run(*arguments(run)).code == 0
    add_file(hub, "README.md", b"# by hand")
    build_tables(run, SelectConfig(configs=("sft",), system="Think."))
    before = hub.repo()
    done = forker.run(*arguments(run))
    assert done.code == 5, done.err
    assert "README.md" in done.err
    assert hub.repo() == before


def test_a_tag_that_names_something_else_is_never_moved(hub, forker, run):
    assert forker.run(*arguments(run, "--tag", "v1.0")).code == 0
    build_tables(run, SelectConfig(configs=("sft",), system="Think."))
    before, sent = hub.repo(), len(writes(hub))
    done = forker.run(*arguments(run, "--tag", "v1.0"))
    assert done.code == 5, done.err
    assert "v1.0" in done.err
    assert (hub.repo(), len(writes(hub))) == (before, sent)


@pytest.mark.slow
def test_a_public_repository_is_published_to_only_if_that_is_asked_for(hub, forker, run):
    create_repo(hub, private=False)
    before = hub.repo()
    done = forker.run(*arguments(run))
    assert (done.code, hub.repo()) == (5, before)
    assert "--public" in done.err
    assert forker.run(*arguments(run, "--public")).code == 0


# Permission.


@pytest.mark.parametrize(
    "token", [pytest.param(READER, marks=pytest.mark.slow), EXPIRED, pytest.param("", marks=pytest.mark.slow)]
)
def test_a_token_that_may_not_write_changes_nothing_and_is_in_no_message(hub, forker, run, token):
    create_repo(hub)
    before = hub.repo()
    done = forker.run(*arguments(run), token=token)
    assert done.code == 4, done.err
    assert hub.repo() == before
    assert "HF_TOKEN" in done.err
    assert not token or token not in done.err


@pytest.mark.parametrize("value", [None, "", pytest.param(EXPIRED, id="expired")])
def test_the_variable_that_the_job_names_is_the_one_in_the_message(hub, monkeypatch, value):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_TOKEN", value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    token = find_token("MY_TOKEN")
    assert token == (value or None)
    with pytest.raises(NoPermissionError, match="MY_TOKEN") as refused:
        Hub(REPO, token, print, variable="MY_TOKEN", patience_s=1).user()
    assert "HF_TOKEN" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/commit/", 422), pytest.param("/lfs/", 413, marks=SLOW), pytest.param("/repos/create", 400, marks=SLOW)],
)
def test_what_the_hub_refuses_for_good_is_not_called_unfinished(hub, forker, run, path, status):
    hub.order({"path": path, "nth": 1, "kind": str(status)})
    done = forker.run(*arguments(run))
    assert done.code == 2, done.err
    assert f"HTTP {status}" in done.err
    assert "Another try would be refused, too" in done.err
    assert not [ref for ref in (hub.repo() or {"refs": {}})["refs"] if "tags" in ref]
    assert forker.run(*arguments(run)).code == 0, "and once it is mended, the command goes on"


@pytest.mark.parametrize("status", [409, pytest.param(507, marks=SLOW)])
def test_a_state_of_the_hub_that_may_pass_is_called_unfinished(hub, forker, run, status):
    hub.order({"path": "/lfs/", "nth": 1, "kind": str(status)})
    done = forker.run(*arguments(run))
    assert done.code == 6, done.err
    assert "run the same command again" in done.err


@pytest.mark.slow
def test_the_token_and_signatures_are_in_no_message_and_no_file(hub, forker, run):
    hub.order({"path": "/-blobs/", "nth": 1, "kind": "403"}, {"path": "/commit/", "nth": 1, "kind": "503"})
    texts = [done for _ in range(2) for done in forker.run(*arguments(run))[1:]]
    texts += [path.read_text() for path in (run / "publish").rglob("*") if path.is_file()]
    assert not [text for text in texts if WRITER in text or "a-secret" in text]


# What comes back.


@pytest.mark.slow
def test_a_version_that_is_not_what_was_published_gets_no_tag(hub, forker, run):
    hub.order({"path": "/commit/", "nth": 1, "kind": "hold_done"})
    pid = forker.start(*arguments(run))
    wait_until(lambda: hub.is_held() or not lives(pid), 60, "the commit to be held")
    hub.order({"path": "/tree/", "nth": 2, "kind": "pause"})  # the first is the look after the lost reply
    wait_until(lambda: hub.is_held() or not lives(pid), 60, "the files to be listed")
    repo = hub.repo()
    repo["commits"][repo["refs"]["refs/heads/main"]]["tree"]["sft/train-00000-of-00001.parquet"]["sha256"] = "0" * 64
    hub.change(repo)
    hub.order()
    done = forker.wait()
    assert done.code == 7, done.err
    assert "sft/train-00000-of-00001.parquet" in done.err
    assert not [ref for ref in hub.repo()["refs"] if "tags" in ref]


@pytest.mark.slow
def test_rows_that_are_not_those_of_the_manifest_are_noticed_when_they_are_read_back(hub, forker, run):
    assert forker.run(*arguments(run)).code == 0
    sha256 = shards_of(run)["sft/train-00000-of-00001.parquet"]
    blob = hub.folder / "blobs" / sha256
    write_padded(pq.read_table(blob).slice(1), blob, blob.stat().st_size)
    done = forker.run(str(run), "--repo", REPO)
    assert done.code == 7, done.err
    assert "gives 2 rows of sft/train" in done.err


def write_padded(table: pa.Table, path: Path, size: int) -> None:
    """Write a Parquet file of a given size, above its own."""
    pad = 0
    while True:
        with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({"pad": "x" * pad})
        if path.stat().st_size == size:
            return
        pad += size - path.stat().st_size
        assert pad > 0


# Xet. Contents go to a storage of chunks by `hf_xet`; the stand-in names a folder as that storage. What lies there
# cannot be given out again (which chunks make up a file is known to Xet's servers alone): rows are not read back.


@pytest.mark.slow
def test_with_xet_on_a_version_killed_before_its_commit_is_one_version_in_the_end(hub, run, tmp_path):
    environment = {**hub.environment(), "HF_HUB_DISABLE_XET": "0"}
    with publisher(tmp_path / "xet", environment) as forker:
        hub.order({"path": "/commit/", "nth": 1, "kind": "hold"})
        pid = forker.start(*arguments(run))
        wait_until(lambda: hub.is_held() or not lives(pid), 60, "the commit to be held")
        os.kill(pid, signal.SIGKILL)
        forker.wait()
        hub.order()
        stored = sorted(path.name for path in (hub.folder / "cas").rglob("default.*"))
        assert stored, "the contents are there"
        done = forker.run(*arguments(run))
    assert done.code == 0, done.err
    require_one_version(hub, run)
    assert not [record for record in hub.log() if record["method"] == "PUT"]
    assert sorted(path.name for path in (hub.folder / "cas").rglob("default.*")) == stored, "and are not sent again"


# Before anything is sent.


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_done_and_does_nothing(hub, forker, run):
    done = forker.run(*arguments(run, "--dry-run", "--json"))
    assert done.code == 0, done.err
    body = json.loads(done.out)
    assert (body["commits"], body["tag"], body["unchanged"]) == (1, "v1", 0)
    assert "README.md" in body["added"]
    assert hub.repo() is None
    assert forker.run(*arguments(run)).code == 0
    body = json.loads(forker.run(*arguments(run, "--dry-run", "--json")).out)
    assert (body["commits"], body["added"], body["num_bytes"]) == (0, [], 0)


def test_a_dry_run_without_a_token_asks_nobody(hub, forker, run):
    done = forker.run(*arguments(run, "--dry-run"), token="")
    assert done.code == 0, done.err
    assert "commits: 1" in done.out
    assert not hub.log()


@pytest.mark.parametrize("more", [("--repo", "data"), ("--tag", "main"), ("--selection", "none"), ("--verify", "no")])
def test_bad_usage_is_refused_before_anything_is_asked(hub, forker, run, more):
    done = forker.run(*arguments(run, *more))
    assert done.code == 2, done.err
    assert more[1] in done.err
    assert not hub.log()


@pytest.mark.slow
def test_the_number_of_requests_that_the_tests_above_sample_from_is_the_real_one(hub, forker, run):
    assert forker.run(*arguments(run)).code == 0
    assert len(hub.log()) == NUM_REQUESTS
