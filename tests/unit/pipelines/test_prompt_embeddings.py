"""Prompt embeddings: once for all arms, bit-identical, with the encoders off the device while images are generated."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.backend.output_set import GeneratedOutputs
from pytest_mxq.environment import host_memory as host
from pytest_mxq.evaluation.drift import bit_identical
from pytest_mxq.formats import built_in_formats
from pytest_mxq.gates.outcome import Stop
from pytest_mxq.metrics.images import to_uint8
from pytest_mxq.models.demo import DEMO
from pytest_mxq.models.flux import FLUX_1_DEV, TINY_SIZE, build_flux
from pytest_mxq.models.ltx2 import LTX_2
from pytest_mxq.models.qwen_image import QWEN_IMAGE
from pytest_mxq.pipelines.cache import How
from pytest_mxq.pipelines.generate import Series, generate, timed_call
from pytest_mxq.pipelines.prompt_embeddings import PromptEmbeddings
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.settings import CaseSettings

QUICK = replace(DEMO, call=MappingProxyType({**DEMO.call, "num_inference_steps": 1}))
FORMATS = {number_format.name: number_format for number_format in built_in_formats()}
CASE = Case(recipe=QUICK, name="case", settings=CaseSettings(model="demo", batch_size=2), prompts=DEMO.prompts[:3])
TIMED = How(for_time=True)


def plain(pipeline: Any, prompt: Any) -> Any:
    return pipeline(prompt)


def generate_bf16(backend: TorchBackend, case: Case, workload: Any = plain, **options: Any) -> GeneratedOutputs:
    return backend.generate(case, workload, ArmSpec.bf16(case), **{"label": "bf16", **options})


def generate_quantized(backend: TorchBackend, case: Case, name: str) -> GeneratedOutputs:
    arm = ArmSpec(number_format=FORMATS[name], emulated=True, execution=case.settings.execution)
    return backend.generate(case, plain, arm, label=name)


@pytest.fixture(scope="module")
def backend() -> Iterator[TorchBackend]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchBackend("cpu", lambda _label, _done, _total: None)
    torch.set_num_threads(threads)


class EncoderCalls:
    """Counts the calls of a pipeline's text encoders, by name."""

    def __init__(self, pipe: Any, *names: str) -> None:
        self.counts = dict.fromkeys(names or ("text_encoder", "text_encoder_2"), 0)
        for name in self.counts:
            getattr(pipe, name).register_forward_hook(lambda *_, name=name: self._count(name))

    def _count(self, name: str) -> None:
        self.counts[name] += 1


def test_all_arms_generate_with_embeddings_computed_once_a_chunk_and_equal_to_the_bit(backend: TorchBackend) -> None:
    backend.arms.release()
    calls = EncoderCalls(backend.arms.base(CASE.source).pipe)
    outputs = {
        "drift check": generate_bf16(backend, CASE, label="bf16 drift check", chunks=(0,)),
        "bf16": generate_bf16(backend, CASE),
        "mxfp8": generate_quantized(backend, CASE, "mxfp8"),
        "nvfp4": generate_quantized(backend, CASE, "nvfp4"),
    }
    assert calls.counts == {"text_encoder": 2, "text_encoder_2": 2}
    series = Series(prompts=CASE.prompts, batch_size=2, seed=0)
    for name in ("bf16", "mxfp8", "nvfp4"):
        arm = backend.arms.arm(CASE.source, FORMATS.get(name), emulated=True)
        without = generate(plain, arm.pipe, QUICK.call, series)
        expected = (without.images * 255).round().to(torch.uint8)
        assert torch.equal(outputs[name].images, expected), name
    assert torch.equal(outputs["drift check"].images, outputs["bf16"].images[:2])
    assert calls.counts == {"text_encoder": 8, "text_encoder_2": 8}


TINY = {
    "qwen-image": (QWEN_IMAGE, {"height": 64, "width": 64, "num_inference_steps": 3}),
    "ltx-2": (
        LTX_2,
        {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 3, "max_sequence_length": 64},
    ),
}


