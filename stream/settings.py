"""All settings of all IntentRec processes. This is the only module that reads the environment.

``Settings.load()`` reads the variables ``INTENTREC_*``. It refuses an unknown name with that prefix: a misspelt setting that
is silently ignored is found in production. The core packages never see this object; they take plain arguments.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from intentrec_core.datasets.download import default_cache_dir
from intentrec_core.errors import ConfigError

PREFIX = "INTENTREC_"

# Kafka's default limit on a record (message.max.bytes) is 1 MiB plus a margin for headers.
MAX_PLAY_BYTES = 1_000_000
MAX_RECOMMENDATIONS = 500

Delivery = Literal["at_least_once", "exactly_once"]
IndexChoice = Literal["auto", "flat", "hnsw", "ivf", "pq-refine", "exact", "pruned"]
Transactions = Literal["auto", "on", "off"]


class SettingHasNoEffect(UserWarning):
    """A setting was given that has no effect in combination with the other settings."""


class Settings(BaseSettings):
    """The settings of one process. Frozen; validated as a whole.

    Raises: ConfigError through ``load``. Its message names each wrong field, the value given and what is allowed.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True, env_ignore_empty=True
    )

    # --- connection to the broker
    broker: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers: HOST:PORT[,HOST:PORT]")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how clients connect to the broker"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="how clients authenticate; used with a SASL security_protocol only"
    )
    sasl_username: str | None = Field(None, description="user name for SASL")
    sasl_password: SecretStr | None = Field(None, description="password for SASL; never logged")
    ssl_ca_file: Path | None = Field(
        None, description="PEM file of the certificate authority; default: the system's authorities"
    )

    # --- names on the broker
    app_id: str = Field(
        "intentrec",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="consumer group of the workers; prefix of client ids and transactional ids",
    )
    plays_topic: str = Field("plays", description="topic of the plays; the only input")
    recommendations_topic: str = Field("recommendations", description="topic of the recommendations")
    intents_topic: str = Field("intents", description="topic of the intent updates")
    dead_letter_topic: str = Field("plays.dlq", description="topic of the plays that could not be processed")
    late_topic: str = Field("plays.late", description="topic of the plays that arrived too late to be folded in")
    model_updates_topic: str = Field("model-updates", description="topic of the bundle announcements")
    items_topic: str = Field("items", description="topic of the catalogue's items; see catalogue_source")
    item_counts_topic: str = Field(
        "item-counts", description="topic of the decayed counts of plays: what is popular now; the trainer writes it"
    )
    changelog_topic: str = Field("", description="topic of the members' histories; default: <app_id>-history")
    changelog_schema: int = Field(
        2,
        ge=1,
        le=2,
        description="version of the changelog's records; both are read; 1 during an upgrade of workers that read 1 only",
    )

    # --- topic creation
    num_partitions: int = Field(
        8, ge=1, le=4096, description="partitions of the plays topic, the changelog and the output topics"
    )
    replication_factor: int | None = Field(
        None, ge=1, le=9, description="copies of each partition; default: the number of brokers, at most 3"
    )

    # --- delivery
    delivery: Delivery = Field(
        "at_least_once",
        description="exactly_once puts outputs, state and offsets into one transaction; subscribers must read_committed",
    )
    transactions: Transactions = Field(
        "auto",
        description="whether state and offsets are committed in one Kafka transaction; auto: if the broker supports it; "
        "off: state first, then offsets",
    )
    # Each commit is one transaction per partition. It costs worker and broker a millisecond each, however little is in it.
    commit_interval_s: float = Field(
        0,
        ge=0,
        le=5,
        description="seconds between commits; 0: 0.1 with delivery=exactly_once, where subscribers wait for the commit, "
        "and 0.5 otherwise",
    )
    # A stalled worker blocks read_committed readers for this long. Kafka's default is a minute.
    transaction_timeout_s: float = Field(
        10.0, ge=1, le=60, description="the broker aborts a transaction that has been open for this long"
    )
    plays_partitioner: Literal["murmur2", "any"] = Field(
        "murmur2",
        description="murmur2: a play in another partition than murmur2(user_id) is dead-lettered; "
        "any: producers may use another partitioner, as long as all of them use the same one",
    )

    # --- membership in the consumer group
    consumer_group_instance_id: str | None = Field(
        None, description="Kafka's group.instance.id (static membership); only for workers with a stable identity"
    )
    session_timeout_s: float = Field(
        10.0,
        ge=6,
        le=300,
        description="Kafka's session.timeout.ms: a worker without a heartbeat for this long is removed",
    )
    rebalance_timeout_s: float = Field(
        30.0, ge=1, le=600, description="Kafka's rebalance timeout: how long a worker may take to give partitions back"
    )

    # --- the hot path
    domain: str = Field("movielens", description="name of a built-in domain, or path of a domain file")
    bundle_url: str = Field(".intentrec/bundles", description="bundle store: a folder or any fsspec URL")
    cache_dir: Path = Field(
        default_factory=default_cache_dir,
        description="local folder for fetched bundles, data sets and scratch files",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="device for inference and training; auto: CUDA if present and torch is installed",
    )
    # Where plays are many, one fetch for every few would cost worker and broker more than all other work on those plays.
    fetch_wait_ms: int = Field(
        20,
        ge=1,
        le=1000,
        description="Kafka's fetch.max.wait.ms: how long the broker may wait to fill a micro-batch, where plays are many",
    )
    gather_above_per_s: float = Field(
        300,
        ge=0,
        description="plays a second of a worker with up to 8 partitions above which the broker waits to fill a micro-batch (with "
        "more partitions: fewer, in proportion); below three quarters of it, plays are fetched as they come; 0: it always waits",
    )
    # The plays of one answer of a broker are together anyway, and more gather while the inference thread works.
    batch_deadline_ms: float = Field(
        0,
        ge=0,
        le=1000,
        description="how long a fetched play may wait for plays from other brokers to join its micro-batch",
    )
    max_batch: int = Field(256, ge=1, le=65536, description="plays in one micro-batch, over all partitions")
    # Twice the plays that are on the inference thread keep it busy. More would only add latency and memory.
    max_buffered_batches: int = Field(
        8, ge=1, le=1024, description="fetched plays kept in memory before inference, in micro-batches"
    )
    # State that is not yet in a transaction. Bounds memory and replay when commits stall; does not throttle 50,000 plays/s.
    max_uncommitted: int = Field(
        65536, ge=1024, description="plays fetched or processed but not yet committed; fetching pauses above it"
    )
    max_uncommitted_bytes: int = Field(
        256 * 1024 * 1024, ge=1024 * 1024, description="the same bound in bytes of play values"
    )
    # Above max_uncommitted, which a healthy worker may hold while one commit stalls. About ten seconds of work with a model.
    coalesce_above_lag: int = Field(
        100_000,
        ge=0,
        description="lag in plays above which several plays of one member in a micro-batch get one answer; 0: never",
    )
    # About 50 ms of one core for a model of width 64: the latency that a burst of uncached members adds for everyone else.
    # Smaller chunks cost more in total: halving it adds a third to the work if every fourth member is uncached.
    max_prefill_positions: int = Field(
        2048,
        ge=0,
        description="positions of uncached members encoded between two micro-batches; 0: no limit",
    )
    pool_bytes: int = Field(
        256 * 1024 * 1024, ge=1024 * 1024, description="memory for cached keys and values of the members"
    )
    kv_dtype: Literal["float32", "int8"] = Field(
        "float32",
        description="type of cached keys and values on a CPU; int8: up to 3.5 times the members in the same pool_bytes, and "
        "answers that differ a little; CUDA devices keep float16 and refuse int8",
    )
    num_recommendations: int = Field(10, ge=1, le=MAX_RECOMMENDATIONS, description="items in a recommendation")
    beta: float = Field(
        1.0,
        ge=0,
        le=100,
        description="scale of what predicted intents add to an item's score: 1: as trained and as the gate judges; 0: nothing; "
        "what own items and successors add is not scaled by it, and lists of popular items do not use it",
    )

    publish_embedding: bool = Field(
        False,
        description="recommendations have the query vector and intent updates the intent embedding; the gateway's rank needs the "
        "query",
    )
    publish_reasons: bool = Field(
        False, description="items of a recommendation have a reason: continue, intent, because_of, new or popular"
    )
    rows: str = Field(
        "",
        description="rows file, or the name of a shipped one (video, movielens): recommendations have these rows, in the order "
        "of the intents; empty: none",
    )
    catalogue_source: Literal["none", "topic"] = Field(
        "none",
        description="which items may be shown: none: those of the serving bundle, as it was built; topic: those of "
        "items_topic, and no others",
    )

    # --- metrics, health and deadlines
    metrics_host: str = Field("127.0.0.1", description="address that serves /metrics, /livez and /readyz")
    metrics_port: int = Field(
        9464, ge=0, le=65535, description="port that serves /metrics, /livez and /readyz; 0: any free port"
    )
    recovery_deadline_s: float = Field(
        300.0, gt=0, description="time to restore one partition from the changelog; past it the process ends"
    )
    # Below the 30 s that orchestrators commonly wait between SIGTERM and SIGKILL.
    drain_deadline_s: float = Field(
        20.0, gt=0, description="time from SIGTERM to a forced exit; uncommitted plays are replayed, none are lost"
    )
    progress_deadline_s: float = Field(
        60.0, gt=0, description="/livez fails when a partition with work has made no progress for this long"
    )

    # --- the gateway
    gateway_host: str = Field(
        "127.0.0.1", description="address that the gateway serves; another one than loopback needs gateway_key_file"
    )
    gateway_port: int = Field(9470, ge=0, le=65535, description="port that the gateway serves; 0: any free port")
    gateway_address: str = Field(
        "",
        pattern=r"^(https?://[^/]+)?$",
        description="URL at which other gateways reach this one; default: http://<gateway_host>:<gateway_port>",
    )
    gateway_key_file: Path | None = Field(
        None,
        description="file with the key of bearer tokens: a JWKS or JWK, a public key in PEM, or a secret for HS256; default: no "
        "tokens, and loopback alone is served",
    )
    gateway_audience: str = Field("", description="aud that a bearer token must name; default: any")
    gateway_cors: str = Field(
        "", description="origins of pages that may call the gateway, separated by commas: https://app.example.com"
    )
    gateway_rate: float = Field(
        50, ge=0, description="requests a second of one client, and twice as many at once; 0: no limit"
    )
    gateway_operator_rate: float = Field(
        0, ge=0, description="the same for tokens of operators, and for everybody where there is no key"
    )
    gateway_read_back_s: float = Field(
        3600, ge=0, description="how far back a gateway reads the messages of a partition that it takes over"
    )
    # About 4 kB a member: two messages, and those of the bundle before.
    gateway_max_members: int = Field(
        100_000, ge=1, description="members in a gateway's memory; those that changed longest ago go first"
    )
    gateway_max_bytes: int = Field(
        512 * 1024 * 1024, ge=1024 * 1024, description="the same bound in bytes of messages, roughly"
    )
    gateway_max_streams: int = Field(10_000, ge=1, description="streams that a gateway holds open")
    gateway_heartbeat_s: float = Field(
        15, ge=0.1, le=60, description="seconds after which a stream without events sends a comment"
    )
    gateway_store: SecretStr | None = Field(
        None,
        description="URL of a Valkey or Redis server that keeps the newest messages too: redis://127.0.0.1:6379/0; never logged",
    )
    gateway_store_keep_s: float = Field(
        7 * 24 * 3600, ge=1, description="how long gateway_store keeps the messages of a member who does not play"
    )
    gateway_scrape: str = Field(
        "",
        description="metrics addresses of workers and trainers that /v1/status shows, separated by commas: "
        "http://127.0.0.1:9464",
    )

    # --- the trainer
    retrain_interval_s: float = Field(3600.0, gt=0, description="seconds between training runs")
    retrain_budget_s: float | None = Field(
        None, ge=1, description="training time of one run; default: half of retrain_interval_s"
    )
    retrain_min_plays: int = Field(1000, ge=100, description="a run with fewer new plays than this is skipped")
    retrain_max_plays: int = Field(2_000_000, ge=1000, description="a run reads at most this many of the newest plays")
    index: IndexChoice = Field(
        "auto",
        description="kind of index in new bundles: FAISS's flat, hnsw, ivf or pq-refine, our own exact or pruned, or auto: "
        "pq-refine from 624 items and 128 members on, else flat",
    )
    catalogue: Path | None = Field(
        None,
        description="Parquet or JSON Lines file of the items; read again for every training run, and with "
        "catalogue_source=topic copied to items_topic before it",
    )
    event_log_dir: Path = Field(Path(".intentrec/event-log"), description="folder of the trainer's log of plays")
    event_log_flush_s: float = Field(5.0, gt=0, le=3600, description="seconds between writes to the event log")
    item_counts_refresh_s: int = Field(
        5,
        ge=1,
        le=3600,
        description="seconds between two tables of counts on item_counts_topic; train --item-counts learns from counts that are "
        "as old",
    )
    gate_margin: float = Field(
        0.02, ge=0, le=1, description="how much worse than the serving bundle a new one may be, relative to its metrics"
    )

    @field_validator("broker")
    @classmethod
    def _check_broker(cls, value: str) -> str:
        for address in value.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("allowed: HOST:PORT, or several separated by commas")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.changelog_topic:
            object.__setattr__(self, "changelog_topic", f"{self.app_id}-history")
        if not self.commit_interval_s:
            object.__setattr__(self, "commit_interval_s", 0.1 if self.delivery == "exactly_once" else 0.5)
        topics = self.topics
        if len(set(topics)) != len(topics):
            raise ValueError(f"two topics have the same name: {', '.join(topics)}")
        if self.delivery == "exactly_once" and self.transactions == "off":
            raise ValueError("delivery=exactly_once needs transactions: set transactions to on or auto")
        if self.security_protocol.startswith("SASL") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError("a SASL security_protocol needs sasl_username and sasl_password")
        if not self.security_protocol.startswith("SASL") and self.sasl_username is not None:
            warnings.warn(
                f"sasl_username has no effect with security_protocol={self.security_protocol}",
                SettingHasNoEffect,
                stacklevel=2,
            )
        return self

    @property
    def topics(self) -> tuple[str, ...]:
        """The names of all topics, in data-flow order."""
        return (
            self.plays_topic,
            self.changelog_topic,
            self.recommendations_topic,
            self.intents_topic,
            self.dead_letter_topic,
            self.late_topic,
            self.model_updates_topic,
            self.items_topic,
            self.item_counts_topic,
        )

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Reads the environment, then applies ``overrides`` (the options of the command line).

        Raises: ConfigError when a name or value is not allowed; the message names it.
        """
        known = {PREFIX + name.upper() for name in cls.model_fields}
        unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in known)
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)} in the environment; unset it or correct its name")
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    def connection(self) -> dict[str, Any]:
        """Keyword arguments with which any aiokafka client connects to the broker. No client of this process creates a topic by
        asking for it from then on.
        """
        _forbid_topic_creation()
        options: dict[str, Any] = {"bootstrap_servers": self.broker, "security_protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            from aiokafka.helpers import create_ssl_context

            options["ssl_context"] = create_ssl_context(cafile=str(self.ssl_ca_file) if self.ssl_ca_file else None)
        if self.sasl_password is not None:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options


def _forbid_topic_creation() -> None:
    """Changes a default of aiokafka's, which has no setting for it.

    Its requests for metadata allow the broker to create the topic, and so does Kafka by default: a deleted topic would be back
    within a second, empty, not compacted and with the broker's number of partitions.
    """
    from aiokafka.protocol.metadata import MetadataRequest

    MetadataRequest.__init__.__defaults__ = (None, False)  # topics, allow_auto_topic_creation


def _one_line(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        value = problem.get("input")
        can_show = field and isinstance(value, str | int | float) and "password" not in field
        shown = f" (given {value!r})" if can_show else ""
        problems.append(f"setting {field}{shown}: {message}" if field else f"settings: {message}")
    return "; ".join(problems)
