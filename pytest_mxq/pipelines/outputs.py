"""Read what a workload returned: images, or videos with or without audio."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pytest_mxq.errors import CaseFaultError

UNKNOWN_FRAME_RATE = 24.0
"""Frames a second of a pipeline that knows of no frame rate: how fast its stored videos play, and nothing else."""

OVERSHOOT = 0.1
"""By how much a value may leave 0 to 1 and count as the overshoot of a VAE, which 8-bit images clamp."""
MAX_OUTSIDE_SHARE = 0.005
"""Share of values beyond that above which images are in another range than 0 to 1.

Measured on the demo's 24 images: of what its VAE decodes before diffusers clamps it, at most 0.04 % of an image lie
beyond (0.6 % differ by more than 0.02); of the same images scaled to -1 to 1 at least 1.2 %, and 34 % of all but two.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """The audio of some videos: ``waves`` is a float32 tensor (videos, channels, samples), ``rate`` is in samples/s."""

    waves: torch.Tensor
    rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What makes videos of images.

    Attributes:
        frames: frames of each video, consecutive among the images.
        rate: frames a second.
        audio: of the videos; None where the model makes none.
    """

    frames: int
    rate: float
    audio: Audio | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What one or several calls returned.

    Attributes:
        images: float tensor (N, 3, H, W) on the CPU, about 0 to 1; the frames of a video one after the other.
        video: None: the images are images.
    """

    images: torch.Tensor
    video: VideoInfo | None

    @property
    def count(self) -> int:
        """Return the number of images, or of videos."""
        return len(self.images) // (self.video.frames if self.video is not None else 1)


def read_returned(result: object, pipe: Any, call: Mapping[str, Any]) -> Returned:
    """Return the tensors in what a workload returned: a pipeline's output, or images or frames themselves.

    Args:
        result: what it returned; with ``return_dict=False`` that is a tuple of images, or of frames and audio.
        pipe: the pipeline that it called; audio's sample rate stands in its vocoder's configuration.
        call: the arguments of its last call, of which ``frame_rate`` counts.

    Raises:
        CaseFaultError: it is nothing of that kind, or its values are not from 0 to 1.
    """
    if result is None:
        raise CaseFaultError(
            "the test returned None; its body is the workload and must return what the pipeline returned: "
            "return mxq_pipeline(mxq_prompt)"
        )
    audio = getattr(result, "audio", None)
    if isinstance(result, tuple) and result and isinstance(result[0], torch.Tensor):
        result, *others = result
        audio = next((other for other in others if isinstance(other, torch.Tensor)), None)
    frames = getattr(result, "frames", None)
    if frames is None and isinstance(result, torch.Tensor) and result.ndim == 5:
        frames = result
    if frames is None:
        return Returned(images=_images(result), video=None)
    if not isinstance(frames, torch.Tensor) or frames.ndim != 5 or frames.shape[2] != 3 or 0 in frames.shape:
        raise CaseFaultError(
            f"the test returned frames as a {_named(frames)}; allowed: what mxq_pipeline(...) returned, or a tensor of "
            "videos (N, frames, 3, H, W)"
        )
    video = VideoInfo(
        frames=frames.shape[1], rate=_frame_rate(pipe, call), audio=_audio(audio, pipe, videos=len(frames))
    )
    return Returned(images=_from_0_to_1(frames.detach().flatten(0, 1).cpu(), "frames"), video=video)


def join(parts: Sequence[Returned]) -> Returned:
    """Join what several calls returned, in their order.

    Raises:
        CaseFaultError: they differ in size, in frames or in audio; names each that there is.
    """
    _check_equal(parts, "images", "size", lambda part: f"{part.images.shape[-1]}x{part.images.shape[-2]}")
    _check_equal(parts, "videos", "their number of frames", lambda part: str(part.video and part.video.frames))
    _check_equal(parts, "videos", "frame rate", lambda part: str(part.video and part.video.rate))
    _check_equal(parts, "videos", "audio (channels, samples, rate)", _audio_format)
    video = parts[0].video
    if video is not None and video.audio is not None:
        waves = [part.video.audio.waves for part in parts if part.video is not None and part.video.audio is not None]
        video = replace(video, audio=replace(video.audio, waves=torch.cat(waves)))
    return Returned(images=torch.cat([part.images for part in parts]), video=video)


