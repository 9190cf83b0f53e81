"""LTX-2, video and sound, gated against its published results on an NVIDIA B200 (PyTorch blog, 8 April 2026).

Margins: a speedup may fall 5 % short of the published one, and peak memory may be 5 % above it as a share of BF16's. No
LPIPS of LTX-2 is published, and none of its flicker or sound: these bounds say "broken" and no more, until a refresh on
the machine that gates gives better ones. Four prompts, since a clip takes 63 MB. Nothing is published for float8: its
bounds of memory are MXFP8's, and it must not be slower than BF16.
"""

import pytest


@pytest.mark.mxq("ltx-2", prompts=4)
@pytest.mark.mxq_lpips(max={"mxfp8": 0.40, "nvfp4": 0.50, "float8": 0.40})
@pytest.mark.mxq_flicker(max={"mxfp8": 0.50, "nvfp4": 0.50, "float8": 0.50})
@pytest.mark.mxq_audio(max={"mxfp8": 8, "nvfp4": 8, "float8": 8}, worst=12)
def test_ltx2(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)


def at(batch_size, *, speedup, memory):
    model = pytest.mark.mxq("ltx-2", batch_size=batch_size, prompts=1)
    gates = pytest.mark.mxq_speedup(min=speedup), pytest.mark.mxq_memory(max_ratio=memory)
    return pytest.param(batch_size, marks=[model, *gates], id=f"batch{batch_size}")


@pytest.mark.parametrize(
    "batch_size",
    [
        at(
            1,
            speedup={"mxfp8": 1.12, "nvfp4": 1.48, "float8": 1.0},
            memory={"mxfp8": 0.79, "nvfp4": 0.66, "float8": 0.79},
        ),
        at(
            4,
            speedup={"mxfp8": 1.15, "nvfp4": 1.59, "float8": 1.0},
            memory={"mxfp8": 0.83, "nvfp4": 0.73, "float8": 0.83},
        ),
        at(
            8,
            speedup={"mxfp8": 1.13, "nvfp4": 1.60, "float8": 1.0},
            memory={"mxfp8": 0.87, "nvfp4": 0.79, "float8": 0.87},
        ),
    ],
)
def test_ltx2_speed(mxq_pipeline, mxq_prompt, batch_size):
    return mxq_pipeline(mxq_prompt)
