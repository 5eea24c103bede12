"""`intentrec doctor` on real brokers: what is well is ok, what was broken is named with its remedy, and nothing is changed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

import stream.doctor.broker as doctor_broker
from stream.doctor.broker import check_broker, topic_configs
from stream.doctor.check import Check, Checks, CheckStatus
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.command_line import commands_with
from tests.rigs.rig import Rig
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle

Found = dict[str, tuple[str, str, str]]


def examined(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, Found]:
    """The command's exit code, and status, finding and remedy of each area."""
    code, out, _ = commands_with(rig.settings, monkeypatch, capsys, columns=200)("doctor", "--json", *options)
    report: dict[str, Any] = json.loads(out)
    found: Found = {}
    for check in report["checks"]:  # the first thing that is said of an area
        found.setdefault(check["area"], (check["status"], check["found"], check["remedy"]))
    assert code == bool(report["errors"]), report
    return code, found


def topics_of(settings: Settings) -> set[str]:
    async def read() -> set[str]:
        admin = AIOKafkaAdminClient(**settings.connection())
        await admin.start()
        try:
            return set(await admin.list_topics())
        finally:
            await admin.close()

    return asyncio.run(read())


def on_broker(settings: Settings, request: Any) -> None:
    async def ask() -> None:
        admin = AIOKafkaAdminClient(**settings.connection())
        await admin.start()
        try:
            await request(admin)
        finally:
            await admin.close()

    asyncio.run(ask())


