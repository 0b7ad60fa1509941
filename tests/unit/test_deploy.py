"""What is in deploy/ for systemd, nginx and Caddy fits the programs that it starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn
import yaml
from django.urls import reverse

from controlplane import longpoll, proxies
from controlplane.feed import eventstreams
from controlplane.management.commands import serve
from controlplane.webhooks import deliveries
from tests.support.processes import ROOT, program
from tests.support.units import INSTALLED, Unit, example

DESKTOP = Unit("deploy/desktop/desktop@.service")
WEBSOCKIFY = Unit("deploy/desktop/websockify.service")
SERVER = Unit("deploy/systemd/desktopctl@.service")
WEBHOOKS = Unit("deploy/systemd/desktopctl-webhooks.service")
UNITS = {"desktop": DESKTOP, "websockify": WEBSOCKIFY, "server": SERVER, "webhooks": WEBHOOKS}
NGINX = re.sub(r"#.*", "", (ROOT / "deploy/nginx/desktopctl.conf").read_text())
CADDY = re.sub(r"#.*", "", (ROOT / "deploy/caddy/Caddyfile").read_text())
SILENCE_SECONDS = 25  # after which either end of a display gives the link up


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def assignments_of(document: str) -> dict[str, str]:
    """Return what the document writes into the server's environment file."""
    written = document.partition("desktopctl.env <<END\n")[2].partition("\nEND")[0]
    return dict(re.findall(r"^(\w+)=(.*)$", written, re.MULTILINE))


