"""Counted work: each way in which a workload does less, or returns what its pipeline did not make."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from demo_arms import call_demo, demo_arm

from pytest_mxq.pipelines.work import Work, work_differences
from pytest_mxq.pipelines.work_counter import WorkCounter


def pipeline() -> Any:
    return demo_arm("mxfp8").pipe


def count(body: Callable[[Any], Any]) -> tuple[Work, bool]:
    """The work of a body, and whether its result came from the pipeline."""
    with torch.no_grad(), WorkCounter(pipeline(), ("transformer",)) as counter:
        result = body(pipeline())
    return counter.work, counter.came_from(result)


@pytest.fixture(scope="module")
def plain() -> Work:
    return count(call_demo)[0]


def test_a_plain_call_is_counted_whole(plain: Work) -> None:
    assert (plain.pipeline_calls, plain.other_pipeline_calls) == (1, 0)
    assert plain.denoiser_calls == (("transformer", 2),)
    assert plain.hidden_shapes == (("transformer", ((1, 16, 64), (1, 16, 64))),)
    assert plain.timestep_shapes == (("transformer", ((1,), (1,))),)
    assert [len(values) for values in plain.timesteps[0][1]] == [1, 1]
    assert (plain.scheduler, plain.scheduler_steps) == ("FlowMatchEulerDiscreteScheduler", 2)
    assert len(plain.scheduler_timesteps) == 2
    assert (plain.encodes, plain.decodes) == ((), (("vae", ((1, 16, 8, 8),)),))
    assert plain.prompt_encodings == 1
    assert dict(plain.text_encoder_calls) == {"text_encoder": 1, "text_encoder_2": 1}


def test_the_same_work_twice_has_no_differences(plain: Work) -> None:
    again, came = count(call_demo)
    assert work_differences(plain, again) == ()
    assert came


def half_of_the_steps(pipe: Any) -> Any:
    real = pipe.scheduler.set_timesteps

    @functools.wraps(real)  # the pipeline looks at its parameters
    def fewer(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        pipe.scheduler.timesteps = pipe.scheduler.timesteps[::2]
        pipe.scheduler.sigmas = torch.cat([pipe.scheduler.sigmas[:-1][::2], pipe.scheduler.sigmas[-1:]])

    pipe.scheduler.set_timesteps = fewer
    try:
        return call_demo(pipe)
    finally:
        del pipe.scheduler.set_timesteps


def exchanged_scheduler(pipe: Any) -> Any:
    before = pipe.scheduler
    pipe.scheduler = type(before).from_config(before.config, shift=3.0, use_dynamic_shifting=False)
    try:
        return call_demo(pipe)
    finally:
        pipe.scheduler = before


@pytest.mark.parametrize(
    ("body", "phrases"),
    [
        pytest.param(half_of_the_steps, {"denoiser calls: transformer 2 -> 1", "scheduler steps: 2 -> 1"}, id="half"),
        pytest.param(lambda pipe: call_demo(pipe, steps=3), {"denoiser calls: transformer 2 -> 3"}, id="more"),
        pytest.param(
            lambda pipe: call_demo(pipe, size=32),
            {"hidden shapes: transformer first differs at step 0, (1, 16, 64) -> (1, 4, 64)"},
            id="smaller",
        ),
        pytest.param(lambda _pipe: torch.zeros(1), {"pipeline calls: 1 -> 0", "decodes: vae 1 -> 0"}, id="nothing"),
        pytest.param(lambda pipe: (call_demo(pipe), call_demo(pipe))[0], {"pipeline calls: 1 -> 2"}, id="twice"),
    ],
)
def test_less_or_other_work_is_named_with_its_values(
    plain: Work, body: Callable[[Any], Any], phrases: set[str]
) -> None:
    work, _ = count(body)
    assert phrases <= set(work_differences(plain, work))


def test_timesteps_that_differ_are_named_at_their_first_step(plain: Work) -> None:
    shifted = replace(plain, scheduler_timesteps=(plain.scheduler_timesteps[0], 1.5))
    (phrase,) = work_differences(plain, shifted)
    assert phrase.startswith("scheduler timesteps: first differs at step 1")
    assert phrase.endswith("-> 1.5")


def test_steps_of_an_exchanged_scheduler_count_and_its_timesteps_differ(plain: Work) -> None:
    work, _ = count(exchanged_scheduler)
    assert work.scheduler_steps == 2
    assert {phrase.split(":")[0] for phrase in work_differences(plain, work)} == {
        "timesteps",
        "scheduler timesteps",
        "changed on one arm alone",
    }


def patched_meanwhile(pipe: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipe, "_unpack_latents", lambda *args: type(pipe)._unpack_latents(*args))
        return call_demo(pipe)


def tiled_meanwhile(pipe: Any) -> Any:
    pipe.vae.enable_tiling()
    images = call_demo(pipe)
    pipe.vae.disable_tiling()
    return images


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (patched_meanwhile, "_unpack_latents set to patched_meanwhile"),
        (tiled_meanwhile, "vae: use_tiling False -> True"),
    ],
)
def test_what_was_changed_in_the_call_and_put_back_by_the_body_is_part_of_the_work(
    plain: Work, body: Callable[[Any], Any], said: str
) -> None:
    work, _ = count(body)
    (phrase,) = work_differences(plain, work)
    assert phrase.startswith(f"changed on one arm alone: {said}")
    assert work.record.rest_sha256 != plain.record.rest_sha256
    assert work_differences(work, count(body)[0]) == ()


def test_an_adapter_whose_class_depends_on_the_arm_is_no_difference_of_settings(plain: Work) -> None:
    def adapted(pipe: Any) -> Any:
        embedder = pipe.transformer.x_embedder
        pipe.transformer.x_embedder = torch.nn.Sequential(embedder)
        images = call_demo(pipe)
        pipe.transformer.x_embedder = embedder
        return images

    assert count(adapted)[0].changes == plain.changes == ()


def test_a_field_can_be_left_out_of_the_comparison(plain: Work) -> None:
    served = replace(plain, text_encoder_calls=(("text_encoder", 0), ("text_encoder_2", 0)))
    assert len(work_differences(plain, served)) == 2
    assert work_differences(plain, served, ignoring=frozenset({"text_encoder_calls"})) == ()


def test_a_view_of_the_output_came_from_the_pipeline_and_a_computed_one_with_its_work() -> None:
    assert count(lambda pipe: call_demo(pipe)[:, :, ::2])[1]
    assert count(lambda pipe: call_demo(pipe).clamp(0, 1))[1]
    assert count(lambda pipe: {"images": [call_demo(pipe)[0]]})[1]


def test_a_cached_output_did_not_come_from_the_pipeline() -> None:
    cached = call_demo(pipeline())
    assert not count(lambda _pipe: cached)[1]


def test_another_pipelines_output_did_not_come_from_the_pipeline_even_beside_its_own_work() -> None:
    base = demo_arm(None).pipe

    def both(pipe: Any) -> Any:
        call_demo(pipe)
        return call_demo(base).clamp(0, 1)

    work, came = count(both)
    assert (work.pipeline_calls, work.other_pipeline_calls, came) == (1, 1, False)
    assert not count(lambda pipe: (call_demo(pipe), call_demo(base))[1])[1]


def test_a_computed_output_with_less_work_than_the_reference_did_not_come_from_the_pipeline(plain: Work) -> None:
    with WorkCounter(pipeline(), ("transformer",)) as counter:
        result = call_demo(pipeline(), steps=1).clone()
    assert counter.came_from(result)
    assert not counter.came_from(result, plain)


def test_outputs_are_not_kept_alive() -> None:
    import weakref

    with WorkCounter(pipeline(), ("transformer",)) as counter:
        images = call_demo(pipeline())
        alive = weakref.ref(images)
        del images
    assert alive() is None
    assert counter.work.pipeline_calls == 1


def test_the_counters_leave_the_pipeline_as_it_was() -> None:
    pipe = pipeline()
    decode, call = vars(pipe.vae).get("decode"), type(pipe).__call__
    with pytest.raises(ZeroDivisionError), WorkCounter(pipe, ("transformer",)):
        raise ZeroDivisionError
    assert vars(pipe.vae).get("decode") is decode
    assert type(pipe).__call__ is call
    assert "step" not in vars(pipe.scheduler)
    assert "encode_prompt" not in vars(pipe)
    assert not pipe.transformer._forward_pre_hooks