@pytest.fixture(scope="module", params=sorted(TINY))
def tiny_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Prompts of different lengths in a batch, so that masks count, with the published negative prompt."""
    recipe, small = TINY[request.param]
    folder = tmp_path_factory.mktemp("tiny") / request.param
    assert recipe.save_tiny is not None
    recipe.save_tiny(folder)
    rule = replace(recipe.rule, min_features=320)  # its width
    tiny = replace(recipe, source=str(folder), rule=rule, call={**recipe.call, **small})
    return replace(
        CASE,
        recipe=tiny,
        settings=replace(CASE.settings, model=tiny.name),
        prompts=("a cat", "two red boats on a lake", "fog"),
    )


def test_masks_negative_prompts_and_audio_come_out_equal_to_the_bit_too(backend: TorchBackend, tiny_case: Case) -> None:
    backend.arms.release()
    calls = EncoderCalls(backend.arms.base(tiny_case.source).pipe, "text_encoder")
    plain_outputs = generate_bf16(backend, tiny_case)
    once = calls.counts["text_encoder"]
    outputs = {
        None: plain_outputs,
        "mxfp8": generate_quantized(backend, tiny_case, "mxfp8"),
    }
    assert calls.counts["text_encoder"] == once > 0
    assert not bit_identical(plain_outputs, outputs["mxfp8"])
    series = Series(prompts=tiny_case.prompts, batch_size=2, seed=0)
    for name, made in outputs.items():
        arm = backend.arms.arm(
            tiny_case.source, FORMATS.get(name or ""), emulated=name is not None, rule=tiny_case.rule
        )
        without = generate(plain, arm.pipe, tiny_case.recipe.call, series)
        assert torch.equal(made.images, to_uint8(without.images)), name
        heard = without.video.audio if without.video is not None else None
        assert (made.audio is None) is (heard is None) is (tiny_case.recipe.name != "ltx-2")
        if made.audio is not None and heard is not None:
            assert torch.equal(made.audio.waves, heard.waves), name
    others = replace(tiny_case, prompts=tuple(reversed(tiny_case.prompts)))
    assert not bit_identical(plain_outputs, generate_bf16(backend, others))  # what is embedded shows
    backend.arms.release()


def test_a_timed_call_runs_the_encoders_every_time(backend: TorchBackend) -> None:
    generate_bf16(backend, CASE)
    pipe = backend.arms.base(CASE.source).pipe
    calls = EncoderCalls(pipe)
    call = timed_call(plain, pipe, QUICK.call, Series(prompts=CASE.prompts, batch_size=2, seed=0))
    call.run()
    call.run()
    assert calls.counts == {"text_encoder": 3, "text_encoder_2": 3}


def test_prompts_that_the_workload_changes_are_embedded_as_it_changed_them(backend: TorchBackend) -> None:
    def painted(pipeline: Any, prompt: Any) -> Any:
        return pipeline([f"{text} painted" for text in prompt])

    backend.arms.release()
    calls = EncoderCalls(backend.arms.base(CASE.source).pipe)
    first = generate_bf16(backend, CASE, painted)
    assert calls.counts["text_encoder"] == 2
    assert torch.equal(generate_bf16(backend, CASE, painted).images, first.images)
    assert calls.counts["text_encoder"] == 2
    assert not torch.equal(generate_bf16(backend, CASE).images, first.images)


def test_another_composition_of_the_batch_is_embedded_again(backend: TorchBackend) -> None:
    backend.arms.release()
    calls = EncoderCalls(backend.arms.base(CASE.source).pipe)
    generate_bf16(backend, CASE)
    generate_bf16(backend, replace(CASE, settings=replace(CASE.settings, batch_size=3)))
    generate_bf16(backend, replace(CASE, settings=replace(CASE.settings, batch_size=1)), chunks=(0,))
    assert calls.counts["text_encoder"] == 2 + 1 + 3


def test_embeddings_are_freed_with_the_base(backend: TorchBackend) -> None:
    generate_bf16(backend, CASE)
    embeddings = weakref.ref(backend.arms._embeddings)
    assert embeddings() is not None
    backend.arms.release()
    gc.collect()
    assert embeddings() is None


def test_encoders_are_on_the_device_for_speed_and_off_it_for_images(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.arms.release()
    backend.arms.base(CASE.source)
    seen: list[str] = []
    monkeypatch.setattr(PromptEmbeddings, "bring_encoders", lambda _: seen.append("brought"))
    monkeypatch.setattr(PromptEmbeddings, "put_encoders_away", lambda _: seen.append("away"))
    backend.arms.arm(CASE.source, FORMATS["mxfp8"], emulated=True)
    assert seen == ["away"]
    backend.arms.arm(CASE.source, FORMATS["mxfp8"], emulated=True, how=TIMED)
    assert seen == ["away", "brought"]


def test_tables_in_the_places_of_encoders_stay_where_they_are(backend: TorchBackend) -> None:
    recipe = replace(FLUX_1_DEV, random=lambda: build_flux(TINY_SIZE))
    source = replace(CASE, recipe=recipe, random_weights=True).source
    arm = backend.arms.base(source)
    with backend.arms.embedding(arm, (CASE.prompts,)):
        assert "encode_prompt" not in vars(arm.pipe)
    backend.arms.release()


class Encoder(torch.nn.Module):
    """Remembers where it was sent, and where it was when it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []
        self.called: list[tuple[str, list[str]]] = []

    def to(self, *args: Any, **_: Any) -> Any:
        self.sent.append(args[0])
        return self

    def forward(self, texts: list[str]) -> torch.Tensor:
        self.called.append((self.sent[-1], texts))
        return torch.tensor([[float(len(text))] for text in texts])


