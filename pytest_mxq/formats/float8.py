"""float8: E4M3 with one scale for a row of the weight and of the activation."""

from pytest_mxq.formats.base import Emulation, Format


def _native() -> object:
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

    # True, torchao's default, turns on coordinate-descent tuning and more for the whole process: the BF16 arm that is
    # compiled afterwards would be another one, and the first call takes minutes.
    return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)


FLOAT8 = Format(
    name="float8",
    summary="float8: E4M3 elements, one scale for a row",
    capability=(8, 9),
    in_multiple=16,  # of _scaled_mm; torchao leaves other shapes alone without a word
    out_multiple=16,
    native=_native,
    emulation=Emulation(number_format="float8"),
    weight_ratio=8 / 16,  # bits of an element and its share of a scale
)
