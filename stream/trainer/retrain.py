"""One training run, in its own process: from the event log to a gated bundle in the store, not yet announced.

    running bundle ─┐                                                               ┌─▶ refused, with the reason
    event log ──────┴▶ rows for new items ─▶ data profile ─▶ train ─▶ weigh ─▶ gate ─┴─▶ bundle ─▶ store

A run is a process because it may be killed at any moment: by its deadline, by SIGTERM, or for lack of memory. A killed run has
no effect: a bundle in the store serves nothing until the trainer announces the version named in the run's last output line.

Among the plays newer than the running bundle's training data, the newest are held out: the weight of successors is chosen on
them, the gate compares both models on them, and the next run trains on them.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from intentrec_core.bundle.contents import LoadedBundle
from intentrec_core.bundle.model_folder import Model
from intentrec_core.bundle.store import BundleStore
from intentrec_core.domain.spec import Domain
from intentrec_core.domain.toml import domain_text, load_domain, parse_domain
from intentrec_core.errors import BundleError, BundleFault, ConfigError, DataError, IntentRecError
from intentrec_core.evaluation.model_ranks import Contender
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.release_times import check_release_times
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.drift import drift
from intentrec_core.plays.findings import errors
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.profile import DataProfile, measure
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train
from intentrec_core.training.weighing import weigh_successors
from stream.bundles.builder import TRAINED_UNTIL, build_bundle, check_index_kind, remove_leftovers
from stream.bundles.verification import check_bundle
from stream.ops.metrics import TrainerOutcome
from stream.trainer.event_log import EventLog
from stream.trainer.gate import GateResult, judge
from stream.trainer.retrain_job import GateReason, RetrainJob, RetrainResult

logger = logging.getLogger(__name__)

HELD_OUT_RATIO = 0.25
#: Fewer than 50 plays cannot tell two models apart; above 4,000 the interval hardly narrows and training loses plays.
MIN_HELD_OUT, MAX_HELD_OUT = 50, 4_000
WARM_EPOCHS = 3
#: A quarter of a first run's peak rate: it adapts to the newest plays without losing older ones. See docs/decisions.
WARM_LEARNING_RATE = 5e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a model is trained on, and its bundle built from, besides plays. ``num_new_items``: items added to the running
    vocabulary.
    """

    domain_text: str
    features: FeatureBuilder
    vocabulary: Vocabulary
    catalogue: Catalogue
    item_table: ItemTable
    num_new_items: int


def retrain(job: RetrainJob) -> RetrainResult:
    """Runs the job: train, gate, and put a bundle that passed into the store.

    Raises: IntentRecError if the run is impossible: the log or the store cannot be read, or there is nothing to train on.
    """
    store = BundleStore(job.bundle_url, Path(job.cache_dir))
    running = _running_bundle(job)
    # A log that an older trainer wrote may hold earlier plays, in another unit.
    earliest_ms = parse_domain(domain_text(job.domain), job.domain).earliest_ms
    plays = EventLog(Path(job.event_log_dir), job.topic).plays(since_ms=earliest_ms, max_plays=job.max_plays)
    num_new = _num_new_plays(plays, running)
    if num_new < job.min_plays:
        return _skipped(f"{num_new} new plays; a run needs {job.min_plays}", num_new)
    cut_ms = held_out_from(plays, num_new)
    known = plays.filter(pc.less(plays.column("ts_ms"), cut_ms))
    if not known.num_rows:
        return _skipped("all plays have the same event time: none is left to train on", num_new)
    store.check_writable()
    parent = running.version if running else None
    result = RetrainResult(outcome=TrainerOutcome.GATED, detail="", parent=parent, num_new_plays=num_new)
    try:
        inputs = _inputs(job, running, known)
        profile = measure(inputs.features, inputs.item_table, plays)
    except DataError as error:
        return msgspec.structs.replace(result, reason=GateReason.DATA, detail=str(error))
    moved = _drift(inputs.features.domain, running, profile)
    result = msgspec.structs.replace(result, num_new_items=inputs.num_new_items, drift=moved)
    meaningless = errors(inputs.features.domain, profile)
    if meaningless:
        return msgspec.structs.replace(result, reason=GateReason.DATA, detail="; ".join(meaningless))
    model = _train_candidate(job, running, inputs, known)
    members = pack_members(inputs.features.layout, plays)
    successors = weigh_successors(
        model,
        inputs.features,
        members,
        from_ms=cut_ms,
        before=running.successors if running else None,
        counted_until_ms=_trained_until_ms(running),
    )
    logger.info("the weight of successors is %g", successors.weight)
    gate = _compare(job, Contender(model, inputs.features, successors), running, members, cut_ms)
    if gate.passed and running is not None and gate.candidate.num_plays < MIN_HELD_OUT:
        return _skipped(
            f"{gate.candidate.num_plays} held-out plays of known members; a comparison needs {MIN_HELD_OUT}", num_new
        )
    result = msgspec.structs.replace(
        result,
        reason=gate.reason,
        detail=gate.detail,
        candidate_hr_at_10=gate.candidate.hr_at_10,
        running_hr_at_10=gate.running.hr_at_10 if gate.running else None,
    )
    if not gate.passed:
        return result
    saved = Model(
        network=model,
        domain_text=inputs.domain_text,
        vocabulary=inputs.vocabulary,
        catalogue=inputs.catalogue,
        item_table=inputs.item_table,
        trained_until_ms=cut_ms,
        successors=successors,
    )
    return _publish(job, store, saved, running, gate, result, plays)


