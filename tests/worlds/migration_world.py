"""Members who have played, and all of them moved to another bundle."""

from __future__ import annotations

from stream.bundles.serving import Serving
from stream.pipeline.pipeline import Pipeline
from tests.worlds.bundle_world import PlayLog, make_pipeline
from tests.worlds.pipeline_results import run


def played_in(serving: Serving, log: PlayLog, num_users: int, num_plays: int = 6, **config: int) -> Pipeline:
    """Members with some plays each, 100 s between two of all of them; the last one has played last."""
    pipeline = make_pipeline(serving, **config)
    for i in range(num_users * num_plays):
        log.play(f"user-{i % num_users}", i % 30, 100.0 * i)
    run(pipeline, log.records)
    return pipeline


def migrate_all(pipeline: Pipeline) -> None:
    """Runs a migration to its end."""
    while pipeline.step_migration():
        pass
