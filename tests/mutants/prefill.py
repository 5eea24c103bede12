"""Faults in the prefill queue and in answers written later: order, bounds, and what a checkpoint has to wait for."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

INFERENCE_LOOP, PREFILL = "stream/delivery/inference_loop.py", "stream/pipeline/prefill.py"
PIPELINE = "stream/pipeline/pipeline.py"
TEST_PREFILL, TEST_WORKER, TEST_SWAP = (
    "tests/unit/stream/pipeline/test_prefill.py",
    "tests/unit/stream/delivery/test_worker.py",
    "tests/unit/stream/bundles/test_hot_swap.py",
)
SWEEP = "tests/property/test_every_await_can_fail.py"

PREFILL = (
    Mutant(
        "a checkpoint does not wait for queued answers",
        (
            Edit(
                INFERENCE_LOOP,
                "            if not batch.num_queued:\n                self._done(batch)\n",
                "            if not job.is_chunk:\n                self._done(batch)\n",
            ),
        ),
        (SWEEP,),
    ),
    Mutant(
        "a queued play overtaken by a newer play of the same member",
        (Edit(PREFILL, "if self._waiting[member] or num > ", "if num > "),),
        (SWEEP, TEST_PREFILL),
    ),
    Mutant(
        "a queued member charged for a whole context again",
        (Edit(PREFILL, "(self._waiting[run.member] and all_stay) or ", ""),),
        (TEST_PREFILL,),
    ),
    Mutant(
        "a queued member expected to be cached, however many are queued",
        (Edit(PREFILL, "all_stay = 2 * len(self._waiting) <= cache.num_slots", "all_stay = True"),),
        (TEST_PREFILL,),
    ),
    Mutant(
        "an anchor that moves answered at once",
        (Edit(PREFILL, "or num > _PREFILL_RATIO * num_plays[member]", "or not cache.caches(member)"),),
        (TEST_PREFILL,),
    ),
    Mutant(
        "a chunk published after what was encoded later",
        (
            Edit(
                INFERENCE_LOOP,
                "            self._jobs.put_nowait(_Job(self._with_chunks[0], processed, is_chunk=True))\n",
                "            late = _Job(self._with_chunks[0], processed, is_chunk=True)\n"
                "            asyncio.get_running_loop().call_later(0.5, self._jobs.put_nowait, late)\n",
            ),
        ),
        (TEST_WORKER,),
    ),
    Mutant(
        "micro-batches taken however long the prefill queue is",
        (Edit(INFERENCE_LOOP, "            await self._prefill_has_capacity.wait()\n", ""),),
        (TEST_WORKER,),
    ),
    Mutant(
        "plays encoded before a swap answered with the new bundle",
        (
            Edit(
                PIPELINE,
                "        results: list[PartitionResult] = []\n        for number",
                "        import dataclasses\n"
                "        current = self._bundles.responders[0]\n"
                "        encoded = [\n"
                "            dataclasses.replace(b, slices=tuple(dataclasses.replace(s, responder=current) for s in b.slices))\n"
                "            for b in encoded\n"
                "        ]\n"
                "        results: list[PartitionResult] = []\n        for number",
            ),
        ),
        (TEST_SWAP,),
    ),
    Mutant(
        "a member forgotten before earlier plays are scored",
        (
            Edit(
                PIPELINE,
                "        self._forgotten.append(member)\n",
                "        for responder in self._bundles.responders:\n            responder.forget(member)\n",
            ),
        ),
        (TEST_SWAP,),
    ),
    Mutant(
        "a micro-batch that cannot be written taken for one without outputs",
        (
            Edit(
                INFERENCE_LOOP,
                "        except Exception as raised:  # passed on\n            error = raised\n",
                "        except Exception:\n            pass\n",
            ),
        ),
        (TEST_WORKER,),
    ),
)
