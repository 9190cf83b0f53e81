"""Gate the packaged demo model by a metric of one's own, beside a built-in one.

pytest examples/own_gate --mxq-formats=mxfp8,nvfp4 --mxq-emulate
"""

import pytest


@pytest.mark.mxq("demo", prompts=4, batch_size=4)
@pytest.mark.mxq_mae(max={"mxfp8": 0.4, "nvfp4": 1.0}, worst={"mxfp8": 0.8, "nvfp4": 2.0})
@pytest.mark.mxq_psnr(min={"mxfp8": 48, "nvfp4": 37})
def test_own_gate(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
