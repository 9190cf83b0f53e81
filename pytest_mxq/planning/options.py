"""Reading a run's options: registered kinds, settings, and what is refused before anything is collected."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

import pytest

from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.errors import MxqError
from pytest_mxq.formats import Format, FormatRegistry, built_in_formats
from pytest_mxq.gates.bounds import GATES
from pytest_mxq.models import ModelRegistry, Recipe, built_in_models
from pytest_mxq.planning.settings import Reference, Settings, split_names
from pytest_mxq.registry import check_name

T = TypeVar("T")


def read_options(config: pytest.Config) -> tuple[Settings, FormatRegistry, ModelRegistry]:
    """The settings of a run, and the formats and models that are registered.

    Raises:
        pytest.UsageError: an option's value is not allowed; lists the choices.
    """
    formats, models = FormatRegistry(), ModelRegistry()
    try:
        register_kinds(config, formats, models)
        settings = read_settings(config)
        for name, folder in settings.sources:
            models.point(name, Path(config.invocation_params.dir, folder))
        check_names(config, settings, formats, models)
    except MxqError as error:
        raise pytest.UsageError(str(error)) from None
    return settings, formats, models


def register_kinds(config: pytest.Config, formats: FormatRegistry, models: ModelRegistry) -> None:
    """Register the built-in formats and models, and those of the hooks.

    Raises:
        MxqError: a name is taken, or a hook returned something else.
    """
    for number_format in _listed("pytest_mxq_formats", Format, [built_in_formats(), *config.hook.pytest_mxq_formats()]):
        formats.register(number_format)
    for recipe in _listed("pytest_mxq_models", Recipe, [built_in_models(), *config.hook.pytest_mxq_models()]):
        models.register(recipe)


def _listed(hook: str, kind: type[T], results: list[Any]) -> Iterable[T]:
    for result in results:
        for entry in result if isinstance(result, list | tuple) else [None]:
            if not isinstance(entry, kind):
                raise MxqError(f"the hook {hook} must return a list of {kind.__name__}, got {result!r}")
            yield entry


def read_settings(config: pytest.Config) -> Settings:
    """The options of a run, from its command line and ini file.

    Raises:
        MxqError: a value is not allowed.
    """

    def option(name: str) -> Any:
        return config.getoption(f"mxq_{name}") or config.getini(f"mxq_{name}")

    def names(name: str) -> tuple[str, ...]:
        value = option(name)
        return split_names(value if isinstance(value, str) else " ".join(value or ()))

    def directory(name: str, default: str | None) -> Path | None:
        given = config.getoption(f"mxq_{name}")
        stated = config.getini(f"mxq_{name}") or default
        if given:
            return Path(config.invocation_params.dir, given)
        return Path(config.inipath.parent if config.inipath else config.rootpath, stated) if stated else None

    return Settings(
        formats=names("formats"),
        models=names("models"),
        gates=names("gates"),
        baselines=directory("baselines", "baselines") or Path(),
        media=directory("media", None),
        reference=_reference(option("reference")),
        refresh=bool(config.getoption("mxq_refresh")),
        emulate=bool(option("emulate")),
        strict=bool(option("strict")),
        report=directory("report", "mxq-report") or Path(),
        random_weights=_one_of("weights", option("weights"), ("trained", "random")) == "random",
        alpha=_number("alpha", option("alpha") or "0.05", 0.0001, 0.25),
        refresh_sessions=int(_number("refresh-sessions", config.getoption("mxq_refresh_sessions") or "1", 1, 64)),
        sources=_sources(option("sources")),
        compile_cache=directory("compile_cache", None) or _pytest_cache(config),
    )


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


def check_names(config: pytest.Config, settings: Settings, formats: FormatRegistry, models: ModelRegistry) -> None:
    """Refuse formats, gates and models that do not exist.

    Raises:
        MxqError: naming the choices.
    """
    if config.option.mxq_formats is not None and not settings.formats:
        raise MxqError(f"--mxq-formats names no format; formats: {', '.join(formats.names())}")
    for name in settings.formats:
        check_name("format", name, formats.names())
    for name in settings.gates:
        check_name("gate", name, GATES)
    for name in settings.models:
        models.find(name, beside=config.rootpath)


def check_directories(config: pytest.Config, settings: Settings) -> None:
    """Refuse a refresh in CI that nobody allowed, and a report or baselines that could not be written.

    Raises:
        pytest.UsageError: says which, and how.
    """
    if config.option.collectonly:
        return
    try:
        settings.report.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=settings.report):
            pass
    except OSError as error:
        raise pytest.UsageError(
            f"the report cannot be written below {settings.report}: {error}; choose another with --mxq-report=DIR"
        ) from None
    if not settings.refresh:
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
