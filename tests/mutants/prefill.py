"""Holes in what is held back and in what is written later, put back: order, bounds, and what a checkpoint has to wait for."""

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
        "a checkpoint that does not wait for what was held back",
        (
            Edit(
                INFERENCE_LOOP,
                "            if not batch.num_queued:\n                self._done(batch)\n",
                "            if not job.is_part:\n                self._done(batch)\n",
            ),
        ),
        (SWEEP,),
    ),
    Mutant(
        "a member who waits overtaken by their own newer play",
        (Edit(PREFILL, "if self._waiting[member] or num > ", "if num > "),),
        (SWEEP, TEST_PREFILL),
    ),
    Mutant(
        "whoever waits charged for a whole context again",
        (Edit(PREFILL, "(self._waiting[run.member] and all_stay) or ", ""),),
        (TEST_PREFILL,),
    ),
    Mutant(
        "whoever waits taken for cached when it is their turn, however many wait",
        (Edit(PREFILL, "all_stay = 2 * len(self._waiting) <= cache.num_slots", "all_stay = True"),),
        (TEST_PREFILL,),
    ),
    Mutant(
        "an anchor that moves answered at once",
        (Edit(PREFILL, "or num > _MUCH_MORE * num_plays[member]", "or not cache.caches(member)"),),
        (TEST_PREFILL,),
    ),
    Mutant(
        "a part given out behind what the thread did after it",
        (
            Edit(
                INFERENCE_LOOP,
                "            self._jobs.put_nowait(_Job(self._holding[0], processed, is_part=True))\n",
                "            late = _Job(self._holding[0], processed, is_part=True)\n"
                "            asyncio.get_running_loop().call_later(0.5, self._jobs.put_nowait, late)\n",
            ),
        ),
        (TEST_WORKER,),
    ),
    Mutant(
        "micro-batches taken however much is held back",
        (Edit(INFERENCE_LOOP, "            await self._prefill_has_capacity.wait()\n", ""),),
        (TEST_WORKER,),
    ),
    Mutant(
        "what was encoded before a swap answered with the new bundle",
        (
            Edit(
                PIPELINE,
                "        def write() -> list[PartitionResult]:\n            _carry_out(orders)\n",
                "        if waves:\n"
                "            begun = answers[0]\n"
                "            answers[0] = lambda: self._side.answering.answer(*begun.args, **begun.keywords)\n\n"
                "        def write() -> list[PartitionResult]:\n            _carry_out(orders)\n",
            ),
        ),
        (TEST_SWAP,),
    ),
    Mutant(
        "a member forgotten before what was encoded earlier is judged",
        (
            Edit(
                PIPELINE,
                "            self._orders.append(partial(side.answering.forget, member))\n",
                "            side.answering.forget(member)\n",
            ),
        ),
        (TEST_SWAP,),
    ),
    Mutant(
        "a micro-batch that cannot be written taken for one without outputs",
        (
            Edit(
                INFERENCE_LOOP,
                "    except Exception as raised:  # the caller's\n        error = raised\n",
                "    except Exception:\n        pass\n",
            ),
        ),
        (TEST_WORKER,),
    ),
)
