"""Speed and memory of the full-size FLUX.1-dev at few steps: what was gated on a Hopper GPU with random weights.

pytest benchmarks/gates --mxq-formats=float8 --mxq-weights=random --mxq-reference=live
"""

import pytest

STEPS = 4


@pytest.mark.mxq("flux.1-dev", batch_size=[1, 4])
@pytest.mark.mxq_speedup(min={"float8": 1.15, "mxfp8": 1.10, "nvfp4": 1.30})
@pytest.mark.mxq_memory(max_ratio={"float8": 0.65, "mxfp8": 0.70, "nvfp4": 0.55}, max_weight_ratio=0.55)
def test_flux_speed(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt, num_inference_steps=STEPS)
