"""Proof that a compiled arm runs compiled, on torch.compile's real counters and profiles."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pytest_mxq.profiling.compilation import SilentEagerError, check_compiled, count_compilations, eager_blocks
from pytest_mxq.profiling.timing import (
    Run,
)


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Block(nn.Module):
    """One Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        y: Tensor = self.linear(x)
        return y.relu()


class Denoiser(nn.Module):
    """Three repeated blocks after an embedder, as diffusers' transformers are built."""

    _repeated_blocks = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.embedder = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks."""
        x = self.embedder(x)
        for block in self.blocks:
            x = block(x)
        return x

    def compile_blocks(self, count: int = 3, *, fullgraph: bool = True) -> "Denoiser":
        """Compile the first blocks, as `compile_repeated_blocks` does."""
        for block in list(self.blocks)[:count]:
            block.compile(backend="eager", fullgraph=fullgraph, dynamic=False)
        return self

    def steps(self) -> Run:
        """A workload of two steps."""
        return torch.no_grad()(lambda: [self(torch.zeros(2, 4)) for _ in range(2)])


def test_blocks_left_eager_are_named() -> None:
    denoiser = Denoiser()
    assert eager_blocks(denoiser) == ("blocks.0", "blocks.1", "blocks.2")
    assert eager_blocks(denoiser.compile_blocks(2)) == ("blocks.2",)
    assert eager_blocks(denoiser.compile_blocks()) == ()


def test_a_block_inside_a_compiled_module_is_compiled() -> None:
    wrapped = Denoiser()
    wrapped.blocks[1] = torch.compile(wrapped.blocks[1], backend="eager")  # type: ignore[assignment]
    assert eager_blocks(wrapped) == ("blocks.0", "blocks.2")
    whole = Denoiser()
    whole.compile(backend="eager")
    assert eager_blocks(whole) == ()


@pytest.mark.usefixtures("_fresh_dynamo")
def test_a_compiled_arm_enters_a_graph_a_block() -> None:
    denoiser = Denoiser().compile_blocks()
    run = denoiser.steps()
    run()
    assert check_compiled(denoiser, run) == 3
    assert not denoiser._forward_hooks
    assert not denoiser._forward_pre_hooks


@pytest.mark.usefixtures("_fresh_dynamo")
def test_a_second_arm_that_compiles_nothing_of_its_own_is_still_seen_to_run_compiled() -> None:
    Denoiser().compile_blocks().steps()()
    second, before = Denoiser().compile_blocks(), count_compilations()
    second.steps()()
    assert count_compilations() == before
    assert check_compiled(second, second.steps()) == 3


@pytest.mark.usefixtures("_fresh_dynamo")
def test_one_block_left_eager_is_an_error_before_anything_runs() -> None:
    denoiser = Denoiser().compile_blocks(2)
    with pytest.raises(SilentEagerError, match=r"1 of 3 repeated blocks are not compiled: blocks\.2"):
        check_compiled(denoiser, lambda: pytest.fail("ran"))


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compiled_blocks_that_run_eagerly_all_the_same_are_an_error() -> None:
    denoiser = Denoiser().compile_blocks()
    run = denoiser.steps()
    run()
    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(SilentEagerError, match="entered 0 compiled regions for 3"),
    ):
        check_compiled(denoiser, run)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compiling_while_dynamo_is_disabled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    denoiser = Denoiser().compile_blocks()
    run = denoiser.steps()
    run()
    with pytest.raises(SilentEagerError, match="entered 0 compiled regions for 3"):
        check_compiled(denoiser, run)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_blocks_beyond_the_recompile_limit_are_an_error() -> None:
    denoiser = Denoiser().compile_blocks(fullgraph=False)
    with (
        torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=False),
        torch.no_grad(),
    ):
        denoiser(torch.zeros(1, 4))
        denoiser(torch.zeros(2, 4))
        with pytest.raises(SilentEagerError, match="entered 0 compiled regions for 3"):
            check_compiled(denoiser, denoiser.steps())


def test_a_workload_that_never_calls_the_denoiser_proves_nothing() -> None:
    with pytest.raises(SilentEagerError, match="the workload never called it"):
        check_compiled(Denoiser().compile_blocks(), lambda: None)


def test_a_denoiser_without_repeated_blocks_cannot_be_checked() -> None:
    with pytest.raises(SilentEagerError, match="Linear: no repeated blocks"):
        check_compiled(nn.Linear(4, 4), lambda: None)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_a_forward_pass_that_raises_leaves_neither_hooks_nor_profile_behind() -> None:
    denoiser = Denoiser().compile_blocks()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        check_compiled(denoiser, lambda: denoiser(torch.zeros(2, 5)))
    assert not denoiser._forward_pre_hooks
    assert not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