def test_what_is_well_is_ok(
    broker: Broker,
    make_serving_rig: ServingRigMaker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rig, (bundle, _) = make_serving_rig(broker)
    announce_bundle(rig, bundle)
    before = topics_of(rig.settings)
    code, found = examined(rig, monkeypatch, capsys)
    assert code == 0, [(area, *what) for area, what in found.items() if what[0] == "error"]
    assert found["announced bundle"][0] == "ok"
    assert found["domain"][0] == found["clock"][0] == "ok"
    for topic in rig.settings.topics:
        status, text, _ = found[f"topic {topic}"]
        assert status == "ok", text
    is_kafka = found["broker"][0] == "ok"
    if is_kafka:
        assert found["workers"][:2] == ("warning", f"none in group {rig.settings.app_id}: plays wait")
    assert topics_of(rig.settings) <= before | {"__consumer_offsets"}, "what it made is deleted"


def test_missing_topics_are_named_and_not_created(
    broker: Broker, make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = make_rig(broker, changelog_topic="", domain="video")
    missing = f"{rig.settings.app_id}-never"
    monkeypatch.setenv("INTENTREC_INTENTS_TOPIC", missing)
    rig.settings = rig.settings.model_copy(update={"intents_topic": missing})
    code, found = examined(rig, monkeypatch, capsys)
    assert code == 1
    assert found["topics"] == ("error", f"missing: {missing}", "create them: intentrec topics")
    assert missing not in topics_of(rig.settings)


def test_a_changelog_of_other_partitions_is_an_error(
    broker: Broker, make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = make_rig(broker, domain="video")
    other = f"{rig.settings.app_id}-other"
    on_broker(
        rig.settings, lambda admin: admin.create_topics([NewTopic(other, num_partitions=3, replication_factor=1)])
    )
    while other not in topics_of(rig.settings):
        time.sleep(0.1)
    rig.settings = rig.settings.model_copy(update={"changelog_topic": other})
    monkeypatch.setenv("INTENTREC_CHANGELOG_TOPIC", other)
    code, found = examined(rig, monkeypatch, capsys)
    assert code == 1
    status, text, remedy = found[f"topic {other}"]
    assert (status, text) == ("error", "3 partitions, not 4: state would not be where it is read")
    assert "use another app_id" in remedy


@pytest.mark.kafka
def test_a_changelog_that_is_not_compacted_is_an_error(
    kafka_broker: Broker, make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = make_rig(kafka_broker, domain="video")
    topic = rig.settings.changelog_topic

    async def keep_nothing_compact(admin: AIOKafkaAdminClient) -> None:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": "delete"})])
        while (await topic_configs(admin, [topic]))[topic]["cleanup.policy"] != "delete":  # noqa: ASYNC110  (Kafka does not announce it)
            await asyncio.sleep(0.1)

    on_broker(rig.settings, keep_nothing_compact)
    code, found = examined(rig, monkeypatch, capsys)
    assert code == 1
    assert found[f"topic {topic}"] == (
        "error",
        "cleanup.policy is delete, not compact",
        f"kafka-configs --bootstrap-server {rig.settings.broker} --alter --topic {topic} --add-config cleanup.policy=compact",
    )


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("off_s", "status"), [(0.0, CheckStatus.OK), (-7.0, CheckStatus.WARNING), (3600.0, CheckStatus.ERROR)]
)
def test_the_brokers_clock_is_compared_with_ours(
    kafka_broker: Broker, make_rig: RigMaker, off_s: float, status: CheckStatus
) -> None:
    checks = Checks()
    asyncio.run(check_broker(make_rig(kafka_broker).settings, checks, lambda: time.time() - off_s))
    (clock,) = [check for check in checks.found if check.area == "clock"]
    assert clock.status is status, clock.found
    if off_s:
        found = re.search(r"clock is ([\d.]+) s (ahead of|behind) this one", clock.found)
        assert found is not None, clock.found
        assert float(found[1]) == pytest.approx(abs(off_s), abs=2.0), "half of what sending took is taken off"
        assert found[2] == ("ahead of" if off_s > 0 else "behind")


@pytest.mark.kafka
def test_the_topic_of_the_clock_wants_no_more_copies_in_sync_than_it_has(
    kafka_broker: Broker, make_rig: RigMaker
) -> None:
    """Whatever the default of the cluster is: a broker that wants two would refuse every record of a topic of one copy."""
    settings = make_rig(kafka_broker, domain="video").settings
    wanted: list[str] = []

    async def set_default(admin: AIOKafkaAdminClient, copies: str) -> None:
        node = (await admin.describe_cluster())["brokers"][0]["node_id"]
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.BROKER, str(node), {"min.insync.replicas": copies})]
        )

    async def look(admin: AIOKafkaAdminClient) -> None:
        (topic,) = [name for name in await admin.list_topics() if name.startswith(f"{settings.app_id}-doctor-")]
        wanted.append((await topic_configs(admin, [topic]))[topic]["min.insync.replicas"])

    def now_s() -> float:  # is asked while the topic is there
        with ThreadPoolExecutor(1) as other:
            other.submit(on_broker, settings, look).result()
        return time.time()

    try:
        on_broker(settings, lambda admin: set_default(admin, "2"))
        asyncio.run(check_broker(settings, Checks(), now_s))
    finally:
        on_broker(settings, lambda admin: set_default(admin, "1"))
    assert wanted == ["1", "1"]


@pytest.mark.kafka
def test_a_clock_that_cannot_be_read_in_time_hides_nothing_else(
    kafka_broker: Broker, make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_broker, "_CLOCK_DEADLINE_S", 0.0)
    found = Checks()
    asyncio.run(check_broker(make_rig(kafka_broker, domain="video").settings, found))
    status = {check.area: check.status for check in found.found}
    assert (status["broker"], status["clock"], status["workers"]) == (
        CheckStatus.OK,
        CheckStatus.WARNING,
        CheckStatus.WARNING,
    )


def test_a_broker_that_cannot_do_what_is_set_is_not_one_to_start(embedded_broker: Broker, make_rig: RigMaker) -> None:
    settings = make_rig(embedded_broker, domain="video").settings.model_copy(update={"delivery": "exactly_once"})
    found = Checks()
    asyncio.run(check_broker(settings, found))
    assert found.found == [
        Check(
            "broker",
            CheckStatus.ERROR,
            f"delivery=exactly_once: {settings.broker} has no transactions",
            "use delivery=at_least_once, or Apache Kafka",
        )
    ]


