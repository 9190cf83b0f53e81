"""MXFP8: E4M3 with a power-of-two scale for 32 elements (OCP Microscaling 1.0), weights and activations."""

from pytest_mxq.formats.base import Emulation, Format


def _native() -> object:
    import torch
    from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
    from torchao.quantization.quantize_.common import KernelPreference

    return MXDynamicActivationMXWeightConfig(
        activation_dtype=torch.float8_e4m3fn,
        weight_dtype=torch.float8_e4m3fn,
        kernel_preference=KernelPreference.AUTO,
    )


MXFP8 = Format(
    name="mxfp8",
    summary="MXFP8: E4M3 elements, a power-of-two scale for 32 of them",
    capability=(10, 0),
    in_multiple=32,
    out_multiple=1,
    native=_native,
    emulation=Emulation(number_format="mxfp8"),
    weight_ratio=(8 + 8 / 32) / 16,  # bits of an element and its share of a scale
)
