"""The DISPLAY_* settings and the checks of the others: defaults, types, and refusals by name."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

import pytest
from environs import Env, EnvError

from controlplane import conf
from controlplane.conf import DisplaySettings, Environment, load
from controlplane.destinations import parse_destinations
from controlplane.exceptions import ConfigError

NUMBERS = [field.name for field in fields(DisplaySettings) if field.type in {"int", "float"}]


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Env:
    """An environment in which nothing is set."""
    for field in fields(DisplaySettings):
        monkeypatch.delenv(f"DISPLAY_{field.name.upper()}", raising=False)
    return Environment()


def test_without_an_environment_the_defaults_are_those_of_the_contract(env: Env) -> None:
    found = load(env)
    assert found == DisplaySettings()
    assert (found.lease_seconds, found.renew_seconds, found.token_seconds) == (300, 120, 60)
    assert (found.watch_seconds, found.fence_seconds, found.ping_seconds) == (1, 10, 10)
    assert (found.resume_seconds, found.upstream_ping_seconds) == (600, 30)
    assert (found.connect_seconds, found.backlog_cap_bytes) == (10, 67_108_864)
    assert found.clipboard_bytes == 262_144
    assert (found.max_streams_per_user, found.max_streams_per_workspace) == (20, 50)


@pytest.mark.parametrize("field", NUMBERS)
def test_each_setting_is_read_from_its_variable(
    field: str, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = 1_500_000 if field.startswith("backlog") else 2
    value = 100_000_000 if field == "backlog_cap_bytes" else value
    monkeypatch.setenv(f"DISPLAY_{field.upper()}", str(value))
    assert getattr(load(env), field) == value


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", ["0", "-1", "many", "nan", "inf", "1,5"])
def test_a_value_that_cannot_be_used_names_its_variable(
    field: str, value: str, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"DISPLAY_{field.upper()}"
    monkeypatch.setenv(name, value)
    with pytest.raises((ConfigError, EnvError)) as caught:
        load(env)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["DISPLAY_CLIPBOARD_BYTES", "DISPLAY_MAX_STREAMS_PER_USER"])
def test_what_is_counted_takes_no_fractions(
    name: str, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1.5")
    with pytest.raises(EnvError, match=name):
        load(env)


def test_where_desktops_may_be_is_read_from_its_variable(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY_UPSTREAM_ALLOW", "10.0.0.0/8, *.desks.example")
    assert load(env).upstream_allow == parse_destinations("", ["10.0.0.0/8", "*.desks.example"])
    monkeypatch.setenv("DISPLAY_UPSTREAM_ALLOW", "10.0.0.0/8,http://desk")
    with pytest.raises(ConfigError, match=r"DISPLAY_UPSTREAM_ALLOW.*http://desk"):
        load(env)


def test_a_choice_is_one_of_those_there_are() -> None:
    assert conf.choose("LOG_FORMAT", "json", ("console", "json")) == "json"
    with pytest.raises(ConfigError, match="LOG_FORMAT: must be console or json"):
        conf.choose("LOG_FORMAT", "xml", ("console", "json"))


@pytest.mark.parametrize("token", ["", "0123456789abcdef", "x" * 100])
def test_a_token_that_nobody_guesses_is_taken(token: str) -> None:
    assert conf.parse_token("METRICS_TOKEN", token) == token


@pytest.mark.parametrize("token", ["short", "0123456789 abcdef", "é" * 20, "0123456789abcdef\n"])
def test_a_token_that_could_be_guessed_or_not_be_sent_is_refused_unseen(token: str) -> None:
    with pytest.raises(ConfigError, match="METRICS_TOKEN") as caught:
        conf.parse_token("METRICS_TOKEN", token)
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    ["tcp://{slug}.desktops:5900", "wss://gate.example/{slug}", "unix:///run/{slug}.sock"],
)
def test_where_desktops_without_an_address_are_is_read_from_its_variable(
    template: str, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY_UPSTREAM_TEMPLATE", template)
    assert load(env).upstream_template == template


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("tcp://desktops:5900", "must hold {slug}"),
        ("{slug}.desktops:5900", "must start with tcp://"),
        ("tcp://gate:{slug}", "is not an address"),
        ("tcp://me:secret@{slug}", "must not contain a user or a password"),
        ("ws://169.254.169.254/{slug}", "DISPLAY_UPSTREAM_ALLOW"),
    ],
)
def test_a_template_that_leads_nowhere_is_refused_by_name(
    template: str, problem: str, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY_UPSTREAM_TEMPLATE", template)
    with pytest.raises(ConfigError, match="DISPLAY_UPSTREAM_TEMPLATE") as caught:
        load(env)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_of_certificates_must_be_one(
    env: Env, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "authorities.pem"
    monkeypatch.setenv("DISPLAY_UPSTREAM_CA_FILE", str(file))
    with pytest.raises(ConfigError, match="DISPLAY_UPSTREAM_CA_FILE"):
        load(env)
    file.write_text("no certificates")
    with pytest.raises(ConfigError, match="DISPLAY_UPSTREAM_CA_FILE"):
        load(env)


def test_what_is_set_to_nothing_is_not_set(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY_LEASE_SECONDS", "")
    assert load(env).lease_seconds == 300


@pytest.mark.parametrize(
    ("named", "values"),
    [
        ("DISPLAY_LEASE_SECONDS", {"DISPLAY_LEASE_SECONDS": "3601"}),
        ("DISPLAY_FENCE_SECONDS", {"DISPLAY_FENCE_SECONDS": "1"}),
        ("DISPLAY_FENCE_SECONDS", {"DISPLAY_WATCH_SECONDS": "10"}),
        ("DISPLAY_BACKLOG_CAP_BYTES", {"DISPLAY_BACKLOG_CAP_BYTES": "1048576"}),
    ],
)
def test_values_that_do_not_fit_together_are_refused(
    named: str, values: dict[str, str], env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load(env)
    assert caught.value.name == named


@pytest.mark.parametrize(
    ("lease", "expected"), [(300.0, 30.0), (30.0, 30.0), (3.0, 3.0), (3600.0, 30.0)]
)
def test_the_shortest_ttl_is_half_a_minute_or_a_shorter_lease(
    lease: float, expected: float
) -> None:
    assert DisplaySettings(lease_seconds=lease).min_lease_seconds == expected


@pytest.mark.parametrize(("ttl", "expected"), [(300, 120), (3600, 120), (100, 40), (3, 1.2)])
def test_two_renewals_fit_into_every_lease(ttl: float, expected: float) -> None:
    assert DisplaySettings().renew_after_seconds(ttl) == pytest.approx(expected)
    assert 2 * expected < ttl


# --- Files and addresses --------------------------------------------------------------------------
def test_a_secret_may_come_from_a_file_whose_newline_is_not_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("from a file\n")
    monkeypatch.setenv("A_SECRET_FILE", str(file))
    monkeypatch.setenv("A_SECRET", "from the environment")
    assert Environment().str("A_SECRET") == "from a file"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_secrets_file_that_cannot_be_read_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("A_SECRET_FILE", str(file))
    with pytest.raises(ConfigError) as caught:
        Environment().str("A_SECRET", "")
    assert caught.value.name == "A_SECRET_FILE"


def test_a_variable_that_is_missing_is_still_named_by_environs() -> None:
    with pytest.raises(EnvError, match="NOT_SET_ANYWHERE"):
        Environment().str("NOT_SET_ANYWHERE")


@pytest.mark.parametrize("url", ["http://a", "https://a:1/", "http://[::1]:8000"])
def test_an_address_is_taken_apart(url: str) -> None:
    assert conf.split_url("NAME", url, "http", "https").hostname in {"a", "::1"}


@pytest.mark.parametrize(
    "url", ["", "a", "a:80", "//a", "http://", "http://a:x", "http://a:0", "http://[::1", "ftp://a"]
)
def test_what_is_no_address_is_refused_by_name_and_without_its_value(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        conf.split_url("NAME", url, "http", "https")
    assert str(caught.value) == "NAME: must be an address that starts with http:// or https://"


def test_reading_settings_logs_nothing(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        load(env)
    assert not caplog.records
