"""The packaged demo model, gated: the example of the README.

Margins: the bounds are 1.3 to 2.5 times the largest error seen with nothing wrong (of a PSNR 1 to 4 dB): one and two
threads, AVX2 and AVX-512, batches of 1 to 8, the VAE in BF16 as on a GPU, and noise of single roundings.
"""

import pytest


@pytest.mark.mxq("demo", prompts=8, batch_size=8)
@pytest.mark.mxq_lpips(
    max={"mxfp8": 0.0005, "nvfp4": 0.005, "mxfp4": 0.008, "float8": 0.0006},
    worst={"mxfp8": 0.0012, "nvfp4": 0.014, "mxfp4": 0.016, "float8": 0.0015},
)
@pytest.mark.mxq_ssim(min={"mxfp8": 0.997, "nvfp4": 0.991, "mxfp4": 0.983, "float8": 0.996})
@pytest.mark.mxq_psnr(
    min={"mxfp8": 50, "nvfp4": 39, "mxfp4": 36, "float8": 48},
    worst={"mxfp8": 47, "nvfp4": 35, "mxfp4": 28, "float8": 44},
)
def test_demo(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
