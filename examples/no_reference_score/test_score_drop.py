"""Gate the packaged demo model by a score without a reference.

pytest examples/no_reference_score --mxq-formats=mxfp8,nvfp4 --mxq-emulate
"""

import pytest


@pytest.mark.mxq("demo", prompts=4, batch_size=4)
@pytest.mark.mxq_score_drop(max=0.01, worst=0.02)
def test_score_drop(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
