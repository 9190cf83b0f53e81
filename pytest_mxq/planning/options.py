"""Read a run's options: registered kinds, settings, and what is refused before anything is collected."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.environment.secrets import secret_values
from pytest_mxq.errors import MxqError
from pytest_mxq.formats import Format, built_in_formats
from pytest_mxq.gates import built_in_gates
from pytest_mxq.gates.base import AccuracyGate, CallLength, Gate
from pytest_mxq.gates.memory import MemoryGate
from pytest_mxq.gates.speedup import SpeedGate
from pytest_mxq.models import ModelRegistry, Recipe, built_in_models
from pytest_mxq.planning.folders import REPORT, named_folder
from pytest_mxq.planning.settings import Reference, Settings, split_names
from pytest_mxq.registry import Registry, check_name

T = TypeVar("T")

AnyGate: TypeAlias = AccuracyGate | SpeedGate | MemoryGate


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """What is registered in a run, built in and by hook."""

    formats: Registry[Format]
    models: ModelRegistry
    gates: Registry[AnyGate]


def read_options(config: pytest.Config) -> tuple[Settings, Kinds]:
    """Return the settings of a run, and the formats, models and gates that are registered.

    Raises:
        pytest.UsageError: an option's value is not allowed; lists the choices.
    """
    try:
        kinds = registered_kinds(config)
        settings = read_settings(config)
        for name, folder in settings.sources:
            kinds.models.point(name, Path(config.invocation_params.dir, folder))
        check_names(config, settings, kinds)
    except MxqError as error:
        raise pytest.UsageError(str(error)) from None
    return settings, kinds


def registered_kinds(config: pytest.Config) -> Kinds:
    """Return the built-in formats, models and gates, and those of the hooks.

    Raises:
        MxqError: a name is taken, or a hook raised or returned something else.
    """
    hook = config.hook
    formats = Registry("format", _listed("pytest_mxq_formats", Format, built_in_formats(), hook.pytest_mxq_formats))
    models = ModelRegistry(_listed("pytest_mxq_models", Recipe, built_in_models(), hook.pytest_mxq_models))
    gates: Registry[AnyGate] = Registry("gate", registered_gates(config))
    return Kinds(formats=formats, models=models, gates=gates)


def registered_gates(config: pytest.Config) -> Iterable[AnyGate]:
    """Yield the built-in gates and those of the hooks.

    Raises:
        MxqError: a hook raised or returned something else.
    """
    hook: Any = config.hook.pytest_mxq_gates
    gates: Iterable[Any] = _listed("pytest_mxq_gates", Gate, built_in_gates(), hook)
    yield from gates  # each is of one of these kinds: another one is refused there


def gate_markers(config: pytest.Config) -> list[str]:
    """Return the lines that declare the gates' markers.

    Raises:
        pytest.UsageError: a hook raised or returned something else.
    """
    try:
        return [gate.marker_line for gate in registered_gates(config)]
    except MxqError as error:
        raise pytest.UsageError(str(error)) from None


def answer(hook: str, call: Callable[[], T]) -> T:
    """Return what a hook's implementations return.

    Raises:
        MxqError: one of them raised; names the hook.
    """
    try:
        return call()
    except MxqError:
        raise
    except (Exception, pytest.skip.Exception, pytest.fail.Exception, SystemExit) as error:
        raise MxqError(f"the hook {hook} raised {type(error).__name__}: {error}") from error


def _listed(hook: str, kind: type[T], built_in: Iterable[T], call: Callable[[], list[Any]]) -> Iterable[T]:
    yield from built_in
    # A generator runs as it is listed.
    results = answer(hook, lambda: [list(found) if isinstance(found, Iterable) else found for found in call()])
    for result in results:
        for entry in result if isinstance(result, list) else [result]:
            if isinstance(entry, Gate) and not isinstance(entry, AnyGate):
                kinds = "AccuracyGate, SpeedGate or MemoryGate"
                raise MxqError(f"the hook {hook} must return {kinds}, got {entry.name!r}, a {type(entry).__name__}")
            if not isinstance(entry, kind):
                is_careless = kind is Gate and entry is not result and not hasattr(entry, "read_bound")
                lacks = ", without read_bound" if is_careless else ""
                raise MxqError(f"the hook {hook} must return a list of {kind.__name__}, got {result!r}{lacks}")
            yield entry


def read_settings(config: pytest.Config) -> Settings:
    """Return the options of a run, from its command line and ini file.

    Raises:
        MxqError: a value is not allowed.
    """

    def stated(name: str) -> Any:
        try:
            return config.getini(f"mxq_{name}")
        except (TypeError, ValueError) as error:
            raise MxqError(f"mxq_{name}: {error}") from None

    def option(name: str) -> Any:
        return config.getoption(f"mxq_{name}") or stated(name)

    def names(name: str) -> tuple[str, ...]:
        value = option(name)
        return split_names(value if isinstance(value, str) else " ".join(value or ()))

    def directory(name: str, default: str | None) -> Path | None:
        return named_folder(config, config.getoption(f"mxq_{name}"), stated(name) or default)

    strict, emulate = bool(option("strict")), bool(option("emulate"))
    is_refused = strict and emulate and not is_emulation_typed(config)
    alpha = option("alpha")
    report = directory("report", REPORT) or Path()
    return Settings(
        formats=names("formats"),
        models=names("models"),
        gates=names("gates"),
        baselines=directory("baselines", "baselines") or Path(),
        media=directory("media", None),
        reference=_reference(option("reference")),
        refresh=bool(config.getoption("mxq_refresh")),
        emulate=emulate and not is_refused,
        emulation_refused=is_refused,
        strict=strict,
        report=report,
        report_embed=bool(option("report_embed")),
        history=directory("history", None) or report / "history.jsonl",
        secrets=secret_values(os.environ),
        root=Path(config.rootpath),
        random_weights=_one_of("weights", option("weights"), ("trained", "random")) == "random",
        alpha=_number("alpha", "0.05" if alpha is None else str(alpha), 0.0001, 0.25),
        refresh_sessions=int(_number("refresh-sessions", config.getoption("mxq_refresh_sessions") or "1", 1, 64)),
        timing=CallLength(_one_of("timing", option("timing"), ("full", "short"))),
        sources=_sources(option("sources")),
        compile_cache=directory("compile_cache", None) or _pytest_cache(config),
    )


def is_emulation_typed(config: pytest.Config) -> bool:
    """Tell whether ``--mxq-emulate`` stands on the command line itself, not in an ini file or the environment."""
    if hasattr(config, "workerinput"):  # xdist hands the controller's options to a worker, not where they came from
        return bool(config.workerinput.get("mxq_emulation_typed"))
    return _is_typed(config, "--mxq-emulate")


def untyped_limits(config: pytest.Config, settings: Settings, kinds: Kinds) -> list[str]:
    """Return what an ini file or the environment left out of a gating run, each with the option that did it."""
    others = [name for name in kinds.gates.names() if name not in settings.gates]
    limits = {
        "--mxq-models": (",".join(settings.models), "every other model"),
        "--mxq-gates": (",".join(settings.gates), f"the gates {', '.join(others)}"),
        "--mxq-reference": ("live" if settings.reference is Reference.LIVE else "", "the stored baselines"),
    }
    return [
        f"{option}={value}, which stands in the ini file or the environment, left out {what}; type it on the command "
        "line where it is meant"
        for option, (value, what) in limits.items()
        if value and not settings.refresh and not _is_typed(config, option)
    ]


def _is_typed(config: pytest.Config, option: str) -> bool:
    return any(str(argument).partition("=")[0] == option for argument in config.invocation_params.args)


def _number(name: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise MxqError(f"--mxq-{name} must be a number from {least:g} to {most:g}, got {text!r}")
    return value


def _sources(stated: str | list[str] | None) -> tuple[tuple[str, str], ...]:
    texts = [stated] if isinstance(stated, str) else stated or []
    # Commas, or spaces before another NAME=: a folder's name may hold spaces.
    parts = [part.strip() for text in texts for part in re.split(r",|\s+(?=[^\s,=/]+=)", text)]
    pairs = [part.partition("=") for part in dict.fromkeys(parts) if part]
    for name, _, folder in pairs:
        if not name or not folder:
            raise MxqError(f"--mxq-sources takes NAME=FOLDER, such as flux.1-dev=/models/flux; got {name or folder!r}")
    return tuple((name, folder) for name, _, folder in pairs)


def _one_of(name: str, value: str | None, choices: tuple[str, ...]) -> str:
    check_name(name, value or choices[0], choices)
    return value or choices[0]


def _pytest_cache(config: pytest.Config) -> Path | None:
    cache = getattr(config, "cache", None)  # absent under -p no:cacheprovider
    try:
        return cache.mkdir("mxq-compiled") if cache is not None else None
    except OSError:  # a read-only checkout: torch keeps its code elsewhere
        return None


def _reference(value: str | None) -> Reference:
    check_name("reference", value or "auto", [mode.value for mode in Reference])
    return Reference(value or "auto")


def check_names(config: pytest.Config, settings: Settings, kinds: Kinds) -> None:
    """Refuse formats, gates and models that do not exist.

    Raises:
        MxqError: naming the choices.
    """
    if config.option.mxq_formats is not None and not settings.formats:
        raise MxqError(f"--mxq-formats names no format; formats: {', '.join(kinds.formats.names())}")
    for name in settings.formats:
        kinds.formats.get(name)
    for name in settings.gates:
        kinds.gates.get(name)
    for name in settings.models:
        kinds.models.find(name, beside=config.rootpath)


def check_selection(config: pytest.Config, settings: Settings) -> None:
    """Refuse options that leave out gates by what an earlier run found: ``--lf`` drops them before they are collected.

    Raises:
        pytest.UsageError: naming them.
    """
    names = {"lf": "--lf (--last-failed)", "stepwise": "--sw (--stepwise)"}
    found = [text for name, text in names.items() if config.getoption(name, None)]
    if found and settings.strict:
        raise pytest.UsageError(
            f"{' and '.join(found)} and --mxq-strict: gates that an earlier run passed would be left out, and a strict "
            "run judges every gate that is asked for; leave one of them out"
        )


def check_directories(config: pytest.Config, settings: Settings) -> None:
    """Refuse a refresh in CI that nobody allowed, and baselines that could not be written.

    Raises:
        pytest.UsageError: says which, and how.
    """
    if config.option.collectonly or config.option.mxq_plan or not settings.refresh:
        return
    if os.environ.get("CI", "").lower() not in {"", "0", "false"} and not config.getoption("mxq_refresh_in_ci"):
        raise pytest.UsageError(
            "--mxq-refresh writes baselines and CI is set: a gate must not move its own bar; add --mxq-refresh-in-ci "
            "if this job exists to refresh them"
        )
    try:
        BaselineStore(settings.baselines, media=settings.media, device="").check_writable()
    except MxqError as error:
        raise pytest.UsageError(str(error)) from None
