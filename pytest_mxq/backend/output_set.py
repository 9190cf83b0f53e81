"""What an arm generated, as metrics take it: images or videos, from a store and to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from pytest_mxq.baselines.manifest import Identity
from pytest_mxq.baselines.strict_json import invalid
from pytest_mxq.baselines.video import Video
from pytest_mxq.baselines.work import WorkRecord
from pytest_mxq.gates.evidence import Evidence
from pytest_mxq.gates.verdict import OutputFault
from pytest_mxq.metrics.images import check_pair, to_image
from pytest_mxq.pipelines.originals import Original
from pytest_mxq.pipelines.outputs import Audio, VideoInfo
from pytest_mxq.pipelines.work import Work, work_differences

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedOutputs:
    """Images or videos of one arm.

    Attributes:
        images: uint8 (N, 3, H, W) on the CPU; of a video its frames, one after the other.
        video: what makes videos of them; None: they are images.
        positions: position of each image or video in the case's full set.
        faults: what is degenerate about them.
        identity: what was observed.
        evidence: proof that what generated them ran quantized; None of BF16's and of stored ones.
        works: what each chunk ran, by the index of its first prompt; empty of stored ones.
        changes: what the workload changed of the pipeline, and was put back or made the arm be built again.
        originals: what the pipeline generated in the chunks whose outputs the workload changed, by the index of their
            first prompt.
    """

    images: torch.Tensor
    video: VideoInfo | None
    positions: tuple[int, ...]
    faults: tuple[OutputFault, ...]
    identity: Identity
    evidence: Evidence | None = None
    works: Mapping[int, Work] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    originals: Mapping[int, Self] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """Name what they are: "image" or "video"."""
        return "image" if self.video is None else "video"

    @property
    def frames(self) -> int:
        """Count the images at each position: the frames of a video, or 1."""
        return self.video.frames if self.video is not None else 1

    @property
    def audio(self) -> Audio | None:
        """Return the audio of the videos; None without any."""
        return self.video.audio if self.video is not None else None

    def frames_of(self, index: int) -> torch.Tensor:
        """Return the frames of one video, or one image, uint8 (frames, 3, H, W)."""
        return self.images[index * self.frames : (index + 1) * self.frames]

    @classmethod
    def from_media(cls, media: Sequence[Image.Image | Video], identity: Identity) -> Self:
        """Return the outputs that a store kept.

        Args:
            media: what `to_media` gave: images alone, or videos alone.
            identity: what was observed when they were generated.

        Raises:
            BaselineInvalidError: the videos differ in length or rate, as those of one case never do.
        """
        arrays = [torch.from_numpy(_array(medium).copy()).permute(0, 3, 1, 2) for medium in media]
        return cls(
            images=torch.cat(arrays) if arrays else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
            video=_video([medium for medium in media if isinstance(medium, Video)]),
            positions=tuple(range(len(media))),
            faults=(),
            identity=identity,
        )

    def to_media(self) -> list[Any]:
        """Return what a store keeps: a PIL image of each image, or a `Video`."""
        video = self.video
        if video is None:
            return [to_image(image) for image in self.images]
        waves = [None] * len(self.positions) if video.audio is None else [wave.numpy() for wave in video.audio.waves]
        return [
            Video(
                frames=self.frames_of(index).permute(0, 2, 3, 1).contiguous().numpy(),
                frame_rate=video.rate,
                audio=wave,
                sample_rate=video.audio.rate if video.audio is not None else None,
            )
            for index, wave in enumerate(waves)
        ]

    def preview(self, index: int, frame: int | None) -> Image.Image:
        """Return an image, or a frame of a video (None: the middle one), as PIL image."""
        frames = self.frames_of(index)
        return to_image(frames[len(frames) // 2 if frame is None else frame])

    def subset(self, positions: Sequence[int]) -> Self:
        """Return the images or videos at some positions; their faults are left out."""
        rows = [self.positions.index(position) for position in positions]
        images = torch.cat([self.frames_of(row) for row in rows])
        video = self.video
        if video is not None and video.audio is not None:
            video = replace(video, audio=replace(video.audio, waves=video.audio.waves[rows]))
        return replace(self, images=images, video=video, positions=tuple(positions), faults=())

    def copied(self) -> Self:
        """Return the same outputs in memory of their own."""
        video = self.video
        if video is not None and video.audio is not None:
            video = replace(video, audio=replace(video.audio, waves=video.audio.waves.clone()))
        return replace(self, images=self.images.clone(), video=video)

    def identical_positions(self, other: Self) -> tuple[int, ...]:
        """Return the positions at which image or video, and audio, are bit-identical.

        Raises:
            ImageError: the images differ in size or number.
        """
        check_pair(self.images, other.images)
        same = []
        for index, position in enumerate(self.positions):
            ours, theirs = (outputs.audio for outputs in (self, other))
            same_audio = ours is theirs is None or (
                ours is not None and theirs is not None and torch.equal(ours.waves[index], theirs.waves[index])
            )
            if same_audio and torch.equal(self.frames_of(index), other.frames_of(index)):
                same.append(position)
        return tuple(same)

    def work_differences(self, other: Self) -> tuple[str, ...]:
        """Return in what the chunks that both ran differ: calls of the denoiser, timesteps, shapes, decoder, encoder.

        Text encoders are left out: prompt embeddings are computed once for all arms. So are outputs that were changed,
        which are judged apart.
        """
        shared = sorted(self.works.keys() & other.works.keys())
        ignoring = frozenset({"text_encoder_calls", "has_changed_outputs"})
        pairs = ((self.works[start], other.works[start]) for start in shared)
        found = (text for one, another in pairs for text in work_differences(one, another, ignoring=ignoring))
        return tuple(dict.fromkeys(found))

    def with_originals(self, originals: Mapping[int, Original]) -> Self:
        """Return the same outputs, with what the pipeline generated in some chunks (index of the first prompt)."""
        return replace(self, originals={start: self._original(start, one) for start, one in originals.items()})

    def _original(self, start: int, original: Original) -> Self:
        returned = self.subset(self.identity.chunk_positions(start))
        video = returned.video
        if video is not None:
            video = replace(video, frames=len(original.images) // len(returned.positions))
            if video.audio is not None and original.waves is not None:
                video = replace(video, audio=replace(video.audio, waves=original.waves))
        return replace(returned, images=original.images, video=video)

    @property
    def work_records(self) -> dict[int, WorkRecord]:
        """Return what a baseline stores of the work of each chunk, by the index of its first prompt."""
        return {start: work.record for start, work in self.works.items()}

    def differences(self, other: Self) -> tuple[str, ...]:
        """Return in what the videos differ: frame count and rate; the audio's length, channels and rate."""
        before, after = _video_facts(self), _video_facts(other)
        return tuple(f"{name} {before[name]} -> {after[name]}" for name in before if before[name] != after[name])


def _array(medium: Image.Image | Video) -> Any:
    return medium.frames if isinstance(medium, Video) else np.asarray(medium)[None]


def _video(videos: Sequence[Video]) -> VideoInfo | None:
    if not videos:
        return None
    different = sorted({str(video.facts) for video in videos})
    if len(different) > 1:
        raise invalid("stored videos", f"they differ in length or rate: {', '.join(different)}")
    first, audio = videos[0], None
    if first.sample_rate is not None:
        waves = torch.stack([torch.from_numpy(video.audio) for video in videos])
        audio = Audio(waves=waves, rate=first.sample_rate)
    return VideoInfo(frames=len(first.frames), rate=first.frame_rate, audio=audio)


def _video_facts(outputs: GeneratedOutputs) -> dict[str, str]:
    audio = outputs.audio
    channels, samples = audio.waves.shape[1:] if audio is not None else (0, 0)
    return {
        "frame count": str(outputs.frames),
        "frame rate": f"{outputs.video.rate:g}" if outputs.video is not None else "none",
        "channels of audio": str(channels),
        "samples of audio": str(samples),
        "sample rate": str(audio.rate) if audio is not None else "none",
    }
