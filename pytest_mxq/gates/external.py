"""Scores by a command of another environment, for metrics whose packages pin other versions than a pipeline needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pytest_mxq.errors import MxqError

_SHOWN_LINES = 5  # the last ones of what the command wrote to standard error

# What would make another environment's Python import this one's packages.
_OWN_VARIABLES = {"PYTHONHOME", "PYTHONPATH"}


def score_by_command(command: Sequence[str], *outputs: Any, timeout: float = 600.0) -> list[list[float]]:
    """Return a command's score of every image, without a reference.

    The command is started once, and gets a line of JSON for each image on standard input, ``{"image": "/path/0.png",
    "prompt": "a red ring"}``. It prints a line for each, in their order, ``{"score": 0.31}``, and nothing else; what it
    has to say goes to standard error. It inherits the environment variables but ``PYTHONPATH`` and ``PYTHONHOME``.

    Args:
        command: The program, such as the Python of another virtual environment, and its arguments.
        outputs: What a gate's ``score`` is given, BF16's and the quantized arm's; images, no videos.
        timeout: Seconds for the whole; then the command is killed, and what it started.

    Returns:
        For each of ``outputs`` one score an image.

    Raises:
        MxqError: The command cannot be started, takes too long, fails, or prints anything but one score an image; or
            the outputs are videos.
    """
    with TemporaryDirectory(prefix="mxq-score-") as folder:
        requests = list(_write_images(Path(folder), outputs))
        printed = _run(command, "".join(f"{json.dumps(request)}\n" for request in requests), timeout)
    scores = [_read_score(command, line) for line in printed.splitlines()]
    if len(scores) != len(requests):
        raise _error(command, f"printed {len(scores)} scores for {len(requests)} images")
    remaining = iter(scores)
    return [[next(remaining) for _ in each.positions] for each in outputs]


def _write_images(folder: Path, outputs: Sequence[Any]) -> Iterator[dict[str, str]]:
    """Write every image as PNG, and yield what the command is told of it."""
    for number, each in enumerate(outputs):
        if each.noun != "image":
            raise MxqError(f"a command scores images, and {each.identity.model} generates {each.noun}s")
        prompts, per_prompt = each.identity.prompts, each.identity.images_per_prompt
        for position, image in zip(each.positions, each.to_media(), strict=True):
            path = folder / f"{number}-{position}.png"
            image.save(path)
            yield {"image": str(path), "prompt": prompts[position // per_prompt]}


def _run(command: Sequence[str], text: str, timeout: float) -> str:
    """Return what the command prints; a process group of its own lets a timeout end what it started, too."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise _error(command, f"cannot be started: {error.strerror}") from error
    with process:
        try:
            printed, said = process.communicate(text, timeout)
        except subprocess.TimeoutExpired as error:
            raise _error(command, f"took longer than {timeout:g} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        last = "\n".join(said.splitlines()[-_SHOWN_LINES:])
        raise _error(command, f"ended with exit code {process.returncode}: {last or 'nothing on standard error'}")
    return printed


def _read_score(command: Sequence[str], line: str) -> float:
    try:
        score = json.loads(line)["score"]
        if isinstance(score, int | float) and not isinstance(score, bool):
            return float(score)
    except (ValueError, LookupError, TypeError, OverflowError):
        pass
    raise _error(command, f'printed {line[:200]!r}, not a line like {{"score": 0.31}}')


def _error(command: Sequence[str], problem: str) -> MxqError:
    return MxqError(f"the command {command!r} {problem}")
