"""Resources for a given load: a model of the whole system on measured figures, with inputs that a reader can change.

    python -m tests.bench capacity                                          one million plays a second, 300 million members
    python -m tests.bench capacity --set plays_per_s=2e4 --set members=5e6

Measured inputs come from the last row of each bench's history; the rest are assumptions, each with its reason below. The model
is arithmetic on rates, and one simulation: a worker dies at the peak, its partitions wait for the session to time out, are
restored by the others, and the backlog drains with what headroom they have, second by second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from intentrec_core.errors import ConfigError
from tests.bench.harness import HISTORY, BenchOptions, Figures

PARTS = ()
GB = 1e9
#: By input: value, unit and where it is from. A measured one names the bench and key of its history.
INPUTS: Mapping[str, tuple[float, str]] = {
    # the load
    "plays_per_s": (1e6, "plays/s at the daily peak"),
    "members": (3e8, "members with a history"),
    "active_share": (0.10, "of members whose keys and values are worth keeping: those of the last hours"),
    "plays_cached": (256, "plays a member in the context"),
    "kv_room": (8 / 7, "room for keys and values on a CPU, by the plays held: parts of slots for three contexts (decision 119)"),
    "gpu_kv_room": (4 / 3, "the same on a GPU: contexts of n to 2n plays take slots for 2n"),
    "headroom": (0.5, "share of capacity in use at the peak; the rest is for a lost zone, a swap and a backlog"),
    # a play, measured
    "inference_plays_per_core_s": (3_700, "engine, heads and retrieval, width 128, 2 + 2 layers: bench worker"),
    "delivery_plays_per_core_s": (21_000, "decode, fold, changelog, publish: bench worker, pass-through"),
    "gpu_plays_per_s": (2.1e6, "the engine on one H100 at a batch of 4,096: bench gpu"),
    "bytes_in": (250, "bytes of a play as produced"),
    "bytes_out": (2_400, "bytes of a list and an intent update"),
    "changelog_bytes": (166, "bytes written to the changelog a play: bench recovery"),
    "history_bytes_per_play": (31, "bytes in memory a play held: bench recovery"),
    "restore_plays_per_s": (1.0e6, "plays restored a second and core: bench recovery"),
    "kv_bytes_per_play": (5_126, "keys and values of a play held, float32, on a CPU: bench engine"),
    "small_kv_bytes_per_play": (366, "the same in int8 with one head for four: bench engine"),
    "gpu_kv_bytes_per_play": (2_560, "the same in half precision, on a GPU"),
    "gpu_small_kv_bytes_per_play": (640, "the same in half precision with one head for four"),
    # the machines
    "cores_per_worker": (16, "cores of a worker's machine"),
    "worker_memory_gb": (128, "memory of it"),
    "gpu_memory_gb": (70, "of an 80 GB GPU, for keys and values"),
    "partitions_per_core": (2, "so that partitions can be shared out evenly"),
    "broker_mb_per_s": (300, "a broker takes in this much, replicas included, with disks and a 10 Gbit/s network in mind"),
    "replication": (3, "copies of everything"),
    "commit_interval_s": (0.5, "between two transactions of a partition"),
    "transactions_per_broker_s": (5_000, "transactions a broker coordinates; assumption, to be measured on your cluster"),
    "session_timeout_s": (10, "until a dead worker is noticed"),
    # what they cost; list prices differ by a factor of two
    "usd_core_h": (0.04, "a core with 8 GB for an hour"),
    "usd_gpu_h": (3.0, "an H100 for an hour"),
    "usd_broker_h": (1.0, "a broker with its disks for an hour"),
    "usd_gb_between_zones": (0.01, "a GB that crosses zones"),
}  # fmt: skip
MEASURED = {
    "inference_plays_per_core_s": ("worker", "inference_plays_per_core_s"),
    "delivery_plays_per_core_s": ("worker", "delivery_plays_per_core_s"),
    "changelog_bytes": ("recovery", "changelog_written_bytes_per_play"),
    "history_bytes_per_play": ("recovery", "memory_bytes_per_play"),
    "restore_plays_per_s": ("recovery", "plays_per_cpu_s"),
    "gpu_plays_per_s": ("gpu", "gpu_plays_per_s"),
    "kv_bytes_per_play": ("engine", "kv_bytes_a_member_256"),
    "small_kv_bytes_per_play": ("engine", "kv_heads_1_int8_bytes_a_member_256"),
}
#: Figures of a history that are of so many plays of a member.
_PLAYS_OF_A_FIGURE = {"kv_bytes_per_play": 256, "small_kv_bytes_per_play": 256}


@dataclass(frozen=True, slots=True)
class System:
    """A way to run workers: what its column is called, and the input that says what a cached play takes."""

    title: str
    kv_bytes_per_play: str
    on_gpu: bool = False


SYSTEMS = {
    "cpu": System("CPU", "kv_bytes_per_play"),
    "cpu_small": System("CPU, small", "small_kv_bytes_per_play"),
    "gpu": System("GPUs", "gpu_kv_bytes_per_play", on_gpu=True),
    "gpu_small": System("GPUs, small", "gpu_small_kv_bytes_per_play", on_gpu=True),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load takes, by kind of machine; ``walls`` says at how many plays/s each thing first gives out, lowest first."""

    figures: dict[str, float]
    walls: list[tuple[float, str]]


