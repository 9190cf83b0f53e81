"""The packaged demo model, gated: the example of the README.

Margins: LPIPS and 1 - SSIM may be 1.5 to 3 times the largest seen with nothing wrong, PSNR 2 to 3 dB lower than the lowest
(float8 4, since natively an H100 was nearer to its bounds than a CPU). Seen with one and two threads, AVX2 and AVX-512,
batches of 1 to 8, the VAE in BF16 as on a GPU, single roundings changed, and embeddings changed by 1 % as between a CPU
and a GPU (benchmarks/results/demo-bounds-2026-11-25.md). No GPU has generated these eight prompts yet.
"""

import pytest


@pytest.mark.mxq("demo", prompts=8, batch_size=8)
@pytest.mark.mxq_lpips(
    max={"mxfp8": 0.0005, "nvfp4": 0.006, "mxfp4": 0.008, "float8": 0.0006},
    worst={"mxfp8": 0.0015, "nvfp4": 0.025, "mxfp4": 0.025, "float8": 0.0015},
)
@pytest.mark.mxq_ssim(min={"mxfp8": 0.997, "nvfp4": 0.991, "mxfp4": 0.983, "float8": 0.996})
@pytest.mark.mxq_psnr(
    min={"mxfp8": 50, "nvfp4": 39, "mxfp4": 36, "float8": 48},
    worst={"mxfp8": 46.5, "nvfp4": 35, "mxfp4": 28, "float8": 44},
)
def test_demo(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
