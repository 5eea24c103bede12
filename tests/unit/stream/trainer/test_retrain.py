"""A training run from event log to store, without a broker: first bundle, warm start, new items, reasons not to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from intentrec_core.bundle.contents import LoadedBundle
from intentrec_core.bundle.format import BUNDLE_FILES, SUCCESSORS, WEIGHTS
from intentrec_core.bundle.store import BundleStore
from intentrec_core.domain.toml import parse_domain
from intentrec_core.errors import BundleError, ConfigError, DataError
from intentrec_core.evaluation.model_ranks import Contender
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.model.config import ModelConfig
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import plays_table
from intentrec_core.successors import SuccessorTable
from intentrec_core.training import weighing
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train
from stream.bundles.builder import TRAINED_UNTIL
from stream.bundles.verification import check_bundle
from stream.ops.metrics import TrainerOutcome
from stream.trainer import retrain as subject
from stream.trainer.event_log_writer import backfill
from stream.trainer.gate import GateResult, judge
from stream.trainer.retrain import held_out_from, retrain, rows_for
from stream.trainer.retrain_job import GateReason, RetrainJob
from tests.worlds.bundle_files import half_bundle
from tests.worlds.tiny_world import START_MS
from tests.worlds.trainer_world import DOMAIN_TEXT, TINY_MODEL, WalkingWorld

WALK = WalkingWorld(num_items=24)
TRAIN_CONFIG = subject.train_config
#: Items that are played before the catalogue has them.
UNDESCRIBED = ("item-21", "item-22")


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """First models are small here; nothing else about training is another."""

    def small(*args: object, **options: object) -> object:
        if options["start"] is None:
            options["model_config"] = TINY_MODEL
        return train(*args, **options)

    monkeypatch.setattr(subject, "train", small)
    monkeypatch.setattr(
        subject, "train_config", lambda job, warm: TrainConfig(epochs=2 if warm else 6, learning_rate=1e-2)
    )


@pytest.fixture
def job(tmp_path: Path) -> RetrainJob:
    domain, items = tmp_path / "tiny.toml", tmp_path / "items.parquet"
    domain.write_text(DOMAIN_TEXT)
    Catalogue(item for item in WALK.catalogue if item.item_id not in UNDESCRIBED).save(items)
    return RetrainJob(
        event_log_dir=str(tmp_path / "log"),
        topic="plays",
        domain=str(domain),
        bundle_url=str(tmp_path / "store"),
        cache_dir=str(tmp_path / "cache"),
        running=(),
        catalogue=str(items),
        device="cpu",
        budget_s=60.0,
        min_plays=300,
        max_plays=10_000,
        gate_margin=0.02,
    )


def log_plays(job: RetrainJob, num_plays: int, num_items: int = 20) -> None:
    """Makes the log hold the walk's first plays; items beyond ``num_items`` occur from play 600 on."""
    rows = [
        *WALK.rows(min(600, num_plays), num_items=num_items),
        *WALK.rows(max(0, num_plays - 600), first=600, num_items=24),
    ]
    backfill(Path(job.event_log_dir), "plays", plays_table(rows))


def published(job: RetrainJob) -> LoadedBundle:
    """What the run has put into the store, fetched by a machine that has never seen it."""
    result = retrain(job)
    assert result.outcome is TrainerOutcome.PUBLISHED, result.detail
    assert result.bundle is not None
    elsewhere = Path(job.cache_dir).with_name(f"other-{result.bundle}")
    return check_bundle(BundleStore(job.bundle_url, elsewhere).fetch(result.bundle).path)[0]


def test_a_first_bundle_and_a_warm_one_with_rows_for_new_items(job: RetrainJob, tmp_path: Path) -> None:
    log_plays(job, 600)
    half = half_bundle(tmp_path / "store", age_s=100_000)
    first = published(job)
    assert not half.exists(), "a publisher that was killed left it a day ago"
    assert first.manifest.parent is None
    assert first.manifest.facts[TRAINED_UNTIL] == START_MS + 450 * 30_000  # a quarter is held out
    log_plays(job, 1_200)
    titles = tmp_path / "items.jsonl"
    titles.write_text(
        '{"item_id": "item-22", "title": "Twenty-two", "genre": ["kids"]}\n{"item_id": "unplayed", "title": "x"}\n'
    )
    warm = msgspec.structs.replace(job, running=((first.version, job.bundle_url),), catalogue=str(titles))
    second = published(warm)
    assert second.manifest.parent == first.version
    assert second.vocabulary.extends(first.vocabulary)
    assert len(second.vocabulary) == 25
    row = second.vocabulary.row("item-22")
    assert second.item_table.titles[row] == "Twenty-two"
    assert second.item_table.multi["genre"][row].tolist() == [0.0, 0.0, 1.0]
    unknown = second.vocabulary.row("item-21")
    assert second.item_table.titles[unknown] == "item-21"
    assert second.catalogue().get("unplayed") is None
    assert second.manifest.facts["num_new_items"] == 4
    assert 0.0 < second.manifest.metrics["held_out_hr_at_10"] <= 1.0


