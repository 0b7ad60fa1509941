"""The command line, as people type it: each ends with a sentence, never with a traceback."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from controlplane import conf
from tests.integration.people import UPSTREAM
from tests.support.processes import ROOT
from tests.support.timing import limit


def manage(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py in a process of its own, with ``env`` over ours."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=limit(6),
        check=False,
    )


def test_the_refusals_of_serve_reach_the_terminal_without_a_traceback(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    unmigrated = manage("serve", DATABASE_URL=url)
    assert (unmigrated.returncode, "Run: manage.py migrate" in unmigrated.stderr) == (1, True)
    keyless = manage("serve", DATABASE_URL=url, SECRET_KEY="")
    assert (keyless.returncode, "SECRET_KEY is not set" in keyless.stderr) == (1, True)
    assert "Traceback" not in unmigrated.stderr + keyless.stderr


def test_every_other_command_says_in_a_sentence_that_the_key_is_missing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    (tmp_path / "password").write_text("deskpass\n")
    assert manage("migrate", DATABASE_URL=url, SECRET_KEY="").returncode == 0, "it needs none"
    keyless = manage(
        *("add_workspace", "desk", "--upstream", UPSTREAM),
        *("--password-file", str(tmp_path / "password")),
        DATABASE_URL=url,
        SECRET_KEY="",
    )
    assert keyless.returncode == 1
    assert keyless.stderr == f"desktopctl: {conf.KEY_IS_MISSING}\n"
    assert "SECRET_KEY_FILE" in keyless.stderr


def test_every_other_command_says_in_a_sentence_what_the_database_lacks(tmp_path: Path) -> None:
    empty = manage("leases", DATABASE_URL=f"sqlite:///{tmp_path / 'empty.db'}")
    assert (empty.returncode, empty.stdout) == (1, "")
    assert re.fullmatch(
        r"desktopctl: \d+ migration\(s\) are pending. Run: manage.py migrate\n", empty.stderr
    )
    for command in ("leases", "migrate"):
        away = manage(command, DATABASE_URL=f"sqlite:///{tmp_path}")  # a directory cannot be opened
        assert (away.returncode, len(away.stderr.splitlines())) == (1, 1), away.stderr
        assert away.stderr.startswith(
            "desktopctl: The database does not answer; check DATABASE_URL"
        )


def test_a_migration_that_fails_is_not_said_to_be_pending(tmp_path: Path) -> None:
    file = tmp_path / "someone-elses.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE controlplane_workspace (id INTEGER PRIMARY KEY)")
    failed = manage("migrate", DATABASE_URL=f"sqlite:///{file}")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].endswith(
        'OperationalError: table "controlplane_workspace" already exists'
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DISPLAY_LEASE_SECONDS", "soon"),
        ("DISPLAY_FENCE_SECONDS", "0.5"),
        ("DEBUG", "perhaps"),
        ("PUBLIC_URL", "localhost:8000"),
        ("PUBLIC_URL", "http://localhost:eighty"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("DATABASE_URL", "oracle-of-delphi://x"),
        ("REDIS_URL", "localhost:6379"),
        ("API_RATE_PER_TOKEN", "600"),
        ("API_RATE_PER_ADDRESS", "0/minute"),
        ("EMBED_ORIGINS", "portal.example"),
        ("EMBED_ORIGINS", "https://portal.example/path"),
        ("EMBED_ORIGINS", "https://portal.example; frame-src *"),
        ("SECRET_KEY_FILE", "no/such/file"),
    ],
)
def test_a_bad_setting_stops_the_start_with_its_name_and_no_traceback(
    name: str, value: str
) -> None:
    ended = manage("check", **{name: value})
    assert ended.returncode != 0
    assert name in ended.stderr
    assert "Traceback" not in ended.stderr
