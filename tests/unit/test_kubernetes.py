"""The manifests in deploy/kubernetes fit Kubernetes, each other, and the programs they start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.core.management import load_command_class
from django.urls import resolve, reverse

from controlplane import longpoll, streams
from controlplane.feed import eventstreams
from controlplane.management.commands import serve
from controlplane.webhooks import deliveries
from tests.support.dockerfile import Dockerfile
from tests.support.processes import ROOT
from tests.unit.test_deploy import COMMANDS, NGINX
from tests.unit.test_docs import defaults_in_readme

OLDEST, NEWEST = "1.30", "1.37"
DIRECTORY = ROOT / "deploy/kubernetes"
IMAGE = Dockerfile.read().stages[-1]

Manifest = dict[str, Any]

KUSTOMIZATION: Manifest = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())
MANIFESTS: list[Manifest] = [
    manifest
    for name in KUSTOMIZATION["resources"]
    for manifest in yaml.safe_load_all((DIRECTORY / name).read_text())
]


def name_of(manifest: Manifest) -> str:
    """Return what it is called in the output of the tests."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def the(kind: str, name: str = "desktopctl") -> Manifest:
    """Return the only one of this kind and name."""
    [found] = [each for each in MANIFESTS if name_of(each) == f"{kind} {name}"]
    return found


def pod_of(workload: Manifest) -> Manifest:
    """Return the specification of its pods."""
    pod: Manifest = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: Manifest) -> Manifest:
    """Return its only container."""
    [container] = pod_of(workload)["containers"]
    return dict(container)


def labels_of(workload: Manifest) -> dict[str, str]:
    """Return the labels of its pods."""
    return dict(workload["spec"]["template"]["metadata"]["labels"])


SERVER = the("Deployment")
WORKER = the("Deployment", "desktopctl-webhooks")
MIGRATION = the("Job", "desktopctl-migrate")
WORKLOADS = [SERVER, WORKER, MIGRATION]
SETTINGS: dict[str, str] = the("ConfigMap")["data"]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")

each_manifest = partial(pytest.mark.parametrize, "manifest", ids=name_of)
each_workload = partial(pytest.mark.parametrize, "workload", WORKLOADS, ids=name_of)


