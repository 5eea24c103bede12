"""What ``intentrec eval`` does: makes the experiment, prints its results, and writes the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import ConfigError
from intentrec_core.evaluation.html.page import report_page
from intentrec_core.evaluation.results_text import freshness_lines, lines
from intentrec_core.experiment.compared_rankers import Budget, ComparedRanker, counting, given_model, models
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.experiment.evaluate import Experiment, evaluate
from intentrec_core.experiment.freshness import freshness
from intentrec_core.experiment.insight import look_into
from intentrec_core.experiment.learner import Learned, Refresh
from intentrec_core.experiment.named_protocols import after_training, make_protocol
from intentrec_core.experiment.protocol_names import ProtocolName
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.findings import refuse_meaningless
from intentrec_core.plays.profile import measure
from stream.cli.bundle_store import trained_bundle
from stream.cli.progress import bars, notes, results, training_bars
from stream.trainer.retrain import WARM_EPOCHS, WARM_LEARNING_RATE

if TYPE_CHECKING:
    from intentrec_core.evaluation.protocols import Protocol
    from intentrec_core.evaluation.results import Freshness
    from intentrec_core.experiment.watch import Callbacks
    from intentrec_core.model.config import ModelConfig
    from intentrec_core.training.config import TrainConfig
    from stream.cli.data_source import DataSet
    from stream.settings import Settings

#: In place of a model to compare with.
NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the options say about the protocol."""

    protocol: ProtocolName
    share: float
    refresh_plays: int
    chooses: bool
    knows_time: bool
    hides_played: bool | None
    freshness: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An experiment with what it was made of."""

    experiment: Experiment
    data: ExperimentData
    protocol: Protocol
    freshness: Freshness | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``--json`` (docs/evaluation.md)."""
        found = self.experiment.evaluation.to_dict()
        if self.freshness is not None:
            series = {name: [figure.value for figure in figures] for name, figures in self.freshness.series}
            found["freshness"] = {"places": list(self.freshness.places), "ndcg@10": series}
        return found


class _Bars:
    """Progress bars for what an experiment does."""

    @contextmanager
    def training(self, title: str) -> Iterator[Callbacks]:
        """See :class:`~intentrec_core.experiment.watch.Watch`."""
        with training_bars(title, show_curve=True) as callbacks:
            yield callbacks

    def step(self, title: str) -> None:
        """See :class:`~intentrec_core.experiment.watch.Watch`."""
        notes().print(title, style="dim", markup=False, soft_wrap=True)


def evaluate_models(
    settings: Settings,
    data_set: DataSet,
    asked: Asked,
    config: TrainConfig,
    model_config: ModelConfig,
    *,
    against: Sequence[str],
    num_seeds: int,
) -> Evaluated:
    """Trains IntentRec and the models of the names ``against``, and compares them with what counts.

    Raises: ConfigError for a name of no model; DataError when the data make an intent meaningless, or a part of the protocol
    has no play.
    """
    if NONE in against and len(against) > 1:
        raise ConfigError(f"--against {NONE} with other models: leave out one of the two")
    if asked.freshness and asked.protocol is not ProtocolName.STREAM:
        raise ConfigError("--freshness says how often a stream is refreshed: give --protocol stream too")
    others = [name for name in against if name != NONE]
    domain = load_domain(settings.domain)
    data = ExperimentData.of(
        data_set.title, domain, data_set.plays, data_set.catalogue, hides_played=asked.hides_played
    )
    refuse_meaningless(domain, measure(data.asked.features, data.table, data.plays), settings.domain)

    def make(refresh_plays: int) -> Protocol:
        return make_protocol(
            asked.protocol, data.asked, share=asked.share, refresh_plays=refresh_plays, knows_time=asked.knows_time
        )

    budget = Budget(
        model_config,
        config,
        Refresh(WARM_EPOCHS, WARM_LEARNING_RATE),
        chooses_epoch=asked.chooses,
        device=settings.device,
    )
    rankers = [*models(data, budget, others, _Bars()), *_counting(asked)]
    found = _run(data, make(asked.refresh_plays), rankers, asked, range(config.seed, config.seed + num_seeds))
    if not asked.freshness:
        return found
    compared = [rankers[0], *(ranker for ranker in rankers if ranker.kind == "counts")]
    intervals = [asked.refresh_plays, *asked.freshness]
    known = {asked.refresh_plays: found.experiment.evaluation.rows} if num_seeds == 1 else {}
    curve = freshness(data, compared, make, intervals, seed=config.seed, watch=_Bars(), known=known)
    return replace(found, freshness=curve)


def evaluate_bundle(settings: Settings, data_set: DataSet, version: str, asked: Asked) -> Evaluated:
    """Asks a bundle as it is for the plays after those it was trained on; the chains are chosen on the last plays before.

    Raises: BundleError when it does not verify; DataError when no play comes after its training.
    """
    loaded, trained_until_ms = trained_bundle(settings, version)
    data = ExperimentData.of(
        data_set.title,
        loaded.domain,
        data_set.plays,
        data_set.catalogue,
        hides_played=asked.hides_played,
        known_items=loaded.vocabulary.item_ids[1:],
    )
    protocol = after_training(data.asked, trained_until_ms, knows_time=asked.knows_time)
    rankers = [
        given_model(data, Learned(IntentRec.of(loaded.weights), loaded.vocabulary, loaded.successors)),
        *_counting(asked),
    ]
    return _run(data, protocol, rankers, asked, range(1))


def print_evaluation(found: Evaluated) -> None:
    """Prints the results as text."""
    out = results()
    shown = list(lines(found.experiment.evaluation))
    if found.freshness is not None:
        shown += ["", *freshness_lines(found.freshness)]
    for line in shown:
        out.print(line, markup=False, soft_wrap=True)


def check_report(path: Path) -> None:
    """Refuses a report that has no place, before anything is trained.

    Raises: ConfigError naming the folder.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"--report {path}: there is no folder {path.parent}; make it, or name another file")
    if path.is_dir():
        raise ConfigError(f"--report {path} is a folder; name a file, such as {path / 'report.html'}")


def write_report(path: Path, found: Evaluated) -> None:
    """Writes the report, whole or not at all.

    Raises: ConfigError when the file cannot be written.
    """
    from intentrec_core.durable_files import write_durably

    with bars() as report:
        report("looking into the model, writing the report", 0, 0)
        insight = look_into(found.data, found.protocol.test, found.experiment.ours)
        curves = () if found.freshness is None else (found.freshness,)
        page = report_page(found.experiment.evaluation, insight.intents, insight.examples, curves)
        try:
            write_durably(path, page.encode())
        except OSError as error:
            raise ConfigError(f"--report {path} cannot be written: {error}") from error
    results().print(f"report: {path}", markup=False, soft_wrap=True)


def _counting(asked: Asked) -> list[ComparedRanker]:
    return counting(tunes=asked.chooses, is_online=asked.protocol is not ProtocolName.LEAVE_ONE_OUT)


def _run(
    data: ExperimentData, protocol: Protocol, rankers: Sequence[ComparedRanker], asked: Asked, seeds: range
) -> Evaluated:
    experiment = evaluate(
        data, protocol, rankers, seeds=seeds, chooses=asked.chooses, knows_time=asked.knows_time, watch=_Bars()
    )
    return Evaluated(experiment, data, protocol)
