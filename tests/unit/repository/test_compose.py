"""docker-compose.yml without a Docker engine: its structure, that every command exists and every setting is a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LOCKS = ("serving", "training")
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("intentrec")}
LONG_RUNNING = ("kafka", "worker-1", "worker-2", "trainer", "gateway", "prometheus")


def test_all_parts_are_there() -> None:
    assert {*LONG_RUNNING, "topics"} <= set(SERVICES)


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_what_runs_on_has_a_health_check_and_restarts(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(check)
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_as_root_or_without_limits(name: str) -> None:
    service = SERVICES[name]
    assert str(service["user"]).split(":")[0] not in ("0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"mem_limit", "cpus", "pids_limit"} <= set(service)


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "kafka"])
def test_file_systems_are_read_only_but_for_volumes(name: str) -> None:
    # Kafka's image writes its configuration beside its program when it starts.
    assert SERVICES[name]["read_only"] is True


def test_what_trains_has_torch_and_nothing_else_does() -> None:
    for name, service in OURS.items():
        lock = "training" if service["command"][0] in ("train", "trainer") else "serving"
        assert service["build"]["args"] == {"LOCK": lock}, name
        assert service["image"] == f"intentrec:{lock}"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        *[(name, "INTENTREC_CACHE_DIR") for name in OURS if name != "topics"],
        ("trainer", "INTENTREC_EVENT_LOG_DIR"),
        ("trainer", "INTENTREC_BUNDLE_URL"),
        ("first-bundle", "INTENTREC_BUNDLE_URL"),
        *[(name, "NUMBA_CACHE_DIR") for name in ("first-bundle", "worker-1", "worker-2", "trainer")],
    ],
)
def test_what_a_process_writes_to_is_writable(name: str, folder: str) -> None:
    """The file systems are read-only: without a mount here a worker would wait for its bundle forever."""
    image = (ROOT / "deploy/docker/Dockerfile").read_text().replace("\\\n", " ").split()
    path = next(word.split("=")[1] for word in image if word.startswith(folder + "="))
    service = SERVICES[name]
    volumes = [volume.split(":") for volume in service.get("volumes", [])]
    writable = [parts[1] for parts in volumes if parts[2:] != ["ro"]]
    writable += [mount.split(":")[0] for mount in service["tmpfs"] if "uid=10001" in mount]
    assert path in writable


def test_what_answers_callers_writes_no_code_that_workers_run() -> None:
    assert not any("/var/lib/intentrec/compiled" in volume for volume in OURS["gateway"]["volumes"])
    assert OURS["gateway"]["environment"]["NUMBA_CACHE_DIR"].startswith("/tmp/")


def test_the_gateway_asks_for_a_token_and_is_reached_where_it_says() -> None:
    """In its container it serves every address; without a key it would refuse to start, and its console shows every process."""
    environment = OURS["gateway"]["environment"]
    key = environment["INTENTREC_GATEWAY_KEY_FILE"]
    assert OURS["gateway-key"]["environment"]["INTENTREC_GATEWAY_KEY_FILE"] == key
    folder = key.rsplit("/", 1)[0]
    assert f"keys:{folder}" in OURS["gateway-key"]["volumes"]
    assert f"keys:{folder}:ro" in OURS["gateway"]["volumes"]
    assert folder in (ROOT / "deploy/docker/Dockerfile").read_text()
    assert environment["INTENTREC_GATEWAY_ADDRESS"] == "http://gateway:9470"
    assert OURS["gateway"]["ports"] == ["127.0.0.1:9470:9470"]
    scraped = {f"http://{name}:9464" for name in ("worker-1", "worker-2", "trainer")}
    assert set(environment["INTENTREC_GATEWAY_SCRAPE"].split(",")) == scraped


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_volume_and_network_that_is_used_is_declared() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"]
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])


def test_the_order_of_the_start_leaves_no_one_waiting_for_what_never_comes() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, f"{name} waits for {needed}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed]
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[needed]["restart"].startswith("on-failure")


def test_a_stopped_worker_has_longer_than_its_drain_takes() -> None:
    drain_s = Settings.model_fields["drain_deadline_s"].default
    for name in ("worker-1", "worker-2"):
        assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > drain_s


def test_every_setting_that_is_named_is_a_real_one_and_its_value_is_allowed() -> None:
    for name, service in OURS.items():
        environment = service["environment"]
        settings_named = environment.keys() - {"OMP_NUM_THREADS", "NUMBA_CACHE_DIR"}  # of OpenMP and numba
        assert settings_named <= {PREFIX + field.upper() for field in Settings.model_fields}, name
        settings = Settings(**{key.removeprefix(PREFIX).lower(): environment[key] for key in settings_named})
        assert settings.broker == "kafka:9092"


def test_the_image_sets_only_real_settings() -> None:
    words = (ROOT / "deploy/docker/Dockerfile").read_text().replace("\\\n", " ").split()
    named = {word.split("=")[0] for word in words if word.startswith(PREFIX)}
    assert named
    assert named <= {PREFIX + field.upper() for field in Settings.model_fields}


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in (ROOT / "deploy/docker/Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            sources = [word.replace("${LOCK}", lock) for word in line.split()[1:-1] for lock in LOCKS]
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(source == path or source.startswith(f"{path}/") for path in kept), source


def test_metrics_are_scraped_from_every_process_at_the_port_it_is_told() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in scraped for static in job["static_configs"] for target in static["targets"]}
    for name in ("worker-1", "worker-2", "trainer", "gateway"):
        environment = OURS[name]["environment"]
        assert f"{name}:{environment['INTENTREC_METRICS_PORT']}" in targets
        assert environment["INTENTREC_METRICS_HOST"] == "0.0.0.0"
        assert f":{environment['INTENTREC_METRICS_PORT']}/readyz" in OURS[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_with_all_its_options(name: str) -> None:
    """The real parser takes the command line: --help at its end stops before anything is run."""
    command = [*OURS[name]["command"], "--help"]
    done = subprocess.run([sys.executable, "-m", "stream.cli", *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    options = [word for word in OURS[name]["command"] if word.startswith("--")]
    assert all(option in done.stdout for option in options)
