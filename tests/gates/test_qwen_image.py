"""Qwen-Image, gated against its published results on an NVIDIA B200 (PyTorch blog, 8 April 2026).

Margins: a speedup may fall 5 % short of the published one, peak memory may be 5 % above it as a share of BF16's, and
LPIPS 10 % above. Only a third of the weights is quantized, so memory falls little. Nothing is published for float8: its
bounds of memory and LPIPS are MXFP8's, and it must not be slower than BF16.
"""

import pytest


@pytest.mark.mxq("qwen-image")
@pytest.mark.mxq_lpips(max={"mxfp8": 0.37, "nvfp4": 0.45, "float8": 0.37})
def test_qwen_image(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)


def at(batch_size, *, speedup, memory):
    model = pytest.mark.mxq("qwen-image", batch_size=batch_size, prompts=1)
    gates = pytest.mark.mxq_speedup(min=speedup), pytest.mark.mxq_memory(max_ratio=memory)
    return pytest.param(batch_size, marks=[model, *gates], id=f"batch{batch_size}")


@pytest.mark.parametrize(
    "batch_size",
    [
        at(
            1,
            speedup={"mxfp8": 1.10, "nvfp4": 1.32, "float8": 1.0},
            memory={"mxfp8": 0.94, "nvfp4": 0.89, "float8": 0.94},
        ),
        at(
            4,
            speedup={"mxfp8": 1.17, "nvfp4": 1.40, "float8": 1.0},
            memory={"mxfp8": 0.96, "nvfp4": 0.92, "float8": 0.96},
        ),
        at(
            8,
            speedup={"mxfp8": 1.19, "nvfp4": 1.42, "float8": 1.0},
            memory={"mxfp8": 0.98, "nvfp4": 0.94, "float8": 0.98},
        ),
    ],
)
def test_qwen_image_speed(mxq_pipeline, mxq_prompt, batch_size):
    return mxq_pipeline(mxq_prompt)
