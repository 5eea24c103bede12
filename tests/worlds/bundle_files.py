"""The files of a small bundle, written as a bundle is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from index import artifact, conditioning
from index.golden import check_golden, golden_bytes
from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.contents import item_vectors, pack_files
from intentrec_core.bundle.format import write_bundle
from intentrec_core.errors import BundleError
from intentrec_core.plays.profile import measure
from tests.worlds.tiny_plays import random_plays
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld

CREATED = "2026-03-01T20:15:00.000Z"
WORLD = TinyWorld()


def build_index(vectors):
    return artifact.build(conditioning.augment(vectors.weights, vectors.bias, list(vectors.labels.values())))


def golden_check(loaded):
    vectors = loaded.vectors
    augmented = conditioning.augment(vectors.weights, vectors.bias, list(vectors.labels.values()))
    index = artifact.load(loaded.path / bundle.INDEX, augmented, loaded.version)
    check_golden(index, (loaded.path / bundle.GOLDEN).read_bytes(), loaded.version)


def files_of(world, folder, seed=0, successors=None):
    model = world.model(seed)
    vectors = item_vectors(model.weights(), world.table, START_MS / 1000)
    index = build_index(vectors)
    queries = np.random.default_rng(seed).normal(size=(5, index.dimension)).astype(np.float32)
    return pack_files(
        folder,
        domain_text=DOMAIN.format(window=world.window),
        weights=model.weights(),
        vocabulary=world.vocabulary,
        catalogue=world.catalogue,
        vectors=vectors,
        popularity=np.arange(len(world.vocabulary)),
        index=artifact.to_bytes(index),
        golden=golden_bytes(index, queries, 7),
        profile=measure(world.features, world.table, random_plays(members=3, plays=20)),
        successors=successors,
    )


def write(root, files, parent=None, **fields):
    given = {"created_at": CREATED, "code_version": "0.1.0", "metrics": {"ndcg_at_10": 0.25}} | fields
    return write_bundle(root, files=files, parent=parent, **given)


def fault_of(call, *arguments, **keywords):
    with pytest.raises(BundleError) as refused:
        call(*arguments, **keywords)
    return refused.value.fault


def half_bundle(store: Path, age_s: float) -> Path:
    """What a publisher that was killed so long ago has left in a store; returns its folder."""
    folder = store / "b0123456789ab"
    folder.mkdir(parents=True)
    left = folder / bundle.WEIGHTS
    left.write_bytes(b"half")
    os.utime(left, (time.time() - age_s,) * 2)
    return folder
