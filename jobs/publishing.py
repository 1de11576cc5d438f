"""The command `factory publish`: plans, prints the plan or publishes it, and tells how it ended by the exit code."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jobs import show
from jobs.options import AsJson, RunPath, Selection
from schemas.errors import ConfigError, PartialError

if TYPE_CHECKING:
    from factory.hubclient import Hub
    from factory.publish import Asked, Changes
    from factory.publish_plan import Allowed, PublishPlan
    from factory.storage import AnyPath
    from schemas.config import PublishConfig


DRY_PATIENCE_S: Final = 10.0  # of a request for a plan, which is of use without the Hub, too


def publish(
    run_path: RunPath,
    repo: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Dataset repository.  [default: the job's publish.repo]")
    ] = None,
    selection: Selection = None,
    is_public: Annotated[
        bool | None,
        typer.Option(
            "--public/--private", help="Whether a new repository can be seen by everybody.  [default: private]"
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(
            help="Tag of this version; one that is there is never moved.  [default: v1, v2, ... the next free]"
        ),
    ] = None,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt",
            help="Take over a repository that holds other files: same names are replaced, those in the folders of the "
            "tables deleted, all others left alone.",
        ),
    ] = False,
    verify: Annotated[
        str,
        typer.Option(
            help="rows: read the version back by commit and by tag, in an empty cache, every row; files: compare the "
            "checksums that the Hub states."
        ),
    ] = "rows",
    allow_secrets: Annotated[
        bool, typer.Option("--allow-secrets", help="Publish though something looks like a secret.")
    ] = False,
    refuse_personal_data: Annotated[
        bool,
        typer.Option("--refuse-personal-data", help="Publish nothing if there are e-mail addresses or phone numbers."),
    ] = False,
    allow_large_rows: Annotated[
        bool, typer.Option("--allow-large-rows", help="Publish rows above 2 MB, which the Hub's viewer does not show.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check everything and print commits, files and bytes; send nothing. Tables that are out of date are "
            "built; the Hub is asked only if there is a token.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a selection with its card as one version of a dataset on the Hugging Face Hub, private by default.

    Everything becomes visible in one step, the tag comes last, and what was published is read back. Run it again after
    any interruption: it goes on; where nothing has changed, it does nothing. While a run goes on, what is committed is
    published. The token is HF_TOKEN's or the login's (`hf auth login`).

    Exit codes: 0 published, or there already; 2 the plan is refused, before anything is sent, or by the Hub for good; 4
    no permission; 5 conflict with what others put there; 6 not finished, run it again; 7 what the Hub gives back is not
    what was published.
    """
    from factory.publish_plan import Allowed

    if verify not in ("rows", "files"):
        raise typer.BadParameter(f"--verify {verify!r} must be rows or files")
    config = _config(run_path)
    repo = _repo(repo or (config.repo if config else None))
    tag = _tag(tag or (config.tag if config else None))
    public = is_public if is_public is not None else bool(config and not config.private)
    allowed = Allowed(large_rows=allow_large_rows, secrets=allow_secrets, personal=not refuse_personal_data)
    asked = _asked(tag, is_public=public, adopt=adopt, verify=verify)
    variable = config.token_env if config else None
    _publish(run_path, repo, selection, asked, allowed, variable, dry_run=dry_run, as_json=as_json)


