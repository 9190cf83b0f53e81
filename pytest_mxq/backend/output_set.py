"""What an arm drew, as the probes take it: pictures or clips, from a store and to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from pytest_mxq.baselines.manifest import Identity
from pytest_mxq.baselines.strict_json import invalid
from pytest_mxq.baselines.video import Clip
from pytest_mxq.gates.verdict import PictureFault
from pytest_mxq.metrics import audio, degenerate
from pytest_mxq.pipelines.outputs import Film, Sound


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureShot:
    """Pictures or clips of one arm.

    Attributes:
        pictures: uint8 (N, 3, H, W) on the CPU; of a clip its frames, one after the other.
        film: what makes clips of them; None: they are pictures.
        positions: position of each picture or clip in the case's full set.
        faults: what is degenerate about them.
        identity: what was observed.
    """

    pictures: torch.Tensor
    film: Film | None
    positions: tuple[int, ...]
    faults: tuple[PictureFault, ...]
    identity: Identity

    @property
    def noun(self) -> str:
        """What they are: "picture" or "clip"."""
        return "picture" if self.film is None else "clip"

    @property
    def frames(self) -> int:
        """Pictures at each position: the frames of a clip, or 1."""
        return self.film.frames if self.film is not None else 1

    @property
    def sound(self) -> Sound | None:
        """Of the clips; None where there is none."""
        return self.film.sound if self.film is not None else None

    def clip(self, index: int) -> torch.Tensor:
        """The frames of one clip, or one picture, uint8 (frames, 3, H, W)."""
        return self.pictures[index * self.frames : (index + 1) * self.frames]

    def subset(self, positions: Sequence[int]) -> PictureShot:
        """The pictures or clips at some positions; their faults are left out."""
        rows = [self.positions.index(position) for position in positions]
        pictures = torch.cat([self.clip(row) for row in rows])
        film = self.film
        if film is not None and film.sound is not None:
            film = replace(film, sound=replace(film.sound, waves=film.sound.waves[rows]))
        return replace(self, pictures=pictures, film=film, positions=tuple(positions), faults=())

    def equals(self, other: PictureShot) -> bool:
        """Whether all pictures, and all sounds, are equal to the bit.

        Raises:
            PictureError: the pictures differ in size or number.
        """
        ours, theirs = (shot.sound.waves if shot.sound is not None else None for shot in (self, other))
        same_sound = ours is theirs if ours is None or theirs is None else torch.equal(ours, theirs)
        return same_sound and degenerate.identical(self.pictures, other.pictures)


def media_of(shot: PictureShot) -> list[Any]:
    """What a store keeps of a shot: a PIL image of each picture, or a Clip."""
    film = shot.film
    if film is None:
        return [_image(picture) for picture in shot.pictures]
    waves = [None] * len(shot.positions) if film.sound is None else [wave.numpy() for wave in film.sound.waves]
    return [
        Clip(
            frames=shot.clip(index).permute(0, 2, 3, 1).contiguous().numpy(),
            frame_rate=film.rate,
            sound=wave,
            sample_rate=film.sound.rate if film.sound is not None else None,
        )
        for index, wave in enumerate(waves)
    ]


def shot_of(media: Sequence[Image.Image | Clip], identity: Identity) -> PictureShot:
    """The shot that a store kept; `media` is what `media_of` gave: images alone, or clips alone.

    Raises:
        BaselineInvalidError: the clips differ in length or rate, as no shot's do.
    """
    arrays = [torch.from_numpy(_array(medium).copy()).permute(0, 3, 1, 2) for medium in media]
    return PictureShot(
        pictures=torch.cat(arrays) if arrays else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        film=_film([medium for medium in media if isinstance(medium, Clip)]),
        positions=tuple(range(len(media))),
        faults=(),
        identity=identity,
    )


def differences(reference: PictureShot, other: PictureShot) -> tuple[str, ...]:
    """In what the clips of two shots cannot be compared: frame count and rate, length, channels and rate of sound."""
    before, after = _film_facts(reference), _film_facts(other)
    return tuple(f"{name} {before[name]} -> {after[name]}" for name in before if before[name] != after[name])


def picture_of(gate: str, shot: PictureShot, index: int, frame: int | None) -> Image.Image:
    """What a gate looked at, for people.

    Args:
        gate: "audio": the sound's spectrogram. "flicker": the middle row of pixels over time, a line for each frame,
            in which flicker is stripes. Any other: a picture.
        shot: the pictures or clips.
        index: which of them.
        frame: which frame of a clip; None: the middle one.
    """
    clip, sound = shot.clip(index), shot.sound
    if gate == "audio" and sound is not None:
        return _image(audio.spectrogram(sound.waves[index]))
    if gate == "flicker":
        return _image(clip[:, :, clip.shape[2] // 2].transpose(0, 1))
    return _image(clip[len(clip) // 2 if frame is None else frame])


def _image(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def _array(medium: Image.Image | Clip) -> Any:
    return medium.frames if isinstance(medium, Clip) else np.asarray(medium)[None]


def _film(clips: Sequence[Clip]) -> Film | None:
    if not clips:
        return None
    different = sorted({str(clip.facts) for clip in clips})
    if len(different) > 1:
        raise invalid("stored clips", f"they differ in length or rate: {', '.join(different)}")
    first, sound = clips[0], None
    if first.sample_rate is not None:
        waves = torch.stack([torch.from_numpy(clip.sound) for clip in clips])
        sound = Sound(waves=waves, rate=first.sample_rate)
    return Film(frames=len(first.frames), rate=first.frame_rate, sound=sound)


def _film_facts(shot: PictureShot) -> dict[str, str]:
    sound = shot.sound
    channels, samples = sound.waves.shape[1:] if sound is not None else (0, 0)
    return {
        "frame count": str(shot.frames),
        "frame rate": f"{shot.film.rate:g}" if shot.film is not None else "none",
        "channels of sound": str(channels),
        "samples of sound": str(samples),
        "sample rate": str(sound.rate) if sound is not None else "none",
    }
