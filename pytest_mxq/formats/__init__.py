"""Formats: one file each, from a name to a torchao configuration, its capability and its emulation."""

from pytest_mxq.formats.base import BatchCaution, Emulation, Format

__all__ = ["BatchCaution", "Emulation", "Format", "built_in_formats"]


def built_in_formats() -> tuple[Format, ...]:
    """Return the formats that come with the package, in their order: one line each."""
    # isort: off
    from pytest_mxq.formats.mxfp8 import MXFP8
    from pytest_mxq.formats.nvfp4 import NVFP4
    from pytest_mxq.formats.mxfp4 import MXFP4
    from pytest_mxq.formats.float8 import FLOAT8
    # isort: on

    return tuple(locals().values())
