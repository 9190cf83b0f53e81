"""Compiling block by block: static graphs, cloned outputs, one configuration for both arms, a cache that outlives us."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor_config
from torch._inductor.lowering import _warn_complex_not_supported
from torchao.quantization.utils import recommended_inductor_config_setter

from pytest_mxq.errors import MxqError
from pytest_mxq.models.flux import FLUX_1_DEV, TINY_SIZE, build_flux
from pytest_mxq.pipelines import compile as compiling
from pytest_mxq.pipelines.compile import (
    CompileMode,
    compile_blocks,
    compile_cache,
    compiling_faithfully,
    compiling_fast,
    inductor_settings,
    repeated_blocks,
    same_inductor_settings,
)
from pytest_mxq.pipelines.random_weights import load_random


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


Graphs = list[tuple[str, tuple[str, ...]]]  # the code of each, and the shapes of its inputs


class Recorder:
    """A backend that runs graphs eagerly and writes down what it was given."""

    def __init__(self) -> None:
        self.graphs: Graphs = []
        self.modes: set[str | None] = set()

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any], mode: str | None = None) -> Callable[..., Any]:
        shapes = tuple(str(tuple(given.shape)) if isinstance(given, torch.Tensor) else str(given) for given in inputs)
        self.graphs.append((graph.code, shapes))
        self.modes.add(mode)
        return graph.forward


def flux(blocks: int) -> Any:
    """A tiny FLUX with this many blocks of each kind."""
    size = replace(TINY_SIZE, transformer={**TINY_SIZE.transformer, "num_layers": blocks, "num_single_layers": blocks})
    return load_random(replace(FLUX_1_DEV, random=lambda: build_flux(size)), device="cpu").pipe


def run(pipe: Any, batch_size: int) -> torch.Tensor:
    images = pipe(
        ["a"] * batch_size,
        height=64,
        width=64,
        num_inference_steps=1,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    assert isinstance(images, torch.Tensor)
    return images


class Block(nn.Module):
    def forward(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return value + 1, value * 2


class Net(nn.Module):
    _repeated_blocks = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            value, _ = block(value)
        return value

    def call(self, batch_size: int) -> object:
        return self(torch.zeros(batch_size, 3))


def graphs_of_the_last(batch_sizes: tuple[int, ...], call: Callable[[int], object], recorder: Recorder) -> Graphs:
    """The graphs that the last of these batch sizes brought, in a process that compiled nothing before."""
    torch.compiler.reset()
    for batch_size in batch_sizes:
        recorder.graphs.clear()
        call(batch_size)
    return list(recorder.graphs)


@pytest.mark.parametrize("mode", CompileMode)
def test_a_batch_size_gets_the_same_graphs_alone_and_after_another(mode: CompileMode) -> None:
    net, recorder = Net(), Recorder()
    compile_blocks(net, mode=mode, backend=recorder)
    alone, after = (graphs_of_the_last(sizes, net.call, recorder) for sizes in ((4,), (1, 4)))
    assert len(alone) == 1
    assert alone == after


def test_a_batch_size_of_flux_gets_the_same_graphs_alone_and_after_another() -> None:
    pipe, recorder = flux(1), Recorder()
    compile_blocks(pipe.transformer, backend=recorder)
    alone, after = (graphs_of_the_last(sizes, partial(run, pipe), recorder) for sizes in ((4,), (1, 4)))
    assert len(alone) == 2
    assert alone == after


def test_with_torch_s_default_a_batch_size_gets_other_graphs_after_another() -> None:
    """What static shapes are for, and proof that the tests above can fail."""
    net, recorder = Net(), Recorder()
    for block in repeated_blocks(net):
        block.compile(fullgraph=True, backend=recorder)
    alone, after = (graphs_of_the_last(sizes, net.call, recorder) for sizes in ((4,), (1, 4)))
    assert alone != after


@pytest.mark.parametrize("mode", CompileMode)
def test_blocks_of_a_class_share_graphs_and_the_result_is_eager_s(mode: CompileMode) -> None:
    pipe, recorder = flux(3), Recorder()
    eager = run(pipe, 1)
    compile_blocks(pipe.transformer, mode=mode, backend=recorder)
    assert torch.equal(run(pipe, 1), eager)
    assert len(recorder.graphs) == 3  # the first block is given its text in another layout than the next ones
    assert len(repeated_blocks(pipe.transformer)) == 6
    assert recorder.modes == {None if mode is CompileMode.DEFAULT else "reduce-overhead"}
    recorder.graphs.clear()
    run(pipe, 1)
    assert recorder.graphs == []


def pooled(graph: torch.fx.GraphModule, inputs: list[Any], mode: str | None = None) -> Callable[..., Any]:
    """A backend whose outputs live at the same addresses in every run, as a CUDA Graph's do."""
    pool: list[torch.Tensor] = []

    def replay(*given: Any) -> tuple[torch.Tensor, ...]:
        fresh = graph.forward(*given)
        if not pool:
            pool.extend(tensor.clone() for tensor in fresh)
        for kept, tensor in zip(pool, fresh, strict=True):
            kept.copy_(tensor)
        return tuple(pool)

    return replay


@pytest.mark.parametrize(
    ("mode", "first_output"), [(CompileMode.REDUCE_OVERHEAD, 1.0), (CompileMode.DEFAULT, 11.0)], ids=str
)
def test_reduce_overhead_s_outputs_survive_the_next_replay(mode: CompileMode, first_output: float) -> None:
    net = Net()
    compile_blocks(net, mode=mode, backend=pooled)
    first, _ = net.blocks[0](torch.zeros(3))
    net.blocks[0](torch.full((3,), 10.0))
    assert first.tolist() == [first_output] * 3


