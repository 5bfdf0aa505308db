"""The texts of OptiLLM with which the guard's tests passed, in 0.3.12, 0.3.13, 0.3.22 and 0.4.0.

Written by `python -m scripts.verified`; see `fingerprints`.
"""

from __future__ import annotations

#: part of OptiLLM -> fingerprints, the oldest version first
VERIFIED: dict[str, tuple[str, ...]] = {
    "optillm/bon.py": ("87df29c186ae",),
    "optillm/cepo/cepo.py": ("da59addbd781", "8624ddc14e10"),
    "optillm/cot_reflection.py": ("30b7009c73d6",),
    "optillm/leap.py": ("80de0dd9d46a", "a2008574826b"),
    "optillm/mars/__init__.py": ("b900172660ef",),
    "optillm/mars/agent.py": ("41e7006a476a",),
    "optillm/mars/aggregator.py": ("e02a9e8de931",),
    "optillm/mars/answer_extraction.py": ("0b8943f23878",),
    "optillm/mars/mars.py": ("b949d9cac5d1",),
    "optillm/mars/prompts.py": ("7866a468bf73",),
    "optillm/mars/strategy_network.py": ("f65ca124774e",),
    "optillm/mars/verifier.py": ("832b13c0edf2",),
    "optillm/mars/workspace.py": ("f5e6d04ff5e5",),
    "optillm/mcts.py": ("fe499a956d53",),
    "optillm/moa.py": ("8a73be91ead8",),
    "optillm/plansearch.py": ("ac5005013bdd",),
    "optillm/plugins/deepthink/__init__.py": ("09e95c930e58",),
    "optillm/plugins/deepthink/reasoning_modules.py": ("7d299790d175",),
    "optillm/plugins/deepthink/self_discover.py": ("4d436924242b",),
    "optillm/plugins/deepthink/uncertainty_cot.py": ("7e455a566f3f",),
    "optillm/plugins/deepthink_plugin.py": ("3edcdd9bcfe7",),
    "optillm/plugins/genselect_plugin.py": ("bc26d8d97ea1",),
    "optillm/plugins/majority_voting_plugin.py": ("28ec547418d5",),
    "optillm/pvg.py": ("e714550ad79a",),
    "optillm/reread.py": ("351a629d705d", "cff3adb5ba00"),
    "optillm/rstar.py": ("0eb250b958fb",),
    "optillm/rto.py": ("3298756a0276", "838369df9c3b"),
    "optillm/self_consistency.py": ("c80f4d4dcf41", "9f0b1b85a762"),
    "optillm/server.py:execute_single_approach": ("176c9382ded5", "983f395daab0", "e64caa99629a"),
    "optillm/server.py:load_plugins": ("0dae2b7a7ecf",),
    "optillm/server.py:none_approach": ("98944df83af9",),
    "optillm/server.py:parse_args": ("2d37a4b11b73", "7afb7ee5affc"),
    "optillm/z3_solver.py": ("513c55f1b7b8",),
}
