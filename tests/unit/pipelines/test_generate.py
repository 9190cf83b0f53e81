"""How a workload is run: chunks, one generator an image, the call observed. The pipeline is a stub with real noise."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.pipelines.generate import BoundPipeline, Series, generate, timed_call

PROMPTS = ("red", "green", "blue", "white", "black")


class NoisePipeline:
    """Gives an image of each generator's own noise, and remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, prompt: Any, *, generator: list[torch.Generator], **arguments: Any) -> SimpleNamespace:
        self.calls.append({"prompt": prompt, **arguments})
        return SimpleNamespace(images=torch.cat([torch.rand(1, 3, 8, 8, generator=one) for one in generator]))


def series(batch_size: int = 1, chunks: tuple[int, ...] | None = None, prompts: tuple[str, ...] = PROMPTS) -> Series:
    return Series(prompts=prompts, batch_size=batch_size, seed=100, chunks=chunks)


def plain(pipeline: BoundPipeline, prompt: Any) -> Any:
    return pipeline(prompt)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_each_image_has_the_noise_of_its_own_seed_at_any_batch_size(batch_size: int) -> None:
    generated = generate(plain, NoisePipeline(), {}, series(batch_size))
    expected = [torch.rand(1, 3, 8, 8, generator=torch.Generator("cpu").manual_seed(100 + i)) for i in range(5)]
    assert torch.equal(generated.images, torch.cat(expected))
    assert generated.seeds == (100, 101, 102, 103, 104)


def test_prompts_come_in_consecutive_chunks_the_last_one_short() -> None:
    pipe = NoisePipeline()
    generate(plain, pipe, {}, series(2))
    assert [call["prompt"] for call in pipe.calls] == [["red", "green"], ["blue", "white"], ["black"]]


def test_at_batch_size_1_the_prompt_is_a_text() -> None:
    pipe = NoisePipeline()
    generate(plain, pipe, {}, series(1, chunks=(0, 4)))
    assert [call["prompt"] for call in pipe.calls] == ["red", "black"]


def test_several_images_a_prompt_count_their_seeds_through() -> None:
    generated = generate(plain, NoisePipeline(), {"num_images_per_prompt": 2}, series(2, prompts=PROMPTS[:3]))
    assert generated.seeds == (100, 101, 102, 103, 104, 105)
    assert generated.images_per_prompt == 2


def test_the_call_is_observed_with_defaults_and_overrides_but_without_what_is_ours() -> None:
    def workload(pipeline: BoundPipeline, prompt: Any) -> Any:
        return pipeline(prompt, num_inference_steps=4, extra=(1, 2))

    generated = generate(workload, NoisePipeline(), {"num_inference_steps": 28, "height": 64}, series())
    assert generated.calls == ({"extra": [1, 2], "height": 64, "num_inference_steps": 4},)


def test_a_changed_prompt_and_a_tensor_argument_become_part_of_what_is_observed() -> None:
    def workload(pipeline: BoundPipeline, prompt: Any) -> Any:
        return pipeline(prompt + " in oil", mask=torch.ones(2))

    generated = generate(workload, NoisePipeline(), {}, series(prompts=("red",)))
    assert generated.calls[0]["prompt"] == ["red in oil"]
    assert generated.calls[0]["mask"].startswith("tensor (2,) torch.float32 sha256:")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_one_negative_prompt_stands_for_every_prompt(batch_size: int) -> None:
    pipe = NoisePipeline()
    generated = generate(plain, pipe, {"negative_prompt": "grey"}, series(batch_size, prompts=PROMPTS[:2]))
    assert [call["negative_prompt"] for call in pipe.calls] == (["grey", "grey"] if batch_size == 1 else [["grey"] * 2])
    assert generated.calls == ({"negative_prompt": "grey"},)  # observed as it was given, at any batch size


def test_one_negative_prompt_stands_for_every_prompt_while_timed_too() -> None:
    pipe = NoisePipeline()
    timed_call(plain, pipe, {"negative_prompt": "grey"}, series(2)).run()
    assert pipe.calls[-1] == {"prompt": ["red", "red"], "negative_prompt": ["grey", "grey"], "output_type": "pt"}


@pytest.mark.parametrize("name", ["generator", "output_type"])
def test_generator_and_output_type_are_not_the_workloads_to_give(name: str) -> None:
    with pytest.raises(CaseFaultError, match=f"{name}= is the plugin's own"):
        generate(lambda pipeline, prompt: pipeline(prompt, **{name: None}), NoisePipeline(), {}, series())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "the test returned None; its body is the workload"),
        (3, "the test returned int"),
        (torch.zeros(3, 8, 8), r"tensor of shape \(3, 8, 8\)"),
        (SimpleNamespace(images=torch.zeros(2, 3, 8, 8)), "returned 2 images for 1"),
        (torch.zeros(1, 3, 8, 8), "without calling mxq_pipeline"),
    ],
)
def test_a_workload_that_returns_no_images_is_told_what_to_return(result: object, said: str) -> None:
    with pytest.raises(CaseFaultError, match=said):
        generate(lambda _pipeline, _prompt: result, NoisePipeline(), {}, series())


