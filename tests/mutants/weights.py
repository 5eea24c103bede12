"""Faults in weights as arrays, and torch where it is not needed."""

from __future__ import annotations

from functools import partial

from tests.mutants.mutant import one_edit

WEIGHTS, CONTENTS = "intentrec_core/model/weights.py", "intentrec_core/bundle/contents.py"
TEST_WEIGHTS = "tests/unit/intentrec_core/model/test_weights.py"
TEST_WITHOUT = "tests/unit/stream/bundles/test_without_torch.py"

fault = partial(one_edit, "weights")

WEIGHTS_AS_ARRAYS = (
    fault(
        "a new item beside counts is served with the lowest bias",
        WEIGHTS,
        "not len(known) or self.config.item_counts",
        "not len(known)",
        TEST_WEIGHTS,
    ),
    fault(
        "a new item is served with the content of the first labels",
        WEIGHTS,
        "content = self._content(*item_columns(self.domain, items))",
        "content = self._content(self.static_codes, self.multi_labels)[: len(items.codes)]",
        TEST_WEIGHTS,
    ),
    fault(
        "keys of own items are served without their bias",
        WEIGHTS,
        'fields @ of_item + self.arrays["own_items.key.bias"]',
        "fields @ of_item",
        TEST_WEIGHTS,
    ),
    fault(
        "a bundle's weights may have any shape",
        CONTENTS,
        "        self._same_shapes(bundle.WEIGHTS, {name: array.shape for name, array in arrays.items()}, wanted)\n",
        "",
        "tests/unit/intentrec_core/bundle/test_format.py",
    ),
    fault(
        "a bundle's untrained heads are taken for trained",
        CONTENTS,
        "return ModelWeights(config, domain, item_table, arrays, untrained)",
        "return ModelWeights(config, domain, item_table, arrays)",
        "tests/unit/intentrec_core/bundle/test_format.py",
    ),
    fault(
        "torch is imported to see that there is no device",
        "intentrec_core/device.py",
        'if name == CPU or (name == "auto" and not (has_driver() and has_torch())):',
        "if name == CPU:",
        TEST_WITHOUT,
    ),
    fault(
        "auto is refused where torch is not installed and a driver is",
        "intentrec_core/device.py",
        "not (has_driver() and has_torch())",
        "not has_driver()",
        "tests/unit/intentrec_core/test_device.py",
    ),
    fault(
        "the doctor says nothing of a driver that is not used",
        "stream/doctor/machine.py",
        "has_driver() and not has_torch()",
        "has_driver() and has_torch()",
        "tests/unit/stream/doctor/test_machine.py",
    ),
    fault(
        "a worker connects before it asks for its device",
        "stream/app.py",
        "    resolve_device(settings.device)\n",
        "",
        "tests/integration/test_serving_installation.py",
    ),
    fault(
        "a GPU's caches are counted as those of a CPU",
        "tests/bench/bench_capacity.py",
        'i["gpu_kv_room" if on_gpu else "kv_room"]',
        'i["kv_room"]',
        "tests/unit/bench/test_harness.py",
    ),
    fault(
        "data are downloaded for a training that cannot begin",
        "stream/cli/learning.py",
        "    require_torch()\n",
        "",
        "tests/unit/stream/cli/test_cli.py",
    ),
    fault(
        "a trainer starts where it cannot train",
        "stream/trainer/app.py",
        "    require_torch()\n",
        "",
        "tests/integration/test_serving_installation.py",
    ),
    fault(
        "a worker on a CPU imports what a device needs",
        "intentrec_core/engine/engine.py",
        "    kv_dtype.check_on(device)\n",
        "    import intentrec_core.engine.cuda.encoder\n    kv_dtype.check_on(device)\n",
        TEST_WITHOUT,
    ),
    fault(
        "a worker encodes on one thread",
        "stream/bundles/serving.py",
        "            num_threads=num_threads(),\n",
        "",
        "tests/unit/stream/bundles/test_threads.py",
    ),
    fault(
        "no device is ever found",
        "intentrec_core/device.py",
        "        ctypes.CDLL(_DRIVER)\n",
        "        return False\n",
        "tests/unit/intentrec_core/test_device.py",
    ),
    fault(
        "vectors of items write into the network",
        CONTENTS,
        "    bias_V = bias_V.copy()  # it may be the model's own\n",
        "",
        TEST_WEIGHTS,
    ),
    fault(
        "the table of items is held twice",
        "intentrec_core/engine/cpu/weights.py",
        'item=arrays["item.weight"],',
        'item=_array(arrays["item.weight"]),',
        TEST_WEIGHTS,
    ),
)
