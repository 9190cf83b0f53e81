"""Pytest's side: options, markers and fixtures are declared here; nothing is active unless it was asked for."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mxq.fixtures import NO_FORMATS, mxq_pipeline, mxq_prompt

if TYPE_CHECKING:
    from pytest_mxq.session.report_plugin import ReportPlugin

__all__ = ["mxq_pipeline", "mxq_prompt"]

# (name, kind, help): a "flag" takes no value, every other kind does. Each but an act of its own has an ini twin.
_OPTIONS = (
    ("formats", "list", "formats to gate, for example mxfp8,nvfp4"),
    ("models", "list", "gate only these models"),
    ("gates", "list", "run only these gates, for example lpips"),
    ("baselines", "path", "root of the stored BF16 baselines (default: baselines beside the ini file)"),
    ("media", "path", "keep the baselines' images below this directory instead of beside their manifests"),
    ("reference", "auto|stored|live", "where the BF16 images come from (default: auto: stored where it agrees)"),
    ("emulate", "flag", "emulate formats that this device cannot run natively (accuracy gates only)"),
    ("strict", "flag", "a skip, a missing or stale baseline, a fallback or a planned gate that did not run fails"),
    ("report", "path", "directory of the report: report.json, and index.html to look at (default: mxq-report)"),
    ("report-embed", "flag", "write the report's page with its images inside, as one file"),
    ("history", "file", "file of all runs' results, shown by the report (default: history.jsonl in its directory)"),
    (
        "weights",
        "trained|random",
        "random: build models that can be so with random weights, for speed and memory alone",
    ),
    ("timing", "full|short", "short: extrapolate speedups from short calls where the number of steps can be set"),
    ("alpha", "number", "level of each one-sided bound of a speedup (default: 0.05)"),
    ("compile-cache", "path", "keep compiled code there (default: in pytest's cache directory)"),
    ("refresh", "flag", "measure the BF16 baselines of the collected cases and store them; gates nothing"),
    ("refresh-sessions", "number", "timing sessions that a refresh adds, each in a process of its own (default: 1)"),
    ("refresh-in-ci", "flag", "allow --mxq-refresh where CI is set"),
    ("sources", "list", "local folders of registered models: flux.1-dev=/models/flux,ltx-2=/models/ltx"),
    ("plan", "flag", "say what would run, in which order, with its memory, time and baselines; run nothing"),
    ("doctor", "flag", "say what this machine can gate, and exit with 0 if all formats (of --mxq-formats) natively"),
)
_EXIT_CODE = "mxq-exit-code"
_PARTS = (_EXIT_CODE, "mxq-session", "mxq-plan", "mxq-controller", "mxq-said-once", "mxq-terminal")
_WITHOUT_RUN = (
    "help", "version", "collectonly", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow"
)  # fmt: skip
_MARKER = (
    "mxq(model, case=, batch_size=, prompts=, seed=, execution=, revision=, min_share=, selection=): the model that "
    "the test's workload runs on, and the settings of its case"
)

# torchao 0.18 has an invalid escape sequence, reported when the module is compiled at its first import; under
# filterwarnings = error a test module that imports torchao or diffusers would fail. Python 3.11: DeprecationWarning.
_FILTERS = (
    "ignore:.*invalid escape sequence:SyntaxWarning:.*torchao",
    "ignore:.*invalid escape sequence:DeprecationWarning:.*torchao",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and their ini twins."""
    group = parser.getgroup("mxq", "gates of quantized diffusion models")
    for name, kind, text in _OPTIONS:
        flag = f"--mxq-{name}"
        if kind == "flag":
            group.addoption(flag, action="store_true", default=False, help=text)
        elif "|" in kind:
            group.addoption(flag, choices=kind.split("|"), default=None, help=text)
        else:
            metavar = {"list": "LIST", "path": "DIR", "file": "FILE", "number": "N"}[kind]
            group.addoption(flag, metavar=metavar, default=None, help=text)
        if not name.startswith(("refresh", "plan", "doctor")):
            number = "float" if pytest.version_tuple >= (8, 4) else "string"
            ini_type = {"flag": "bool", "list": "args", "number": number}.get(kind, "string")
            parser.addini(f"mxq_{name.replace('-', '_')}", f"default of {flag}", type=ini_type, default=None)  # type: ignore[arg-type]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks by which other plugins register formats, models and gates."""
    from pytest_mxq import hookspecs

    pluginmanager.add_hookspecs(hookspecs)
    pluginmanager.register(_ExitCode(), _EXIT_CODE)


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Register the exit code's plugin again after any that could have the last word in its place."""
    exit_code = manager.get_plugin(_EXIT_CODE)
    if exit_code not in {None, plugin} and hasattr(plugin, "pytest_cmdline_main"):
        manager.unregister(exit_code)
        manager.register(exit_code, _EXIT_CODE)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Let a run that gates mark its report as begun before a conftest.py is imported, which may take long."""
    option = early_config.known_args_namespace
    if "PYTEST_XDIST_WORKER" in os.environ or any(getattr(option, name, None) for name in _WITHOUT_RUN):
        return
    try:
        is_active = _is_asked_for(early_config, option)
    except (TypeError, ValueError):  # of an ini file's value: said when the options are read
        return
    if is_active:
        from pytest_mxq.session.starting import mark_as_starting

        mark_as_starting(early_config)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers and warning filters, and register the active plugin object if it was asked for."""
    for line in _FILTERS:
        config.addinivalue_line("filterwarnings", line)
    config.addinivalue_line("markers", _MARKER)
    try:
        is_active = _is_asked_for(config, config.option) and not config.option.help
    except TypeError as error:  # pytest's, of a value that has another type in a TOML file
        raise pytest.UsageError(str(error)) from None
    for line in _gate_markers(config, is_active=is_active):
        config.addinivalue_line("markers", line)
    if is_active:
        _activate(config)


