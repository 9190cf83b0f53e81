"""The controller's side of a run: gathers plans and verdicts (also of xdist workers), writes the report, is strict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Cell, Verdict
from pytest_mxq.planning.options import is_emulation_typed, untyped_limits
from pytest_mxq.planning.planner import RANDOM_SUFFIX
from pytest_mxq.reports.commit import find_commit
from pytest_mxq.reports.github import step_summaries
from pytest_mxq.reports.json_report import Journal, make_report
from pytest_mxq.reports.paths import shown_path
from pytest_mxq.reports.publish import WRITERS, publish
from pytest_mxq.reports.records import Report, Status, cell_of, from_record, portable_report
from pytest_mxq.session.distribution import REFUSAL, cells_of
from pytest_mxq.session.expected_tests import gate_tests_in_source
from pytest_mxq.session.gate_plugin import RECORD, GatePlugin
from pytest_mxq.session.termination import interrupt_on_sigterm

_STOPPED = {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR}

_DESELECTING = {"-k": "keyword", "-m": "markexpr", "--deselect": "deselect"}


class ReportPlugin:
    """Registered where files are written: in a plain run, and on xdist's controller (a worker has no terminal).

    Attributes:
        verdicts: the verdicts so far, by the nodeid of their cell, in the order in which they came.
        problems: what is wrong with the run as a whole.
        strict_problems: what is wrong with it under ``--mxq-strict`` alone.
        notices: what is worth a look, and a problem under ``--mxq-strict``.
        cautions: those of xdist's workers, which have no terminal to say them at collection.
        failed: nodeids of the cells whose test failed as pytest counts.
        again: nodeids of the cells that something tried to run again.
        excused: nodeids of the cells that did not run because the user said so; no failure without strictness.
        skipped_modules: modules with gate tests that were skipped at their import, and why.
        status: what the report says at the end.
        uncollected: modules and folders whose collection failed or was skipped.
    """

    def __init__(self, session: GatePlugin) -> None:
        self.session = session
        self.settings = session.settings
        self.planned: dict[str, Cell] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.problems: list[str] = []
        self.strict_problems: list[str] = []
        self.notices: list[str] = []
        self.cautions: dict[str, None] = {}
        self.failed: set[str] = set()
        self.again: dict[str, None] = {}
        self.excused: set[str] = set()
        self.skipped_modules: dict[str, str] = {}
        self.uncollected: set[str] = set()
        self._commit = find_commit(self.settings.root)
        self.journal = Journal(
            self.settings.report,
            (*WRITERS, *step_summaries(os.environ)),
            self.settings.portable,
        )
        self.status: Status = "finished"
        self._restore_sigterm: Callable[[], None] = lambda: None
        self._has_workers_plan = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Put this run's report in place of an earlier one's, and let SIGTERM end the run as Ctrl-C does."""
        if not session.config.option.collectonly:
            self.journal.start(self._report("running"))
            self._restore_sigterm = interrupt_on_sigterm()

    def pytest_keyboard_interrupt(self) -> None:
        """Note that the run was stopped, whatever its exit code: pytest.exit(returncode=0) is one way."""
        self.status = "interrupted"

    def pytest_internalerror(self) -> None:
        """Note that the run did not come to its end."""
        self.status = "interrupted"

    def pytest_unconfigure(self) -> None:
        """Give SIGTERM back."""
        self._restore_sigterm()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write the planned cells of a plain run (workers send theirs at their end)."""
        self.planned.update(self.session.planned)
        if not session.config.option.collectonly:
            self.journal.plan(self._chosen())
            self.journal.update(partial(self._report, "running"))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note what the workers are going to run, as far as nodeids tell, so that a crash leaves a trail."""
        cells = cells_of(ids, self.session.kinds)
        self.journal.plan(cells)
        self.session.selected.update(cell.nodeid for cell in cells)
        for cell in cells:
            self.planned.setdefault(cell.nodeid, cell)
        self.journal.update(partial(self._report, "running"))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over a worker's plan and its cautions, or what it refuses to run.

        Raises:
            pytest.UsageError: workers would time each other.
        """
        output = getattr(node, "workeroutput", None) or {}
        if REFUSAL in output:
            raise pytest.UsageError(output[REFUSAL])
        if "mxq_planned" in output and not self._has_workers_plan:  # a worker knows what nodeids can only suggest
            self.planned.clear()
            self.session.selected.clear()
            self._has_workers_plan = True
        self.planned.update((cell.nodeid, cell) for cell in map(cell_of, output.get("mxq_planned", ())))
        self.session.selected.update(output.get("mxq_selected", ()))
        self.cautions.update(dict.fromkeys(output.get("mxq_cautions", ())))
        self.again.update(dict.fromkeys(output.get("mxq_again", ())))
        self.session.collected_tests.update(dict.fromkeys(output.get("mxq_collected_tests", ())))
        for record in output.get("mxq_verdicts", ()):
            self._keep(from_record(record))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what it cannot see of the command line."""
        node.workerinput["mxq_emulation_typed"] = is_emulation_typed(node.config)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that was skipped at its import, and its gate tests with it, or that could not be collected."""
        place = report.nodeid.partition("::")[0]
        if not report.passed:
            self.uncollected.add(place)
        if not report.skipped or not self.settings.strict:
            return
        if _mentions_us(self.settings.root / place):
            said = report.longrepr
            text = said[2] if isinstance(said, tuple | list) else report.longreprtext
            self.skipped_modules[place] = str(text).removeprefix("Skipped: ")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a verdict and write it down at once."""
        record = report.__dict__.get(RECORD)
        if record is None:
            return
        verdict = from_record(record)
        if report.failed:
            self.failed.add(verdict.cell.nodeid)
        self._keep(verdict)

    def _keep(self, verdict: Verdict) -> None:
        nodeid = verdict.cell.nodeid
        if nodeid in self.verdicts:
            return
        if verdict.outcome is Outcome.NOT_RUN:
            self.excused.add(nodeid)
        self._record(verdict)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Add the cells that did not run, decide from the verdicts how the run ends, and write the report."""
        if session.config.option.collectonly:
            return
        self.again.update(self.session.again)
        for verdict in self.session.verdicts.values():  # also where another plugin lost the report
            self._keep(verdict)
        self._add_not_run(is_setup_only=session.config.option.setuponly)
        self.notices = untyped_limits(session.config, self.settings, self.session.kinds)
        if self._is_whole(session.config):
            self.notices += self._unasked_manifests()
        self.problems = list(self._problems())
        if self.settings.strict:
            self.strict_problems = [*self._strict_problems(), *self._never_items(session.config), *self.notices]
            self.notices = []
        if session.exitstatus in _STOPPED:
            self.status = "interrupted"
        session.exitstatus = self.exit_code(session.exitstatus)
        self._finish(self._report(self.status))

    def _finish(self, report: Report) -> None:
        self.journal.finish(report)
        if (self.settings.report / "report.json").is_file():  # a folder that takes no report takes no page
            self.session.runtime.cautions += publish(report, self.settings)

    def exit_code(self, code: int | pytest.ExitCode) -> int | pytest.ExitCode:
        """Return how the run ends: as pytest says, but never well where a recorded verdict is a failure."""
        is_well = code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
        has_failed = bool(self.problems or self.strict_problems or self._failures())
        return pytest.ExitCode.TESTS_FAILED if is_well and has_failed else code

    def _failures(self) -> list[Verdict]:
        return [
            verdict
            for nodeid, verdict in self.verdicts.items()
            if verdict.outcome.is_failure and (self.settings.strict or nodeid not in self.excused)
        ]

    def _not_run(self) -> list[str]:
        return [verdict.cell.nodeid for verdict in self._failures() if verdict.outcome is Outcome.NOT_RUN]

    def _problems(self) -> Iterator[str]:
        """Yield what makes the run fail although pytest may count no failure."""
        failures = self._failures()
        not_run = [nodeid for nodeid in self._not_run() if nodeid not in self.excused]
        hidden = [
            verdict.cell.nodeid
            for verdict in failures
            if verdict.outcome is not Outcome.NOT_RUN and verdict.cell.nodeid not in self.failed
        ]
        if hidden:
            said = "verdicts are failures" if len(hidden) > 1 else "verdict is a failure"
            yield f"{len(hidden)} {said} although pytest counted passes: {_some(hidden)}"
        if self.again:
            yield f"{len(self.again)} gates were run again; their first verdicts stand: {_some(list(self.again))}"
        if not_run:
            yield f"{len(not_run)} planned gates did not run: {_some(not_run)}"

    def _report(self, status: Status) -> Report:
        """Return the report as far as the run has come."""
        runtime = self.session.runtime
        whole = make_report(
            self.settings,
            runtime.device,
            runtime.fingerprint,
            status=status,
            commit=self._commit,
            cells=(self._chosen(), self.verdicts.values()),
            problems=[*self.problems, *self.strict_problems],
            cautions=[*self.session.cautions, *self.new_cautions()],
        )
        return portable_report(whole, self.settings.portable)

    def _chosen(self) -> list[Cell]:
        """Return the planned cells that are going to run; under ``--mxq-strict`` also those that were deselected."""
        wanted = self.planned if self.settings.strict else self.session.selected
        return [cell for nodeid, cell in self.planned.items() if nodeid in wanted]

    def new_cautions(self) -> list[str]:
        """Return the cautions that were not said at collection: of the workers, and of what could not be written."""
        fault = [] if self.journal.fault is None else [self.journal.fault]
        return [*dict.fromkeys([*self.cautions, *self.session.runtime.cautions, *fault])]

    def _record(self, verdict: Verdict) -> None:
        self.journal.verdict(verdict)  # first: a signal between the two must not leave it out of the journal
        self.verdicts[verdict.cell.nodeid] = verdict
        self.journal.update(partial(self._report, "running"))

    def _add_not_run(self, *, is_setup_only: bool) -> None:
        for cell in self._chosen():
            if cell.nodeid not in self.verdicts:
                self._record(Verdict(cell=cell, outcome=Outcome.NOT_RUN, sentence="planned, and did not run"))
                if is_setup_only or cell.nodeid not in self.session.selected:
                    self.excused.add(cell.nodeid)

    def _strict_problems(self) -> Iterable[str]:
        if not self.settings.formats and not self.settings.refresh:
            yield "no formats: add --mxq-formats=..."
        elif not self.verdicts:
            yield "no gate at all: no collected test has a gate for these formats, models and gates"
        excused = [nodeid for nodeid in self._not_run() if nodeid in self.excused]
        if excused:
            text = f"{len(excused)} planned gates were deselected or not to be run: {_some(excused)}"
            by = [option for option, name in _DESELECTING.items() if self.session.config.getoption(name, None)]
            advice = f"; instead of {' and '.join(by)} give --mxq-models, --mxq-gates or FILE::TEST" if by else ""
            yield f"{text}{advice}"
        for place, reason in self.skipped_modules.items():
            yield f"{place} mentions mxq and was skipped at its import: {reason}"

    def _never_items(self, config: pytest.Config) -> Iterator[str]:
        """Say which gate tests of files that were asked for something kept from being collected."""
        lost = [
            test
            for test in gate_tests_in_source(config)
            if test not in self.session.collected_tests and test.partition("::")[0] not in self.uncollected
        ]
        if lost:
            yield f"{len(lost)} gate tests were never collected (a hook, or a file that is ignored): {_some(lost)}"

    def _is_whole(self, config: pytest.Config) -> bool:
        """Tell whether the run could have collected every gate test: no place and no filter of ours left out."""
        settings = self.settings
        if not settings.formats or settings.refresh or settings.models or settings.gates or settings.random_weights:
            return False
        places = {(config.rootpath / place).resolve() for place in config.getini("testpaths")}
        asked = {Path(config.invocation_params.dir, argument).resolve() for argument in config.args}
        return config.rootpath.resolve() in asked or (bool(places) and places <= asked)

    def _unasked_manifests(self) -> Iterable[str]:
        """Yield the stored baselines that no collected test asks for: a deleted or renamed test gates nothing."""
        store = self.session.runtime.store
        for path in store.manifests_beside((cell.model, cell.case) for cell in self.planned.values() if cell.model):
            if not path.stem.endswith(RANDOM_SUFFIX):
                ways = "collect its test, move it after a renamed one, or delete it"
                yield f"the baseline {shown_path(path)} belongs to no collected test: {ways}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _mentions_us(path: Path) -> bool:
    """Tell whether a module, or one of a package, names anything of ours."""
    files = path.rglob("*.py") if path.is_dir() else [path]
    return any("mxq" in file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())
