"""Invalid bundles announced to a real worker under load: the old one goes on serving, and the counter gives the reason."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.format import MANIFEST, BundleRef, encode_manifest, read_manifest, write_bundle
from stream.bundles.announcements import ANNOUNCEMENT_KEY
from stream.local_kafka.broker import Broker
from stream.ops.scrape import scrape
from stream.wire.codec import encode
from stream.wire.messages import Announcement
from tests.faults.load import GroupView, Load
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Rig, Worker
from tests.rigs.serving_rig import (
    ServingRigMaker,
    announce_bundle,
    bundles_named,
    counted,
    start_serving,
    until,
    wait_ready,
    world_plays,
)
from tests.rigs.verdict import judge
from tests.worlds.bundle_world import CREATED_AT, make_bundle
from tests.worlds.tiny_world import DOMAIN, TinyWorld

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

NEVER_THERE = BundleRef("b0123456789ab", Path("nowhere"))
Spoil = Callable[[BundleRef], object]
Content = Callable[[bytes], bytes]


# --- spoiled after they were written


def _flip(file: str) -> Spoil:
    def spoil(ref: BundleRef) -> None:
        data = bytearray((ref.path / file).read_bytes())
        data[len(data) // 2] ^= 1
        (ref.path / file).write_bytes(data)

    return spoil


def _cut(file: str) -> Spoil:
    return lambda ref: (ref.path / file).write_bytes((ref.path / file).read_bytes()[:-100])


def _later_format(ref: BundleRef) -> None:
    later = msgspec.structs.replace(read_manifest(ref.path), format=99)
    (ref.path / MANIFEST).write_bytes(encode_manifest(later))


SPOILED: list[tuple[str, str, Spoil]] = [
    ("a flipped bit in the weights", "checksum", _flip(bundle.WEIGHTS)),
    ("a flipped bit in the index", "checksum", _flip(bundle.INDEX)),
    ("truncated weights", "checksum", _cut(bundle.WEIGHTS)),
    ("an empty vocabulary", "checksum", lambda ref: (ref.path / bundle.VOCABULARY).write_bytes(b"")),
    ("a file that is missing", "missing_file", lambda ref: (ref.path / bundle.INDEX).unlink()),
    ("no manifest", "missing_file", lambda ref: (ref.path / MANIFEST).unlink()),
    ("a file too many", "unexpected_file", lambda ref: (ref.path / "more.bin").write_bytes(b"?")),
    ("a truncated manifest", "manifest", _cut(MANIFEST)),
    ("a format of the future", "code_version", _later_format),
]


# --- wrong as they were written, with checksums that are right


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Content:
    def content(data: bytes) -> bytes:
        arrays = load_arrays(data)
        return save_arrays(arrays | {name: np.ascontiguousarray(change(arrays[name].copy()))})

    return content


def _with_nan(array: np.ndarray) -> np.ndarray:
    array.flat[3] = np.nan
    return array


def _overflowing(data: bytes) -> bytes:
    """Weights that are finite, and make NaN of any context."""
    own = "item_encoder.layers"
    return save_arrays({n: np.full_like(a, 1e38) if n.startswith(own) else a for n, a in load_arrays(data).items()})


WRONG: list[tuple[str, str, str, Content]] = [
    ("NaN in the weights", "not_finite", bundle.WEIGHTS, _array("item_bias", _with_nan)),
    ("NaN in the vectors", "not_finite", bundle.VECTORS, _array("weights", _with_nan)),
    ("weights that overflow", "not_finite", bundle.WEIGHTS, _overflowing),
    ("weights of another shape", "shape", bundle.WEIGHTS, _array("item_bias", lambda array: array[:-1])),
    ("no safetensors", "shape", bundle.WEIGHTS, lambda _: b"pickle"),
    ("vectors of other weights", "golden", bundle.VECTORS, _array("bias", lambda array: array + 1)),
    ("other golden answers", "golden", bundle.GOLDEN, _array("rows", lambda array: array[:, ::-1])),
    ("a domain of another schema", "domain", bundle.DOMAIN, lambda _: b"[[field]]\nname = 3"),
    ("a vocabulary that is none", "vocabulary", bundle.VOCABULARY, lambda _: b"no parquet"),
]


def _rewritten(ref: BundleRef, file: str, content: Content) -> BundleRef:
    """Another bundle, of the same files but for one."""
    files: dict[str, bytes | Path] = {name: (ref.path / name).read_bytes() for name in bundle.BUNDLE_FILES}
    files[file] = content((ref.path / file).read_bytes())
    return write_bundle(ref.path.parent, files=files, parent=None, created_at=CREATED_AT, code_version="0.1.0")


def _bad_bundles(root: Path, world: TinyWorld) -> list[tuple[str, str, BundleRef]]:
    """What is wrong with it, the reason it must be refused for, the bundle."""
    bad = []
    for seed, (what, reason, spoil) in enumerate(SPOILED, start=100):
        ref = make_bundle(root, world, world.model(seed))
        spoil(ref)
        bad.append((what, reason, ref))
    good = make_bundle(root, world, world.model(200))
    bad += [(what, reason, _rewritten(good, file, content)) for what, reason, file, content in WRONG]
    shutil.rmtree(good.path)
    other = make_bundle(root, world, world.model(201), domain_text=DOMAIN.format(window=2 * world.window))
    bad.append(("histories of another length", "domain", other))
    bad.append(("a bundle that is not there", "missing_file", NEVER_THERE))
    bad.append(("a path as a version", "manifest", BundleRef("../../../etc/passwd", root)))
    return bad


def test_bad_bundles_leave_the_old_one_serving(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, world: TinyWorld
) -> None:
    rig, (first, second) = make_serving_rig(kafka_broker)
    bad = _bad_bundles(Path(rig.settings.bundle_url), world)
    announce_bundle(rig, first)
    worker = start_serving(rig)
    wait_ready(worker)
    with Load(rig, world_plays, 50), GroupView(rig.settings) as group:
        group.catches_up(rig, rate=50)
        for what, reason, ref in bad:
            before = _refusals(worker)
            announce_bundle(rig, ref)
            until(lambda before=before: _refusals(worker).total() > before.total(), 60, worker)
            assert _refusals(worker) - before == {reason: 1}, what
            until(partial(_says, worker, f"refused: bundle {ref.version}: {reason}"), 30, worker)
        _announce_badly(rig, second, worker)
        until(lambda: counted(worker, "bundle_info", bundle=first.version) == 1, 30, worker)
        assert counted(worker, "bundle_swaps_total") == 0
        named = set(bundles_named(rig))
        announce_bundle(rig, second)
        until(lambda: counted(worker, "bundle_info", bundle=second.version) == 1, 60, worker)
        group.catches_up(rig, rate=50)
    rig.wait_for_answers(rig.num_sent)
    samples = scrape(worker.metrics_port)
    assert samples is not None
    assert samples.total("intentrec_partitions_reopened_total") == 0
    num_refused = samples.total("intentrec_bundle_rejections_total")
    assert worker.terminate() == 0, worker.log()[-3000:]
    assert named == {first.version}
    assert set(bundles_named(rig)) == {first.version, second.version}
    fault_row("bad bundles under load", judge(rig.settings, rig.layout), kinds=len(bad) + 2, refused=int(num_refused))

    # One that starts while the newest announcement is bad looks for one that can serve.
    (overflowing,) = [ref for what, _, ref in bad if what == "weights that overflow"]
    for newest in (NEVER_THERE, overflowing):  # no play has shown yet that the second one overflows
        announce_bundle(rig, newest)
        late = start_serving(rig)
        wait_ready(late, 120)
        rig.produce(world_plays(rig, 50))
        rig.wait_for_answers(rig.num_sent)
        assert late.terminate() == 0, late.log()[-3000:]
    assert set(bundles_named(rig)) == {first.version, second.version}


def _announce_badly(rig: Rig, good: BundleRef, worker: Worker) -> None:
    """A good bundle under an old number, one at no URL, and bytes that announce nothing."""
    producer = Producer({"bootstrap.servers": rig.settings.broker, "log_level": 0})

    def send(value: bytes | None) -> None:
        producer.produce(rig.settings.model_updates_topic, value, ANNOUNCEMENT_KEY, 0)
        assert producer.flush(30) == 0

    for value in (None, b"", b"{}", b"\xff", b"[" * 100_000, encode(_announcement(0, good, rig.settings.bundle_url))):
        send(value)
    before = counted(worker, "bundle_rejections_total", reason="stale_sequence")
    send(encode(_announcement(1, good, rig.settings.bundle_url)))
    until(lambda: counted(worker, "bundle_rejections_total", reason="stale_sequence") == before + 1, 60, worker)
    send(encode(_announcement(1000, good, "nosuch://store")))
    until(lambda: counted(worker, "bundle_rejections_total", reason="unreachable") >= 1, 60, worker)


def _says(worker: Worker, text: str) -> bool:
    return text in worker.log()


def _announcement(sequence: int, ref: BundleRef, url: str) -> Announcement:
    return Announcement(sequence=sequence, bundle=ref.version, url=url, created_at=CREATED_AT)


def _refusals(worker: Worker) -> Counter[str]:
    """How often the worker has refused a bundle, by reason."""
    while (samples := scrape(worker.metrics_port)) is None:
        assert worker.process.poll() is None, worker.log()[-3000:]
        time.sleep(0.1)
    return Counter(
        {reason: int(num) for reason, num in samples.by("intentrec_bundle_rejections_total", "reason").items()}
    )
