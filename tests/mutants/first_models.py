"""Faults in how a first model is trained: what its domain declares must arrive, and change nothing else."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

SPEC, MODEL_CONFIG, CONFIG = (
    "intentrec_core/domain/spec.py",
    "intentrec_core/model/config.py",
    "intentrec_core/training/config.py",
)
FIRST_MODEL, RETRAIN = "intentrec_core/training/first_model.py", "stream/trainer/retrain.py"
LEARNING, DEMO = "stream/cli/learning.py", "stream/demo/first_bundle.py"
RUNS = "tests/bench/quality/runs.py"

TEST_DOMAIN = "tests/unit/intentrec_core/domain/test_toml.py"
TEST_ARRIVES, TEST_FIT = (
    "tests/unit/stream/cli/test_first_model.py",
    "tests/unit/intentrec_core/training/test_fit.py",
)
TEST_RETRAIN = "tests/unit/stream/trainer/test_retrain.py"

FIRST_MODELS = (
    Mutant(
        "a domain that trains otherwise is another domain",
        (Edit(SPEC, "default_factory=FirstModelDefaults, compare=False)", "default_factory=FirstModelDefaults)"),),
        (TEST_DOMAIN, TEST_RETRAIN),
    ),
    Mutant(
        "a domain that trains otherwise has other histories",
        (Edit(SPEC, "self.session_gap_s, ground, members]", "self.first_model.epochs, ground, members]"),),
        (TEST_DOMAIN,),
    ),
    Mutant(
        "the domain's own items come before the option",
        (
            Edit(
                MODEL_CONFIG,
                '{"own_items": domain.first_model.own_items} | chosen',
                'chosen | {"own_items": domain.first_model.own_items}',
            ),
        ),
        (TEST_DOMAIN, TEST_ARRIVES),
    ),
    Mutant(
        "the domain's epochs come before the option",
        (
            Edit(
                CONFIG,
                '{"epochs": domain.first_model.epochs} | chosen',
                'chosen | {"epochs": domain.first_model.epochs}',
            ),
        ),
        (TEST_DOMAIN, TEST_ARRIVES),
    ),
    Mutant(
        "an option that is not given comes before the domain",
        (
            Edit(
                LEARNING,
                "load_domain(settings.domain), item_counts=item_counts, **given)",
                'load_domain(settings.domain), item_counts=item_counts, **given | {"own_items": bool(given["own_items"])})',
            ),
        ),
        (TEST_ARRIVES,),
    ),
    Mutant(
        "the library's model has not the parts that its domain declares",
        (Edit(FIRST_MODEL, "model_config or ModelConfig.for_domain(domain)", "model_config or ModelConfig()"),),
        (TEST_FIT, TEST_ARRIVES),
    ),
    Mutant(
        "the library trains for other epochs than its domain declares",
        (Edit(FIRST_MODEL, "config or TrainConfig.for_domain(declared)", "config or TrainConfig()"),),
        (TEST_FIT,),
    ),
    Mutant(
        "the demo trains for other epochs than its domain declares",
        (Edit(DEMO, "TrainConfig.for_domain(load_domain(settings.domain), seed=", "TrainConfig(seed="),),
        (TEST_ARRIVES,),
    ),
    Mutant(
        "the trainer's first model has not the parts that its domain declares",
        (Edit(RETRAIN, "None if running else ModelConfig.for_domain(inputs.features.domain)", "None"),),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "the trainer's first run has other epochs than its domain declares",
        (Edit(RETRAIN, "TrainConfig.for_domain(load_domain(job.domain), max", "TrainConfig(max"),),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "a row of the quality table is run again when its domain trains otherwise",
        (
            Edit(
                RUNS,
                "dataclasses.replace(load_domain(loaded.domain), first_model=FirstModelDefaults())",
                "load_domain(loaded.domain)",
            ),
        ),
        ("tests/unit/bench/test_quality.py",),
    ),
)
