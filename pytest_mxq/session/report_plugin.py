"""The controller's side of a run: gathers plans and verdicts (also of xdist workers), writes the report, is strict."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_mxq.gates.bounds import GATES
from pytest_mxq.gates.verdict import Cell, Outcome, Verdict, to_record
from pytest_mxq.planning.planner import RANDOM_SUFFIX
from pytest_mxq.reports.json_report import Journal, RunHeader
from pytest_mxq.reports.summary import STATUS, reference_line, shown_path, summary_lines
from pytest_mxq.session.gate_plugin import RECORD, GatePlugin


class ReportPlugin:
    """Registered where files are written: in a plain run, and on xdist's controller (a worker has no terminal).

    Attributes:
        records: the verdicts so far, by nodeid, in the order in which they came.
        problems: what is wrong with the run as a whole.
        notices: what is worth a look, and a problem under ``--mxq-strict``.
        cautions: those of xdist's workers, which have no terminal to say them at collection.
    """

    def __init__(self, session: GatePlugin) -> None:
        self.session = session
        self.settings = session.settings
        self.planned: dict[str, Cell] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.notices: list[str] = []
        self.cautions: dict[str, None] = {}
        self.journal = Journal(self.settings.report)

    def pytest_report_header(self) -> str:
        """What this run gates, on what."""
        settings, device = self.settings, self.session.device
        what = "refresh" if settings.refresh else f"formats {', '.join(settings.formats) or 'none'}"
        extra = [name for name in ("emulate", "strict") if getattr(settings, name)]
        return f"mxq: {what}; reference {settings.reference}; device {device.slug} ({device.name})" + "".join(
            f"; {name}" for name in extra
        )

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write the planned cells of a plain run (workers send theirs at their end)."""
        self.planned.update(self.session.planned)
        if not session.config.option.collectonly:
            chosen = self.planned if self.settings.strict else self.session.selected
            self.journal.plan([cell for nodeid, cell in self.planned.items() if nodeid in chosen])

    def pytest_report_collectionfinish(self) -> list[str]:
        """Which baselines the cases have, whether they can be used here, and what is known to go wrong.

        Lines of our own, not warnings: under ``filterwarnings = error`` one raised at collection is an INTERNALERROR.
        """
        return [*self._references(), *(f"mxq: caution: {text}" for text in self.session.cautions)]

    def _references(self) -> Iterator[str]:
        if self.settings.refresh or not self.settings.formats:
            return
        bench = self.session.bench
        for model, case in self.session.cases:
            load = partial(bench.store.load, model, case)
            yield f"mxq: {model}/{case}: {reference_line(self.settings, load, lambda: bench.fingerprint)}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Note what the workers are going to run, so that a crash leaves a trail; refuse to time on a shared GPU."""
        workers = int(node.workerinput.get("workercount", 1))
        if workers > 1 and self.session.device.kind == "cuda":
            _refuse_shared_gpu(ids, workers)
        ends = tuple(f"{name}-{gate}]" for name in self.settings.formats for gate in self._gates())
        cells = [_cell_of(nodeid) for nodeid in ids if nodeid.endswith(ends)]
        self.journal.plan(cells)
        self.session.selected.update(cell.nodeid for cell in cells)
        for cell in cells:
            self.planned.setdefault(cell.nodeid, cell)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over a worker's plan and its cautions."""
        output = getattr(node, "workeroutput", None) or {}
        for fields in output.get("mxq_planned", ()):
            self.planned[fields["nodeid"]] = Cell(**fields)
        self.cautions.update(dict.fromkeys(output.get("mxq_cautions", ())))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """SkipPattern a verdict and write it down at once."""
        record = report.__dict__.get(RECORD)
        if record is not None and report.nodeid not in self.records:
            self.records[report.nodeid] = record
            self.journal.verdict(record)

    def pytest_report_teststatus(self, report: pytest.CollectReport | pytest.TestReport) -> Any:
        """Name the verdict in the progress line; the category stays "failed", so that ``-rf`` and the like hold."""
        record = report.__dict__.get(RECORD)
        if record is None or report.when == "teardown" or not report.failed:
            return None
        word = STATUS.get(record["outcome"], str(record["outcome"]).upper())
        category, letter = ("failed", "F") if report.when == "call" else ("error", "E")
        return category, letter, word

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Add the cells that did not run, decide strictness, and write the report."""
        if session.config.option.collectonly:
            return
        self._add_not_run()
        self.notices = list(self._unasked_manifests()) if self._is_whole(session.config) else []
        if self.settings.strict:
            self.problems = [*self._strict_problems(), *self.notices]
            self.notices = []
            if self.problems and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        cautions = [*self.session.cautions, *self.cautions]
        header = RunHeader(
            settings=self.settings, device=self.session.device, fingerprint=self.session.bench.fingerprint
        )
        self.journal.finish(header, list(self.records.values()), self.problems, cautions)
        if self.journal.fault:
            self.problems.append(self.journal.fault)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The table of all verdicts."""
        if terminalreporter.config.option.collectonly:
            return
        notes = [*self.notices, *self.cautions]
        for line, markup in summary_lines(list(self.records.values()), self.problems, notes, self.settings):
            if markup is None:
                terminalreporter.write_sep("=", line)
            else:
                terminalreporter.write_line(line, **markup)

    def _gates(self) -> Iterable[str]:
        return self.settings.gates or GATES

    def _add_not_run(self) -> None:
        wanted = set(self.planned) if self.settings.strict else self.session.selected
        for nodeid, cell in self.planned.items():
            if nodeid not in self.records and nodeid in wanted:
                verdict = Verdict(cell=cell, outcome=Outcome.NOT_RUN, sentence="planned, and did not run")
                self.records[nodeid] = to_record(verdict)
                self.journal.verdict(self.records[nodeid])

    def _strict_problems(self) -> Iterable[str]:
        if not self.settings.formats and not self.settings.refresh:
            yield "no formats: add --mxq-formats=..."
        elif not self.records:
            yield "no gate at all: no collected test has a gate for these formats, models and gates"
        not_run = [nodeid for nodeid, record in self.records.items() if record["outcome"] == Outcome.NOT_RUN.value]
        if not_run:
            names = ", ".join(not_run[:3]) + (", ..." if len(not_run) > 3 else "")
            yield f"{len(not_run)} planned gates did not run: {names}"

    def _is_whole(self, config: pytest.Config) -> bool:
        """Whether the run could have collected every gate test: the project's own places, and no filter of ours."""
        settings = self.settings
        if not settings.formats or settings.refresh or settings.models or settings.gates or settings.random_weights:
            return False
        places = {(config.rootpath / place).resolve() for place in config.getini("testpaths")}
        asked = {Path(config.invocation_params.dir, argument).resolve() for argument in config.args}
        return config.rootpath.resolve() in asked or (bool(places) and places <= asked)

    def _unasked_manifests(self) -> Iterable[str]:
        """Stored baselines of this device that no collected test asks for: a deleted or renamed test gates nothing."""
        store = self.session.bench.store
        asked = {store.manifest_path(cell.model, cell.case) for cell in self.planned.values() if cell.model}
        for path in store.manifests():
            if path not in asked and not path.stem.endswith(RANDOM_SUFFIX):
                yield f"the baseline {shown_path(path)} belongs to no collected test: collect its test, or delete it"