def _publish(
    path: AnyPath,
    repo: str,
    selection: str | None,
    asked: Asked,
    allowed: Allowed,
    variable: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from factory.card import build_card
    from factory.hubclient import PATIENCE_S, Hub, find_token
    from factory.publish import publish as publish_plan
    from factory.publish_journal import PublishJournal
    from factory.publish_plan import make_plan
    from factory.publish_source import current_tables, journal_folder, require_same, snapshot
    from jobs.options import selection_of

    name = selection or selection_of(path)
    journal = PublishJournal(journal_folder(path, repo))
    with (
        TemporaryDirectory(prefix="factory-publish-") as work,
        snapshot(
            current_tables(path, name, Path(work), show.message),
            journal_folder(path, repo) if isinstance(path, Path) else Path(work),  # one disk: links, no copies
        ) as folder,
    ):
        card = build_card(path, name, repo=repo)
        require_same(path / "tables" / name, folder)
        plan = make_plan(folder, card, journal, allowed, _now_and_then())
        _say_findings(plan)
        token = find_token(variable)
        patience_s = DRY_PATIENCE_S if dry_run else PATIENCE_S
        hub = Hub(repo, token, show.message, variable=variable, patience_s=patience_s)
        if dry_run:
            _show_plan(plan, repo, asked, hub, as_json=as_json)
            return
        try:
            found = publish_plan(plan, asked, hub, journal, show.message)
        except FileNotFoundError as error:  # somebody took the snapshot away
            raise PartialError(f"{error}: it was deleted while it was uploaded; run the same command again") from error
    if as_json:
        show.json_line(asdict(found))
    elif found.is_new:
        added, size = len(found.added), found.num_bytes
        show.plain([f"published {found.url} (commit {found.commit[:12]}): {added:,} files, {size:,} bytes"])
        show.plain([f'load_dataset("{repo}", revision="{found.tag}")'])
    else:
        show.plain([f"{found.url} (commit {found.commit[:12]}) is this version already; nothing was changed"])


def _now_and_then() -> Callable[[str], None]:
    """Return what prints a message, unless it printed one just before: each file is hashed and scanned."""
    last = time.monotonic()

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= show.PLAIN_EVERY_S:
            last = time.monotonic()
            show.message(text)

    return say


def _say_findings(plan: PublishPlan) -> None:
    for what, counts in (("personal data", plan.findings.personal), ("secrets, allowed", plan.findings.secrets)):
        if counts:
            show.message(f"{what}: " + ", ".join(f"{count:,} × {kind}" for kind, count in sorted(counts.items())))
    if plan.num_large:
        show.message(f"{plan.num_large:,} rows are too large for the Hub's viewer")


def _show_plan(plan: PublishPlan, repo: str, asked: Asked, hub: Hub, *, as_json: bool) -> None:
    from factory.publish import compare, num_commits, preview

    tag, changes = asked.tag or "v1", compare(plan, {}, frozenset())
    where = "as for an empty repository: there is no token, so the Hub was not asked"
    if hub.token is not None:
        try:
            (tag, changes), where = preview(plan, asked, hub), "as the repository is now"
        except PartialError as error:
            where = "as for an empty repository: the Hub does not answer"
            show.message(str(error))
    body = _plan_body(plan, repo, tag, changes, commits=num_commits(changes), where=where)
    if as_json:
        show.json_line(body)
        return
    show.plain(
        [
            f"would publish {repo} as {tag} ({'public' if asked.is_public else 'private'}), {where}:",
            f"  commits: {body['commits']}" + (", by a pull request that is merged" if body["commits"] > 1 else ""),
            f"  {len(body['added']):,} files added or replaced, {body['num_bytes']:,} bytes",
            f"  {len(body['deleted']):,} deleted, {body['unchanged']:,} skipped: the repository holds them",
        ]
    )
    show.plain([f"  + {path}  {plan.files[path].num_bytes:,}" for path in changes.added])
    show.plain([f"  - {path}" for path in changes.deleted])


def _plan_body(plan: PublishPlan, repo: str, tag: str, changes: Changes, *, commits: int, where: str) -> dict[str, Any]:
    return {
        "repo": repo,
        "tag": tag,
        "digest": plan.digest,
        "compared": where,
        "commits": commits,
        "added": list(changes.added),
        "deleted": list(changes.deleted),
        "unchanged": changes.unchanged,
        "num_bytes": sum(plan.files[path].num_bytes for path in changes.added),
        "secrets": dict(plan.findings.secrets),
        "personal": dict(plan.findings.personal),
        "large_rows": plan.num_large,
    }


def _asked(tag: str | None, *, is_public: bool, adopt: bool, verify: str) -> Asked:
    from factory.publish import Asked

    return Asked(tag=tag, is_public=is_public, adopt=adopt, reads_rows=verify == "rows")


def _config(path: AnyPath) -> PublishConfig | None:
    from factory.store import RunFolder
    from schemas.config import PublishConfig

    body = RunFolder(path).manifest().config.get("publish")
    return None if body is None else PublishConfig.model_validate(body)


def _repo(repo: str | None) -> str:
    from schemas.config import REPO

    if repo is None:
        raise ConfigError("--repo: is missing, and the job has no publish.repo; give ORG/NAME")
    if not REPO.fullmatch(repo):
        raise ConfigError(f"--repo {repo!r} must be ORG/NAME, such as my-org/math-traces")
    return repo


def _tag(tag: str | None) -> str | None:
    if tag is not None and (not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", tag) or tag in ("main", "HEAD")):
        raise ConfigError(f"--tag {tag!r} must be letters, digits, `.`, `_` and `-`, and not main; such as v1.2.0")
    return tag


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: factory publish runs/demo --repo my-org/math-traces --dry-run")(publish)
