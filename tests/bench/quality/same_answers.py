"""Says of code that was changed that it gives the figures it gave before, once it is seen to.

    python -m tests.bench.quality.same_answers COMMIT

Figures are known by the code that they come from, so that every change of the model makes hours of measuring void; also one that
adds an option which no row uses. This command asks every row on the small world, once with the code of a commit and once with the
code here. Where all rows of some files answer to the bit the same, what is measured with the commit's files stands for the files
here: it is noted in same_answers.json, which :func:`tests.bench.quality.runs.code_hash` reads.

Rows, lists, heads and what the note says of weights and epochs are compared, for every protocol, with one seed; how far scores of
the cache and of a batch lie apart is not, since that is rounding. What the small world has no case of is not seen, such as a
catalogue large enough for a sampled softmax. Rows of the large world alone are asked on the small one. Those of freshness are
measured again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.quality.runs import ROOT, SAME_ANSWERS

#: Run in both trees, with what both have. It leaves one file a row and protocol, and says which code each is of.
ASK = """
import json, sys
from pathlib import Path
import torch
from tests.bench.quality.data_sets import QUICK
from tests.bench.quality.plan import all_rows
from tests.bench.quality.runs import Runs, code_hash, hashed

torch.set_num_threads(1)
runs, code = Runs(Path(sys.argv[1])), {}
for measured in QUICK:
    loaded = measured.loaded(None)
    asked = [(make(loaded.data), row) for make in measured.protocols for row in all_rows()]
    for protocol, row in asked:
        if row.protocols(protocol.name) and (row.wants(measured.name) or row.wants("world")):
            key = hashed(row.name, protocol.name)
            runs.keep(key, row.answer(measured, loaded, protocol, 0))
            code[key] = row.name, code_hash(row.code)
Path(sys.argv[1], "code.json").write_text(json.dumps(code))
"""

Answered = Mapping[str, tuple[str, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code: 1 where an answer differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quality.same_answers", description=__doc__)
    parser.add_argument("commit", help="the commit whose figures are measured")
    commit = parser.parse_args(arguments).commit
    with tempfile.TemporaryDirectory() as folder:
        tree, before, now = (Path(folder, name) for name in ("tree", "before", "now"))
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(tree, filter="data")
        same, different = compared(before, asked(tree, before), now, asked(ROOT, now))
    for name in different:
        print(f"answers otherwise: {name}")
    known = json.loads(SAME_ANSWERS.read_text("utf-8"))
    added = {code: earlier for code, earlier in same.items() if code != earlier}
    SAME_ANSWERS.write_text(json.dumps(known | added, indent=1, sort_keys=True) + "\n", "utf-8")
    print(f"{len(same)} sets of files answer as before, {len(added)} of them have changed")
    return 1 if different else 0


def asked(tree: Path, folder: Path) -> Answered:
    """Asks every row with the code of a tree. Returns the row's name and the hash of its code, for each file in the folder."""
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_WAIT_POLICY": "PASSIVE"}
    # Not from the folder of this file, nor with its path: the modules are those of the tree.
    subprocess.run([sys.executable, "-P", "-c", ASK, str(folder)], cwd=tree, env=environment, check=True)
    return {key: (name, code) for key, (name, code) in json.loads((folder / "code.json").read_text("utf-8")).items()}


def compared(before: Path, of_before: Answered, now: Path, of_now: Answered) -> tuple[dict[str, str], list[str]]:
    """By the hash of code now, the hash that it had, of code whose rows all answer as before; and the rows that do not.

    A row that only one of the two has says nothing.
    """
    pairs: dict[str, set[str]] = {}
    different, changed = list[str](), set[str]()
    for key in of_before.keys() & of_now.keys():
        name, code = of_now[key]
        pairs.setdefault(code, set()).add(of_before[key][1])
        if not _equal(before / f"{key}.npz", now / f"{key}.npz"):
            different.append(name)
            changed.add(code)
    same = {code: earlier.pop() for code, earlier in pairs.items() if len(earlier) == 1 and code not in changed}
    return same, sorted(set(different))


def _equal(one: Path, other: Path) -> bool:
    with np.load(one) as first, np.load(other) as second:
        # Bytes, as a rank can be NaN, which is not equal to itself.
        return set(first) == set(second) and all(
            _note(first) == _note(second) if part == "note" else first[part].tobytes() == second[part].tobytes()
            for part in first
        )


def _note(run: Mapping[str, NDArray[np.generic]]) -> str:
    return re.sub(r"largest difference is \S+ of", "", str(run["note"]))


if __name__ == "__main__":
    sys.exit(main())
