"""A model of your own, gated: a Hub id or a local folder that pytest-mxq does not know.

Copy this folder, and point OWN_MODEL at the model (a folder as ``save_pretrained`` writes it, or a Hub id):

    OWN_MODEL=~/my_model pytest --mxq-formats=mxfp8,nvfp4                 # on a GPU that has the formats
    OWN_MODEL=~/my_model pytest --mxq-formats=mxfp8 --mxq-emulate         # anywhere, with emulated numerics

Without a stored baseline the BF16 images are generated in the same run; ``pytest --mxq-refresh`` stores them. For the
bounds, run once with loose ones, look at the images in mxq-report/, and take what was observed with a margin.
"""

import pytest


@pytest.mark.mxq("own-model", prompts=["a large plain red star at the top", "a small blue ring at the left"])
@pytest.mark.mxq_lpips(max={"mxfp8": 0.01, "nvfp4": 0.12}, worst={"mxfp8": 0.02, "nvfp4": 0.20})
@pytest.mark.mxq_ssim(min={"mxfp8": 0.97, "nvfp4": 0.90})
def test_own_model(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt, height=128, width=128, num_inference_steps=4)