def measure(options: BenchOptions) -> Figures:
    """Prints inputs, the plan of each system, its first walls and what a lost worker does."""
    inputs, sources = load_inputs(options.inputs or {})
    for name, value in inputs.items():
        print(f"  {name:<28} {value:>14,.6g}  {INPUTS[name][1]}{sources.get(name, '')}")
    plans = {name: plan(inputs, system) for name, system in SYSTEMS.items()}
    print(f"\n  {'':<28} " + " ".join(f"{system.title:>14}" for system in SYSTEMS.values()))
    for name in plans["cpu"].figures:
        print(f"  {name:<28} " + " ".join(f"{p.figures[name]:>14,.5g}" for p in plans.values()))
    for kind, made in plans.items():
        print(f"\n  walls, {kind}: " + "; ".join(f"{what} at {at:,.3g} plays/s" for at, what in made.walls[:4]))
    lost = lose_a_worker(inputs, plans["cpu"])
    print(
        f"\n  a worker dies at the peak: its {lost['partitions']:.0f} partitions stand still for "
        f"{lost['stalled_s']:.0f} s, {lost['late_plays']:,.0f} plays are late, all is caught up after {lost['caught_up_s']:.0f} s"
    )
    return {
        **{f"{kind}_{name}": round(value, 4) for kind, made in plans.items() for name, value in made.figures.items()},
        **{f"first_wall_{kind}": made.walls[0][1] for kind, made in plans.items()},
        "lost_worker_caught_up_s": lost["caught_up_s"] if math.isfinite(lost["caught_up_s"]) else "never",
    }


