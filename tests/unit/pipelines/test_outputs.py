"""What a workload may return: the range and dtype of its values, tuples, embeddings in place of a prompt."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.metrics.images import to_uint8
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.generate import BoundPipeline, Series, generate, timed_call
from pytest_mxq.pipelines.load import load_pipeline
from pytest_mxq.pipelines.outputs import MAX_OUTSIDE_SHARE, OVERSHOOT, Returned, read_returned

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
VIDEO = IMAGES[None]


def read(result: object) -> Returned:
    return read_returned(result, lambda: None, {})


@pytest.mark.parametrize("images", [IMAGES, VIDEO], ids=["images", "video"])
@pytest.mark.parametrize(
    ("scale", "found", "way"),
    [
        (lambda x: 2 * x - 1, "from -1 to 1", "(x / 2 + 0.5).clamp(0, 1)"),
        (lambda x: 255 * x, "to 25", "x / 255"),
        (lambda x: x * 1.5, "to 1.5", "x.clamp(0, 1)"),
    ],
)
def test_values_of_another_range_are_an_error_with_the_range_and_the_way_back(
    images: torch.Tensor, scale: Any, found: str, way: str
) -> None:
    with pytest.raises(CaseFaultError) as caught:
        read(scale(images))
    assert found in str(caught.value)
    assert str(caught.value).endswith(f"return {way}")


def test_the_demo_s_images_in_another_range_are_an_error_and_its_vae_s_overshoot_is_none() -> None:
    pipe = load_pipeline(DEMO, revision=None, device="cpu").pipe
    decoded: list[torch.Tensor] = []
    decode = pipe.vae.decode

    def recording(*given: Any, **named: Any) -> Any:
        result = decode(*given, **named)
        decoded.append(result[0])
        return result

    pipe.vae.decode = recording
    call = {**DEMO.call, "num_inference_steps": 4}
    prompt = "a small checkered orange cross at the top on a plain white background"
    images = pipe(prompt, **call, generator=torch.Generator().manual_seed(18), output_type="pt").images
    (raw,) = decoded
    assert raw.max() > 1
    assert torch.equal(read(images).images, images)
    assert torch.equal(read(raw / 2 + 0.5).images, raw / 2 + 0.5)
    with pytest.raises(CaseFaultError, match="with values from -0"):
        read(raw)  # a white background: nearly all values are bright in either range


@pytest.mark.parametrize(("share", "is_error"), [(0.9 * MAX_OUTSIDE_SHARE, False), (1.1 * MAX_OUTSIDE_SHARE, True)])
@pytest.mark.parametrize("value", [-2 * OVERSHOOT, 1 + 2 * OVERSHOOT])
def test_a_few_values_outside_are_borne(share: float, value: float, *, is_error: bool) -> None:
    images = torch.full((1, 3, 100, 100), 0.5)
    images.view(-1)[: int(share * images.numel())] = value
    if is_error:
        with pytest.raises(CaseFaultError, match="outside of 0 to 1"):
            read(images)
    else:
        assert torch.equal(read(images).images, images)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_left_to_the_verdict(bad: float) -> None:
    images = 2 * IMAGES - 1
    images[0, 0, 0, 0] = bad
    assert torch.allclose(read(images).images, images, equal_nan=True)


def test_8_bit_images_become_the_floats_that_round_to_them() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    returned = read(images).images
    assert returned.dtype is torch.float32
    assert torch.equal(to_uint8(returned), images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_another_float_dtype_give_the_same_8_bits_as_their_float32(dtype: torch.dtype) -> None:
    images = IMAGES.to(dtype)
    assert torch.equal(to_uint8(read(images).images), to_uint8(images.float()))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_images_of_a_dtype_that_has_no_range_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(CaseFaultError, match=f"images as {dtype}; allowed: floats from 0 to 1, or uint8"):
        read(IMAGES.to(dtype))


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ([Image.new("RGB", (8, 8))], "list of PIL images"),
        (Image.new("RGB", (8, 8)), "PIL image"),
        (np.zeros((1, 8, 8, 3)), r"numpy array \(1, 8, 8, 3\)"),
        (SimpleNamespace(images=[Image.new("RGB", (8, 8))]), r"whose images are a list of PIL images \(the call went"),
        (SimpleNamespace(images=np.zeros((1, 8, 8, 3))), r"whose images are a numpy array \(1, 8, 8, 3\)"),
    ],
)
def test_pil_images_and_arrays_are_refused_with_what_to_return(result: object, found: str) -> None:
    with pytest.raises(CaseFaultError, match=rf"{found}.*; allowed: what mxq_pipeline\(...\) returned, or a tensor"):
        read(result)


def test_a_tuple_is_read_as_what_return_dict_false_returns() -> None:
    audio = torch.rand(1, 2, 100)
    pipe: Any = lambda: None  # noqa: E731
    pipe.vocoder = SimpleNamespace(config=SimpleNamespace(output_sampling_rate=24000))
    assert torch.equal(read((IMAGES,)).images, IMAGES)
    assert torch.equal(read((IMAGES, [False, False])).images, IMAGES)
    assert read((VIDEO,)).video is not None
    returned = read_returned((VIDEO, audio), pipe, {})
    assert returned.video is not None
    assert returned.video.audio is not None
    assert torch.equal(returned.video.audio.waves, audio)


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_pipeline(DEMO, revision=None, device="cpu").pipe


SERIES = Series(prompts=DEMO.prompts[:2], batch_size=2, seed=0)
CALL = {**DEMO.call, "num_inference_steps": 2}


def test_return_dict_false_gives_the_same_images_and_is_no_other_case(demo: Any) -> None:
    def plain(pipeline: BoundPipeline, prompt: Any) -> Any:
        return pipeline(prompt)

    def as_tuple(pipeline: BoundPipeline, prompt: Any) -> Any:
        return pipeline(prompt, return_dict=False)

    expected, found = (generate(workload, demo, CALL, SERIES) for workload in (plain, as_tuple))
    assert torch.equal(found.images, expected.images)
    assert found.calls == expected.calls


def test_embeddings_in_place_of_a_prompt_give_the_same_images_and_are_observed(demo: Any) -> None:
    def plain(pipeline: BoundPipeline, prompt: Any) -> Any:
        return pipeline(prompt)

    def embedded(pipeline: BoundPipeline, prompt: Any) -> Any:
        embeddings, pooled, _ = demo.encode_prompt(prompt, None, max_sequence_length=CALL["max_sequence_length"])
        return pipeline(None, prompt_embeds=embeddings, pooled_prompt_embeds=pooled)

    expected, found = (generate(workload, demo, CALL, SERIES) for workload in (plain, embedded))
    assert torch.equal(found.images, expected.images)
    assert found.calls[0]["prompt"] is None
    assert found.calls[0]["prompt_embeds"].startswith("tensor (2, 16, ")
    call = timed_call(embedded, demo, CALL, SERIES)
    call.run()
    call.check()
