"""``--mxq-plan``: say what would run, and run nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_mxq.reports.plan_table import PlanRow, plan_lines
from pytest_mxq.session.gate_plugin import PLAN

if TYPE_CHECKING:
    from pytest_mxq.session.gate_plugin import GatePlugin


class PlanPlugin:
    """Takes the place of what runs tests and of what reports: the last report stays as it is.

    Attributes:
        rows: the planned cells, in the order in which they would run.
    """

    def __init__(self, session: GatePlugin) -> None:
        self.session = session
        self.rows: list[PlanRow] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Forecast the collected gates instead of running them; leave a failed collection to pytest."""
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None
        self.rows = [self.session.forecast.of(item.stash[PLAN]) for item in session.items if PLAN in item.stash]
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End well where nothing was collected: a plan of nothing is a plan."""
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the table."""
        device = self.session.runtime.device
        terminalreporter.write_sep("=", f"plan for {device.slug} ({device.name}): nothing was run")
        for line, markup in plan_lines(self.rows, terminalreporter.config.get_terminal_writer().fullwidth):
            terminalreporter.write_line(line, **markup)
        if any(row.source and not row.source.startswith("report") for row in self.rows):
            text = "estimates but those from a report are of compiled calls; loading and compiling come on top"
            terminalreporter.write_line(text)
