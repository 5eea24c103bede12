"""The engine alone on a CUDA machine: cost of a play next to reading its keys and values once, with graphs and without.

    tests/bench/gpu.sh [--device cpu] [--quick] [--only parity|steps|dtypes|prefill|sessions]

Needs torch with its triton and numpy. First it is compared with the CPU: a figure of something wrong is worth nothing. A step is
one call of the encoder, from columns on the host to what the model says on the host; the same step queued over and over is what
the device needs for it.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.engine.cuda.decode_step import bucket_of
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.cuda.kv_pool import slot_bytes
from intentrec_core.engine.encoder import StepOutput
from tests.bench import harness
from tests.bench.gpu_world import GpuWorld
from tests.bench.harness import BenchOptions, Figures, Timing

BATCHES, LENGTHS, NUM_STEPS, NUM_ITEMS = (64, 256, 1024, 4096), (32, 256, 512), 200, 100_000
#: The step that the bars are about.
BATCH, LENGTH = 4096, 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
#: Bounds of item vectors and probabilities beside float32, as intentrec_core.engine.cuda.encoder states them.
BOUNDS = {torch.float16: (1e-3, 2e-4), torch.bfloat16: (8e-3, 1.6e-3), torch.float32: (1e-4, 1e-4)}
_READ_BYTES = 2 << 30
PARTS = ("parity", "steps", "dtypes", "prefill", "sessions")


class Bench:
    """One device, and sizes to try the bench with where ``quick``."""

    def __init__(self, device: torch.device, *, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.batches, self.lengths = ((4, 20), (3, 9)) if quick else (BATCHES, LENGTHS)
        self.batch, self.length = (20, 9) if quick else (BATCH, LENGTH)
        self.num_steps = 3 if quick else NUM_STEPS
        self.world = self._world(device)

    def _world(self, device: torch.device) -> GpuWorld:
        return GpuWorld(device, max(self.lengths) + 1, 100 if self.quick else NUM_ITEMS)

    def wait(self) -> None:
        """Until the device has done all that is queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], rounds: int) -> Timing:
        """Of single calls, each until the device is done; the first ones compile and capture, and are not counted."""
        timed_s = []
        for number in range(rounds + 3):
            began_s = time.perf_counter()
            call()
            self.wait()
            if number >= 3:
                timed_s.append(time.perf_counter() - began_s)
        return Timing.of(timed_s)

    # --- parts

    def parity(self) -> Figures:
        """Contexts encoded whole and played on, here and in float32 on the CPU."""
        home = self._world(torch.device("cpu"))
        num, start = (4, 5) if self.quick else (48, 200)
        whole, newest = home.plays(num, 0, start), [home.plays(num, start + n) for n in range(3)]
        slots = np.arange(num)
        said = {}
        for name, world, dtype in (("home", home, torch.float32), *((d, self.world, d) for d in DTYPES)):
            encoder = TorchEncoder(world.model, num * slot_bytes(world.model, dtype), dtype)
            encoder.encode(whole, slots, np.ones(len(whole.item_row), dtype=bool))
            outputs = [_copied(encoder.encode(plays, slots, np.ones(num, dtype=bool))) for plays in newest]
            said[name] = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        figures, worst = Figures(), 0.0
        for dtype in DTYPES:
            off = [float(np.abs(a - b).max()) for a, b in zip(said[dtype][:2], said["home"][:2], strict=True)]
            worst = max(worst, *(value / bound for value, bound in zip(off, BOUNDS[dtype], strict=True)))
            print(
                f"{_name(dtype):>9} beside the CPU: item vectors {off[0]:.1e}, probabilities {off[1]:.1e}", flush=True
            )
            figures[f"parity_{_name(dtype)}"] = [float(f"{value:.2e}") for value in off]
        return {"gpu_parity": round(worst, 3), **figures}

    def steps(self) -> Figures:
        """Plays/s by batch and cached length, and the share of the memory bandwidth that reading their keys and values is."""
        bytes_per_s = self._read_bytes_per_s()
        print(f"memory: {bytes_per_s / 1e9:,.0f} GB/s; a step: median and p99 with graphs, median without", flush=True)
        figures: Figures = {"memory_gb_per_s": round(bytes_per_s / 1e9, 1)}
        encoders = {
            graphs: self.world.encoder(max(self.batches), torch.float16, graphs=graphs) for graphs in (True, False)
        }
        for batch in self.batches:
            for length in self.lengths:
                timing, device_s = self._step(encoders[True], batch, length), self._device_s(encoders[True], batch)
                plain = self._step(encoders[False], batch, length)
                bound_s = batch * self.world.bytes_read(length, torch.float16) / bytes_per_s
                row = {
                    "plays_per_s": round(batch / timing.median_s),
                    "bandwidth_share": round(bound_s / timing.median_s, 4),
                    "step_ms_p50": round(timing.median_s * 1e3, 3),
                    "step_ms_p99": round(timing.p99_s * 1e3, 3),
                    "device_ms": round(device_s * 1e3, 3),
                    "no_graph_ms_p50": round(plain.median_s * 1e3, 3),
                    "no_graph_ms_p99": round(plain.p99_s * 1e3, 3),
                }
                print(
                    f"{batch:>5} members, {length:>3} cached: {row['plays_per_s']:>12,} plays/s, "
                    f"{row['bandwidth_share']:>6.1%} of the bandwidth; {row['step_ms_p50']:.3f} ms, p99 "
                    f"{row['step_ms_p99']:.3f} (device {row['device_ms']:.3f}); without {row['no_graph_ms_p50']:.3f}",
                    flush=True,
                )
                figures[f"step_{batch}_{length}"] = row
                if (batch, length) == (self.batch, self.length):
                    figures["gpu_plays_per_s"], figures["gpu_bandwidth_share"] = (
                        row["plays_per_s"],
                        row["bandwidth_share"],
                    )
                    figures["gpu_step_ms_p99"] = row["step_ms_p99"]
        return figures

    def dtypes(self) -> Figures:
        """The same step with other pools, and with dense layers in TF32."""
        figures: Figures = {}
        precision = torch.get_float32_matmul_precision()
        for name, dtype, matmuls in (
            *((_name(d), d, "highest") for d in DTYPES),
            ("float16_tf32", torch.float16, "high"),
        ):
            torch.set_float32_matmul_precision(matmuls)  # before the step is captured
            encoder = self.world.encoder(self.batch, dtype)
            timing, device_s = self._step(encoder, self.batch, self.length), self._device_s(encoder, self.batch)
            print(f"{name:>12}: {timing.median_s * 1e3:.3f} ms, of the device {device_s * 1e3:.3f}", flush=True)
            figures[f"dtype_{name}_ms"] = [round(timing.median_s * 1e3, 3), round(device_s * 1e3, 3)]
            del encoder
        torch.set_float32_matmul_precision(precision)
        return figures

    def prefill(self) -> Figures:
        """Positions/s of contexts that are encoded whole."""
        num = 2 if self.quick else 64
        encoder = self.world.encoder(num, torch.float16)
        whole, slots = self.world.plays(num, 0, self.length), np.arange(num)
        wanted = np.zeros(len(whole.item_row), dtype=bool)
        timing = self.seconds(lambda: encoder.encode(whole, slots, wanted), 3 if self.quick else 20)
        rate = len(whole.item_row) / timing.median_s
        print(f"whole contexts of {self.length}: {rate:,.0f} positions/s", flush=True)
        return {"prefill_positions_per_s": round(rate)}

    def sessions(self) -> Figures:
        """Members that a GiB holds."""
        held = {_name(dtype): (1 << 30) // slot_bytes(self.world.model, dtype) for dtype in DTYPES}
        shown = ", ".join(f"{name} {num:,}" for name, num in held.items())
        print(f"members a GiB, {self.world.domain.context_size} plays each: {shown}", flush=True)
        return {f"sessions_per_gib_{name}": num for name, num in held.items()}

    def _step(self, encoder: TorchEncoder, batch: int, length: int) -> Timing:
        """Of a play behind ``length`` cached ones, again and again at the same place."""
        plays, slots = self.world.plays(batch, length), np.random.default_rng(1).permutation(encoder.num_slots)[:batch]
        wanted = np.ones(batch, dtype=bool)
        return self.seconds(lambda: encoder.encode(plays, slots, wanted), self.num_steps)

    def _device_s(self, encoder: TorchEncoder, batch: int) -> float:
        """What the device needs for the step before, copies included: queued again and again, waited for once."""
        bucket = bucket_of(batch)

        def queued() -> None:
            for _ in range(self.num_steps):
                encoder.decode.queue(bucket)

        with torch.cuda.stream(encoder.stream):
            return self.seconds(queued, 3).median_s / self.num_steps

    def _read_bytes_per_s(self) -> float:
        """The better of a sum and a copy, which reads and writes."""
        numbers = torch.ones(_READ_BYTES >> (8 if self.quick else 0) >> 2, device=self.device)
        target, rounds = torch.empty_like(numbers), 3 if self.quick else 20
        num_bytes = numbers.numel() * 4
        summed = num_bytes / self.seconds(lambda: numbers.sum(), rounds).median_s
        return max(summed, 2 * num_bytes / self.seconds(lambda: target.copy_(numbers), rounds).median_s)


@torch.inference_mode()
def measure(options: BenchOptions) -> Figures:
    """See the module."""
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    figures: Figures = {"device": name, "torch": torch.__version__, "width": 128, "layers": "2 + 2"}
    bench = Bench(device, quick=options.quick)
    print(f"{name}, torch {torch.__version__}", flush=True)
    for part in (bench.parity, bench.steps, bench.dtypes, bench.prefill, bench.sessions):
        if options.wants(part.__name__):
            figures.update(part())
    return figures


def _copied(output: StepOutput) -> list[NDArray[Any]]:
    """An encoder's next call may write over what this one returned."""
    return [part.copy() for part in output]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="torch's name of it; default: cuda where there is one")
    parser.add_argument("--quick", action="store_true", help="try the bench itself; no row of history")
    parser.add_argument("--only", action="append", default=[])
    given = parser.parse_args()
    harness.run("gpu", BenchOptions(quick=given.quick, only=tuple(given.only), device=given.device), compare=True)
