"""Whether a case fits on the device: the arithmetic, and what is said where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from pytest_mxq.cases import Case
from pytest_mxq.gates.verdict import Outcome, Stop
from pytest_mxq.models import MemoryNeed, built_in_models
from pytest_mxq.models.demo import DEMO
from pytest_mxq.models.flux import FLUX_1_DEV
from pytest_mxq.room import check_room_for_bf16, check_room_for_both_arms, check_room_for_pictures
from pytest_mxq.settings import CaseSettings

# What the docstring of ArmStore calculates with.
NEEDS = {recipe.name: recipe.memory for recipe in built_in_models() if recipe.memory is not None}
DEVICES = (79.6, 140.4, 179.0)  # sold as 80, 141 and 180 GB
Check = Callable[[Case, float | None], None]


def case(batch_size: int = 1, memory: MemoryNeed | None = FLUX_1_DEV.memory, *, random: bool = False) -> Case:
    settings = CaseSettings(model="flux.1-dev", batch_size=batch_size)
    recipe = replace(FLUX_1_DEV, memory=memory)
    return Case(recipe=recipe, name="x", settings=settings, prompts=DEMO.prompts, random_weights=random)


def largest(check: Check, memory: MemoryNeed, device_gib: float) -> int:
    for batch_size in range(1, 200):
        try:
            check(case(batch_size, memory), device_gib)
        except Stop:
            return batch_size - 1
    raise AssertionError(memory)


NATIVE, EMULATED = partial(check_room_for_pictures, emulated=False), partial(check_room_for_pictures, emulated=True)


@pytest.mark.parametrize(
    ("model", "need", "emulated", "batches", "emulated_batches"),
    [
        ("flux.1-dev", 38.1, 48.8, (21, 52, 71), (16, 46, 66)),
        ("qwen-image", 53.7, 55.4, (8, 23, 33), (7, 22, 31)),
        ("ltx-2", 63.4, 80.2, (4, 17, 26), (0, 14, 22)),
    ],
)
def test_the_pictures_of_each_model_fit_as_the_store_says(
    model: str, need: float, emulated: float, batches: tuple[int, ...], emulated_batches: tuple[int, ...]
) -> None:
    memory = NEEDS[model]
    assert memory.pictures(1, emulated=False) == pytest.approx(need, abs=0.06)
    assert memory.pictures(1, emulated=True) == pytest.approx(emulated, abs=0.06)
    assert tuple(largest(NATIVE, memory, device) for device in DEVICES) == batches
    assert tuple(largest(EMULATED, memory, device) for device in DEVICES) == emulated_batches


@pytest.mark.parametrize(
    ("model", "need", "batches"),
    [("flux.1-dev", 47.2, (17, 47, 66)), ("qwen-image", 64.6, (4, 19, 29)), ("ltx-2", 86.1, (0, 12, 21))],
)
def test_both_arms_of_each_model_fit_as_the_store_says(model: str, need: float, batches: tuple[int, ...]) -> None:
    memory = NEEDS[model]
    assert memory.both_arms(1, random=False) == pytest.approx(need, abs=0.06)
    assert tuple(largest(check_room_for_both_arms, memory, device) for device in DEVICES) == batches


def test_while_prompts_are_embedded_the_encoders_lie_beside_bf16() -> None:
    many_encoders = MemoryNeed(weights=50.0, encoders=40.0, denoiser=9.0, call=1.0, image=1.0)
    assert many_encoders.pictures(1, emulated=False) == 50.0
    assert many_encoders.pictures(60, emulated=False) == pytest.approx(50.0 - 40.0 + 0.52 * 9.0 + 61.0)


def test_random_weights_do_without_the_encoders() -> None:
    memory = NEEDS["ltx-2"]
    assert memory.both_arms(1, random=False) - memory.both_arms(1, random=True) == pytest.approx(22.73)
    assert memory.one_arm(1, random=False) - memory.one_arm(1, random=True) == pytest.approx(22.73)
    check_room_for_both_arms(case(memory=memory, random=True), 79.6)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (
            NATIVE,
            "the pictures of flux.1-dev at batch size 32 need about 100 GiB and the device has 80; nothing was loaded. "
            "Batch size 21 fits. A device of 101 GiB fits",
        ),
        (
            check_room_for_both_arms,
            "both arms of flux.1-dev at batch size 32 need about 109 GiB and the device has 80; nothing was loaded. "
            "Batch size 17 fits. A device of 110 GiB fits",
        ),
        (
            check_room_for_bf16,
            "the BF16 calls of flux.1-dev at batch size 32 need about 98 GiB and the device has 80; nothing was loaded. "
            "Batch size 22 fits. A device of 98 GiB fits",
        ),
    ],
)
def test_too_little_memory_is_told_with_the_numbers_and_with_what_would_fit(check: Check, sentence: str) -> None:
    with pytest.raises(Stop) as caught:
        check(case(32), 79.6)
    assert caught.value.outcome is Outcome.ENVIRONMENT
    assert str(caught.value) == sentence


def test_where_no_batch_fits_none_is_offered() -> None:
    with pytest.raises(Stop, match=r"need about 64 GiB and the device has 24; nothing was loaded\. A device of 65 GiB"):
        NATIVE(case(14), 24.0)


@pytest.mark.parametrize("check", [NATIVE, check_room_for_both_arms, check_room_for_bf16])
def test_nothing_is_refused_where_model_or_device_say_nothing(check: Check) -> None:
    check(case(1000, memory=None), 1.0)
    check(case(1000), None)
