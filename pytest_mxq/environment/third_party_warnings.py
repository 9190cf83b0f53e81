"""Harmless log lines and warnings of other packages, which would otherwise stand under every failed gate."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_HARMLESS = (
    "torch.utils._pytree",  # torchao 0.18 registers its enums in a way that torch 2.15 deprecates
    "diffusers.quantizers.torchao.torchao_quantizer",  # asks torchao for NF4 and uintx, which 0.18 no longer has
)


_HARMLESS_AT_IMPORT = (
    # torchao 0.18 has an invalid escape sequence in a docstring. Where a module is compiled at its first import, as
    # after pip install --no-compile, this is a SyntaxWarning, before Python 3.12 a DeprecationWarning; under
    # filterwarnings = error it becomes a SyntaxError.
    ("", SyntaxWarning),
    (".*invalid escape sequence", DeprecationWarning),
)


@contextmanager
def silence_third_party_warnings() -> Iterator[None]:
    """Let these loggers report errors alone meanwhile, and keep a warning of the compiler from failing an import."""
    loggers = [logging.getLogger(name) for name in _HARMLESS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message, category in _HARMLESS_AT_IMPORT:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