# --- What Kubernetes takes ------------------------------------------------------------------------
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@each_manifest(MANIFESTS)
def test_a_manifest_is_one_that_kubernetes_understands(manifest: Manifest, version: str) -> None:
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_the_schemas_find_mistakes() -> None:
    probe = {**SERVER, "spec": {**SERVER["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(probe, OLDEST, strict=True)


def test_the_oldest_version_is_the_one_that_is_promised() -> None:
    assert f"Kubernetes {OLDEST} or newer" in (DIRECTORY / "kustomization.yaml").read_text()


def test_every_file_is_applied() -> None:
    files = {path.name for path in DIRECTORY.iterdir()} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    assert KUSTOMIZATION["namespace"] == the("Namespace")["metadata"]["name"]


# --- What it starts -------------------------------------------------------------------------------
@each_workload()
def test_a_workload_runs_our_image_with_a_command_that_there_is(workload: Manifest) -> None:
    container = container_of(workload)
    assert [container["image"]] == [image["name"] for image in KUSTOMIZATION["images"]]
    assert "command" not in container, "the image's entry point is manage.py"
    command, *arguments = container["args"]
    app = "controlplane" if command in COMMANDS else "django.core"
    parser = load_command_class(app, command).create_parser("manage.py", command)
    parser.parse_args(arguments)


def test_the_server_listens_where_it_is_looked_for() -> None:
    container = container_of(SERVER)
    parser = serve.Command().create_parser("manage.py", "serve")
    options = parser.parse_args(container["args"][1:])
    assert options.host == "0.0.0.0", "probes come from outside the pod"
    assert [options.port] == [each["containerPort"] for each in container["ports"]]
    assert str(options.port) == IMAGE.last("EXPOSE")
    [port] = container["ports"]
    asked = {container[probe]["httpGet"]["port"] for probe in PROBES}
    asked |= {each["targetPort"] for each in the("Service")["spec"]["ports"]}
    asked |= {
        each["port"]
        for rule in the("NetworkPolicy", "server")["spec"]["ingress"]
        for each in rule["ports"]
    }
    assert asked == {port["name"]}


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_asks_an_address_that_there_is(probe: str) -> None:
    asked = container_of(SERVER)[probe]["httpGet"]["path"]
    assert resolve(asked).url_name == ("readyz" if probe == "startupProbe" else "healthz")


def test_a_broker_or_database_that_is_away_neither_restarts_a_node_nor_takes_it_out() -> None:
    container = container_of(SERVER)
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == reverse("healthz")


# --- Its end --------------------------------------------------------------------------------------
def test_a_node_has_time_to_drain() -> None:
    drain = container_of(SERVER)["lifecycle"]["preStop"]["sleep"]["seconds"]
    ending = serve.SHUTDOWN_SECONDS + streams.CLEAN_UP_SECONDS
    others = longpoll.END_SECONDS + eventstreams.END_SECONDS
    assert pod_of(SERVER)["terminationGracePeriodSeconds"] > drain + ending + others


def test_the_worker_has_time_to_hear_the_last_answer() -> None:
    assert pod_of(WORKER)["terminationGracePeriodSeconds"] > deliveries.POST_SECONDS


def test_nodes_go_one_at_a_time_and_never_the_last() -> None:
    spec = SERVER["spec"]
    assert spec["replicas"] > the("PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


# --- Who may what ---------------------------------------------------------------------------------
@each_workload()
def test_a_pod_may_next_to_nothing(workload: Manifest) -> None:
    pod, container = pod_of(workload), container_of(workload)
    user, group = map(int, IMAGE.last("USER").split(":"))
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]


def test_pods_that_may_more_are_refused() -> None:
    labels = the("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_whoever_no_rule_names_talks_to_nobody() -> None:
    rest = the("NetworkPolicy", "nothing-else")["spec"]
    assert (rest["podSelector"], set(rest["policyTypes"])) == ({}, {"Ingress", "Egress"})
    assert not {"ingress", "egress"} & set(rest)


def test_every_selector_finds_its_pods() -> None:
    def selected(selector: dict[str, str]) -> list[str]:
        return [name_of(each) for each in WORKLOADS if selector.items() <= labels_of(each).items()]

    for workload in (SERVER, WORKER):
        assert selected(workload["spec"]["selector"]["matchLabels"]) == [name_of(workload)]
    assert selected(the("Service")["spec"]["selector"]) == [name_of(SERVER)]
    assert selected(the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]) == [
        name_of(SERVER)
    ]
    reached = {
        name: selected(the("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"])
        for name in ("databases", "server", "webhooks")
    }
    assert reached == {
        "databases": [name_of(each) for each in WORKLOADS],
        "server": [name_of(SERVER)],
        "webhooks": [name_of(WORKER)],
    }


def test_webhooks_reach_the_internet_and_no_private_network() -> None:
    [rule] = the("NetworkPolicy", "webhooks")["spec"]["egress"]
    [block] = [each["ipBlock"] for each in rule["to"]]
    for private in ("10.1.2.3/32", "172.20.0.1/32", "192.168.1.1/32", "169.254.169.254/32"):
        assert any(
            ip_network(private).subnet_of(ip_network(network))  # type: ignore[arg-type]
            for network in block["except"]
        )


# --- Settings and secrets -------------------------------------------------------------------------
@each_workload()
def test_a_workload_gets_all_settings_and_secrets_as_files_alone(workload: Manifest) -> None:
    container = container_of(workload)
    assert container["envFrom"] == [
        {"configMapRef": {"name": the("ConfigMap")["metadata"]["name"]}}
    ]
    assert "env" not in container
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod_of(workload)["volumes"]}
    assert set(mounts) == set(volumes) == {"secrets", "tmp"}
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    files = {value for name, value in SETTINGS.items() if name.endswith("_FILE")}
    assert {str(Path(file).parent) for file in files} == {mounts["secrets"]}
    assert mounts["tmp"] == "/tmp"


def test_every_setting_is_in_the_table_of_the_readme() -> None:
    assert {name.removesuffix("_FILE") for name in SETTINGS} <= set(defaults_in_readme())
    assert "kind: Secret" not in "".join(path.read_text() for path in DIRECTORY.iterdir())


def test_the_settings_are_taken_by_the_server(tmp_path: Path) -> None:
    secrets = {
        "secret-key": "k" * 60,
        "database-url": "postgres://desktopctl@db.databases/desktopctl",
        "redis-url": "redis://redis.databases:6379/0",
        "metrics-token": "0123456789abcdef",
    }
    for name, content in secrets.items():
        (tmp_path / name).write_text(f"{content}\n")
    [place] = {str(Path(value).parent) for name, value in SETTINGS.items() if "_FILE" in name}
    taken = {name: value.replace(place, str(tmp_path)) for name, value in SETTINGS.items()}
    assert {Path(value).name for name, value in taken.items() if "_FILE" in name} == set(secrets)
    rest = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    subprocess.run([sys.executable, "manage.py", "check"], cwd=ROOT, env=rest | taken, check=True)


def test_the_document_makes_every_secret() -> None:
    document = (ROOT / "docs/deploy.md").read_text()
    made = set(re.findall(r"--from-file=(\S+)", document))
    assert made == {Path(value).name for name, value in SETTINGS.items() if "_FILE" in name}


def test_nobody_but_the_ingress_and_prometheus_reaches_a_node() -> None:
    [rule] = the("NetworkPolicy", "server")["spec"]["ingress"]
    callers = [
        (each["namespaceSelector"]["matchLabels"], each.get("podSelector", {}).get("matchLabels"))
        for each in rule["from"]
    ]
    assert callers == [
        ({"kubernetes.io/metadata.name": "ingress-nginx"}, None),
        ({"kubernetes.io/metadata.name": "monitoring"}, {"app.kubernetes.io/name": "prometheus"}),
    ]


def test_a_name_of_a_request_counts_only_where_the_proxy_replaces_it() -> None:
    # Neither controller can be told to by an annotation that is allowed by default.
    assert "TRUST_REQUEST_ID" not in SETTINGS
    assert "proxy_set_header X-Request-ID $request_id;" in NGINX


# --- The ingress ----------------------------------------------------------------------------------
def test_the_ingress_leads_to_the_service_under_the_public_name() -> None:
    spec = the("Ingress")["spec"]
    [rule] = spec["rules"]
    assert SETTINGS["PUBLIC_URL"] == f"https://{rule['host']}"
    assert [each["hosts"] for each in spec["tls"]] == [[rule["host"]]]
    [path] = rule["http"]["paths"]
    [port] = the("Service")["spec"]["ports"]
    service = {"name": the("Service")["metadata"]["name"], "port": {"name": port["name"]}}
    assert (path["path"], path["backend"]["service"]) == ("/", service)


def test_every_controller_waits_as_long_as_nginx_does() -> None:
    annotations = the("Ingress")["metadata"]["annotations"]
    for name in ("connect", "read", "send"):
        for prefix in ("nginx.ingress.kubernetes.io", "nginx.org"):
            seconds = annotations[f"{prefix}/proxy-{name}-timeout"].removesuffix("s")
            assert f"proxy_{name}_timeout {seconds}s;" in NGINX
    assert annotations["nginx.org/websocket-services"] == the("Service")["metadata"]["name"]