class Pipe:
    """A pipeline on the meta device: what it is given there has left the CPU."""

    def __init__(self) -> None:
        self.text_encoder = Encoder()
        self.components = {"text_encoder": self.text_encoder, "text_encoder_2": None, "vae": torch.nn.Linear(1, 1)}

    def encode_prompt(self, prompt: Any, negative: Any = None, scale: Any = None) -> Any:
        texts = [prompt] if isinstance(prompt, str) else prompt
        return (
            self.text_encoder(texts),
            None,
            [self.text_encoder([negative]) if isinstance(negative, str) else negative],
        )


CHUNKS = (("red", "green"), ("blue", "white"), ("black",))


def served(pipe: Any, device: str = "meta", free_memory: Any = lambda: None) -> Any:
    return PromptEmbeddings(pipe, device=device, free_memory=free_memory).serving(pipe, CHUNKS)


def test_the_encoders_come_once_for_all_chunks_and_leave() -> None:
    pipe = Pipe()
    with served(pipe):
        for chunk in CHUNKS:
            embeds, nothing, (negative,) = pipe.encode_prompt(list(chunk), negative="ugly")
            assert embeds.device.type == negative.device.type == "meta"
            assert (len(embeds), nothing) == (len(chunk), None)
    encoder = pipe.text_encoder
    assert encoder.sent == ["meta", "cpu"]
    assert [texts for place, texts in encoder.called if place == "meta"] == [
        text for chunk in CHUNKS for text in (list(chunk), ["ugly"])
    ]
    assert pipe.encode_prompt("x")[0].device.type == "cpu"  # its own again


def test_a_later_miss_brings_the_encoders_back() -> None:
    pipe = Pipe()
    with served(pipe):
        pipe.encode_prompt(["red", "green"])
        pipe.encode_prompt(prompt=["red", "green"])  # the same call, spelt otherwise
        pipe.encode_prompt(["red", "grey"])
    assert pipe.text_encoder.sent == ["meta", "cpu", "meta", "cpu"]
    assert len(pipe.text_encoder.called) == 4


def test_a_list_of_negative_prompts_is_not_foreseen_for_a_short_chunk() -> None:
    pipe = Pipe()
    with served(pipe):
        pipe.encode_prompt(["red", "green"], negative=["x", "y"])
    assert [texts for _, texts in pipe.text_encoder.called] == [["red", "green"], ["blue", "white"]]


def test_arguments_that_differ_for_every_chunk_cost_no_more_than_one_useless_forecast() -> None:
    pipe = Pipe()
    with served(pipe):
        for number, chunk in enumerate(CHUNKS):
            pipe.encode_prompt(list(chunk), scale=float(number))
    assert len(pipe.text_encoder.called) == 3 + 2


def test_equal_looking_arguments_of_another_type_are_others() -> None:
    pipe = Pipe()
    with served(pipe):
        for _ in range(2):
            for scale in (None, 1, True, 1.0, "1", torch.float32, torch.bfloat16):
                pipe.encode_prompt("alone", scale=scale)
    assert len(pipe.text_encoder.called) == 7


