"""Checks of what a project registers: formats, models, gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.bounds import MarkerArguments

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.base import Gate
    from pytest_mxq.models import Recipe


def check_format(number_format: Format, *, in_features: int = 256, out_features: int = 256) -> None:
    """Check a format as it is registered: what its builders return, that they change nothing global, what they cost.

    Needs torch and torchao. Where the format has an emulation, a Linear is quantized with it and run on the CPU.

    Raises:
        AssertionError: says what is wrong.
    """
    import torch
    from torch._inductor import config as inductor
    from torchao.core.config import AOBaseConfig
    from torchao.quantization import quantize_

    before = inductor.shallow_copy_dict() if hasattr(inductor, "shallow_copy_dict") else None
    for name, builder in (("native", number_format.native), ("emulation", number_format.emulation)):
        if builder is not None:
            built = builder()
            assert isinstance(built, AOBaseConfig), f"{number_format.name}: {name} returned {built!r}, no configuration"
    if before is not None:
        assert inductor.shallow_copy_dict() == before, f"{number_format.name}: a builder changed Inductor's settings"
    assert number_format.fits(in_features, out_features), (
        f"{number_format.name} does not fit a Linear of {in_features} x {out_features}"
    )
    if number_format.emulation is None:
        return
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(in_features, out_features, dtype=torch.bfloat16))
    x = torch.randn(8, in_features, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = layer(x)
        quantize_(layer, number_format.emulation())
        found = layer(x)
    assert found.shape == expected.shape, f"{number_format.name}: {tuple(found.shape)}"
    assert found.dtype == expected.dtype, f"{number_format.name}: {found.dtype}"
    assert not torch.equal(found, expected), f"{number_format.name}: the emulation changes nothing"
    error = float((found - expected).float().norm() / expected.float().norm())
    assert error < 0.5, f"{number_format.name}: the emulation's relative error is {error:.2f}"


def check_model(recipe: Recipe) -> None:
    """Check a recipe as it is registered: prompts, rules, and the tiny pipeline that it can save.

    Raises:
        AssertionError: says what is wrong.
    """
    assert recipe.prompts, f"{recipe.name}: no prompts"
    assert len(set(recipe.prompts)) == len(recipe.prompts), f"{recipe.name}: a prompt twice"
    assert 0 < recipe.min_share <= 1, f"{recipe.name}: min_share is {recipe.min_share}"
    assert "generator" not in recipe.call, f"{recipe.name}: the generator is the plugin's"
    assert "output_type" not in recipe.call, f"{recipe.name}: output_type is the plugin's"
    assert recipe.selection("published") is recipe.rule
    for name in recipe.alternatives:
        assert recipe.selection(name) is recipe.alternatives[name]


def check_gate(
    gate: Gate, *, limit: float, named: dict[str, Any] | None = None, outputs: tuple[Any, Any] | None = None
) -> None:
    """Check a gate as it is registered: that its marker's bound is read, and that it cannot be made to decide nothing.

    Args:
        gate: the gate.
        limit: a bound that makes sense.
        named: further arguments of its marker.
        outputs: two sets of outputs, as its ``score`` is given them, to be scored; None: nothing is.

    Raises:
        AssertionError: says what is wrong.
    """

    def read(value: Any) -> Any:
        arguments = {**(named or {}), gate.limit: value}
        return gate.read_bound(
            MarkerArguments(marker=gate.marker, positional=(), named=arguments, format_name="nvfp4", emulated=False)
        )

    assert read(limit) == read({"nvfp4": limit}), f"{gate.name}: a mapping by format is read otherwise than a number"
    for bad in (0, float("nan"), float("inf"), -limit, True, "0.1", None):
        try:
            read(bad)
        except CaseFaultError:
            continue
        raise AssertionError(f"{gate.name}: the bound {bad!r} is not refused")
    assert gate.marker_line.startswith(f"{gate.marker}("), f"{gate.name}: {gate.marker_line}"
    if outputs is not None:
        assert isinstance(gate, AccuracyGate), f"{gate.name}: a {type(gate).__name__} scores no outputs"
        _check_scores(gate, *outputs)


def _check_scores(gate: AccuracyGate, reference: Any, other: Any) -> None:
    values, count = gate.score(reference, other), len(reference.positions)
    assert values, f"{gate.name}: score returned no values"
    assert len(values) % count == 0, f"{gate.name}: score returned {len(values)} values for {count} {reference.noun}s"
    wrong = [value for value in values if not isinstance(value, int | float) or isinstance(value, bool)]
    assert not wrong, f"{gate.name}: score returned {wrong[0]!r}, no number"