def _gate_markers(config: pytest.Config, *, is_active: bool) -> Iterable[str]:
    """Return the gates' marker lines; of an idle run bare names, which cost no import."""
    hook: Any = config.hook.pytest_mxq_gates
    if is_active or config.option.markers or hook.get_hookimpls():
        from pytest_mxq.planning.options import gate_markers

        return gate_markers(config)
    from pytest_mxq.gates import MARKERS

    return MARKERS


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Examine the machine instead of running tests, under ``--mxq-doctor``; plan in this process."""
    if config.option.mxq_plan and hasattr(config.option, "dist"):
        config.option.dist = "no"  # xdist: nothing runs that workers could share
    if not config.option.mxq_doctor:
        return None
    from pytest_mxq.doctor.command import run_doctor

    return run_doctor(config)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say that gate tests were collected and gated nothing, where no formats were asked for."""
    if terminalreporter.config.pluginmanager.has_plugin("mxq-controller"):
        return  # its table of verdicts counts them
    reports = [report for category in ("skipped", "error") for report in terminalreporter.stats.get(category, ())]
    count = sum(NO_FORMATS in str(report.longrepr) for report in reports)
    if count:
        tests = "1 gate test" if count == 1 else f"{count} gate tests"
        line = f"mxq: {tests} and no formats: nothing was gated; add --mxq-formats=mxfp8,nvfp4"
        terminalreporter.write_line(line, yellow=True)


class _ExitCode:
    """Registered before any run starts, and last, so that it has the last word on how the process ends.

    Attributes:
        controller: decides from the verdicts how the run ends; None: this run gates nothing.
        parts: the active plugin objects, none of which may be unregistered.
    """

    def __init__(self) -> None:
        self.controller: ReportPlugin | None = None
        self.parts: tuple[object, ...] = ()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, Any]:
        """Return the run's exit code, or a failure's where a recorded verdict is one.

        Raises:
            pytest.UsageError: a part of ours was unregistered while the run gated.
            SystemExit: a hook raised it, such as one that ends the process before CUDA is torn down.
        """
        try:
            code = yield
        except SystemExit as ended:
            if self.controller is None or ended.code:
                raise
            raise SystemExit(self.controller.exit_code(0)) from ended
        if not all(map(config.pluginmanager.is_registered, self.parts)):
            raise pytest.UsageError("something unregistered a part of pytest-mxq during the run: nothing was judged")
        return code if self.controller is None else self.controller.exit_code(code)


def _is_asked_for(config: pytest.Config, option: Any) -> bool:
    if option.mxq_doctor:
        return False
    if option.mxq_formats is not None or option.mxq_refresh or option.mxq_strict or option.mxq_plan:
        return True
    if option.mxq_models or option.mxq_gates:
        return True
    return bool(config.getini("mxq_formats") or config.getini("mxq_strict"))


def _refuse_blocked_parts(config: pytest.Config) -> None:
    """Make sure that ``-p no:NAME`` names no part of ours: without one, a run would judge, plan or say nothing."""
    blocked = [name for name in _PARTS if config.pluginmanager.is_blocked(name)]
    if blocked:
        raise pytest.UsageError(
            f"-p no:{blocked[0]} switches off a part of pytest-mxq, and nothing would be gated as asked: leave it out, "
            "or switch off the whole plugin with -p no:mxq and without its options"
        )


def _activate(config: pytest.Config) -> None:
    _refuse_blocked_parts(config)
    from pytest_mxq.session.gate_plugin import start_session
    from pytest_mxq.session.plan_plugin import PlanPlugin
    from pytest_mxq.session.report_plugin import ReportPlugin
    from pytest_mxq.session.terminal_plugin import SaidOnce, TerminalPlugin

    session = start_session(config)
    config.pluginmanager.register(session, "mxq-session")
    if config.option.mxq_plan:
        config.pluginmanager.register(PlanPlugin(session), "mxq-plan")
    elif not hasattr(config, "workerinput"):  # files and terminal are the controller's; a worker has neither
        controller = ReportPlugin(session)
        config.pluginmanager.register(controller, "mxq-controller")
        exit_code: Any = config.pluginmanager.get_plugin(_EXIT_CODE)
        exit_code.controller, exit_code.parts = controller, (session, controller)
        said_once = SaidOnce()
        config.pluginmanager.register(said_once, "mxq-said-once")
        config.pluginmanager.register(TerminalPlugin(controller, said_once), "mxq-terminal")