def _num_new_plays(plays: pa.Table, running: LoadedBundle | None) -> int:
    """Plays that are newer than the running bundle's training data."""
    return int(pc.sum(pc.greater_equal(plays.column("ts_ms"), _trained_until_ms(running))).as_py() or 0)


def _trained_until_ms(running: LoadedBundle | None) -> int:
    return 0 if running is None else int(running.manifest.facts.get(TRAINED_UNTIL, 0))


def _inputs(job: RetrainJob, running: LoadedBundle | None, plays: pa.Table) -> Inputs:
    """Rows for the items of ``plays``, after those of the running bundle if there is one, and what the catalogue says of them."""
    text = domain_text(job.domain) if running is None else running.domain_text
    domain = parse_domain(text, job.domain)
    vocabulary, catalogue = rows_for(running, plays, job.catalogue, domain, is_whole=job.catalogue_is_whole)
    check_index_kind(job.index, len(vocabulary) - 1, plays)
    table = ItemTable(domain, vocabulary, catalogue)
    return Inputs(
        domain_text=text,
        features=FeatureBuilder(domain, vocabulary, table),
        vocabulary=vocabulary,
        catalogue=catalogue,
        item_table=table,
        num_new_items=len(vocabulary) - (len(running.vocabulary) if running else 1),
    )


def _drift(domain: Domain, running: LoadedBundle | None, profile: DataProfile) -> dict[str, float]:
    before = running.profile() if running else None
    return drift(domain, before, profile) if before else {}


def _train_candidate(job: RetrainJob, running: LoadedBundle | None, inputs: Inputs, plays: pa.Table) -> IntentRec:
    """Trains on ``plays``, starting from the running bundle's model if there is one, which stays what it is."""
    trained = train(
        plays,
        inputs.features,
        inputs.item_table,
        train_config(job, warm=running is not None),
        model_config=None if running else ModelConfig.for_domain(inputs.features.domain),
        start=IntentRec.of(running.weights) if running else None,
        device=job.device,
        epoch_done=lambda report: logger.info("%s", report.line()),
    )
    return trained.model


def _compare(
    job: RetrainJob, candidate: Contender, running: LoadedBundle | None, members: MemberPlays, cut_ms: int
) -> GateResult:
    incumbent = None
    if running is not None:
        network = IntentRec.of(running.weights).to(candidate.model.device)
        incumbent = Contender(network, _features(running), running.successors)
    return judge(candidate, incumbent, members, from_ms=cut_ms, margin=job.gate_margin)


def _publish(
    job: RetrainJob,
    store: BundleStore,
    model: Model,
    running: LoadedBundle | None,
    gate: GateResult,
    result: RetrainResult,
    plays: pa.Table,
) -> RetrainResult:
    """Builds the candidate's bundle and puts it into the store; a bundle that does not verify is refused."""
    try:
        built = build_bundle(
            store.cache,
            model,
            plays,
            parent=result.parent,
            index_kind=job.index,
            previous=running.profile() if running else None,
            metrics={
                "held_out_hr_at_10": gate.candidate.hr_at_10,
                "held_out_ndcg_at_10": gate.candidate.ndcg_at_10,
                "held_out_mrr": gate.candidate.mrr,
                "held_out_intent_accuracy": gate.candidate_accuracy,
            },
            facts={
                "num_held_out": gate.candidate.num_plays,
                "num_new_plays": result.num_new_plays,
                "num_new_items": result.num_new_items,
            },
        )
    except BundleError as error:
        return msgspec.structs.replace(result, reason=GateReason.BUNDLE, detail=str(error))
    logger.info("%s", built.line())
    for warning in built.warnings:
        logger.warning("%s", warning)
    remove_leftovers(store)
    store.publish(built.ref)
    return msgspec.structs.replace(result, outcome=TrainerOutcome.PUBLISHED, bundle=built.ref.version)


