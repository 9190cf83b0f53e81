"""Pytest's side: options, markers and fixtures are declared here; nothing is active unless it was asked for."""

from __future__ import annotations

import pytest

from pytest_mxq.fixtures import mxq_pipeline, mxq_prompt

__all__ = ["mxq_pipeline", "mxq_prompt"]

# (name, kind, help): kind "list" and "path" take a value, "flag" none. Each but an act of its own has an ini twin.
_OPTIONS = (
    ("formats", "list", "formats to gate, for example mxfp8,nvfp4"),
    ("models", "list", "gate only these models"),
    ("gates", "list", "run only these gates, for example lpips"),
    ("baselines", "path", "root of the stored BF16 baselines (default: baselines beside the ini file)"),
    ("media", "path", "keep the baselines' images below this directory instead of beside their manifests"),
    ("reference", "auto|stored|live", "where the BF16 images come from (default: auto: stored where it agrees)"),
    ("emulate", "flag", "emulate formats that this device cannot run natively (accuracy gates only)"),
    ("strict", "flag", "a skip, a missing or stale baseline, a fallback or a planned gate that did not run fails"),
    ("report", "path", "directory of the report (default: mxq-report)"),
    (
        "weights",
        "trained|random",
        "random: build models that can be so with random weights, for speed and memory alone",
    ),
    ("alpha", "number", "level of each one-sided bound of a speedup (default: 0.05)"),
    ("compile-cache", "path", "keep compiled code there (default: in pytest's cache directory)"),
    ("refresh", "flag", "measure the BF16 baselines of the collected cases and store them; gates nothing"),
    ("refresh-sessions", "number", "timing sessions that a refresh adds, each in a process of its own (default: 1)"),
    ("refresh-in-ci", "flag", "allow --mxq-refresh where CI is set"),
    ("sources", "list", "local folders of registered models: flux.1-dev=/models/flux,ltx-2=/models/ltx"),
    ("doctor", "flag", "say what this machine can gate, and exit with 0 if all formats (of --mxq-formats) natively"),
)
_MARKERS = (
    "mxq(model, case=, batch_size=, prompts=, seed=, execution=, revision=, min_share=, selection=): the model that "
    "the test's workload runs on, and the settings of its case",
    "mxq_lpips(max=, worst=): bound of the mean LPIPS against BF16, of the worst image; number or {format: number}",
    "mxq_ssim(min=, worst=): bound of the mean SSIM against BF16",
    "mxq_psnr(min=, worst=): bound of the mean PSNR against BF16, dB",
    "mxq_flicker(max=, worst=): bound of the mean deviation of a video's frame-to-frame change, relative to BF16's",
    "mxq_audio(max=, worst=): bound of the mean log-spectral distance of the audio to BF16's, dB",
    "mxq_speedup(min=, rule=, max_rounds=, max_seconds=): bound of the speedup over BF16; rule not-below or proven",
    "mxq_memory(max_ratio=, max_gib=, max_weight_ratio=): bounds of peak memory against BF16, in GiB, of weights",
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
            metavar = {"list": "LIST", "path": "DIR", "number": "N"}[kind]
            group.addoption(flag, metavar=metavar, default=None, help=text)
        if not name.startswith(("refresh", "doctor")):
            ini_type = {"flag": "bool", "list": "args"}.get(kind, "string")
            parser.addini(f"mxq_{name.replace('-', '_')}", f"default of {flag}", type=ini_type, default=None)  # type: ignore[arg-type]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks by which other plugins register formats and models."""
    from pytest_mxq import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers and warning filters, and register the active plugin object if it was asked for."""
    for line in _FILTERS:
        config.addinivalue_line("filterwarnings", line)
    for line in _MARKERS:
        config.addinivalue_line("markers", line)
    if _is_asked_for(config) and not config.option.help:
        _activate(config)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Examine the machine instead of running tests, under ``--mxq-doctor``."""
    if not config.option.mxq_doctor:
        return None
    from pytest_mxq.doctor.command import run_doctor

    return run_doctor(config)


def _is_asked_for(config: pytest.Config) -> bool:
    option = config.option
    if option.mxq_doctor:
        return False
    if option.mxq_formats is not None or option.mxq_refresh or option.mxq_strict:
        return True
    if option.mxq_models or option.mxq_gates:
        return True
    return bool(config.getini("mxq_formats") or config.getini("mxq_strict"))


def _activate(config: pytest.Config) -> None:
    from pytest_mxq.session.gate_plugin import start_session
    from pytest_mxq.session.report_plugin import ReportPlugin, SkipsSaidOnce

    session = start_session(config)
    config.pluginmanager.register(session, "mxq-session")
    if not hasattr(config, "workerinput"):  # files and terminal are the controller's; a worker has neither
        config.pluginmanager.register(ReportPlugin(session), "mxq-controller")
        if session.settings.strict:
            config.pluginmanager.register(SkipsSaidOnce(), "mxq-skips")
