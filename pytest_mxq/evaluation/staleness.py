"""Whether a stored baseline is of what a test is going to run here, as far as it is known before a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from pytest_mxq.baselines.git import is_gone
from pytest_mxq.baselines.identity import identity_differences
from pytest_mxq.baselines.manifest import LpipsInfo, Manifest
from pytest_mxq.baselines.strict_json import invalid
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.errors import MxqError
from pytest_mxq.metrics.lpips_weights import WEIGHTS_SHA256
from pytest_mxq.pipelines.weights_names import same_weights

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mxq.baselines.store import BaselineStore
    from pytest_mxq.planning.case import Case

KnownWeights = Callable[["Case"], str | None]
"""Returns the name of a case's weights; None where only loading them tells."""


def case_differences(case: Case, manifest: Manifest, weights: str | None) -> tuple[str, ...]:
    """Return in what a baseline's outputs are of another case, as far as test and weights state it.

    Args:
        case: the case.
        manifest: its baseline.
        weights: name of the case's weights; None: not known yet.
    """
    if case.random_weights:
        return ()  # they store times alone
    stored = manifest.identity
    stated = msgspec.structs.replace(
        stored,
        prompts=case.prompts or stored.prompts,  # a named set is fetched later
        seed=case.settings.seed,
        batch_size=case.settings.batch_size,
        execution=case.settings.execution.value,
        weights=_stated_weights(weights, stored.weights),
    )
    return identity_differences(stored, stated)


def timing_differences(case: Case, manifest: Manifest, weights: str | None) -> tuple[str, ...]:
    """Return in what a baseline's timing sessions are of another case, as far as test and weights state it."""
    stored = manifest.identity
    here = _stated_weights(weights, stored.weights)
    stated = msgspec.structs.replace(stored, seed=case.settings.seed, batch_size=case.settings.batch_size, weights=here)
    return identity_differences(stored, stated)


def _stated_weights(known: str | None, stored: str) -> str:
    return stored if known is None or same_weights(known, stored) else known


def software_differences(manifest: Manifest, fingerprint: Fingerprint) -> tuple[str, ...]:
    """Return in what a baseline's hardware, software or LPIPS is not this process's."""
    differences = hard_differences(manifest.fingerprint, fingerprint)
    here = lpips_info()
    return differences if manifest.lpips == here else (*differences, f"LPIPS {manifest.lpips} -> {here}")


def lpips_info() -> LpipsInfo:
    """Return what LPIPS is computed with here."""
    return LpipsInfo(net="alex", version=version("lpips"), weights_sha256=WEIGHTS_SHA256)


def move_of_renamed(store: BaselineStore, case: Case, weights: str | None) -> str | None:
    """Return the command that moves the baseline of a renamed test to its new name; None where none is surely its.

    Surely: it is the only one of the model whose name is of a class or function that no Python file of the checkout
    holds, with the same parameters, and whatever of its identity the test states agrees.
    """
    model = case.recipe.name
    names = [name for name in store.cases(model) if _may_be_renamed(name, case.name)]
    beside = store.manifest_path(model, case.name)
    found = [name for name in names if _agrees(store, case, name, weights) and _lost_its_test(name, beside)]
    return store.move_commands(model, found[0], case.name) if len(found) == 1 else None


_CASE = re.compile(r"(?:(?P<owner>\w+)\.)?(?P<function>\w+)(?P<parameters>.*)")


def _may_be_renamed(old: str, new: str) -> bool:
    parts = [_CASE.fullmatch(name) for name in (old, new)]
    parameters = {part and part["parameters"] for part in parts}
    return old != new and len(parameters) == 1 and None not in parameters


def _lost_its_test(case: str, beside: Path) -> bool:
    part = _CASE.fullmatch(case)
    return part is not None and any(is_gone(word, beside) for word in (part["owner"], part["function"]) if word)


def _agrees(store: BaselineStore, case: Case, name: str, weights: str | None) -> bool:
    try:
        return not case_differences(case, store.load(case.recipe.name, name), weights)
    except MxqError:
        return False


def check_outputs(store: BaselineStore, manifest: Manifest) -> None:
    """Raise where a baseline's outputs cannot be compared with: none are stored, or one is missing or altered.

    Raises:
        BaselineInvalidError: names the file.
    """
    if not manifest.outputs:
        path = store.manifest_path(manifest.model, manifest.case)
        raise invalid(str(path), "the baseline holds no outputs, timing sessions alone")
    store.check_outputs(manifest)