@pytest.mark.parametrize("names", [None, (), ("Gone",)])
def test_a_model_without_repeated_blocks_is_refused(names: tuple[str, ...] | None) -> None:
    net = Net()
    net._repeated_blocks = names  # type: ignore[assignment]
    with pytest.raises(MxqError, match="Net cannot be compiled block by block"):
        compile_blocks(net)


@pytest.mark.parametrize("context", [compiling_fast, compiling_faithfully])
def test_reaching_the_recompile_limit_is_an_error_not_a_fall_back(
    context: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiling.RECOMPILE_LIMIT == 64
    monkeypatch.setattr(compiling, "RECOMPILE_LIMIT", 2)
    net = Net()
    compile_blocks(net, backend="eager")
    with context():
        net(torch.zeros(1, 1))
        net(torch.zeros(1, 2))
        with pytest.raises(Exception, match="limit"):
            net(torch.zeros(1, 3))


def test_images_are_compiled_with_eager_s_roundings_and_timings_without() -> None:
    with inductor_config.patch(emulate_precision_casts=True), compiling_fast():
        assert inductor_settings()["emulate_precision_casts"] == "False"
    with compiling_faithfully():
        assert inductor_settings()["emulate_precision_casts"] == "True"


class RotatingNet(nn.Module):
    _repeated_blocks = ("RotatingNet",)

    def forward(self, pairs: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.view_as_complex(pairs) * turns)


@pytest.mark.parametrize("wanted", [compiling_faithfully, compiling_fast])
def test_complex_rotary_embeddings_compile_though_inductor_warns_of_them(
    wanted: Callable[[], AbstractContextManager[None]], tmp_path: Path
) -> None:
    """As Qwen-Image's blocks have them; here a warning is an error."""
    _warn_complex_not_supported.cache_clear()  # it warns once a process
    net, pairs, turns = RotatingNet(), torch.ones(4, 2), torch.full((4,), 1j)
    with compile_cache(tmp_path), wanted(), torch.no_grad():
        compile_blocks(net)
        assert net(pairs, turns).tolist() == [[-1.0, 1.0]] * 4


def test_settings_changed_between_the_arms_are_named_and_put_back() -> None:
    before = inductor_settings()
    with (
        pytest.raises(MxqError, match=r"coordinate_descent_tuning False -> True, force_fuse_int_mm_with_mul"),
        same_inductor_settings(),
    ):
        recommended_inductor_config_setter()
    assert inductor_settings() == before


def broken_build() -> None:
    inductor_config.epilogue_fusion = False
    raise ZeroDivisionError


def test_settings_are_put_back_and_the_first_error_told_when_building_fails() -> None:
    before = inductor_settings()
    with pytest.raises(ZeroDivisionError), same_inductor_settings():
        broken_build()
    assert inductor_settings() == before


def test_settings_that_are_changed_and_restored_between_the_arms_are_no_fault() -> None:
    before = inductor_settings()
    with same_inductor_settings():
        with compiling_faithfully():
            assert inductor_settings() != before
        assert inductor_settings() == before


def test_the_settings_cover_all_that_torchao_recommends() -> None:
    before = inductor_config.save_config_portable()
    changed: set[str] = set()

    def recommended() -> None:
        recommended_inductor_config_setter()
        changed.update(name for name, value in inductor_config.save_config_portable().items() if value != before[name])

    with pytest.raises(MxqError), same_inductor_settings():
        recommended()
    assert changed
    assert changed <= inductor_settings().keys()


def test_the_cache_directory_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "kept")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    with compile_cache(tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
        os.environ["TRITON_CACHE_DIR"] = str(tmp_path / "triton")  # as Inductor does
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "kept"
    assert "TRITON_CACHE_DIR" not in os.environ


CHILD = """
import json, sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from pytest_mxq.pipelines.compile import compile_blocks
from pytest_mxq.pipelines.compile import compile_cache
from pytest_mxq.pipelines.compile import compiling_fast

class Block(torch.nn.Module):
    def forward(self, value):
        return (value * 2 + 1).relu()

class Net(torch.nn.Module):
    _repeated_blocks = ["Block"]
    def __init__(self):
        super().__init__()
        self.block = Block()

net = Net()
with compile_cache(Path(sys.argv[1])), compiling_fast(), torch.no_grad():
    compile_blocks(net)
    assert net.block(torch.ones(8)).tolist() == [3.0] * 8
print(json.dumps(counters["inductor"] | counters["aot_autograd"]))
"""


def compiled_in_a_new_process(directory: Path) -> dict[str, int]:
    command = [sys.executable, "-c", CHILD, str(directory)]
    environment = {**os.environ, "TORCHINDUCTOR_VEC_ISA_OK": "0"}  # spares a compilation for each vector extension
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    counted = json.loads(done.stdout)
    assert isinstance(counted, dict)
    return counted


def test_a_second_process_finds_what_the_first_one_compiled(tmp_path: Path) -> None:
    cold = compiled_in_a_new_process(tmp_path)
    assert list(tmp_path.rglob("*.so"))
    warm = compiled_in_a_new_process(tmp_path)
    assert (cold.get("fxgraph_cache_miss"), cold.get("fxgraph_cache_hit")) == (1, None)
    assert (warm.get("fxgraph_cache_miss"), warm.get("fxgraph_cache_hit")) == (None, 1)
