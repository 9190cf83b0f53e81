"""Whether a gate can run on a device: its format's capability, the arithmetic of memory, and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_mxq.environment.device import Device
from pytest_mxq.formats import built_in_formats
from pytest_mxq.models import MemoryNeed, built_in_models
from pytest_mxq.models.demo import DEMO
from pytest_mxq.models.flux import FLUX_1_DEV
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.requirements import (
    Emulation,
    Use,
    capability_refusal,
    memory_in_use,
    memory_refusal,
    runs_natively,
)
from pytest_mxq.planning.settings import CaseSettings

# What the docstring of ArmStore calculates with.
NEEDS = {recipe.name: recipe.memory for recipe in built_in_models() if recipe.memory is not None}
DEVICES = (79.6, 140.4, 179.0)  # sold as 80, 141 and 180 GB
FORMATS = {number_format.name: number_format for number_format in built_in_formats()}


def device(capability: tuple[int, int] | None, name: str = "GPU") -> Device:
    kind = "cpu" if capability is None else "cuda"
    return Device(kind=kind, name=name, capability=capability, slug="x", total_memory_gib=None, facts={})


@pytest.mark.parametrize(
    ("name", "capability", "native"),
    [
        ("mxfp8", (10, 0), True),
        ("nvfp4", (10, 3), True),
        ("mxfp4", (9, 0), False),
        ("nvfp4", None, False),
        ("float8", (8, 9), True),
        ("float8", (8, 6), False),
        ("nvfp4", (12, 0), True),
    ],
)
def test_a_format_runs_natively_from_its_capability(
    name: str, capability: tuple[int, int] | None, native: bool
) -> None:
    assert runs_natively(FORMATS[name], device(capability)) is native


def test_a_refusal_names_format_required_capability_device_its_capability_and_the_way_out() -> None:
    text = capability_refusal(FORMATS["nvfp4"], device((9, 0), "NVIDIA H100 80GB HBM3"), Emulation.NO)
    assert text == (
        "nvfp4 needs compute capability 10.0, found NVIDIA H100 80GB HBM3 with 9.0; "
        "--mxq-emulate runs its accuracy gates with emulated numerics"
    )
    assert capability_refusal(FORMATS["nvfp4"], device((9, 0)), Emulation.YES) is None


def gpu(gib: float | None) -> Device:
    return Device(kind="cuda", name="GPU", capability=(9, 0), slug="x", total_memory_gib=gib, facts={})


def case(batch_size: int = 1, memory: MemoryNeed | None = FLUX_1_DEV.memory, *, random: bool = False) -> Case:
    settings = CaseSettings(model="flux.1-dev", batch_size=batch_size)
    recipe = replace(FLUX_1_DEV, memory=memory)
    return Case(recipe=recipe, name="x", settings=settings, prompts=DEMO.prompts, random_weights=random)


def largest(use: Use, memory: MemoryNeed, device_gib: float) -> int:
    fits = (memory_refusal(case(size, memory), gpu(device_gib), use) is None for size in range(1, 200))
    return list(fits).index(False)


@pytest.mark.parametrize(
    ("model", "need", "emulated", "batches", "emulated_batches"),
    [
        ("flux.1-dev", 38.1, 48.8, (21, 52, 71), (16, 46, 66)),
        ("qwen-image", 53.7, 55.4, (8, 23, 33), (7, 22, 31)),
        ("ltx-2", 63.4, 80.2, (4, 17, 26), (0, 14, 22)),
    ],
)
def test_the_images_of_each_model_fit_as_the_store_says(
    model: str, need: float, emulated: float, batches: tuple[int, ...], emulated_batches: tuple[int, ...]
) -> None:
    memory = NEEDS[model]
    assert memory.images(1, emulated=False) == pytest.approx(need, abs=0.06)
    assert memory.images(1, emulated=True) == pytest.approx(emulated, abs=0.06)
    assert tuple(largest(Use.IMAGES, memory, device) for device in DEVICES) == batches
    assert tuple(largest(Use.EMULATED_IMAGES, memory, device) for device in DEVICES) == emulated_batches


@pytest.mark.parametrize(
    ("model", "need", "batches"),
    [("flux.1-dev", 47.2, (17, 47, 66)), ("qwen-image", 64.6, (4, 19, 29)), ("ltx-2", 86.1, (0, 12, 21))],
)
def test_both_arms_of_each_model_fit_as_the_store_says(model: str, need: float, batches: tuple[int, ...]) -> None:
    memory = NEEDS[model]
    assert memory.both_arms(1, random=False) == pytest.approx(need, abs=0.06)
    assert tuple(largest(Use.BOTH_ARMS, memory, device) for device in DEVICES) == batches


def test_while_prompts_are_embedded_the_encoders_lie_beside_bf16() -> None:
    many_encoders = MemoryNeed(weights=50.0, encoders=40.0, denoiser=9.0, call=1.0, image=1.0)
    assert many_encoders.images(1, emulated=False) == 50.0
    assert many_encoders.images(60, emulated=False) == pytest.approx(50.0 - 40.0 + 0.52 * 9.0 + 61.0)


def test_random_weights_do_without_the_encoders() -> None:
    memory = NEEDS["ltx-2"]
    assert memory.both_arms(1, random=False) - memory.both_arms(1, random=True) == pytest.approx(22.73)
    assert memory.one_arm(1, random=False) - memory.one_arm(1, random=True) == pytest.approx(22.73)
    assert memory_refusal(case(memory=memory, random=True), gpu(79.6), Use.BOTH_ARMS) is None
    assert memory_refusal(case(memory=memory), gpu(79.6), Use.BOTH_ARMS)


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (
            Use.IMAGES,
            "the images of flux.1-dev at batch size 32 need about 101 GiB, found 80 on GPU; batch size 21 fits",
        ),
        (
            Use.BOTH_ARMS,
            "both arms of flux.1-dev at batch size 32 need about 110 GiB, found 80 on GPU; batch size 17 fits",
        ),
        (
            Use.BF16,
            "the BF16 calls of flux.1-dev at batch size 32 need about 98 GiB, found 80 on GPU; batch size 22 fits",
        ),
    ],
)
def test_too_little_memory_is_told_with_the_numbers_and_with_what_would_fit(use: Use, sentence: str) -> None:
    assert memory_refusal(case(32), gpu(79.6), use) == sentence


def test_where_no_batch_fits_the_least_memory_is_said() -> None:
    said = memory_refusal(case(14), gpu(24.0), Use.IMAGES)
    assert (
        said
        == "the images of flux.1-dev at batch size 14 need about 65 GiB, found 24 on GPU; no batch size fits on less than 39 GiB"
    )


def test_a_model_that_states_its_need_is_not_for_a_cpu() -> None:
    cpu = Device(kind="cpu", name="a CPU", capability=None, slug="x", total_memory_gib=None, facts={})
    said = memory_refusal(case(), cpu, Use.EMULATED_IMAGES)
    assert said == (
        "the emulated images of flux.1-dev at batch size 1 need about 49 GiB on a CUDA device, found none (cpu)"
    )
    assert memory_refusal(case(memory=None), cpu, Use.EMULATED_IMAGES) is None


@pytest.mark.parametrize("use", Use)
def test_nothing_is_refused_where_model_or_device_say_nothing(use: Use) -> None:
    assert memory_refusal(case(1000, memory=None), gpu(1.0), use) is None
    assert memory_refusal(case(1000), gpu(None), use) is None


def lack(free: float, use: Use = Use.IMAGES, others: tuple[str, ...] = (), **options: Any) -> str | None:
    return memory_in_use(case(**options), gpu(79.6), use, free=free, others=others)


def test_what_others_hold_is_told_with_the_numbers_before_anything_is_loaded() -> None:
    said = lack(30.2, others=("process 4711 with 47.9 GiB", "process 12"))
    assert said == (
        "the images of flux.1-dev at batch size 1 need about 39 GiB, 30.2 of 80 GiB are free on GPU: the driver lists "
        "process 4711 with 47.9 GiB, process 12; end what holds it, or choose another GPU by CUDA_VISIBLE_DEVICES"
    )
    assert "the driver lists no other process" in str(lack(30.2))
    unknown = memory_in_use(case(), gpu(None), Use.IMAGES, free=30.2, others=())
    assert "need about 39 GiB, 30.2 GiB are free on GPU" in str(unknown)


@pytest.mark.parametrize("use", Use)
def test_nothing_lacks_on_a_device_that_nobody_else_uses(use: Use) -> None:
    assert lack(79.6, use) is None
    assert lack(10.0, use)
    assert lack(10.0, use, memory=None) is None


def test_a_context_and_the_drivers_own_share_are_no_others() -> None:
    """An idle GPU has a little less free than it has in all: a case that just fits is loaded."""
    tight = MemoryNeed(weights=79.0, encoders=0.0, denoiser=0.0, call=0.0, image=0.0)
    assert memory_refusal(case(memory=tight), gpu(79.6), Use.BF16) is None
    assert lack(78.0, Use.BF16, memory=tight) is None
    assert lack(77.0, Use.BF16, memory=tight)