def test_images_of_different_sizes_are_refused() -> None:
    def workload(pipeline: BoundPipeline, prompt: Any) -> Any:
        images = pipeline(prompt).images
        return images if prompt == "red" else images[..., :4]

    with pytest.raises(CaseFaultError, match="differ in size between prompts: 4x8, 8x8"):
        generate(workload, NoisePipeline(), {}, series())


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    generate(plain, NoisePipeline(), {}, series(2), lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


class VideoPipeline(NoisePipeline):
    """Gives a video of five frames with audio of each generator's own noise."""

    frames, samples = 5, 100

    def __init__(self) -> None:
        super().__init__()
        self.vocoder = SimpleNamespace(config=SimpleNamespace(output_sampling_rate=24000))

    def __call__(
        self, prompt: Any, *, generator: list[torch.Generator], frame_rate: float = 25.0, **arguments: Any
    ) -> SimpleNamespace:
        self.calls.append({"prompt": prompt, **arguments})
        frames = [torch.rand(1, self.frames, 3, 8, 8, generator=one) for one in generator]
        audio = [torch.rand(1, 2, self.samples, generator=one) for one in generator]
        return SimpleNamespace(frames=torch.cat(frames).bfloat16(), audio=torch.cat(audio).bfloat16())


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_videos_come_frame_after_frame_with_their_audio_at_any_batch_size(batch_size: int) -> None:
    generated = generate(plain, VideoPipeline(), {"frame_rate": 12}, series(batch_size))
    noise = torch.Generator("cpu").manual_seed(102)
    assert torch.equal(generated.images[10:15], torch.rand(5, 3, 8, 8, generator=noise).bfloat16())
    assert generated.video is not None
    assert (generated.video.frames, generated.video.rate) == (5, 12.0)
    assert generated.video.audio is not None
    assert generated.video.audio.rate == 24000
    assert generated.video.audio.waves.shape == (5, 2, 100)
    assert torch.equal(generated.video.audio.waves[2], torch.rand(2, 100, generator=noise).bfloat16().float())


def test_several_videos_a_prompt_count_their_seeds_through() -> None:
    generated = generate(plain, VideoPipeline(), {"num_videos_per_prompt": 2}, series(1, prompts=PROMPTS[:2]))
    assert generated.seeds == (100, 101, 102, 103)
    assert len(generated.images) == 20


def test_images_are_no_videos() -> None:
    assert generate(plain, NoisePipeline(), {}, series()).video is None


def test_frames_alone_are_videos_without_audio_at_the_pipelines_own_rate() -> None:
    generated = generate(lambda pipeline, prompt: pipeline(prompt).frames, VideoPipeline(), {}, series())
    assert generated.video is not None
    assert (generated.video.rate, generated.video.audio) == (25.0, None)


def test_a_pipeline_that_knows_no_frame_rate_plays_at_24() -> None:
    generated = generate(lambda pipeline, prompt: pipeline(prompt).images[:, None], NoisePipeline(), {}, series())
    assert generated.video is not None
    assert (generated.video.frames, generated.video.rate) == (1, 24.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda output: [output.frames], "the test returned list"),
        (lambda output: SimpleNamespace(frames=[[1]]), r"frames as a list \(the call went around"),
        (lambda output: SimpleNamespace(frames=output.frames[0]), r"frames as a tensor of shape \(5, 3, 8, 8\)"),
        (lambda output: SimpleNamespace(frames=output.frames[:, :0]), r"shape \(1, 0, 3, 8, 8\)"),
        (lambda output: SimpleNamespace(frames=output.frames.repeat(2, 1, 1, 1, 1)), "returned 2 videos for 1"),
        (
            lambda output: SimpleNamespace(frames=output.frames, audio=output.audio[0]),
            r"audio as a tensor of shape \(2, ",
        ),
        (lambda output: SimpleNamespace(frames=output.frames, audio=[1.0]), "audio as a list"),
    ],
)
def test_a_workload_that_returns_no_videos_is_told_what_to_return(change: Any, said: str) -> None:
    with pytest.raises(CaseFaultError, match=said):
        generate(lambda pipeline, prompt: change(pipeline(prompt)), VideoPipeline(), {}, series())


def test_audio_of_a_pipeline_without_a_sample_rate_is_refused() -> None:
    pipe = VideoPipeline()
    del pipe.vocoder
    with pytest.raises(CaseFaultError, match="VideoPipeline has no vocoder whose output_sampling_rate"):
        generate(plain, pipe, {}, series())


@pytest.mark.parametrize("rate", [0, -1.0, "fast", True, None])
def test_a_frame_rate_that_is_none_is_refused(rate: object) -> None:
    with pytest.raises(CaseFaultError, match=r"mxq_pipeline\(frame_rate=\) must be a number of frames a second"):
        generate(plain, VideoPipeline(), {"frame_rate": rate}, series())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("frames", "differ in their number of frames between prompts: 5, 6"),
        ("samples", r"audio .*: 2x100 at 24000, 2x6"),
    ],
)
def test_videos_of_different_length_are_refused(name: str, said: str) -> None:
    pipe = VideoPipeline()

    def workload(pipeline: BoundPipeline, prompt: Any) -> Any:
        if prompt == "blue":
            setattr(pipe, name, 6)
        return pipeline(prompt)

    with pytest.raises(CaseFaultError, match=said):
        generate(workload, pipe, {}, series())


def test_a_timed_call_of_a_video_model_generates_the_same_video_each_time() -> None:
    call = timed_call(plain, VideoPipeline(), {}, series(2))
    first: Any = call.run()
    again: Any = call.run()
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.frames.flatten(0, 1), call.once.images)


@pytest.mark.parametrize(("name", "value"), [("seed", 7), ("first_index", 7), ("prompts", ("b",)), ("pipe", None)])
def test_what_decides_the_noise_cannot_be_set(name: str, value: object) -> None:
    bound = BoundPipeline(pipe=object(), arguments={}, prompts=("a",), first_index=0, seed=100)
    before = getattr(bound, name)
    with pytest.raises(CaseFaultError, match=name):
        setattr(bound, name, value)
    assert getattr(bound, name) is before