def test_successors_are_counted_once_weighed_on_held_out_plays_and_go_on_with_the_next_bundle(
    job: RetrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighing, "MIN_TARGETS", 100)
    log_plays(job, 600)
    first = published(job)
    assert first.successors is not None
    assert first.successors.weight in weighing.WEIGHTS
    log_plays(job, 1_200)
    monkeypatch.setattr(weighing, "WEIGHTS", (0.0, 7.0))
    monkeypatch.setattr(weighing, "best_weight", lambda _: 7.0)
    judged = list[Contender]()

    def noted(candidate: Contender, running: Contender | None, *args: object, **options: object) -> GateResult:
        judged.extend([candidate, *([running] if running else [])])
        return judge(candidate, running, *args, **options)

    monkeypatch.setattr(subject, "judge", noted)
    second = published(msgspec.structs.replace(job, running=((first.version, job.bundle_url),)))
    assert second.successors is not None
    assert second.successors.weight == 7.0
    candidate, running = judged
    assert (candidate.successors, running.successors) != (None, None)
    for contender, one in ((candidate, second), (running, first)):
        np.testing.assert_array_equal(contender.successors.table.counts, one.successors.table.counts)
        assert contender.successors.weight == one.successors.weight
    features = FeatureBuilder(second.domain, second.vocabulary, second.item_table)
    members = pack_members(features.layout, plays_table([*WALK.rows(600, num_items=20), *WALK.rows(600, first=600)]))
    known = members.events["ts_ms"] < second.manifest.facts[TRAINED_UNTIL]
    rows = features.rows(members.events["item_hash"][known])
    whole = SuccessorTable.empty(len(second.vocabulary)).counted(rows, members.member[known])
    np.testing.assert_array_equal(second.successors.table.rows, whole.rows)
    np.testing.assert_allclose(second.successors.table.counts, whole.counts, rtol=1e-5)


def test_too_few_held_out_plays_leave_the_weight_as_it_was(job: RetrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "MIN_TARGETS", 100)
    monkeypatch.setattr(weighing, "best_weight", lambda _: 2.0)
    log_plays(job, 600)
    first = published(job)
    monkeypatch.setattr(weighing, "MIN_TARGETS", 1_000)
    monkeypatch.setattr(weighing, "best_weight", lambda _: 3.0)
    log_plays(job, 1_200)
    second = published(msgspec.structs.replace(job, running=((first.version, job.bundle_url),)))
    assert first.successors.weight == second.successors.weight == 2.0
    assert second.successors.table.totals.sum() > first.successors.table.totals.sum()


