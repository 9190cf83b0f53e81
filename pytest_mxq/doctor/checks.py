"""Checks of what surrounds the software: the Hub's token, LPIPS weights, stored baselines, compiled code."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from pytest_mxq.baselines.manifest import Manifest, decode
from pytest_mxq.baselines.storage import MAX_MANIFEST_BYTES, read_capped, reason_of
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.strict_json import REFRESH
from pytest_mxq.doctor.screen import Finding, Mark
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.errors import MxqError
from pytest_mxq.metrics.lpips_weights import WEIGHTS_PATH, read_weights

_HERE = "on this machine; until then gates measure BF16 again in the same run"
_MOST_FAULTS = 3  # unreadable baselines that are shown one by one


def examine_hub(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Report whether there is a token for the Hub and whether the Hub may be asked; no part of the token is shown.

    Args:
        environment: The process's variables.
    """
    offline = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_on(environment, name)), "")
    if offline:
        yield Finding(
            mark=Mark.NOTE,
            subject="Hub",
            text=f"{offline} is set: models come from the Hub's cache or from a folder",
            fix=f"unset {offline} to fetch what is missing",
        )
    yield _token(environment)


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}  # as the Hub's client reads it


def _token(environment: Mapping[str, str]) -> Finding:
    where = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if environment.get(name, "").strip()), "")
    if not where:
        try:
            where = "the Hub client's token file" if _token_file(environment).read_text().strip() else ""
        except FileNotFoundError:
            pass
        except (OSError, UnicodeError) as error:
            return Finding(
                mark=Mark.FAULT,
                subject="Hub token",
                text=f"the Hub client's token file cannot be read ({type(error).__name__})",
                fix="set HF_TOKEN, or log in again: hf auth login",
            )
    if where:
        return Finding(mark=Mark.FINE, subject="Hub token", text=f"present ({where})")
    return Finding(
        mark=Mark.NOTE,
        subject="Hub token",
        text="none: weights behind a licence, such as FLUX.1-dev's, cannot be fetched",
        fix="accept the licence on the Hub, then set HF_TOKEN or: hf auth login",
    )


def _token_file(environment: Mapping[str, str]) -> Path:
    home = environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    stated = environment.get("HF_TOKEN_PATH") or Path(home, "token")
    return Path(os.path.expandvars(stated)).expanduser()


def examine_lpips_weights(path: Path = WEIGHTS_PATH) -> Finding:
    """Report whether the packaged LPIPS weights are there, with the right SHA-256."""
    try:
        read_weights(path)
    except MxqError as error:
        return Finding(
            mark=Mark.FAULT, subject="LPIPS weights", text=str(error), fix="pip install --force-reinstall pytest-mxq"
        )
    return Finding(mark=Mark.FINE, subject="LPIPS weights", text="packaged file, its SHA-256 is right")


def examine_compile_cache(stated: Path | None, environment: Mapping[str, str]) -> Finding:
    """Report where compiled code is cached, and how much of it there is.

    Args:
        stated: The directory of the settings; None for torch's own.
        environment: The process's variables.
    """
    directory = stated or _torchs_own(environment)
    sizes = list(_sizes(directory))
    amount = f"{len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB" if sizes else "empty, first compilations take minutes"
    place = os.path.relpath(directory)
    return Finding(
        mark=Mark.FINE if stated else Mark.NOTE,
        subject="compile cache",
        text=f"{directory if place.startswith('..') else place}: {amount}",
        fix=None if stated else "torch's own, shared by every project; --mxq-compile-cache=DIR gives this one its own",
    )


def _torchs_own(environment: Mapping[str, str]) -> Path:
    """Return torch's default directory, as torch/_inductor/runtime/cache_dir_utils.py computes it."""
    user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    return Path(environment.get("TORCHINDUCTOR_CACHE_DIR") or Path(tempfile.gettempdir(), f"torchinductor_{user}"))


def _sizes(directory: Path) -> Iterator[int]:
    """Yield the size of every file below, bytes; an unreadable folder counts as empty."""
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                yield Path(folder, name).lstat().st_size
            except OSError:  # removed meanwhile
                continue


def examine_baselines(store: BaselineStore, current: Fingerprint, *, now: datetime | None = None) -> Iterator[Finding]:
    """Report the baselines of this device by model: how many, how old, and whether they are of this software.

    Args:
        store: The store of this device.
        current: The fingerprint of this process.
        now: The present moment; None for the clock's.
    """
    faults, manifests = _read_all(store)
    if not faults and not manifests:
        yield Finding(
            mark=Mark.NOTE, subject="none", text="no stored baseline of this device", fix=f"{REFRESH} {_HERE}"
        )
    by_model = sorted(manifests, key=lambda manifest: manifest.model)
    for model, group in groupby(by_model, key=lambda manifest: manifest.model):
        yield _of_model(model, tuple(group), current, now or datetime.now(UTC))
    for name, fault in faults[:_MOST_FAULTS]:
        text = fault.partition("; to measure it again")[0]
        yield Finding(mark=Mark.FAULT, subject=name, text=text, fix=f"restore it from git, or {REFRESH}")
    if len(faults) > _MOST_FAULTS:
        yield Finding(mark=Mark.FAULT, subject="", text=f"and {len(faults) - _MOST_FAULTS} more that cannot be used")


def _read_all(store: BaselineStore) -> tuple[list[tuple[str, str]], list[Manifest]]:
    faults: list[tuple[str, str]] = []
    manifests: list[Manifest] = []
    for path in store.manifests():
        try:
            manifests.append(decode(read_capped(path, MAX_MANIFEST_BYTES), where=path.name))
        except MxqError as error:
            faults.append((path.parent.name, str(error).removeprefix(f"{path.parent}{os.sep}")))
        except OSError as error:
            faults.append((path.parent.name, f"{path.name}: cannot be read ({reason_of(error)})"))
    return faults, manifests


def _of_model(model: str, manifests: tuple[Manifest, ...], current: Fingerprint, now: datetime) -> Finding:
    ages = sorted(max(0, (now - _moment(manifest)).days) for manifest in manifests)
    sessions = sorted(len(manifest.sessions) for manifest in manifests)
    cases = f"{len(manifests)} case{'s' if len(manifests) > 1 else ''}"
    text = f"{cases}, {_span(ages)} days old, {_span(sessions)} timing sessions each"
    uncovered = sum(not manifest.is_covered for manifest in manifests)
    if uncovered:
        text = f"{text}; {uncovered} of schema version 1: no digest covers its noise floor and timing sessions"
    refresh = f"{REFRESH} {shlex.quote(f'--mxq-models={model}')}"
    others = [differences for m in manifests if (differences := hard_differences(m.fingerprint, current))]
    if not others:
        mark = Mark.NOTE if uncovered else Mark.FINE
        return Finding(mark=mark, subject=model, text=text, fix=refresh if uncovered else None)
    text = f"{text}; {len(others)} of other hardware or software: {', '.join(others[0][:3])}"
    return Finding(mark=Mark.NOTE, subject=model, text=text, fix=f"{refresh} {_HERE}")


def _moment(manifest: Manifest) -> datetime:
    moment = datetime.fromisoformat(manifest.created)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _span(values: list[int]) -> str:
    """Return the range of sorted numbers as text.

    >>> _span([3, 5, 9]), _span([4, 4])
    ('3 to 9', '4')
    """
    return f"{values[0]} to {values[-1]}" if values[0] != values[-1] else str(values[0])
