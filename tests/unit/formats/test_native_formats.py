"""Each built-in format: its emulation takes the same shapes, its native configuration is torchao's."""

import pytest
from torchao.core.config import AOBaseConfig
from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

from pytest_mxq.formats import Emulation, Format, built_in_formats
from pytest_mxq.formats.emulation.numerics import NUMERICS, NumberFormat
from pytest_mxq.formats.emulation.tensor import EmulationConfig


@pytest.mark.parametrize("name", NumberFormat)
def test_each_emulation_of_our_own_is_that_of_a_built_in_format_of_the_same_shapes(name: NumberFormat) -> None:
    (kind,) = [kind for kind in built_in_formats() if kind.name == name.value]
    assert isinstance(kind.emulation, Emulation)
    assert kind.emulation() == EmulationConfig(number_format=name)
    rule = NUMERICS[name]
    assert (kind.in_multiple, kind.out_multiple) == (rule.in_multiple, rule.out_multiple)


@pytest.mark.parametrize("kind", built_in_formats(), ids=lambda kind: kind.name)
def test_each_native_configuration_is_torchao_s(kind: Format) -> None:
    config = kind.native()
    assert isinstance(config, AOBaseConfig)
    assert type(config).__module__.startswith("torchao.")


def test_native_float8_leaves_inductor_s_configuration_alone() -> None:
    config = next(kind for kind in built_in_formats() if kind.name == "float8").native()
    assert isinstance(config, Float8DynamicActivationFloat8WeightConfig)
    assert config.set_inductor_config is False
    assert all(isinstance(granularity, PerRow) for granularity in config.granularity)
