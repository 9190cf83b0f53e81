"""Registers the model under a name, with the rule that says which of its layers are quantized.

A model of billions of weights needs none of this: ``mxq("owner/model")`` or ``mxq("path/to/folder")`` quantizes every
Linear layer of at least 1024 features but embeddings and the last layers.
"""

import os

from pytest_mxq import Recipe, SelectionRule, SkipPattern


def pytest_mxq_models():
    skip = (
        SkipPattern(pattern="embed", reason="few rows, large effect"),
        SkipPattern(pattern="proj_out", exact=True, reason="acts on every pixel"),
    )
    rule = SelectionRule(min_features=192, skip=skip)  # a small model: its layers are 192 wide
    return [Recipe(name="own-model", source=os.environ.get("OWN_MODEL", "owner/model"), rule=rule)]
