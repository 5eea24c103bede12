"""Faults put back into the product, one at a time, to see that a test goes red: `make mutants`.

A mutant is text to be replaced in a source file. It is only ever applied to a copy of the tree. Each other module here but
:mod:`tests.mutants.mutant` is a catalogue; that each of its mutants still applies is part of `make test`.
"""

from __future__ import annotations
