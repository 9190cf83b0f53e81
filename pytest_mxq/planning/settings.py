"""What was asked for: the options of a run, and the settings of one test's ``mxq`` marker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from pytest_mxq.baselines.paths import check_case_name
from pytest_mxq.environment.secrets import without_secrets
from pytest_mxq.errors import CaseFaultError, UnknownNameError
from pytest_mxq.gates.base import CallLength
from pytest_mxq.models.base import PUBLISHED
from pytest_mxq.registry import check_name


class Reference(StrEnum):
    """Where the BF16 images of a gate come from."""

    AUTO = "auto"
    STORED = "stored"
    LIVE = "live"


class Execution(StrEnum):
    """How both arms of an accuracy gate run."""

    EAGER = "eager"
    AS_SPEED = "as-speed"


class PromptSet(StrEnum):
    """Prompts that are fetched by name when a gate is set up."""

    DRAWBENCH = "drawbench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a run, read once.

    Attributes:
        formats: formats to gate; empty: none was asked for.
        models: names of models to keep; empty: all.
        gates: names of gates to keep; empty: all.
        baselines: root of the stored baselines.
        media: another root for their images, or None.
        report: directory of the report.
        root: the project's root, to which paths in records are relative.
        random_weights: run speed and memory gates on random weights.
        emulation_refused: emulation was asked for, but not on the command line itself, and ``strict`` is set; then
            ``emulate`` is not.
        alpha: level of each one-sided bound of a speedup.
        refresh_sessions: timing sessions that a refresh adds, each in a process of its own.
        compile_cache: directory of compiled code; None: torch's own.
        report_embed: whether the report's page holds its images itself.
        timing: whether speedups may be extrapolated from short calls.
        history: the file to which each run adds its line; the page shows what it holds.
        secrets: values of the environment that no record may hold.
    """

    formats: tuple[str, ...]
    models: tuple[str, ...]
    gates: tuple[str, ...]
    baselines: Path
    media: Path | None
    reference: Reference
    refresh: bool
    emulate: bool
    strict: bool
    report: Path
    root: Path
    emulation_refused: bool = False
    random_weights: bool = False
    alpha: float = 0.05
    refresh_sessions: int = 1
    compile_cache: Path | None = None
    sources: tuple[tuple[str, str], ...] = ()
    report_embed: bool = False
    timing: CallLength = CallLength.FULL
    history: Path | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def from_root(self, path: Path | str) -> str:
        """Return a path relative to the project's root, or its last part where it lies elsewhere."""
        whole = Path(self.root, path)
        return whole.relative_to(self.root).as_posix() if whole.is_relative_to(self.root) else whole.name

    def portable(self, text: str) -> str:
        """Return a text without secrets and the machine's paths: a record means the same wherever it is read."""
        text = without_secrets(text, self.secrets)
        folders = [self.baselines, self.report, *([] if self.media is None else [self.media])]
        folders += [Path(folder).absolute() for _, folder in self.sources]
        outside = [folder.parent for folder in folders if not folder.is_relative_to(self.root)]
        for folder in (self.root, *outside):
            text = text.replace(f"{folder}/", "")
        return text


def split_names(text: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of a comma- or space-separated list, each once, in order.

    >>> split_names("mxfp8, nvfp4,mxfp8")
    ('mxfp8', 'nvfp4')
    """
    parts = (text or "").replace(",", " ").split() if isinstance(text, str) or text is None else tuple(text)
    return tuple(dict.fromkeys(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSettings:
    """The settings of ``mxq(model, ...)``.

    Attributes:
        model: a registered name, a Hub id, or a local folder.
        case: name of the case; None: derived from the test.
        batch_size: images are generated in chunks of this many prompts.
        prompts: the prompts, how many of the model's own set, or the name of a set; None: all of the model's own.
        seed: seed of the first image; each further image counts one up.
        revision: revision on the Hub; None: the recipe's.
        min_share: smallest share of the Linear weights that must be quantized; None: the recipe's.
        selection: name of the recipe's rule that chooses the layers.
    """

    model: str
    case: str | None = None
    batch_size: int = 1
    prompts: tuple[str, ...] | int | PromptSet | None = None
    seed: int = 0
    execution: Execution = Execution.EAGER
    revision: str | None = None
    min_share: float | None = None
    selection: str = PUBLISHED


def read_case_settings(args: tuple[Any, ...], arguments: Mapping[str, Any]) -> tuple[CaseSettings, ...]:
    """Return the settings of an ``mxq`` marker; a list of batch sizes gives one for each.

    Raises:
        CaseFaultError: no model, an unknown setting, or a value that is not allowed; names the choices.
    """
    if len(args) != 1 or not isinstance(args[0], str) or not args[0]:
        raise CaseFaultError(f'mxq takes the model as its one positional argument, mxq("demo", ...); got {args!r}')
    allowed = [field.name for field in fields(CaseSettings) if field.name != "model"]
    for name in arguments:
        try:
            check_name("setting", name, allowed)
        except UnknownNameError as error:
            raise CaseFaultError(
                f"mxq(...): {error}; call arguments of the pipeline belong into the test's own call"
            ) from None
    sizes = _batch_sizes(arguments.get("batch_size", 1))
    checked: dict[str, Any] = {name: _CHECKS[name](arguments[name]) for name in arguments if name in _CHECKS}
    return tuple(CaseSettings(model=args[0], batch_size=size, **checked) for size in sizes)


def _batch_sizes(value: object) -> tuple[int, ...]:
    sizes = value if isinstance(value, list | tuple) else (value,)
    if not sizes or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise CaseFaultError(f"mxq(batch_size=) must be a number of prompts above 0, or a list of such, got {value!r}")
    if len(set(sizes)) != len(sizes):
        raise CaseFaultError(f"mxq(batch_size=) names a size twice: {value!r}")
    return tuple(sizes)


def _case(value: object) -> str:
    if not isinstance(value, str):
        raise CaseFaultError(f"mxq(case=) must be a text, got {value!r}")
    check_case_name(value)
    return value


def _prompts(value: object) -> tuple[str, ...] | int | PromptSet:
    sets = [prompt_set.value for prompt_set in PromptSet]
    if isinstance(value, str) and value in sets:
        return PromptSet(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) and item.strip() for item in value):
        if len(set(value)) != len(value):
            raise CaseFaultError("mxq(prompts=) names a prompt twice")
        return tuple(value)
    raise CaseFaultError(
        f"mxq(prompts=) must be a list of texts or a count above 0, or the name of a set ({', '.join(sets)}); "
        f"got {value!r}"
    )


def _seed(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise CaseFaultError(f"mxq(seed=) must be a whole number from 0 to 2**63 - 1, got {value!r}")


def _execution(value: object) -> Execution:
    choices = [mode.value for mode in Execution]
    if value not in choices:
        raise CaseFaultError(f"mxq(execution=) must be one of {', '.join(choices)}; got {value!r}")
    return Execution(str(value))


def _revision(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise CaseFaultError(f"mxq(revision=) must be a branch, tag or commit on the Hub, got {value!r}")


def _min_share(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise CaseFaultError(f"mxq(min_share=) must be above 0 and at most 1, got {value!r}")


def _selection(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise CaseFaultError(f"mxq(selection=) must be the name of one of the model's rules, got {value!r}")


_CHECKS = {
    "case": _case,
    "prompts": _prompts,
    "seed": _seed,
    "execution": _execution,
    "revision": _revision,
    "min_share": _min_share,
    "selection": _selection,
}