class SkipsSaidOnce:
    """Registered under ``--mxq-strict``, where every skip is an error of its test: says each reason once.

    The table of verdicts counts the skips of a reason, and the tally, the exit code and ``--lf`` know each of them; of
    pytest's sections of errors and its short summary they would take hundreds of lines.
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, None, None]:
        """SkipPattern all but the first skip of each reason from the sections that are written meanwhile."""
        stats = terminalreporter.stats
        whole = {category: stats[category] for category in ("error", "failed") if category in stats}
        stats.update({category: _first_of_each_reason(reports) for category, reports in whole.items()})
        try:
            yield
        finally:
            stats.update(whole)


def _first_of_each_reason(reports: Iterable[Any]) -> list[Any]:
    shown, reasons = [], set()
    for report in reports:
        record = report.__dict__.get(RECORD)
        reason = record["sentence"] if record and record["outcome"] == Outcome.SKIPPED.value else None
        if reason is None or reason not in reasons:
            shown.append(report)
        reasons.add(reason)
    return shown


def _refuse_shared_gpu(ids: list[str], workers: int) -> None:
    """Every worker uses the first visible GPU: two of them would time each other.

    Raises:
        pytest.UsageError: a gate of speed or memory was collected.
    """
    ends = ("-refresh]", *(f"-{kind.name}]" for kind in GATES.values() if kind.family != "images"))
    timed = [nodeid for nodeid in ids if nodeid.endswith(ends)]
    if timed:
        raise pytest.UsageError(
            f"{workers} xdist workers share one GPU, and {timed[0]} would time the others' work: run speed and memory "
            "gates with -n0 or -n1, or leave them out with --mxq-gates=lpips,ssim,psnr"
        )


def _cell_of(nodeid: str) -> Cell:
    """What a nodeid alone tells of a cell; the worker's own plan replaces it."""
    test, _, parameters = nodeid.rstrip("]").rpartition("[")
    *_, number_format, gate = parameters.split("-")
    return Cell(nodeid=nodeid, model="", case=test.rpartition("::")[2], format=number_format, gate=gate)
