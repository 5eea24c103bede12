"""One training run, in a process of its own: from the event log to a bundle in the store, gated, not yet announced.

    running bundle ─┐                                       ┌─▶ gated: why
    event log ──────┴▶ rows for new items ─▶ train ─▶ gate ─┴─▶ bundle ─▶ store ─▶ ready

A process, because it can be killed at any moment: by its time box, by SIGTERM, by running out of memory. Whatever it was
doing, nothing of it is seen by anybody until the trainer announces the bundle that it names in its last line.

Of the plays that are newer than what the running bundle has learned, the newest are held out: the gate compares both
models on them, and the next run learns them.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from intentrec_core.bundle.contents import LoadedBundle
from intentrec_core.bundle.model_folder import Model
from intentrec_core.bundle.store import BundleStore
from intentrec_core.domain.toml import domain_text, parse_domain
from intentrec_core.errors import BundleError, BundleFault, ConfigError, DataError, IntentRecError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.plays.members import pack_members
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train
from stream.bundles.builder import TRAINED_UNTIL, build_bundle, check_bundle
from stream.ops.metrics import TrainerOutcome
from stream.trainer.event_log import EventLog
from stream.trainer.gate import Contender, judge
from stream.trainer.retrain_job import GateReason, RetrainJob, RetrainResult

logger = logging.getLogger(__name__)

HELD_OUT_RATIO = 0.25
#: Fewer than 50 plays cannot tell two models apart; past 4,000 the interval hardly narrows, and learning loses plays.
MIN_HELD_OUT, MAX_HELD_OUT = 50, 4_000
WARM_EPOCHS = 3
#: A quarter of a first run's peak: it follows the newest plays without forgetting the rest. See docs/decisions.
WARM_LEARNING_RATE = 5e-4


def retrain(job: RetrainJob) -> RetrainResult:
    """Does the run.

    Raises: IntentRecError when it cannot: the log or the store cannot be read, or nothing can be learned.
    """
    store = BundleStore(job.bundle_url, Path(job.cache_dir))
    running = _running(job)
    plays = EventLog(Path(job.event_log_dir), job.topic).plays(max_plays=job.max_plays)
    learned_ms = 0 if running is None else int(running.manifest.facts.get(TRAINED_UNTIL, 0))
    num_new = int(pc.sum(pc.greater_equal(plays.column("ts_ms"), learned_ms)).as_py() or 0)
    if num_new < job.min_plays:
        return _skipped(f"{num_new} new plays, a run takes {job.min_plays}", num_new)
    cut_ms = held_out_from(plays, num_new)
    known = plays.filter(pc.less(plays.column("ts_ms"), cut_ms))
    if not known.num_rows:
        return _skipped("all plays are of one moment: none is left to learn from", num_new)

    text = domain_text(job.domain) if running is None else running.domain_text
    domain = parse_domain(text, job.domain)
    vocabulary, catalogue = rows_for(running, known, job.catalogue)
    table = ItemTable(domain, vocabulary, catalogue)
    features = FeatureBuilder(domain, vocabulary, table)
    trained = train(
        known,
        features,
        table,
        train_config(job, warm=running is not None),
        start=running.model if running else None,
        device=job.device,
        epoch_done=lambda report: logger.info("%s", report.line()),
    )
    num_items = len(vocabulary) - (len(running.vocabulary) if running else 1)
    members = pack_members(features.layout, plays)
    incumbent = Contender(running.model.to(trained.model.device), _features(running)) if running else None
    gate = judge(Contender(trained.model, features), incumbent, members, from_ms=cut_ms, margin=job.gate_margin)
    figures = RetrainResult(
        outcome=TrainerOutcome.GATED,
        reason=gate.reason,
        detail=gate.detail,
        parent=running.version if running else None,
        num_new_plays=num_new,
        num_new_items=num_items,
        candidate_hr_at_10=gate.candidate.hr_at_10,
        running_hr_at_10=gate.running.hr_at_10 if gate.running else None,
    )
    if not gate.passed:
        return figures
    if running is not None and gate.candidate.num_plays < MIN_HELD_OUT:
        return _skipped(f"{gate.candidate.num_plays} held-out plays of known members, {MIN_HELD_OUT} tell", num_new)
    try:
        built = build_bundle(
            store.cache,
            Model(
                network=trained.model,
                domain_text=text,
                vocabulary=vocabulary,
                catalogue=catalogue,
                item_table=table,
                trained_until_ms=cut_ms,
            ),
            plays,
            parent=figures.parent,
            metrics={
                "held_out_hr_at_10": gate.candidate.hr_at_10,
                "held_out_ndcg_at_10": gate.candidate.ndcg_at_10,
                "held_out_mrr": gate.candidate.mrr,
                "held_out_intent_accuracy": gate.candidate_accuracy,
            },
            facts={"num_held_out": gate.candidate.num_plays, "num_new_plays": num_new, "num_new_items": num_items},
        )
    except BundleError as error:
        return msgspec.structs.replace(figures, reason=GateReason.BUNDLE, detail=str(error))
    logger.info("%s", built.line())
    store.publish(built.ref)
    return msgspec.structs.replace(figures, outcome=TrainerOutcome.PUBLISHED, bundle=built.ref.version)


def held_out_from(plays: pa.Table, num_new: int) -> int:
    """Event time from which plays are held out: a quarter of the new ones, within limits."""
    num_held_out = min(MAX_HELD_OUT, max(MIN_HELD_OUT, int(num_new * HELD_OUT_RATIO)), plays.num_rows - 1)
    return int(plays.column("ts_ms")[plays.num_rows - num_held_out].as_py())


def rows_for(running: LoadedBundle | None, plays: pa.Table, catalogue_file: str | None) -> tuple[Vocabulary, Catalogue]:
    """Rows for all items played, behind those there are; the catalogue with what the file knows of them, if there is one.

    An item of which nothing is known has its id for a title and no fields.

    Raises: DataError when a file cannot be read.
    """
    older = running.vocabulary if running else Vocabulary([])
    vocabulary = older.extended(pc.unique(plays.column("item_id")).to_pylist())
    catalogue = running.catalogue() if running else Catalogue([])
    if catalogue_file is not None:
        known = set(vocabulary.item_ids)
        catalogue = catalogue.merged(item for item in Catalogue.load(Path(catalogue_file)) if item.item_id in known)
    return vocabulary, catalogue


def train_config(job: RetrainJob, *, warm: bool) -> TrainConfig:
    """A short run at a low rate from the running bundle, or a first bundle from nothing; both within the budget."""
    if not warm:
        return TrainConfig(max_seconds=job.budget_s, seed=job.seed)
    return TrainConfig(epochs=WARM_EPOCHS, learning_rate=WARM_LEARNING_RATE, max_seconds=job.budget_s, seed=job.seed)


def _running(job: RetrainJob) -> LoadedBundle | None:
    for version, url in job.running:
        try:
            loaded, _ = check_bundle(BundleStore(url, Path(job.cache_dir)).fetch(version).path)
        except BundleError as error:
            if error.fault is BundleFault.UNREACHABLE:
                raise
            logger.warning("cannot start from it: %s", error)
            continue
        if loaded.domain != parse_domain(domain_text(job.domain), job.domain):
            raise ConfigError(
                f"bundle {version} was made for another domain file than {job.domain}: "
                "announce a first bundle of this one, with: intentrec train --announce"
            )
        return loaded
    if job.running:
        versions = ", ".join(version for version, _ in job.running)
        raise DataError(f"none of {versions} is sound: roll back to one that is, with: intentrec bundle rollback")
    return None


def _features(loaded: LoadedBundle) -> FeatureBuilder:
    return FeatureBuilder(loaded.domain, loaded.vocabulary, loaded.item_table)


def _skipped(detail: str, num_new: int) -> RetrainResult:
    return RetrainResult(outcome=TrainerOutcome.SKIPPED, detail=detail, num_new_plays=num_new)


def main(run: Callable[[RetrainJob], RetrainResult] = retrain) -> int:
    """Reads a job, runs it, writes the result. Ends at once when standard input does: then the trainer is gone."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s retrain: %(message)s")
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=RetrainJob)
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    try:
        result = run(job)
    except (IntentRecError, OSError) as error:
        result = RetrainResult(outcome=TrainerOutcome.FAILED, detail=" ".join(str(error).split()))
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _end_with_the_trainer() -> None:
    # Not through sys.stdin: its lock, held by this thread, would abort an orderly end.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
