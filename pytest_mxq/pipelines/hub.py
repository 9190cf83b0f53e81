"""Fetch a model's files from the Hub or its cache, or say why they are not available and what to do."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import constants, get_token, list_repo_files
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as its version has it

from pytest_mxq.errors import MxqError, WeightsUnavailableError
from pytest_mxq.pipelines.variants import lacks_weights, sole_variant

_UNREACHABLE = (httpx.TransportError, ConnectionError, TimeoutError, LocalEntryNotFoundError)
_TOKENS = "https://huggingface.co/settings/tokens"


def fetch_snapshot(source: str, revision: str | None) -> Path:
    """Return the folder of a model's files, fetching what the cache lacks.

    Args:
        source: a Hub id.
        revision: branch, tag or commit; None: the default branch.

    Raises:
        WeightsUnavailableError: they are not available here: licence, no network, or offline with an incomplete cache.
        MxqError: they are not available for another reason.

    Each says why and what to do, and never shows the token.
    """
    try:
        with _silenced_hub_loggers():
            return _download(source, revision)
    except Exception as error:  # noqa: BLE001  the Hub client raises many kinds, from OSError to its own
        kind, reason = _reason(error, source, revision or "main")
    # Raised outside, so that no traceback leads to the client's error, whose text is not ours to vouch for.
    raise kind(f"the weights of {source!r} (revision {revision or 'main'}) are not available: {_without_token(reason)}")


def _download(source: str, revision: str | None) -> Path:
    """Fetch plain weights, or those of the one variant that there is: asked for none, diffusers fetches none."""
    folder = Path(DiffusionPipeline.download(source, revision=revision, use_safetensors=True))
    if lacks_weights(folder):
        variant = sole_variant(list_repo_files(source, revision=revision))
        if variant is not None:
            folder = Path(DiffusionPipeline.download(source, revision=revision, use_safetensors=True, variant=variant))
    return folder


def _reason(error: BaseException, source: str, revision: str) -> tuple[type[MxqError], str]:
    chain = list(_chain(error))
    for kinds, explain, kind in _REASONS:
        for link in chain:
            if isinstance(link, kinds):
                return kind, explain(link, source, revision)
    full = next((link for link in chain if getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT)), None)
    if full is not None:
        return MxqError, _disk_full()
    if any(isinstance(link, _UNREACHABLE) for link in chain):
        return WeightsUnavailableError, _unreachable(source, revision)
    first_line = next(iter(str(error).strip().splitlines()), "")
    return MxqError, f"{type(error).__name__}: {first_line}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from: diffusers hides the Hub's answer behind an OSError of its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _no_id(_error: BaseException, _source: str, _revision: str) -> str:
    return "it is neither a folder with a model_index.json nor a Hub id 'owner/name'"


def _gated(_error: BaseException, source: str, _revision: str) -> str:
    page = f"https://huggingface.co/{source}"
    if get_token() is None:
        return (
            f"it is gated and no token is set; accept its licence at {page}, then set HF_TOKEN to a token ({_TOKENS})"
        )
    return (
        f"it is gated and the token's account may not read it; accept its licence at {page} with that account, and "
        f"give a fine-grained token permission to read gated repositories ({_TOKENS})"
    )


def _no_revision(_error: BaseException, source: str, revision: str) -> str:
    return (
        f"there is no revision {revision!r}; mxq(revision=) or the recipe must name a branch, tag or commit of "
        f"https://huggingface.co/{source}/commits"
    )


def _no_repository(error: BaseException, source: str, _revision: str) -> str:
    if get_token() is None:
        return f"there is no public model {source!r}; check the id, or set HF_TOKEN if it is private ({_TOKENS})"
    if _status(error) == 401:
        return _bad_token()
    return f"there is no model {source!r} that the token's account may see; check the id and whose token HF_TOKEN holds"


def _no_pipeline(_error: BaseException, source: str, _revision: str) -> str:
    return f"it lacks a file that a diffusers pipeline has (model_index.json); see https://huggingface.co/{source}/tree"


def _refused(error: BaseException, source: str, _revision: str) -> str:
    status = _status(error)
    if status == 401:
        return _bad_token()
    if status == 403:
        return f"the token may not read {source!r} (403); give it permission to read that repository ({_TOKENS})"
    return f"the Hub answered {status}; try again later"


def _bad_token() -> str:
    return f"the Hub does not know the token that HF_TOKEN or a login gives (401); make a new one ({_TOKENS})"


def _offline(_error: BaseException, source: str, revision: str) -> str:
    return (
        f"HF_HUB_OFFLINE is set and the cache {constants.HF_HUB_CACHE} does not hold all of it; unset it, fill the "
        f"cache ({download_command(source, revision)}), or name a local folder (--mxq-sources=MODEL=FOLDER)"
    )


def _partial(_error: BaseException, source: str, revision: str) -> str:
    return (
        f"the cache {constants.HF_HUB_CACHE} holds a part of it and the Hub cannot be reached; with a network, "
        f"complete it: {download_command(source, revision)}"
    )


def _unreachable(source: str, revision: str) -> str:
    return (
        f"the Hub cannot be reached and the cache {constants.HF_HUB_CACHE} does not hold it; check network and proxy, "
        f"fill the cache elsewhere ({download_command(source, revision)}), or name a local folder "
        "(--mxq-sources=MODEL=FOLDER)"
    )


def _disk_full() -> str:
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 2**30
    return (
        f"the disk of the cache {cache} is full ({free:.1f} GiB free); free space or set HF_HOME to a larger disk; "
        "what was fetched stays there"
    )


def download_command(source: str, revision: str | None) -> str:
    """Return the command that fills the Hub's cache with what a pipeline is read from.

    The folders of its components and their index, and not the checkpoints of all weights in one file that lie beside
    them (24 GB of FLUX.1-dev) and are never read. A pattern needs an option of its own: ``hf`` takes a second one for
    the name of a file.

    >>> download_command("owner/model", "v9")
    'hf download owner/model --revision v9 --include model_index.json --include "*/*"'
    """
    return f'hf download {source} --revision {revision or "main"} --include model_index.json --include "*/*"'


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


# The first that some error of the chain is; a gated repository is one that is not found, and both are HTTP errors.
_REASONS: tuple[tuple[type[BaseException], Callable[[BaseException, str, str], str], type[MxqError]], ...] = (
    (HFValidationError, _no_id, MxqError),
    (GatedRepoError, _gated, WeightsUnavailableError),
    (RevisionNotFoundError, _no_revision, MxqError),
    (RepositoryNotFoundError, _no_repository, MxqError),
    (RemoteEntryNotFoundError, _no_pipeline, MxqError),
    (HfHubHTTPError, _refused, MxqError),
    (OfflineModeIsEnabled, _offline, WeightsUnavailableError),
    (IncompleteSnapshotError, _partial, WeightsUnavailableError),
)


def _without_token(text: str) -> str:
    for token in (get_token(), os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")):
        if token:
            text = text.replace(token, "***")
    return text


@contextmanager
def _silenced_hub_loggers() -> Iterator[None]:
    """Silence the loggers of diffusers and the Hub client meanwhile: they log what they catch, whatever it says."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
