"""NVFP4: E2M1 with an E4M3 scale for 16 elements and an FP32 scale for the tensor, weights and activations (W4A4)."""

from pytest_mxq.formats.base import BatchCaution, Emulation, Format


def _native() -> object:
    from torchao.prototype.mx_formats import NVFP4DynamicActivationNVFP4WeightConfig

    return NVFP4DynamicActivationNVFP4WeightConfig(use_dynamic_per_tensor_scale=True, use_triton_kernel=True)


NVFP4 = Format(
    name="nvfp4",
    summary="NVFP4: E2M1 elements, an E4M3 scale for 16 of them, an FP32 scale for the tensor",
    capability=(10, 0),
    in_multiple=16,
    out_multiple=16,
    native=_native,
    emulation=Emulation(number_format="nvfp4"),
    weight_ratio=(4 + 8 / 16) / 16,  # bits of an element and its share of a scale
    packages=("mslk-cuda>=1.0",),  # its Triton kernel quantizes the activations
    batch_caution=BatchCaution(from_size=32, model="flux.1-dev", report="https://github.com/pytorch/ao/issues/4023"),
)
