"""SIGTERM, by which CI ends a job: it stops a run as Ctrl-C does, so that the report is written."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import current_thread, main_thread
from types import FrameType


def interrupt_on_sigterm() -> Callable[[], None]:
    """Let SIGTERM raise KeyboardInterrupt in this process, and return what undoes it.

    A handler of someone else stays, and so does the default outside of the main thread, where none can be set.
    """
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return lambda: None
    own = os.getpid()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
        if os.getpid() != own:  # a forked child inherits the handler, and whoever ends it expects it to end
            os.kill(os.getpid(), signal.SIGTERM)
            return
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)

    def restore() -> None:
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    return restore