def test_a_first_bundle_is_trained_as_the_domain_declares(job: RetrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[TrainConfig] = []

    def noted(plays: object, features: object, items: object, config: TrainConfig, **options: object) -> object:
        runs.append(config)
        return train(plays, features, items, config, **options)

    monkeypatch.setattr(subject, "train", noted)
    monkeypatch.setattr(subject, "train_config", TRAIN_CONFIG)
    Path(job.domain).write_text(f"{DOMAIN_TEXT}[first_model]\nepochs = 2\nown_items = true\n")
    log_plays(job, 400)
    assert published(job).weights.config == ModelConfig(own_items=True)
    (config,) = runs
    assert (config.epochs, config.max_seconds) == (2, job.budget_s)


def test_a_bundle_without_own_items_is_refreshed_without_them_though_the_domain_now_declares_them(
    job: RetrainJob,
) -> None:
    log_plays(job, 600)
    first = published(job)
    assert not first.weights.config.own_items
    Path(job.domain).write_text(f"{DOMAIN_TEXT}[first_model]\nown_items = true\n")
    log_plays(job, 1_200)
    second = published(msgspec.structs.replace(job, running=((first.version, job.bundle_url),)))
    assert second.manifest.parent == first.version
    assert second.weights.config == first.weights.config


def test_too_few_new_plays_are_no_reason_to_train(job: RetrainJob) -> None:
    log_plays(job, 600)
    assert retrain(msgspec.structs.replace(job, min_plays=601)).outcome is TrainerOutcome.SKIPPED
    first = published(job)
    result = retrain(msgspec.structs.replace(job, running=((first.version, job.bundle_url),)))
    assert result.outcome is TrainerOutcome.SKIPPED
    assert result.num_new_plays == 150  # those held out from the first one


def test_a_candidate_that_is_worse_leaves_nothing_in_the_store(
    job: RetrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_plays(job, 600)
    first = published(job)
    log_plays(job, 1_200)
    monkeypatch.setattr(subject, "train_config", lambda job, warm: TrainConfig(epochs=1, learning_rate=1.0))
    result = retrain(msgspec.structs.replace(job, running=((first.version, job.bundle_url),)))
    assert result.outcome is TrainerOutcome.GATED
    assert result.reason in (GateReason.WORSE_ITEMS, GateReason.WORSE_INTENTS, GateReason.NOT_FINITE)
    assert [manifest.version for manifest in BundleStore(job.bundle_url, Path(job.cache_dir)).list()] == [first.version]


def test_data_that_make_an_intent_meaningless_are_gated_before_training_and_leave_nothing_in_the_store(
    job: RetrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log_plays(job, 600)
    first = published(job)
    log_plays(job, 1_200)
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(f'{{"item_id": "item-{i}", "genre": {{}}, "available": "yes"}}\n' for i in range(24)))
    monkeypatch.setattr(subject, "train", None)
    result = retrain(
        msgspec.structs.replace(job, running=((first.version, job.bundle_url),), catalogue=str(bare), min_plays=1)
    )
    assert (result.outcome, result.reason) == (TrainerOutcome.GATED, GateReason.DATA)
    assert (
        "intent genre has no known label at any play: no item that was played has the attribute 'genre'"
        in result.detail
    )
    assert "filter available available hides every item: 24 items have a value that cannot be read" in result.detail
    assert result.drift["genre"] > 0.5
    assert f"{bare}: line 1, item 'item-0', attribute genre: a nested value (and in 23 more rows)" in caplog.text
    assert [manifest.version for manifest in BundleStore(job.bundle_url, Path(job.cache_dir)).list()] == [first.version]


def test_a_text_where_a_number_is_declared_gates_the_run(job: RetrainJob) -> None:
    rows = [*WALK.rows(600)]
    rows[500] = rows[500]._replace(context={"max_maturity": "x"})
    backfill(Path(job.event_log_dir), "plays", plays_table(rows))
    result = retrain(job)
    assert (result.outcome, result.reason) == (TrainerOutcome.GATED, GateReason.DATA)
    assert result.detail.startswith("plays: event_id 'event-500' of user")
    assert "context max_maturity: 'x' is not a finite number" in result.detail


def test_a_bundle_keeps_its_data_profile_and_says_how_far_they_are_from_its_parents(
    job: RetrainJob, caplog: pytest.LogCaptureFixture
) -> None:
    log_plays(job, 600)
    first = published(job)
    profile = first.profile()
    assert profile is not None
    assert (profile.num_plays, profile.num_items) == (600, 20)
    assert profile.field("action").plays[0] == 0
    assert "data_drift" not in first.manifest.metrics
    rows = [*WALK.rows(600), *(row._replace(duration_s=None) for row in WALK.rows(900, first=600))]
    shutil.rmtree(job.event_log_dir)
    backfill(Path(job.event_log_dir), "plays", plays_table(rows))
    second = published(msgspec.structs.replace(job, running=((first.version, job.bundle_url),)))
    assert second.manifest.metrics["data_drift"] == pytest.approx(0.54, abs=0.05), (
        "the share without a duration, less chance"
    )
    assert "length has drifted by 5" in caplog.text


def test_a_damaged_running_bundle_is_passed_over_for_its_parent(job: RetrainJob, tmp_path: Path) -> None:
    log_plays(job, 600)
    first = published(job)
    log_plays(job, 1_200)
    second = published(msgspec.structs.replace(job, running=((first.version, job.bundle_url),)))
    weights = tmp_path / "store" / second.version / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    fresh = msgspec.structs.replace(
        job,
        cache_dir=str(tmp_path / "fresh"),
        running=((second.version, job.bundle_url), (first.version, job.bundle_url)),
    )
    only = msgspec.structs.replace(
        fresh, cache_dir=str(tmp_path / "fresh2"), running=((second.version, job.bundle_url),)
    )
    with pytest.raises(DataError, match="roll back"):
        retrain(only)
    assert published(fresh).manifest.parent == first.version  # ... and that mends the damaged one, being the same


def test_a_bundle_of_another_domain_is_not_continued(job: RetrainJob, tmp_path: Path) -> None:
    log_plays(job, 600)
    first = published(job)
    other = tmp_path / "other.toml"
    other.write_text(DOMAIN_TEXT.replace("window = 8", "window = 6"))
    changed = msgspec.structs.replace(job, domain=str(other), running=((first.version, job.bundle_url),))
    with pytest.raises(ConfigError, match="train --announce"):
        retrain(changed)


def test_plays_that_an_older_trainer_logged_in_another_unit_are_not_trained_on(job: RetrainJob) -> None:
    rows = list(WALK.rows(300, num_items=20))
    in_seconds = [row._replace(event_id=f"s{row.event_id}", ts_ms=row.ts_ms // 1000) for row in rows]
    backfill(Path(job.event_log_dir), "plays", plays_table([*in_seconds, *rows[:299]]))
    result = retrain(job)
    assert (result.outcome, result.detail) == (TrainerOutcome.SKIPPED, "299 new plays; a run needs 300")


RELEASE = '"item_id": "item-1", "title": "One", "released": '


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (f"{{{RELEASE}1577836800000}}\n", r"items\.jsonl: .*item 'item-1': released is 1577836800000.* milliseconds"),
        (f"{{{RELEASE}1}}\n{{{RELEASE}1}}\n", r"items\.jsonl: .*'item-1'"),
        ('{"title": "which item is it?"}\n', r"items\.jsonl: "),
    ],
    ids=["releases in another unit", "an id twice", "no ids"],
)
def test_a_catalogue_that_cannot_be_used_gates_the_run_with_the_file_and_the_reason(
    job: RetrainJob, tmp_path: Path, rows: str, said: str
) -> None:
    log_plays(job, 600)
    domain, items = Path(job.domain), tmp_path / "items.jsonl"
    release = 'rule = "time_since_release"\nkey = "released"\nedges = [30.0]\n'
    domain.write_text(f'{DOMAIN_TEXT}\n[[field]]\nname = "age_now"\nkind = "bucketed"\nsource = "rule"\n{release}')
    items.write_text(rows)
    result = retrain(msgspec.structs.replace(job, catalogue=str(items)))
    assert (result.outcome, result.reason) == (TrainerOutcome.GATED, GateReason.DATA)
    assert re.match(f".*{said}", result.detail)


def test_a_store_that_takes_no_files_is_found_before_training(
    job: RetrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_plays(job, 600)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(subject, "train", None)
    with pytest.raises(BundleError, match="file/store takes no files"):
        retrain(msgspec.structs.replace(job, bundle_url=str(tmp_path / "file" / "store")))


def test_held_out_plays_are_the_newest_quarter_of_the_new_ones_within_limits() -> None:
    plays = WALK.plays(1_000)
    for num_new, num_held_out in ((1_000, 250), (400, 100), (120, 50)):
        assert held_out_from(plays, num_new) == START_MS + (1_000 - num_held_out) * 30_000


def test_rows_are_given_in_the_order_of_first_plays(job: RetrainJob) -> None:
    plays = WALK.plays(200)
    vocabulary, catalogue = rows_for(None, plays, None, WALK.domain)
    played = list(dict.fromkeys(plays.column("item_id").to_pylist()))
    assert vocabulary.item_ids[1:] == played
    assert len(catalogue) == 0
    assert ItemTable(WALK.domain, vocabulary, Catalogue([Item(played[0], "T")])).titles[1] == "T"


def test_every_item_of_a_whole_catalogue_gets_a_row(job: RetrainJob, tmp_path: Path) -> None:
    plays, file = WALK.plays(200), tmp_path / "items.jsonl"
    played, domain = list(dict.fromkeys(plays.column("item_id").to_pylist())), parse_domain(DOMAIN_TEXT, "d")
    ids = ["new-1", played[0], "new-2"]
    file.write_text("".join(f'{{"item_id": "{item_id}", "title": "T", "genre": ["kids"]}}\n' for item_id in ids))
    vocabulary, catalogue = rows_for(None, plays, str(file), domain, is_whole=True)
    assert vocabulary.item_ids[1:] == [*played, "new-1", "new-2"]
    assert [item.item_id for item in catalogue] == ids
    assert rows_for(None, plays, str(file), domain)[0].item_ids[1:] == played


def test_a_bundle_has_all_its_files(job: RetrainJob, tmp_path: Path) -> None:
    log_plays(job, 600)
    folder = tmp_path / "store" / published(job).version
    assert {path.name for path in folder.iterdir()} == {*BUNDLE_FILES, SUCCESSORS, "manifest.json"}
