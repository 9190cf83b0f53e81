"""Gate the packaged demo model by a metric of one's own, beside a built-in one.

pytest examples/own_gate --mxq-formats=mxfp8,nvfp4 --mxq-emulate
"""

import pytest


@pytest.mark.mxq("demo", prompts=4, batch_size=4)
@pytest.mark.mxq_mae(max={"mxfp8": 1.0, "nvfp4": 4.0}, worst={"mxfp8": 3.0, "nvfp4": 8.0})
@pytest.mark.mxq_psnr(min={"mxfp8": 35, "nvfp4": 28})
def test_own_gate(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
