"""Videos in time: flicker against its formula, and videos that stand still."""

import pytest
import torch
from torch import Tensor

from pytest_mxq.metrics.degenerate import DegenerateKind, find_degenerate
from pytest_mxq.metrics.flicker import FROZEN_CHANGE, flicker, largest_departure
from pytest_mxq.metrics.images import ImageError

FRAMES = 6


def walking(step: int = 2, videos: int = 1) -> Tensor:
    """Noise that moves `step` pixels to the right in every frame, floats (videos x 6, 3, 32, 32)."""
    scenes = torch.rand((videos, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.stack([scene.roll(step * t, 2) for t in range(FRAMES)]) for scene in scenes])


def eight_bit(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def levels(*values: int) -> Tensor:
    """Flat frames of these levels."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()


def test_a_video_does_not_flicker_against_itself() -> None:
    assert flicker(eight_bit(walking(videos=2)), eight_bit(walking(videos=2)), frames=FRAMES) == [0.0, 0.0]


def test_flicker_is_the_change_of_the_change() -> None:
    reference, other = levels(10, 20, 10, 20), levels(10, 25, 10, 25)  # 10 and 15 levels a frame
    assert flicker(reference, other, frames=4) == [pytest.approx(0.5)]
    assert flicker(other, reference, frames=4) == [pytest.approx(1 / 3)]


def test_each_video_is_measured_by_itself_and_the_cut_between_two_is_no_change() -> None:
    reference, other = levels(10, 20, 200, 210), levels(10, 20, 100, 100)
    assert flicker(reference, other, frames=2) == [0.0, pytest.approx(1.0)]


def test_a_video_that_stands_still_has_flicker_1_however_good_its_frames_are() -> None:
    reference = eight_bit(walking())
    frozen = reference[:1].expand_as(reference)
    assert flicker(reference, frozen, frames=FRAMES) == [pytest.approx(1.0)]


def test_a_reference_that_hardly_moves_is_measured_in_levels() -> None:
    assert flicker(levels(10, 10), levels(10, 11), frames=2) == [pytest.approx(1.0)]  # not infinite


def test_videos_of_one_frame_have_no_flicker() -> None:
    with pytest.raises(ImageError, match="videos have 1 frame"):
        flicker(levels(1, 2), levels(1, 2), frames=1)


def test_flicker_refuses_videos_of_different_shape() -> None:
    with pytest.raises(ImageError, match="must agree"):
        flicker(levels(1, 2, 3, 4), levels(1, 2), frames=2)


def found(images: Tensor) -> list[tuple[int, DegenerateKind]]:
    return [(fault.index, fault.kind) for fault in find_degenerate(images, size=None, frames=FRAMES)]


def test_moving_videos_have_no_fault_though_two_frames_are_equal() -> None:
    videos = walking(videos=2)
    videos[3] = videos[1]
    assert found(videos) == []


def test_a_video_whose_frames_are_all_the_first_is_frozen() -> None:
    videos = walking(videos=2)
    videos[FRAMES:] = videos[FRAMES]
    assert found(videos) == [(1, DegenerateKind.FROZEN)]
    assert "none of 6 frames differs from the first" in find_degenerate(videos, size=None, frames=FRAMES)[0].detail


def test_the_bound_of_frozen_is_a_quarter_of_a_level() -> None:
    still = eight_bit(walking(step=0))
    below, above = still.clone(), still.clone()
    pixels = still[0, 0].numel() * 3
    below[3].view(-1)[: pixels // 4] ^= 1  # a quarter of the values by one level: exactly the bound
    above[3].view(-1)[: pixels // 4 + 1] ^= 1
    assert largest_departure(below) == FROZEN_CHANGE < largest_departure(above)


def test_a_video_that_drifts_slowly_is_not_frozen() -> None:
    assert largest_departure(torch.cat([levels(100 + t // 2) for t in range(8)])) > FROZEN_CHANGE


def test_one_fault_a_video_not_one_a_frame() -> None:
    videos = walking(videos=3)
    videos[:FRAMES] = torch.nan
    videos[FRAMES : 2 * FRAMES] = torch.linspace(0, 1, FRAMES)[:, None, None, None]  # each frame flat, the video not
    assert found(videos) == [(0, DegenerateKind.NOT_FINITE), (1, DegenerateKind.CONSTANT)]


def test_a_video_may_fade_in_from_black() -> None:
    video = walking()
    video[0] = 0
    assert found(video) == []


def test_one_colour_is_a_fault_where_every_frame_is_of_it() -> None:
    video = torch.full((FRAMES, 3, 32, 32), 0.5)
    video[:, :, 0, :3] = torch.rand((FRAMES, 3, 3), generator=torch.Generator().manual_seed(0))
    video[:, :, 0, 3] = 1.0
    assert found(video) == [(0, DegenerateKind.ONE_COLOUR)]
    video[2] = walking()[0]
    assert found(video) == []


def test_a_video_equal_to_another_prompts_is_named() -> None:
    videos = walking(videos=3)
    videos[2 * FRAMES :] = videos[:FRAMES]
    assert found(videos) == [(2, DegenerateKind.DUPLICATE)]
    assert find_degenerate(videos, size=None, frames=FRAMES)[0].detail == "identical to video 0"


def test_the_wrong_size_is_said_once_a_video() -> None:
    faults = find_degenerate(walking(videos=2), size=(32, 64), frames=FRAMES)
    assert [(fault.index, fault.kind) for fault in faults] == [
        (0, DegenerateKind.WRONG_SIZE),
        (1, DegenerateKind.WRONG_SIZE),
    ]
