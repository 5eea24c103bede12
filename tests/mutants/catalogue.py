"""All mutants, by what they break."""

from __future__ import annotations

from tests.mutants.console import CONSOLES
from tests.mutants.data import DATA
from tests.mutants.delivery import DELIVERY
from tests.mutants.device import DEVICE
from tests.mutants.evaluation import EVALUATION
from tests.mutants.experiment import EXPERIMENT
from tests.mutants.explain import EXPLANATIONS
from tests.mutants.features import FEATURES
from tests.mutants.first_models import FIRST_MODELS
from tests.mutants.folding import FOLD_RULES
from tests.mutants.gateway import GATEWAYS
from tests.mutants.index import INDEX
from tests.mutants.item_counts import ITEM_COUNTS
from tests.mutants.live_catalogue import LIVE_CATALOGUE
from tests.mutants.live_quality import LIVE_QUALITY
from tests.mutants.liveness import LIVENESS
from tests.mutants.messages import OUTPUT_MESSAGES
from tests.mutants.migration import MIGRATION
from tests.mutants.own_data import OWN_DATA
from tests.mutants.partition_tasks import PARTITION_TASKS
from tests.mutants.poison import POISON
from tests.mutants.prefill import PREFILL
from tests.mutants.quantised import QUANTISED
from tests.mutants.repair import REPAIR
from tests.mutants.score import SCORE
from tests.mutants.shared_heads import SHARED_HEADS
from tests.mutants.signals import SIGNALS
from tests.mutants.sizes import SIZES_OF_OUTPUTS
from tests.mutants.slots import SLOT_PARTS
from tests.mutants.state import STATE
from tests.mutants.successors import SUCCESSORS
from tests.mutants.times import TIMES_AND_NULLS
from tests.mutants.weights import WEIGHTS_AS_ARRAYS

MUTANTS = (
    *DELIVERY,
    *PREFILL,
    *PARTITION_TASKS,
    *LIVENESS,
    *SIGNALS,
    *STATE,
    *TIMES_AND_NULLS,
    *WEIGHTS_AS_ARRAYS,
    *FOLD_RULES,
    *REPAIR,
    *EXPLANATIONS,
    *POISON,
    *SIZES_OF_OUTPUTS,
    *OUTPUT_MESSAGES,
    *DEVICE,
    *QUANTISED,
    *SHARED_HEADS,
    *SLOT_PARTS,
    *MIGRATION,
    *DATA,
    *FEATURES,
    *OWN_DATA,
    *FIRST_MODELS,
    *LIVE_CATALOGUE,
    *ITEM_COUNTS,
    *INDEX,
    *EVALUATION,
    *EXPERIMENT,
    *LIVE_QUALITY,
    *SCORE,
    *SUCCESSORS,
    *GATEWAYS,
    *CONSOLES,
)
