"""Dockerfile and compose.yaml agree with each other and with the rest of the repository."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from typing import Any

import pytest
import yaml

from controlplane.management.commands.serve import SHUTDOWN_SECONDS
from controlplane.webhooks.deliveries import POST_SECONDS
from tests.support.dockerfile import Dockerfile
from tests.support.processes import ROOT
from tests.unit.test_docs import defaults_in_readme

STAGES = Dockerfile.read().stages
IMAGE = STAGES[-1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"] == "desktopctl"}
IGNORED = [
    line
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]
SOURCES = [source for stage in STAGES for sources, _ in stage.copies for source in sources]


# --- Dockerfile -----------------------------------------------------------------------------------
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_copied_is_there_and_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    assert f"!{source}" in IGNORED


def test_nothing_but_what_is_copied_reaches_the_build() -> None:
    assert IGNORED[0] == "*"
    assert {line for line in IGNORED if line.startswith("!")} == {f"!{each}" for each in SOURCES}


def test_the_image_has_the_python_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    bases = [stage.base for stage in STAGES if stage.base.startswith("python:")]
    assert set(bases) == {f"python:{project['tool']['mypy']['python_version']}-slim-bookworm"}


def test_the_image_has_the_node_that_package_json_asks_for() -> None:
    wanted = re.search(r'"node": ">=(\d+)"', (ROOT / "package.json").read_text())
    assert wanted
    assert STAGES[0].base == f"node:{wanted[1]}-bookworm-slim"


def test_the_image_is_not_root_and_says_so_by_number() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", IMAGE.last("USER"))
    names = [name for name, _ in IMAGE.steps]
    assert "RUN" not in names[names.index("USER") :]


def test_the_image_installs_what_is_pinned() -> None:
    installs = [each for stage in STAGES for each in stage.all("RUN") if " install --no" in each]
    assert len(installs) == 1
    assert installs[0].endswith("-r requirements.txt")
    assert any("npm ci" in each for each in STAGES[0].all("RUN"))


def test_the_image_is_made_by_the_steps_of_make_install() -> None:
    script = (ROOT / "scripts/setup").read_text()
    [steps] = re.findall(r"^        install\)\n(.*?);;", script, re.MULTILINE | re.DOTALL)
    run = " ".join(command for stage in STAGES for command in stage.all("RUN"))
    for step, command in {
        "install_requirements requirements.txt": "install .* -r requirements.txt",
        "install_npm production": "npm ci --omit=dev",
        "manage.py collectstatic --noinput": "manage.py collectstatic --noinput",
    }.items():
        assert step in steps.replace('"', "")
        assert re.search(command, run)
    assert "options+=(--omit=dev)" in script


def test_the_health_check_asks_whether_the_process_is_alive() -> None:
    assert "'/healthz'" in IMAGE.argv("HEALTHCHECK")[-1]
    port = IMAGE.argv("CMD")[-1]
    assert (IMAGE.last("EXPOSE"), f", {port}, " in IMAGE.last("HEALTHCHECK")) == (port, True)


# --- compose.yaml ---------------------------------------------------------------------------------
def test_what_is_ours_is_the_same_image_with_other_commands() -> None:
    assert {name: each.get("command") for name, each in OURS.items()} == {
        "server": None,
        "webhooks": ["deliver_webhooks"],
        "migrate": ["migrate", "--noinput"],
    }


@pytest.mark.parametrize("name", OURS)
def test_our_services_may_do_next_to_nothing(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert "user" not in service  # that of the image
    assert not {"privileged", "cap_add", "volumes", "network_mode"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_gains_rights(name: str) -> None:
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_in_the_table_of_the_readme(name: str) -> None:
    known = set(defaults_in_readme())
    assert {each.removesuffix("_FILE") for each in OURS[name]["environment"]} <= known


def test_variables_that_compose_takes_from_outside_are_settings() -> None:
    taken = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    assert taken <= set(defaults_in_readme())


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_files(name: str) -> None:
    service: dict[str, Any] = SERVICES[name]
    for variable, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|DATABASE_URL", variable):
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_the_files_of_secrets_are_those_that_the_script_makes() -> None:
    script = (ROOT / "deploy/container/make-secrets").read_text()
    made = {f"secrets/{name}" for name in re.findall(r"^keep (\w+)", script, re.MULTILINE)}
    assert {each["file"] for each in COMPOSE["secrets"].values()} == made
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert all(any(fnmatch.fnmatch(f"/{file}", f"{line}*") for line in ignored) for file in made)


def test_the_server_starts_when_what_it_needs_is_there() -> None:
    conditions = {
        name: each["condition"] for name, each in SERVICES["server"]["depends_on"].items()
    }
    assert conditions == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "redis": "service_healthy",
    }
    assert all("test" in SERVICES[name]["healthcheck"] for name in ("postgres", "redis"))
    assert "healthcheck" not in SERVICES["server"]  # that of the image
    worker = SERVICES["webhooks"]["depends_on"]
    assert {name: each["condition"] for name, each in worker.items()}.items() < conditions.items()


def test_streams_have_time_to_end() -> None:
    assert _seconds(SERVICES["server"]["stop_grace_period"]) >= 2 * SHUTDOWN_SECONDS
    assert _seconds(SERVICES["webhooks"]["stop_grace_period"]) > POST_SECONDS


def _seconds(period: str) -> int:
    return int(period.removesuffix("s"))


def test_only_the_server_is_reached_from_outside_and_only_from_this_machine() -> None:
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert published == {"server": [f"127.0.0.1:{IMAGE.last('EXPOSE')}:8000"]}
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert all(each["networks"] == ["back"] for name, each in SERVICES.items() if name not in OURS)


def test_the_proxy_of_this_machine_is_believed() -> None:
    [network] = COMPOSE["networks"]["front"]["ipam"]["config"]
    trusted = SERVICES["server"]["environment"]["TRUSTED_PROXIES"]
    assert trusted == f"${{TRUSTED_PROXIES:-{network['gateway']}}}"