def held_out_from(plays: pa.Table, num_new: int) -> int:
    """Event time from which plays are held out: the newest quarter of the new plays, within limits."""
    num_held_out = min(MAX_HELD_OUT, max(MIN_HELD_OUT, int(num_new * HELD_OUT_RATIO)), plays.num_rows - 1)
    return int(plays.column("ts_ms")[plays.num_rows - num_held_out].as_py())


def rows_for(
    running: LoadedBundle | None,
    plays: pa.Table,
    catalogue_file: str | None,
    domain: Domain,
    *,
    is_whole: bool = False,
) -> tuple[Vocabulary, Catalogue]:
    """The running vocabulary, extended by rows for the other played items, and the catalogue, updated from the file if given.

    ``is_whole``: every item of the file gets a row. An item missing from the catalogue has its id as title and no fields.

    Raises: DataError if the file cannot be read, or has releases in another unit.
    """
    older = running.vocabulary if running else Vocabulary([])
    vocabulary = older.extended(pc.unique(plays.column("item_id")).to_pylist())
    catalogue = running.catalogue() if running else Catalogue([])
    if catalogue_file is not None:
        newer = Catalogue.load(Path(catalogue_file))
        try:
            newer = check_release_times(newer, domain)
        except DataError as error:
            raise DataError(f"{catalogue_file}: {error}") from error
        if is_whole:
            vocabulary = vocabulary.extended(item.item_id for item in newer)
        known = set(vocabulary.item_ids)
        for left_out in newer.left_out:
            logger.warning("%s: %s", catalogue_file, left_out.line())
        catalogue = catalogue.merged(item for item in newer if item.item_id in known)
    return vocabulary, catalogue


def train_config(job: RetrainJob, *, warm: bool) -> TrainConfig:
    """A short run at a low learning rate from the running bundle, or a full first run as the domain declares it; both within the
    time budget.
    """
    if not warm:
        return TrainConfig.for_domain(load_domain(job.domain), max_seconds=job.budget_s, seed=job.seed)
    return TrainConfig(epochs=WARM_EPOCHS, learning_rate=WARM_LEARNING_RATE, max_seconds=job.budget_s, seed=job.seed)


def _running_bundle(job: RetrainJob) -> LoadedBundle | None:
    for version, url in job.running:
        try:
            loaded, _ = check_bundle(BundleStore(url, Path(job.cache_dir)).fetch(version))
        except BundleError as error:
            if error.fault is BundleFault.UNREACHABLE:
                raise
            logger.warning("not starting from this bundle: %s", error)
            continue
        if loaded.domain != parse_domain(domain_text(job.domain), job.domain):
            raise ConfigError(
                f"bundle {version} was trained for another domain than {job.domain}: "
                "announce a first bundle for this domain, with: intentrec train --announce"
            )
        return loaded
    if job.running:
        versions = ", ".join(version for version, _ in job.running)
        raise DataError(
            f"none of the bundles {versions} verifies: roll back to one that does: intentrec bundle rollback"
        )
    return None


def _features(loaded: LoadedBundle) -> FeatureBuilder:
    return FeatureBuilder(loaded.domain, loaded.vocabulary, loaded.item_table)


def _skipped(detail: str, num_new: int) -> RetrainResult:
    return RetrainResult(outcome=TrainerOutcome.SKIPPED, detail=detail, num_new_plays=num_new)


def _failed(detail: str) -> RetrainResult:
    return RetrainResult(outcome=TrainerOutcome.FAILED, detail=" ".join(detail.split()))


def main(run: Callable[[RetrainJob], RetrainResult] = retrain) -> int:
    """Reads a job, runs it and writes the result. Exits at once when standard input closes: the trainer is gone."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s retrain: %(message)s")
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=RetrainJob)
    threading.Thread(target=_exit_with_trainer, daemon=True).start()
    try:
        result = run(job)
    except (IntentRecError, OSError) as error:
        result = _failed(str(error))
    except Exception as error:  # whatever a run raises: the trainer reports it and goes on with the next run
        logger.exception("internal error (please report)")
        result = _failed(f"internal error (please report): {error!r}; its log has the traceback")
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _exit_with_trainer() -> None:
    # Not through sys.stdin: this thread would hold its lock, which makes Python abort at exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
