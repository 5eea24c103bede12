"""Looks into a model that has answered a task: a map of intents, and members with what the model looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.evaluation.attention_examples import AttentionExample, attention_example
from intentrec_core.evaluation.intent_map import IntentMap, intent_map
from intentrec_core.evaluation.model_ranks import BATCH_WINDOWS
from intentrec_core.evaluation.task import Task
from intentrec_core.experiment.compared_rankers import Answered
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatches

NUM_EXAMPLES, NUM_LISTED = 3, 5
#: A member with fewer plays before shows too little of what the model looks at.
MIN_PLAYS = 8


@dataclass(frozen=True, slots=True)
class Insight:
    """What the report shows of the model; ``intents`` is None for a model without an intent stage."""

    intents: IntentMap | None
    examples: tuple[AttentionExample, ...]


def look_into(data: ExperimentData, task: Task, answered: Answered) -> Insight:
    """Looks into the model that answered last, at the plays that it was asked for: in a stream those since the last refresh."""
    if answered.learned is None or not answered.answers.heads:
        return Insight(None, ())
    scorer = answered.learned.scorer(data)
    asked = np.flatnonzero(task.learned == task.learned.max())
    play = task.targets.play[asked]
    observed = {name: outcomes.observed[asked] for name, outcomes in answered.answers.heads.items()}
    names = {head.name: head.label_names for head in data.domain.heads}
    intent = intents_before(scorer.model, scorer.features, task, asked)
    found = intent_map(intent, observed, names, data.asked.row[play], data.table.titles)
    ranked = answered.answers.ranked
    examples = []
    for place, cluster in _examples(intent, found, data, play):
        target = asked[place]
        examples.append(
            attention_example(
                scorer.model,
                scorer.features,
                data.asked.members,
                int(play[place]),
                titles=data.table.titles,
                cluster=cluster,
                listed=ranked.listed[target, :NUM_LISTED],
                rank=float(ranked.ranks[target]),
            )
        )
    return Insight(found, tuple(examples))


@torch.no_grad()
def intents_before(
    model: IntentRec, features: FeatureBuilder, task: Task, which: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The intent embedding Z from which each of these targets was predicted. Shapes: i64[n] -> f32[n, P]."""
    model.eval()
    windows, place_of = task.windows, np.full(len(task.data.place), -1, dtype=np.int64)
    place_of[task.targets.play[which]] = np.arange(len(which))
    found = np.zeros((len(which), model.config.intent_width), dtype=np.float32)
    for batch in WindowBatches(features, task.data.members, windows).ordered(BATCH_WINDOWS):
        intent_BTP = model(batch.context.to(model.device)).intent_BTP.cpu().numpy()
        for number, window in enumerate(batch.windows.tolist()):
            first = int(windows.first_target[window])
            play = np.arange(int(windows.start[window]) + first, int(windows.stop[window]))
            wanted = place_of[play] >= 0
            found[place_of[play][wanted]] = intent_BTP[number, first - 1 + np.flatnonzero(wanted)]
    return found


def _examples(
    intent: NDArray[np.float32], found: IntentMap, data: ExperimentData, play: NDArray[np.int64]
) -> list[tuple[int, str]]:
    """Of the largest clusters, the play nearest to the center whose member has enough plays before it and stands for no other
    cluster: its place among ``play``, and the cluster's name. It is the typical play, whether the model was right there or not.
    """
    members = data.asked.members
    long_enough = play - members.bounds[members.member[play]] >= MIN_PLAYS
    taken: set[int] = set()
    examples = []
    for cluster in found.clusters:
        distance = ((intent - np.array(cluster.intent, dtype=np.float32)) ** 2).sum(axis=1)
        for place in np.argsort(distance, kind="stable").tolist():
            member = int(members.member[play[place]])
            if long_enough[place] and member not in taken:
                taken.add(member)
                examples.append((place, cluster.name))
                break
        if len(examples) == NUM_EXAMPLES:
            break
    return examples
