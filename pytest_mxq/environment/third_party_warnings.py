"""Harmless log lines and warnings of other packages, which would otherwise stand under every failed gate."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_HARMLESS = (
    "torch.utils._pytree",  # torchao 0.18 registers its enums in a way that torch 2.15 deprecates
    "diffusers.quantizers.torchao.torchao_quantizer",  # asks torchao for NF4 and uintx, which 0.18 no longer has
)


@contextmanager
def silence_third_party_warnings() -> Iterator[None]:
    """Silence these loggers below ERROR meanwhile, and keep a SyntaxWarning of an import from becoming an error.

    torchao 0.18 has an invalid escape in a docstring; where it is compiled at first import, under Python 3.12 or newer
    and ``filterwarnings = error``, the import would fail.
    """
    loggers = [logging.getLogger(name) for name in _HARMLESS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
