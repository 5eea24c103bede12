"""Sizes and parts of the model, and the numbers that all its implementations share. This module does not need torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from intentrec_core.domain.spec import Domain
from intentrec_core.errors import ConfigError

#: Width of the embedding of each field of F.
FIELD_WIDTH = 16
#: The attention layer of the short-term encoder, which sees only plays within the short-term window.
SHORT_TERM_LAYER = 0
#: The unit of time in the biases of attention.
TIME_UNIT_S = 60.0
#: The periods of the time encoding (:class:`intentrec_core.model.attention.TimeEncoding`): a day and a week.
PERIODS_S = (86_400.0, 604_800.0)
#: Numbers of a play that the time encoding is linear in: sine and cosine of each period, the gap, and whether there is none.
TIME_COLUMNS = 2 * len(PERIODS_S) + 2


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and parts of the model.

    ``num_kv_heads``: heads of keys and values in every attention layer; None: as many as ``num_heads``. It divides ``num_heads``;
    with 1, all heads share one key and one value of a play (multi-query attention), and a member's cache takes 1 / ``num_heads``.
    ``intent_stage``: whether intents are predicted first. ``intent_score``: whether they also add to the score of an item.
    ``item_counts``: whether decayed counts of plays and the item's age add to its score too
    (:mod:`intentrec_core.features.play_counts`), taken every ``count_refresh_s`` seconds of event time. A worker takes the counts
    of the topic item-counts; ``LiveEncoder`` has none.
    ``own_items``: whether the member's own plays add to the scores of their items (:mod:`intentrec_core.model.own_items`).

    Raises: ConfigError with the value and the allowed range.
    """

    width: int = 64
    num_heads: int = 2
    num_kv_heads: int | None = None
    num_layers: int = 1
    intent_width: int = 32
    dropout: float = 0.3
    intent_stage: bool = True
    intent_score: bool = True
    item_counts: bool = False
    count_refresh_s: int = 3600
    own_items: bool = False

    @classmethod
    def for_domain(cls, domain: Domain, **given: Any) -> ModelConfig:
        """Sizes and parts of a first model: those ``given``, then what the domain declares, then the defaults. None: not given.

        Raises: ConfigError with the value and the allowed range.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        return cls(**{"own_items": domain.first_model.own_items} | chosen)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("width", 8, 4096),
            ("num_heads", 1, 64),
            ("num_layers", 1, 48),
            ("intent_width", 1, 4096),
            ("count_refresh_s", 1, 30 * 86_400),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"model {name} is {value}; allowed: a whole number, {low} to {high}")
        if self.width % self.num_heads:
            raise ConfigError(f"model width {self.width} is not a multiple of num_heads {self.num_heads}")
        shared = self.num_kv_heads
        divisors = [number for number in range(1, self.num_heads + 1) if self.num_heads % number == 0]
        if shared is not None and (isinstance(shared, bool) or not isinstance(shared, int) or shared not in divisors):
            raise ConfigError(
                f"model num_kv_heads is {shared}; allowed: None or a divisor of num_heads: {', '.join(map(str, divisors))}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model dropout is {self.dropout}; allowed: at least 0, below 1")

    @property
    def num_cached_layers(self) -> int:
        """Number of attention layers whose keys and values are cached: short-term, intent stage, item stage."""
        return 1 + self.num_layers * (2 if self.intent_stage else 1)

    @property
    def num_cached_heads(self) -> int:
        """Number of heads that a layer's keys have, and its values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def cached_width(self) -> int:
        """Numbers of a play's key in one layer, and of its value."""
        return self.width // self.num_heads * self.num_cached_heads

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON. Heads that share nothing are left out: such a bundle is the same in earlier releases."""
        values = asdict(self)
        if self.num_cached_heads == self.num_heads:
            del values["num_kv_heads"]
        return values


class ModelSizes(Protocol):
    """What has a model's config and domain: the network, or its weights as arrays."""

    @property
    def config(self) -> ModelConfig:
        """Sizes and parts of the model."""
        ...

    @property
    def domain(self) -> Domain:
        """The declaration of fields and intents."""
        ...
