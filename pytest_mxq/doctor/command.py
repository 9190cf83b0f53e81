"""``pytest --mxq-doctor``: examine the machine, print the screen, return the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.doctor.checks import examine_baselines, examine_compile_cache, examine_hub, examine_lpips_weights
from pytest_mxq.doctor.diagnosis import Diagnosis, Machine, diagnose
from pytest_mxq.doctor.packages import find_installed
from pytest_mxq.doctor.screen import Finding, Mark, Section, laid_out
from pytest_mxq.environment.device import find_device
from pytest_mxq.environment.fingerprint import take_fingerprint
from pytest_mxq.planning.options import read_options
from pytest_mxq.reports.paths import shown_path

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.models import ModelRegistry, Recipe
    from pytest_mxq.planning.settings import Settings


def run_doctor(config: pytest.Config) -> int:
    """Print what this machine can gate.

    Returns:
        0 if every format asked for can be gated natively, otherwise 1.

    Raises:
        pytest.UsageError: an option's value is not allowed.
    """
    config._do_configure()  # noqa: SLF001  as --markers does: the cache and the terminal exist only then
    settings, kinds = read_options(config)
    asked = settings.formats or kinds.formats.names()
    formats = [number_format for number_format in kinds.formats if number_format.name in asked]
    recipes = _recipes(config, settings, kinds.models)
    lpips_weights = _one("LPIPS weights", examine_lpips_weights)
    machine = Machine(
        device=find_device(),
        lookup=cache(find_installed),
        lpips_weights=lpips_weights,
        gates=tuple(gate for gate in kinds.gates if gate.name in (settings.gates or kinds.gates.names())),
    )
    found = diagnose(machine, settings, formats, recipes, _around(machine, settings))
    _show(config, found)
    return 0 if found.is_able else 1


def _recipes(config: pytest.Config, settings: Settings, models: ModelRegistry) -> list[Recipe]:
    if not settings.models:
        return list(models)
    return [models.find(name, beside=config.rootpath) for name in settings.models]


def _around(machine: Machine, settings: Settings) -> tuple[Section, ...]:
    device = machine.device
    store = BaselineStore(settings.baselines, media=settings.media, device=device.slug)
    files = (
        *_safely("Hub", lambda: examine_hub(os.environ)),
        machine.lpips_weights,
        *_safely("compile cache", lambda: [examine_compile_cache(settings.compile_cache, os.environ)]),
    )
    baselines = _safely("baselines", lambda: examine_baselines(store, take_fingerprint(device)))
    return (
        Section(title="weights, measures, compiled code", findings=files),
        Section(title=f"baselines of {device.slug} in {shown_path(settings.baselines)}", findings=baselines),
    )


def _one(subject: str, examine: Callable[[], Finding]) -> Finding:
    return _safely(subject, lambda: [examine()])[0]


def _safely(subject: str, examine: Callable[[], Iterable[Finding]]) -> tuple[Finding, ...]:
    """Return the findings of an examination; an environment that breaks it is a finding too."""
    try:
        return tuple(examine())
    except Exception as error:  # noqa: BLE001  whatever is wrong there must not hide what else was found
        # The kind alone: a message may quote what was read, such as a token's file.
        text = f"could not be examined ({type(error).__name__})"
        return (Finding(mark=Mark.FAULT, subject=subject, text=text, fix="make it readable, and ask again"),)


def _show(config: pytest.Config, found: Diagnosis) -> None:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # -p no:terminal: the exit code alone answers
        return
    for line, markup in laid_out(found.sections):
        reporter.write_line(line, **markup)
    reporter.write_line(found.sentence, bold=True, green=found.is_able, red=not found.is_able)