def help_of(*argv: str) -> set[str]:
    done = subprocess.run([*argv, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return options_in(done.stdout)


DOCUMENTS = ("docs/deploy.md", "deploy/desktop/README.md")
COMMANDS = {path.stem for path in (ROOT / "controlplane/management/commands").glob("[a-z]*.py")}
OF_DJANGO = {"migrate", "createsuperuser"}


# --- What is said about it ------------------------------------------------------------------------
@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [(ROOT / document).parent / each for each in re.findall(r"\]\(([^)#:]+)[)#]", text)]
    files = [ROOT / each for each in re.findall(r"(?<![\w/])deploy/[\w/@.-]+\w", text)]
    assert [path for path in [*links, *files] if not path.exists()] == []
    commands = set(re.findall(r"(?:manage\.py|manage|rm server) ([a-z_]+)", text))
    assert commands <= COMMANDS | OF_DJANGO


def test_the_flags_that_are_explained_are_those_that_x11vnc_gets() -> None:
    text = (ROOT / DOCUMENTS[1]).read_text()
    table = text.partition("## Why x11vnc")[2].partition("Never")[0]
    explained = set(re.findall(r"(?<=[` ])-[a-z]\w+", table))
    script = (ROOT / "deploy/desktop/start-desktop").read_text()
    assert explained
    assert {flag for flag in explained if not re.search(rf"[( ]{flag}\b", script)} == set()
    assert "-ncache" not in script


# --- systemd --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_as_somebody_who_may_little(name: str) -> None:
    unit = UNITS[name]
    assert unit["User"] != "root" if "User" in unit else unit["DynamicUser"] == "yes"
    assert unit["CapabilityBoundingSet"] == ""
    assert (unit["NoNewPrivileges"], unit["ProtectSystem"]) == ("yes", "strict")
    assert (unit["PrivateTmp"], unit["Restart"]) == ("yes", "always")


@pytest.mark.parametrize("name", ["desktop", "server", "webhooks"])
def test_the_program_of_a_unit_is_in_the_tree(name: str) -> None:
    assert os.access(UNITS[name].argv[0], os.X_OK)


def test_the_desktops_unit_uses_every_option_of_start_desktop() -> None:
    known = help_of("deploy/desktop/start-desktop")
    assert options_in(DESKTOP["ExecStart"]) == known - {"--help"}


def test_every_variable_of_the_desktops_unit_has_a_default_and_an_example() -> None:
    used = set(re.findall(r"\$\{(\w+)\}", DESKTOP["ExecStart"]))
    assert set(DESKTOP.environment) == used
    assert set(example("deploy/desktop/desktop.env.example")) == used
    assert DESKTOP.environment["LISTEN"] == "127.0.0.1"


def test_x11vnc_gets_few_descriptors() -> None:
    assert DESKTOP["LimitNOFILE"] == "1024"


def test_the_options_of_websockify_exist() -> None:
    assert options_in(WEBSOCKIFY["ExecStart"]) <= help_of(sys.executable, "-m", "websockify")
    assert {"--ssl-only", "--heartbeat"} <= options_in(WEBSOCKIFY["ExecStart"])


def test_a_node_serves_on_this_machine_alone_at_the_port_of_its_name() -> None:
    words = [word.replace("%i", "8000") for word in SERVER.argv]
    arguments = words[words.index("serve") + 1 :]
    options = serve.Command().create_parser("manage.py", "serve").parse_args(arguments)
    assert (options.host, options.port) == ("127.0.0.1", 8000)
    assert int(SERVER["TimeoutStopSec"]) >= 2 * serve.SHUTDOWN_SECONDS


def test_a_node_has_started_when_it_answers() -> None:
    assert SERVER["ExecStartPost"].endswith(f" http://127.0.0.1:%i{reverse('healthz')}")


def test_a_desktop_has_started_when_it_answers() -> None:
    [state] = re.findall(r"--state-dir (\S+)", DESKTOP["ExecStart"])
    assert f"until [ -e {state}/port ]" in DESKTOP["ExecStartPost"]


def test_commands_run_as_the_server_does() -> None:
    script = (ROOT / "deploy/systemd/manage").read_text()
    assert f"runuser -u {SERVER['User']} " in script
    assert f". {SERVER['EnvironmentFile']};" in script
    python, manage_py, *_ = SERVER.argv
    for word in (python, str(ROOT / manage_py)):
        assert word.replace(f"{ROOT}/", INSTALLED) in script


def test_without_the_servers_environment_no_command_runs(tmp_path: Path) -> None:
    script = (ROOT / "deploy/systemd/manage").read_text()
    [run] = re.findall(r"^readonly run='(.*?)'$", script, re.MULTILINE | re.DOTALL)
    python, manage_py, *_ = SERVER.argv
    run = run.replace(SERVER["EnvironmentFile"], str(tmp_path / "missing"))
    run = run.replace(INSTALLED, f"{ROOT}/").replace(python, "echo")
    assert manage_py in run
    shell = ["bash", "-c", run, "manage", "check"]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "missing" in done.stderr
    (tmp_path / "missing").touch()
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert done.stdout == f"{ROOT / manage_py} check\n"


def test_the_worker_has_time_to_hear_the_last_answer() -> None:
    assert WEBHOOKS.argv[-1] == "deliver_webhooks"
    assert int(WEBHOOKS["TimeoutStopSec"]) > deliveries.POST_SECONDS


def test_the_worker_may_do_no_more_than_a_node() -> None:
    may = [unit.after("NoNewPrivileges") for unit in (SERVER, WEBHOOKS)]
    assert may[0] == may[1]


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All our units, with the programs of this tree."""
    directory = tmp_path_factory.mktemp("units")
    websockify = Path(sys.executable).parent / "websockify"
    units = []
    for path in sorted(ROOT.glob("deploy/*/*.service")):
        text = path.read_text().replace(INSTALLED, f"{ROOT}/")
        units.append(directory / path.name.replace("@.", "@8000."))
        units[-1].write_text(text.replace("ExecStart=websockify ", f"ExecStart={websockify} "))
    return units


def analyse(*arguments: str | Path) -> str:
    """Let systemd look at units; return what it says. Nothing has to run for that."""
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_systemd_understands_every_unit_without_a_warning(units: list[Path]) -> None:
    assert len(units) == len(UNITS)
    assert analyse("verify", "--man=no", *units) == ""


def test_systemd_finds_the_units_little_exposed(units: list[Path]) -> None:
    table = analyse("security", "--offline=true", "--no-pager", *units)
    found = dict(re.findall(r"Overall exposure level for ([\w@-]+).*: (\d+\.\d) ", table))
    assert set(found) == {path.stem for path in units}
    for name, level in found.items():
        assert float(level) < (2 if name.startswith("desktopctl") else 4)


# --- nginx ----------------------------------------------------------------------------------------
def location() -> str:
    """Return the regular expression of the display's location, and check that it is the only."""
    [found] = re.findall(r"location ~ (\S+) \{", NGINX)
    return str(found)


def test_the_proxy_sets_every_header_that_the_server_believes() -> None:
    headers = {name.lower() for name in re.findall(r"proxy_set_header (\S+)", NGINX)}
    believed = {name.decode() for name in proxies._FORWARDED}
    assert headers == believed | {"host", "upgrade", "connection"}


def test_no_location_undoes_the_headers() -> None:
    in_locations = "".join(re.findall(r"location [^{]+\{([^}]*)\}", NGINX))
    assert in_locations.count("proxy_pass") == 2
    assert "proxy_set_header" not in in_locations


def test_the_proxy_outwaits_everything_that_waits() -> None:
    assert re.fullmatch(location(), "/api/workspaces/desk-1/display/session/websockify")
    waits = [int(each) for each in re.findall(r"proxy_(?:read|send)_timeout (\d+)s", NGINX)]
    assert len(waits) == 2
    assert min(waits) > 2 * SILENCE_SECONDS
    assert min(waits) > longpoll.MAX_SECONDS + 10
    assert min(waits) > 2 * eventstreams.KEEPALIVE_SECONDS


def test_idle_connections_are_let_go_of_before_a_node_closes_them() -> None:
    patience = uvicorn.Config(app="").timeout_keep_alive
    [nginx] = re.findall(r"\bkeepalive_timeout (\d+)s", NGINX)
    [caddy] = re.findall(r"\bkeepalive (\d+)s", CADDY)
    assert max(int(nginx), int(caddy)) < patience


def test_no_log_of_the_proxy_holds_a_query() -> None:
    assert re.findall(r"access_log \S+ (\w+);", NGINX) == ["desktopctl", "desktopctl"]
    [logged] = re.findall(r"log_format desktopctl ([^;]*);", NGINX)
    variables = set(re.findall(r"\$(\w+)", logged))
    assert "uri" in variables
    assert not variables & {"request", "request_uri", "args", "query_string", "http_referer"}


def test_both_proxies_know_the_same_nodes() -> None:
    nodes = re.findall(r"server (\S+:\d+)", NGINX)
    assert len(nodes) == 2
    assert all(node.startswith(SERVER.argv[SERVER.argv.index("--host") + 1]) for node in nodes)
    assert f"reverse_proxy {' '.join(nodes)} {{" in CADDY


def test_caddy_asks_whether_a_node_is_alive() -> None:
    assert f"health_uri {reverse('healthz')}\n" in CADDY


# --- Django's own list of what a deployment must have ---------------------------------------------
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["server"]["environment"]
ENVIRONMENTS = {
    "systemd": assignments_of((ROOT / "docs/deploy.md").read_text()),
    "compose": {name: str(value) for name, value in COMPOSE.items()},
    "kubernetes": yaml.safe_load((ROOT / "deploy/kubernetes/settings.yaml").read_text())["data"],
}
HTTPS = "https://desks.example.org"


@pytest.fixture(scope="module")
def made_secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make-secrets makes, in a directory of its own, and what is made by hand."""
    root = tmp_path_factory.mktemp("made")
    script = Path("deploy/container/make-secrets")
    (root / script).parent.mkdir(parents=True)
    shutil.copy(ROOT / script, root / script)
    subprocess.run([root / script], check=True, capture_output=True)
    (root / "secrets/redis_url").write_text("redis://broker:6379/0")
    (root / "secrets/metrics_token").write_text("0123456789abcdef")
    return root / "secrets"


def check_deploy(environment: dict[str, str], secrets: Path, **changes: str) -> str:
    """Return what ``manage.py check --deploy`` says in this environment, and no other."""
    files = {
        name: str(secrets / Path(value).name.replace("-", "_"))
        for name, value in environment.items()
    }
    files = {name: value for name, value in files.items() if name.endswith("_FILE")}
    env = {**environment, "PUBLIC_URL": HTTPS, **files, **changes}
    env = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in env.items()}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_django_finds_nothing_to_say_about_a_deployment(name: str, made_secrets: Path) -> None:
    said = check_deploy(ENVIRONMENTS[name], made_secrets)
    assert said == "System check identified no issues (3 silenced).\n"


def test_django_would_say_so_if_there_were(made_secrets: Path) -> None:
    said = check_deploy(
        ENVIRONMENTS["compose"], made_secrets, PUBLIC_URL="http://desks.example.org"
    )
    found = set(re.findall(r"security\.W(\d+)", said))
    assert found == {"004", "012", "016"}  # HSTS, and the cookies of sessions and forms
