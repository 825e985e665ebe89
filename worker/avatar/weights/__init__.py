"""Weights of others: is it the file, is it whole, does every tensor fit the module?

Vendors' own loaders take an empty archive or another model's tensors without a word
(docs/reference/vendors.md), and a body made with them looks like a body.  So nothing of theirs
opens a file here: `read_state` reads it, `load_into` puts it into the module, and whatever is in
doubt is refused with the file's name.
"""

from worker.avatar.weights.checkpoint import State, read_script, read_state, read_states
from worker.avatar.weights.fit import WeightsReport, compare, load_into
from worker.avatar.weights.source import WeightsFile

__all__ = [
    "State",
    "WeightsFile",
    "WeightsReport",
    "compare",
    "load_into",
    "read_script",
    "read_state",
    "read_states",
]
