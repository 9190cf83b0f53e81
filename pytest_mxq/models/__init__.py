"""Models: one file each, with everything known of it."""

from pytest_mxq.models.base import (
    GENERIC_RULE,
    MemoryNeed,
    ModelRegistry,
    ModelSource,
    Recipe,
    SelectionRule,
    SkipPattern,
)

__all__ = [
    "GENERIC_RULE",
    "MemoryNeed",
    "ModelRegistry",
    "ModelSource",
    "Recipe",
    "SelectionRule",
    "SkipPattern",
    "built_in_models",
]


def built_in_models() -> tuple[Recipe, ...]:
    """Return the recipes that come with the package, in their order: one line each."""
    # isort: off
    from pytest_mxq.models.demo import DEMO
    from pytest_mxq.models.flux import FLUX_1_DEV
    from pytest_mxq.models.qwen_image import QWEN_IMAGE
    from pytest_mxq.models.ltx2 import LTX_2
    # isort: on

    return tuple(locals().values())