def test_a_bundle_of_another_domain_is_an_error(
    embedded_broker: Broker,
    make_serving_rig: ServingRigMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rig, (bundle, _) = make_serving_rig(embedded_broker)
    announce_bundle(rig, bundle)
    code, found = examined(rig, monkeypatch, capsys, "--domain", "video")
    assert code == 1
    assert found["announced bundle"][0] == "error"
    assert "workers refuse what a trainer makes with it" in found["announced bundle"][1]
    edited = tmp_path / "edited.toml"
    edited.write_text((tmp_path / "tiny.toml").read_text().replace("edges = [60.0, 600.0]", "edges = [60.0, 900.0]"))
    code, found = examined(rig, monkeypatch, capsys, "--domain", str(edited))
    assert (code, found["announced bundle"][0]) == (0, "warning")
    assert "train again for the file to count" in found["announced bundle"][2]
    next((tmp_path / "store").rglob(f"{bundle.version}/index*")).write_bytes(b"x")
    shutil.rmtree(tmp_path / "cache")
    code, found = examined(rig, monkeypatch, capsys)
    assert found["announced bundle"][0] == "error"
    assert "bundle rollback VERSION" in found["announced bundle"][2]


def test_the_announced_bundle_is_looked_for_where_the_announcement_says(
    embedded_broker: Broker,
    make_serving_rig: ServingRigMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Workers load it from there, whatever INTENTREC_BUNDLE_URL is where the doctor runs."""
    rig, (bundle, _) = make_serving_rig(embedded_broker)
    announce_bundle(rig, bundle)
    rig.settings = rig.settings.model_copy(update={"bundle_url": str(tmp_path / "other")})
    monkeypatch.setenv("INTENTREC_BUNDLE_URL", rig.settings.bundle_url)
    code, found = examined(rig, monkeypatch, capsys)
    assert found["bundles"][:2] == ("warning", f"none in {rig.settings.bundle_url}")
    assert (code, found["announced bundle"][0]) == (0, "ok"), found["announced bundle"]
    assert found["announced bundle"][1].startswith(bundle.version)


def test_no_broker_no_domain_and_no_device_are_three_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings.load(
        broker="127.0.0.1:9",
        domain=str(tmp_path / "none.toml"),
        bundle_url=str(tmp_path / "store"),
        cache_dir=tmp_path,
        event_log_dir=tmp_path / "log",
        pool_bytes=1 << 50,
        catalogue=tmp_path / "none.parquet",
    )
    code, out, _ = commands_with(settings, monkeypatch, capsys, columns=200)("doctor")
    assert code == 1
    lines = out.splitlines()
    assert any(
        line.startswith("error") and "no broker at 127.0.0.1:9" in line and "intentrec broker" in line for line in lines
    )
    assert any(line.startswith("error") and "none.toml" in line for line in lines)
    assert any(line.startswith("warning") and "memory" in line and "INTENTREC_POOL_BYTES" in line for line in lines)
    assert lines[-1].startswith("2 errors, ")


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        (
            "device cuda: this machine has no CUDA device; use auto or cpu",
            "device cuda: this machine has no CUDA device",
            "use auto or cpu",
        ),
        ("none.toml: No such file: write one", "none.toml: No such file", "write one"),
        (
            "my.toml: size: is 0; allowed: one of: 1; 2",
            "my.toml: size: is 0",
            "allowed: one of: 1; 2",
        ),
        (
            "a: is 3, b: is 4; correct them as in docs/data.md: keys",
            "a: is 3, b: is 4",
            "correct them as in docs/data.md: keys",
        ),
        ("not one sign", "not one sign", "see docs/operations.md"),
    ],
)
def test_a_refusal_is_split_into_what_was_found_and_the_remedy(text: str, found: str, remedy: str) -> None:
    checks = Checks()
    checks.refused("GPU", ValueError(text))
    assert checks.found == [Check("GPU", CheckStatus.ERROR, found, remedy)]