def test_an_argument_that_no_key_can_stand_for_runs_the_encoders_each_time() -> None:
    pipe = Pipe()
    with served(pipe):
        for _ in range(2):
            pipe.encode_prompt(["red", "green"], negative=torch.ones(1))
    assert len(pipe.text_encoder.called) == 2
    assert pipe.text_encoder.sent == ["meta", "cpu"] * 2


def test_what_a_call_does_to_its_embeddings_reaches_no_other_call() -> None:
    pipe = Pipe()
    with served(pipe, device="cpu"):
        pipe.encode_prompt("red")[0].zero_()
        assert pipe.encode_prompt("red")[0].item() == 3.0


def test_on_a_full_device_memory_is_freed_once_and_the_encoders_try_again() -> None:
    pipe, made = Pipe(), []
    full = [True]

    def encode(texts: list[str]) -> torch.Tensor:
        if full.pop() if full else False:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(len(texts), 1)

    pipe.text_encoder.forward = encode  # type: ignore[method-assign]
    with served(pipe, free_memory=lambda: made.append("freed")):
        pipe.encode_prompt("red")
    assert made == ["freed"]
    assert pipe.text_encoder.sent == ["meta", "cpu", "meta", "cpu"]
    full += [True, True]
    with served(pipe, free_memory=lambda: made.append("freed")), pytest.raises(torch.OutOfMemoryError):
        pipe.encode_prompt("green")
    assert pipe.text_encoder.sent[-1] == "cpu"


def test_a_pipeline_without_encode_prompt_is_left_as_it_is() -> None:
    class Bare:
        components: dict[str, Any] = {}  # noqa: RUF012

    pipe = Bare()
    with served(pipe):
        assert vars(pipe) == {}


def storages(embeddings: PromptEmbeddings) -> list[tuple[int, int]]:
    """Return for each stored result where its prompt's embeddings lie, and its negative prompt's."""
    return [(prompt.data_ptr(), negative.data_ptr()) for prompt, _, (negative,) in embeddings._known.values()]


def test_a_negative_prompt_is_stored_once_for_all_prompts_and_served_as_a_copy_to_each() -> None:
    pipe = Pipe()
    embeddings = PromptEmbeddings(pipe, device="cpu", free_memory=lambda: None)
    with embeddings.serving(pipe, (("red",), ("green",), ("orange",))):
        pipe.encode_prompt(["red"], negative="ugly")[2][0].zero_()
        assert pipe.encode_prompt(["green"], negative="ugly")[2][0].item() == 4.0
    prompts, negatives = zip(*storages(embeddings), strict=True)
    assert (len(set(prompts)), len(set(negatives))) == (3, 1)


@pytest.mark.parametrize(
    ("device", "available", "stored"), [("cpu", 7, 0), ("cpu", 8, 3), ("meta", 15, 0), ("meta", 16, 3)]
)
def test_embeddings_that_do_not_fit_in_memory_end_the_gate_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch, device: str, available: int, stored: int
) -> None:
    """A result takes 4 bytes, a call's copy of it 4, and the encoder 8 where it has left the CPU meanwhile."""
    monkeypatch.setattr("pytest_mxq.pipelines.prompt_embeddings.available_bytes", lambda: available * 2**30)
    monkeypatch.setattr("pytest_mxq.pipelines.prompt_embeddings._bytes", lambda _: 4 * 2**30)
    pipe = Pipe()
    monkeypatch.setattr(pipe.text_encoder, "parameters", lambda: [SimpleNamespace(nbytes=8 * 2**30)])
    embeddings = PromptEmbeddings(pipe, device=device, free_memory=lambda: None)
    with embeddings.serving(pipe, (("red",), ("green",), ("black",))):
        if stored:
            pipe.encode_prompt(["red"])
        else:
            with pytest.raises(Stop, match=rf"0 chunks .* {available + 1}\.0 GiB .* {available}\.0 GiB are available"):
                pipe.encode_prompt(["red"])
    assert len(embeddings._known) == stored


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 6000 * 1024), ("6000000", 6000000 - 4000000 - 500000), ("1000", 0), (None, 6000 * 1024)],
)
def test_the_cpus_memory_is_the_machines_or_the_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, expected: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    6000 kB\n")
    (tmp_path / "memory.stat").write_text("anon 4000000\nfile 1500000\nshmem 500000\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host, "CONTROL_GROUP", tmp_path)
    assert host.available_bytes() == expected
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(host, "CONTROL_GROUP", tmp_path / "none")
    assert host.available_bytes() is None
