"""The packaged demo model, gated: the example of the README."""

import pytest


@pytest.mark.mxq("demo", prompts=8, batch_size=8)
@pytest.mark.mxq_lpips(
    max={"mxfp8": 0.002, "nvfp4": 0.015, "mxfp4": 0.025, "float8": 0.002},
    worst={"mxfp8": 0.005, "nvfp4": 0.02, "mxfp4": 0.05, "float8": 0.005},
)
@pytest.mark.mxq_ssim(min={"mxfp8": 0.98, "nvfp4": 0.94, "mxfp4": 0.90, "float8": 0.98})
@pytest.mark.mxq_psnr(min={"mxfp8": 35, "nvfp4": 28, "mxfp4": 25, "float8": 35})
def test_demo(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
