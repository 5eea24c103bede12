"""Messages are written whatever text the labels of a domain are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from stream.pipeline.message_writer import _object
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.pipeline_results import intents
from tests.worlds.tiny_world import TinyWorld

ODD = ('12" single', "back\\slash", "line\nbreak")


def test_labels_may_be_any_text(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(1))
    fields = tuple(replace(f, values=ODD) if f.name == "genre" else f for f in serving.domain.fields)
    pipeline, log = (
        make_pipeline(replace(serving, tables=replace(serving.tables, domain=replace(serving.domain, fields=fields)))),
        PlayLog(),
    )
    (result,) = pipeline.process({0: [log.play("ann", 1, 100.0)]})
    (answer,) = intents(result)
    assert tuple(answer.intents["genre"]) == ODD


def test_an_object_is_the_same_json_whether_its_names_need_escaping_or_not() -> None:
    for names in (("a", "b"), ODD[:2]):
        assert msgspec.json.decode(msgspec.json.encode(_object(names)(1, 2.5))) == dict(
            zip(names, (1, 2.5), strict=True)
        )