def load_inputs(given: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Inputs, and where those that were measured are from.

    Raises: ConfigError naming an input that does not exist or is not positive.
    """
    for name, value in given.items():
        if name not in INPUTS:
            raise ConfigError(f"--set {name}: no such input; there are: {', '.join(INPUTS)}")
        if not value > 0:
            raise ConfigError(f"--set {name}={value:g}; allowed: above 0")
    inputs = {name: value for name, (value, _) in INPUTS.items()}
    sources = {}
    for name, (bench, key) in MEASURED.items():
        measured = _newest(bench, key)
        if measured is not None:
            inputs[name], sources[name] = measured[0] / _PLAYS_OF_A_FIGURE.get(name, 1), f" ({measured[1]})"
    return {**inputs, **given}, {name: source for name, source in sources.items() if name not in given}


def _newest(bench: str, key: str) -> tuple[float, str] | None:
    path = HISTORY / f"{bench}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found = [row for row in rows if isinstance(row.get(key), int | float)]
    return (float(found[-1][key]), f"measured {found[-1]['date']}") if found else None


def plan(inputs: Mapping[str, float], system: System) -> Plan:
    """Machines for a load: each resource by itself, then the largest demand decides."""
    i, on_gpu = inputs, system.on_gpu
    plays, usable = i["plays_per_s"], i["headroom"]
    kv_bytes = i["plays_cached"] * i["gpu_kv_room" if on_gpu else "kv_room"] * i[system.kv_bytes_per_play]
    kv_total = i["members"] * i["active_share"] * kv_bytes
    histories = i["members"] * i["plays_cached"] * i["history_bytes_per_play"]
    delivery_cores = plays / (i["delivery_plays_per_core_s"] * usable)
    inference_cores = 0.0 if on_gpu else plays / (i["inference_plays_per_core_s"] * usable)
    memory = histories + (0.0 if on_gpu else kv_total)
    workers = max(
        (delivery_cores + inference_cores) / i["cores_per_worker"], memory / (i["worker_memory_gb"] * GB * 0.8)
    )
    gpus = max(plays / (i["gpu_plays_per_s"] * usable), kv_total / (i["gpu_memory_gb"] * GB)) if on_gpu else 0.0
    workers, gpus = math.ceil(workers), math.ceil(gpus)
    cores = workers * i["cores_per_worker"]
    partitions = math.ceil(cores * i["partitions_per_core"])
    written = plays * (i["bytes_in"] + i["bytes_out"] + i["changelog_bytes"]) * i["replication"]
    transactions = partitions / i["commit_interval_s"]
    brokers = math.ceil(
        max(written / (i["broker_mb_per_s"] * 1e6), transactions / i["transactions_per_broker_s"]) / usable
    )
    # Two of three copies lie in other zones, and so do two thirds of a worker's partitions' leaders.
    crossing = written * (i["replication"] - 1) / i["replication"] + plays * (i["bytes_in"] + i["bytes_out"]) * 2 / 3
    usd_h = cores * i["usd_core_h"] + gpus * i["usd_gpu_h"] + brokers * i["usd_broker_h"]
    usd_h += crossing * 3600 / GB * i["usd_gb_between_zones"]
    plays_a_worker = i["members"] * i["plays_cached"] / workers
    figures = {
        "workers": workers,
        "cores": cores,
        "gpus": gpus,
        "partitions": partitions,
        "brokers": brokers,
        "kv_kb_per_member": kv_bytes / 1e3,
        "kv_tb": kv_total / 1e12,
        "histories_tb": histories / 1e12,
        "worker_memory_gb_used": memory / workers / GB,
        "network_in_gb_s": plays * i["bytes_in"] / GB,
        "network_out_gb_s": plays * i["bytes_out"] / GB,
        "changelog_gb_s": plays * i["changelog_bytes"] / GB,
        "restore_a_worker_s": plays_a_worker / (i["restore_plays_per_s"] * i["cores_per_worker"] / 2),
        "usd_per_hour": usd_h,
        "usd_per_million_plays": usd_h / (plays * 3600) * 1e6,
    }  # fmt: skip
    return Plan(figures, sorted(_walls(i, kv_bytes, on_gpu=on_gpu)))


def _walls(i: Mapping[str, float], kv_bytes: float, *, on_gpu: bool) -> list[tuple[float, str]]:
    """What one worker machine (with one GPU) gives out on first, in plays/s of one machine."""
    cores, usable = i["cores_per_worker"], i["headroom"]
    per_play_s = 1 / i["delivery_plays_per_core_s"] + (0 if on_gpu else 1 / i["inference_plays_per_core_s"])
    members_at = i["members"] / i["plays_per_s"]  # members that a play/s brings with it
    history = members_at * i["plays_cached"] * i["history_bytes_per_play"]
    kv = members_at * i["active_share"] * kv_bytes
    walls = [
        (cores * usable / per_play_s, "processor of a worker"),
        (1.25e9 * usable / (i["bytes_in"] + i["bytes_out"] + i["changelog_bytes"]), "10 Gbit/s of a worker"),
        (i["worker_memory_gb"] * GB * 0.8 / (history + (0 if on_gpu else kv)), "memory of a worker"),
    ]
    if on_gpu:
        walls += [
            (i["gpu_memory_gb"] * GB / kv, "memory of a GPU"),
            (i["gpu_plays_per_s"] * usable, "processor of a GPU"),
        ]
    return walls


def lose_a_worker(inputs: Mapping[str, float], made: Plan) -> dict[str, float]:
    """Second by second: the dead worker's partitions wait, are restored by the others, and their backlog drains.

    Infinite where the others cannot carry the load at all.
    """
    workers, partitions = made.figures["workers"], made.figures["partitions"]
    share = 1 / workers
    arriving = inputs["plays_per_s"] * share
    others = max(1.0, workers - 1)
    # The others restore side by side, each its part of what the dead one held.
    stalled_s = inputs["session_timeout_s"] + made.figures["restore_a_worker_s"] / others
    spare = inputs["plays_per_s"] / inputs["headroom"] * (1 - share) - inputs["plays_per_s"]
    if spare <= 0:
        return {
            "partitions": partitions * share,
            "stalled_s": stalled_s,
            "late_plays": math.inf,
            "caught_up_s": math.inf,
        }
    waiting, at_s, late = 0.0, 0, 0.0
    while at_s <= stalled_s or waiting > 0:
        at_s += 1
        standing = at_s <= stalled_s
        waiting += arriving if standing else -min(waiting, spare)
        late += arriving
    return {"partitions": partitions * share, "stalled_s": stalled_s, "late_plays": late, "caught_up_s": float(at_s)}
