"""Every setting of every IntentRec process, and the only file that reads the environment.

``Settings.load()`` reads ``INTENTREC_*``; an unknown name with that prefix is refused, because a misspelt setting that
is silently ignored is found in production. Core packages never see this object: they take plain arguments.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from intentrec_core.errors import ConfigError

PREFIX = "INTENTREC_"

# The broker's own limit on a record (message.max.bytes) is 1 MiB plus a margin for headers.
MAX_PLAY_BYTES = 1_000_000

Delivery = Literal["at_least_once", "exactly_once"]
Transactions = Literal["auto", "on", "off"]


class SettingHasNoEffect(UserWarning):
    """A setting was given that the other settings make meaningless."""


class Settings(BaseSettings):
    """One process's settings; frozen, validated as a whole.

    Raises ConfigError through ``load``, naming each field, its value and what is allowed.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True, env_ignore_empty=True
    )

    # --- the broker and how to reach it
    broker: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, HOST:PORT[,HOST:PORT]")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_file: Path | None = None

    # --- names on the broker
    app_id: str = Field("intentrec", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="consumer group and id prefix")
    plays_topic: str = "plays"
    recommendations_topic: str = "recommendations"
    intents_topic: str = "intents"
    dead_letter_topic: str = "plays.dlq"
    late_topic: str = "plays.late"
    model_updates_topic: str = "model-updates"
    changelog_topic: str = Field("", description="default: <app_id>-history")

    # --- topic creation
    num_partitions: int = Field(8, ge=1, le=4096, description="partitions of plays, its changelog and the outputs")
    replication_factor: int | None = Field(None, ge=1, le=9, description="default: one a node, up to three")

    # --- delivery
    delivery: Delivery = "at_least_once"
    transactions: Transactions = Field("auto", description="auto: as the broker can; off: changelog, then offsets")
    # A transaction a partition, which costs worker and broker a millisecond each, however little is in it.
    commit_interval_s: float = Field(
        0, ge=0, le=5, description="default: 0.1 with delivery=exactly_once, whose subscribers wait for it, else 0.5"
    )
    # A stalled worker holds read_committed readers up for this long; Kafka's default would be a minute.
    transaction_timeout_s: float = Field(10.0, ge=1, le=60)
    plays_partitioner: Literal["murmur2", "any"] = "murmur2"

    # --- membership
    consumer_group_instance_id: str | None = Field(None, description="static membership, for stable identities only")
    session_timeout_s: float = Field(10.0, ge=6, le=300)
    rebalance_timeout_s: float = Field(30.0, ge=1, le=600)

    # --- the hot path
    domain: str = Field("movielens", description="name of a domain or path of a domain file")
    bundle_url: str = Field(".intentrec/bundles", description="fsspec URL of the bundle store")
    cache_dir: Path = Field(default_factory=lambda: Path.home() / ".cache" / "intentrec")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    # A fetch for each few plays costs worker and broker more than all else that is done for these plays.
    fetch_wait_ms: int = Field(
        20, ge=1, le=1000, description="the broker gathers plays for so long, or a micro-batch of them"
    )
    batch_deadline_ms: float = Field(
        1.0, ge=0, le=1000, description="what was fetched waits for more: of other brokers"
    )
    max_batch: int = Field(256, ge=1, le=65536, description="plays in one micro-batch over all partitions")
    # Twice what is on the inference thread keeps it busy; more would only be latency and memory.
    max_buffered_batches: int = Field(8, ge=1, le=1024, description="fetched plays held, in batches")
    # State not yet in a transaction: bounds memory and replay when commits stall, without throttling a healthy 50,000/s.
    max_uncommitted: int = Field(65536, ge=1024, description="plays processed or fetched, not yet committed")
    max_uncommitted_bytes: int = Field(256 * 1024 * 1024, ge=1024 * 1024, description="the same, in bytes of plays")
    # Above max_uncommitted, which a healthy worker may hold while one commit stalls; some ten seconds of work with a model.
    coalesce_above_lag: int = Field(
        100_000, ge=0, description="lag in plays from which plays of a member share one answer; 0: never"
    )
    # Some 50 ms of one core for a model of width 64: what a burst of members who are not cached adds to the others' latency.
    # Smaller parts cost more in all: halving it adds a third where every fourth member is not cached.
    max_prefill_positions: int = Field(
        2048, ge=0, description="plays of whole contexts encoded between two micro-batches; 0: no bound"
    )
    pool_bytes: int = Field(256 * 1024 * 1024, ge=1024 * 1024)
    num_recommendations: int = Field(10, ge=1, le=500)
    beta: float = Field(0.0, ge=0, le=100)

    # --- observation and deadlines
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(9464, ge=0, le=65535, description="0: any free port")
    recovery_deadline_s: float = Field(300.0, gt=0)
    # Below the 30 s that orchestrators commonly wait between SIGTERM and SIGKILL.
    drain_deadline_s: float = Field(20.0, gt=0)
    progress_deadline_s: float = Field(60.0, gt=0, description="/livez fails after this long without progress")

    # --- the trainer
    retrain_interval_s: float = Field(3600.0, gt=0)
    retrain_budget_s: float | None = Field(
        None, ge=1, description="time for learning in a run; default: half the interval"
    )
    retrain_min_plays: int = Field(1000, ge=100, description="new plays without which a run is skipped")
    retrain_max_plays: int = Field(2_000_000, ge=1000, description="the newest plays of the log that a run reads")
    catalogue: Path | None = Field(None, description="Parquet or JSON lines of items, read anew for every run")
    event_log_dir: Path = Path(".intentrec/event-log")
    event_log_flush_s: float = Field(5.0, gt=0, le=3600)
    gate_margin: float = Field(0.02, ge=0, le=1)

    @field_validator("broker")
    @classmethod
    def _check_broker(cls, value: str) -> str:
        for address in value.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("allowed: HOST:PORT, or several with commas between")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.changelog_topic:
            object.__setattr__(self, "changelog_topic", f"{self.app_id}-history")
        if not self.commit_interval_s:
            object.__setattr__(self, "commit_interval_s", 0.1 if self.delivery == "exactly_once" else 0.5)
        topics = self.topics
        if len(set(topics)) != len(topics):
            raise ValueError(f"two topics share one name: {', '.join(topics)}")
        if self.delivery == "exactly_once" and self.transactions == "off":
            raise ValueError("delivery=exactly_once needs transactions: set transactions to on or auto")
        if self.security_protocol.startswith("SASL") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError("security_protocol with SASL needs sasl_username and sasl_password")
        if not self.security_protocol.startswith("SASL") and self.sasl_username is not None:
            warnings.warn(
                f"sasl_username has no effect with security_protocol={self.security_protocol}",
                SettingHasNoEffect,
                stacklevel=2,
            )
        return self

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of all topics, in data-flow order."""
        return (
            self.plays_topic,
            self.changelog_topic,
            self.recommendations_topic,
            self.intents_topic,
            self.dead_letter_topic,
            self.late_topic,
            self.model_updates_topic,
        )

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read the environment, then apply ``overrides`` (the command line's options).

        Raises ConfigError when a name or value is not allowed; the message names it.
        """
        known = {PREFIX + name.upper() for name in cls.model_fields}
        unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in known)
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)} in the environment; unset it or mend the name")
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    def connection(self) -> dict[str, Any]:
        """How aiokafka clients reach the broker: keyword arguments for any of them."""
        options: dict[str, Any] = {"bootstrap_servers": self.broker, "security_protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            from aiokafka.helpers import create_ssl_context

            options["ssl_context"] = create_ssl_context(cafile=str(self.ssl_ca_file) if self.ssl_ca_file else None)
        if self.sasl_password is not None:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options


def _one_line(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        value = problem.get("input")
        tellable = field and isinstance(value, str | int | float) and "password" not in field
        shown = f" (given {value!r})" if tellable else ""
        problems.append(f"setting {field}{shown}: {message}" if field else f"settings: {message}")
    return "; ".join(problems)
