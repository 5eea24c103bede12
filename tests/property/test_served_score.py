"""The score that is served is the logit that was trained, whatever the labels: one, several, none; and whatever the intents.

Four ways to the same number: the definition over the reference's probabilities (naive_score), the model's logits, what an exact
index finds after the compiled step, and the library's list.

Tolerance: 1e-3 absolute, as for scores elsewhere: sums of 20 products of values that agree within 1e-4.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from index.conditioning import augment, query
from index.exact import ExactIndex
from intentrec_core import LiveEncoder, LivePlay
from intentrec_core.bundle.contents import item_label_heads, item_vectors
from intentrec_core.bundle.model_folder import Model
from intentrec_core.domain.toml import parse_domain
from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.engine.engine import EncodeRequest, IncrementalEngine
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.engine.reference import recompute
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.context_batch import collate
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import EventLayout, History
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.intent_score import weighted_scores
from intentrec_core.model.model import IntentRec
from tests.worlds.naive_score import naive_own_offsets, naive_scores, naive_successor_offsets
from tests.worlds.tiny_world import START_MS, random_successors

TOLERANCE = 1e-3
NUM_ITEMS = 12
HISTORY = """
name = "drawn"
[history]
window = 4
watched = 0
session_gap_s = 1800
short_term_window_s = 86400
max_future_s = 300
[duration_weight]
kind = "none"
"""
#: Heads by what their label is: several an item, one an item, one in a bucket, the play's own, moving with time.
FIELDS = {
    "genre": 'kind = "multi_label"\nsource = "catalogue"\nvalues = ["drama", "comedy", "kids"]',
    "form": 'kind = "categorical"\nsource = "catalogue"\nvalues = ["movie", "show"]',
    "era": 'kind = "bucketed"\nsource = "catalogue"\nkey = "year"\nedges = [1980.0, 2000.0]',
    "contact": 'kind = "categorical"\nsource = "rule"\nrule = "first_contact"\nvalues = ["first", "later"]',
    "age": 'kind = "bucketed"\nsource = "rule"\nrule = "time_since_release"\nkey = "released"\nedges = [30.0, 365.0]',
}
attributes = st.fixed_dictionaries(
    {},
    optional={
        "genre": st.lists(st.sampled_from(["drama", "comedy", "kids"]), unique=True),
        "form": st.sampled_from(["movie", "show", "song"]),  # a song is no label
        "year": st.sampled_from([1970, 1990, 2010]),
        "released": st.sampled_from(["2023-11-01", "1999-01-01"]),
    },
)


def drawn_model(
    heads: list[str], items: list[dict[str, object]], betas: list[float], seed: int, *, own_items: bool = False
) -> Model:
    """A model with random weights over a drawn domain and catalogue."""
    fields = [
        f'[[field]]\nname = "{name}"\n{text}\nintent = {str(name in heads).lower()}' for name, text in FIELDS.items()
    ]
    text = HISTORY + "\n".join(fields)
    domain = parse_domain(text, "drawn.toml")
    catalogue = Catalogue([Item(f"item-{i}", f"Title {i}", own) for i, own in enumerate(items)])
    vocabulary = Vocabulary.build(f"item-{i}" for i in range(NUM_ITEMS))
    table = ItemTable(domain, vocabulary, catalogue)
    torch.manual_seed(seed)
    sizes = ModelConfig(width=16, num_heads=2, intent_width=8, dropout=0.0, own_items=own_items)
    network = IntentRec(sizes, domain, table).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Heads far from uniform: sure of one label, and some labels below the least probability.
            parameter.add_((4.0 if name.startswith("heads.heads") else 0.1) * torch.randn_like(parameter))
        if network.intent_beta is not None:
            network.intent_beta.copy_(torch.tensor(betas[: len(network.intent_beta)]))
    return Model(
        network=network,
        domain_text=text,
        vocabulary=vocabulary,
        catalogue=catalogue,
        item_table=table,
        trained_until_ms=START_MS,
    )


@given(
    heads=st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, unique=True),
    items=st.lists(attributes, min_size=NUM_ITEMS, max_size=NUM_ITEMS),
    betas=st.lists(st.sampled_from([-0.5, 0.0, 0.3, 1.0, 2.0]), min_size=3, max_size=3),
    plays=st.lists(st.integers(0, NUM_ITEMS), min_size=1, max_size=7),
    seed=st.integers(0, 3),
    scale=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_the_served_score_is_the_trained_logit(
    heads: list[str],
    items: list[dict[str, object]],
    betas: list[float],
    plays: list[int],
    seed: int,
    scale: float,
) -> None:
    model = drawn_model(heads, items, betas, seed)
    network, domain, layout = model.network, model.domain, EventLayout(model.domain)
    context = b"".join(
        layout.pack(f"item-{item}", f"event-{at}", START_MS + 60_000 * at, None, {}).data
        for at, item in enumerate(plays)
    )
    wanted = naive_scores(network, model.item_table, recompute(network, model.features, [context]))

    with torch.no_grad():
        output = network(collate(model.features.columns([context], [0])))
        logits = network.item_logits(network.queries(output)[0, -1]).numpy()
    np.testing.assert_allclose(logits, wanted, atol=TOLERANCE, rtol=0)

    engine = IncrementalEngine(network.weights(), model.features, pool_bytes=context_bytes(network), version="b0")
    encoded = engine.encode([EncodeRequest(MemberKey(0, "ann"), 0, context, 0)])
    vectors = item_vectors(network.weights(), model.item_table, START_MS / 1000)
    index = ExactIndex(augment(vectors.weights, vectors.bias, list(vectors.labels.values())))
    labelled = [m for m, head in enumerate(domain.heads) if head in item_label_heads(domain)]
    scaled = np.float32(scale) * network.weights().betas()[labelled]
    rows, scores = index.search(
        query(encoded.item_NW, weighted_scores([encoded.heads[m] for m in labelled], scaled)), NUM_ITEMS
    )
    assert sorted(rows[0]) == list(range(1, NUM_ITEMS + 1))
    of_reference = naive_scores(network, model.item_table, encoded, scale=scale)
    np.testing.assert_allclose(scores[0], of_reference[rows[0]], atol=TOLERANCE, rtol=0)
    if scale == 1.0:
        np.testing.assert_allclose(scores[0], wanted[rows[0]], atol=TOLERANCE, rtol=0)

    live = LiveEncoder(model, cache_bytes=context_bytes(network))
    for at, item in enumerate(plays):
        update = live.play_many([LivePlay(user_id="ann", item_id=f"item-{item}", ts_ms=START_MS + 60_000 * at)])[0]
    listed = update.recommend(NUM_ITEMS)
    rows_listed = [model.vocabulary.row(item.item_id) for item in listed]
    np.testing.assert_allclose([item.score for item in listed], wanted[rows_listed], atol=TOLERANCE, rtol=0)


@given(
    items=st.lists(attributes, min_size=NUM_ITEMS, max_size=NUM_ITEMS),
    plays=st.lists(st.tuples(st.integers(0, NUM_ITEMS), st.sampled_from([0, 30, 90_000])), min_size=1, max_size=14),
    seed=st.integers(0, 3),
    weight=st.sampled_from([None, 0.0, 0.8]),
)
@settings(max_examples=40, deadline=None)
def test_the_library_scores_own_items_and_successors_as_they_were_trained_and_counted(
    items: list[dict[str, object]], plays: list[tuple[int, int]], seed: int, weight: float | None
) -> None:
    model = drawn_model(["genre", "contact"], items, [0.3] * 3, seed, own_items=True)
    if weight is not None:
        successors = random_successors(len(model.vocabulary), seed, weight=weight)
        model = dataclasses.replace(model, successors=successors)
    live, layout = LiveEncoder(model, cache_bytes=context_bytes(model.network)), EventLayout(model.domain)
    history, ts_ms = History(), START_MS
    for number, (item, gap_s) in enumerate(plays):
        ts_ms += 1000 * gap_s
        play = {"item_id": f"item-{item}", "event_id": f"e{number}", "ts_ms": ts_ms, "duration_s": None}
        update = live.play_many([LivePlay(user_id="ann", **play)])[0]
        history.apply(layout, layout.pack(**play, attributes={}), number)
        encoded = recompute(model.network, model.features, [history.events])
        wanted = naive_scores(model.network, model.item_table, encoded)
        wanted += naive_own_offsets(model.network, model.features, history.events, encoded)
        if model.successors is not None:
            wanted += naive_successor_offsets(model.successors, model.features, history.events)
        listed = update.recommend(NUM_ITEMS)
        rows = [model.vocabulary.row(one.item_id) for one in listed]
        np.testing.assert_allclose([one.score for one in listed], wanted[rows], atol=TOLERANCE, rtol=0)
