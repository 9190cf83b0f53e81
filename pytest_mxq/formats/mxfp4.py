"""MXFP4: E2M1 with a power-of-two scale for 32 elements (OCP Microscaling 1.0), weights and activations (W4A4)."""

from pytest_mxq.formats.base import Emulation, Format


def _native() -> object:
    import torch
    from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
    from torchao.quantization.quantize_.common import KernelPreference

    return MXDynamicActivationMXWeightConfig(
        activation_dtype=torch.float4_e2m1fn_x2,
        weight_dtype=torch.float4_e2m1fn_x2,
        kernel_preference=KernelPreference.AUTO,
    )


MXFP4 = Format(
    name="mxfp4",
    summary="MXFP4: E2M1 elements, a power-of-two scale for 32 of them",
    capability=(10, 0),
    in_multiple=32,
    out_multiple=1,
    native=_native,
    emulation=Emulation(number_format="mxfp4"),
    weight_ratio=(4 + 8 / 32) / 16,  # bits of an element and its share of a scale
)