def _images(result: object) -> torch.Tensor:
    images = getattr(result, "images", result)
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1] != 3:
        found = f"tensor of shape {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(result).__name__
        if images is not result and not isinstance(images, torch.Tensor):
            found += f" whose images are a {_kind(images)} (the call went around mxq_pipeline)"
        elif not isinstance(images, torch.Tensor):
            found = _kind(images)
        raise CaseFaultError(
            f"the test returned {found}; allowed: what mxq_pipeline(...) returned, or a tensor of images (N, 3, H, W)"
        )
    return _from_0_to_1(images.detach().cpu(), "images")


def _kind(images: object) -> str:
    """Name images that are no tensor, such as "list of PIL images" or "numpy array (1, 8, 8, 3)"."""
    first = images[0] if isinstance(images, list | tuple) and images else images
    if type(first).__module__.startswith("PIL."):
        return "PIL image" if first is images else f"{type(images).__name__} of PIL images"
    shape = getattr(images, "shape", None)
    return type(images).__name__ if shape is None else f"numpy array {tuple(shape)}"


def _from_0_to_1(images: torch.Tensor, noun: str) -> torch.Tensor:
    """Return images or frames (N, 3, H, W) as floats from 0 to 1; 8-bit ones become the floats that round to them.

    Raises:
        CaseFaultError: they are of another dtype, or in another range; names the range.
    """
    if images.dtype is torch.uint8:
        return images.float().div_(255)
    if not images.is_floating_point():
        raise CaseFaultError(f"the test returned {noun} as {images.dtype}; allowed: floats from 0 to 1, or uint8")
    if not all(bool(image.isfinite().all()) for image in images):
        return images  # a fault of what was generated, not of the test: the verdict is degenerate
    outside = sum(int(((image < -OVERSHOOT) | (image > 1 + OVERSHOOT)).sum()) for image in images)
    if outside > MAX_OUTSIDE_SHARE * images.numel():
        low, high = images.min().item(), images.max().item()
        raise CaseFaultError(
            f"the test returned {noun} with values from {low:.3g} to {high:.3g} ({outside / images.numel():.1%} of "
            "them outside of 0 to 1); allowed: 0 to 1, as mxq_pipeline(...) returns them; return "
            f"{_rescaling(low, high)}"
        )
    return images


def _rescaling(low: float, high: float) -> str:
    """Return the expression that brings values of a usual range to 0 to 1."""
    if high > 2:
        return "x / 255"
    return "(x / 2 + 0.5).clamp(0, 1)" if low < -0.5 else "x.clamp(0, 1)"


def _audio(audio: object, pipe: Any, *, videos: int) -> Audio | None:
    if audio is None:
        return None
    if not isinstance(audio, torch.Tensor) or audio.ndim != 3 or len(audio) != videos or 0 in audio.shape:
        raise CaseFaultError(
            f"the test returned audio as a {_named(audio)} beside {videos} videos; allowed: what mxq_pipeline(...) "
            "returned, a tensor (videos, channels, samples)"
        )
    rate = getattr(getattr(getattr(pipe, "vocoder", None), "config", None), "output_sampling_rate", None)
    if not isinstance(rate, int):
        raise CaseFaultError(
            f"the test returned audio, but {type(pipe).__name__} has no vocoder whose output_sampling_rate says how "
            "fast it plays; return the frames alone"
        )
    return Audio(waves=audio.detach().float().cpu(), rate=rate)


def _frame_rate(pipe: Any, call: Mapping[str, Any]) -> float:
    parameter = inspect.signature(pipe).parameters.get("frame_rate")
    stated = call.get("frame_rate", parameter.default if parameter is not None else UNKNOWN_FRAME_RATE)
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < 1e6:
        raise CaseFaultError(f"mxq_pipeline(frame_rate=) must be a number of frames a second, got {stated!r}")
    return float(stated)


def _named(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} (the call went around mxq_pipeline)"


def _audio_format(part: Returned) -> str:
    audio = part.video.audio if part.video is not None else None
    return "none" if audio is None else f"{audio.waves.shape[1]}x{audio.waves.shape[2]} at {audio.rate}"


def _check_equal(parts: Sequence[Returned], noun: str, what: str, facts: Callable[[Returned], str]) -> None:
    found = sorted({facts(part) for part in parts})
    if len(found) > 1:
        raise CaseFaultError(f"the workload's {noun} differ in {what} between prompts: {', '.join(found)}")
