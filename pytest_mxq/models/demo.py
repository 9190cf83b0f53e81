"""The packaged demo: a real, trained, 5 M parameter text-to-image FLUX that generates coloured shapes at 128x128."""

from pathlib import Path
from types import MappingProxyType

from pytest_mxq.models.base import Recipe, SelectionRule, SkipPattern

# The grammar: "a SIZE FILL COLOUR SHAPE at the PLACE on a FILL COLOUR background". Every colour, shape, place and
# fill of it occurs, and no two prompts generate nearly the same scene.
DEMO_PROMPTS = (
    "a small checkered green star at the bottom on a plain purple background",
    "a small plain yellow star at the center on a gradient purple background",
    "a small striped black triangle at the right on a plain yellow background",
    "a small striped blue cross at the center on a plain pink background",
    "a large plain yellow circle at the top on a gradient purple background",
    "a small plain pink square at the left on a plain cyan background",
    "a small plain red ring at the right on a plain cyan background",
    "a small striped white star at the left on a plain red background",
    "a large striped red circle at the left on a plain blue background",
    "a large checkered white square at the right on a plain black background",
    "a large plain green triangle at the top on a gradient pink background",
    "a small striped cyan ring at the bottom on a plain orange background",
    "a large plain black cross at the center on a gradient yellow background",
    "a small checkered purple circle at the top on a plain green background",
    "a large striped orange star at the right on a gradient blue background",
    "a large checkered blue ring at the center on a gradient white background",
    "a large plain white cross at the bottom on a gradient red background",
    "a large striped pink ring at the top on a gradient black background",
    "a small plain blue triangle at the center on a plain orange background",
    "a large checkered yellow circle at the right on a gradient cyan background",
    "a large plain cyan square at the center on a gradient green background",
    "a small checkered orange cross at the top on a plain white background",
    "a large striped purple triangle at the bottom on a gradient pink background",
    "a large checkered black star at the left on a gradient orange background",
)

DEMO = Recipe(
    name="demo",
    pipeline_class="FluxPipeline",
    source=str(Path(__file__).resolve().parent.parent / "assets" / "demo_model"),
    call=MappingProxyType(
        {
            "height": 128,
            "width": 128,
            "num_inference_steps": 8,
            "guidance_scale": 3.5,
            "max_sequence_length": 16,
        }
    ),
    rule=SelectionRule(
        min_features=192,  # the width of its transformer, as 1024 is a third of FLUX.1-dev's
        skip=(
            SkipPattern(pattern="embed", reason="conditioning and patch embeddings: few rows, large effect"),
            SkipPattern(pattern="norm_out.linear", exact=True, reason="last modulation: one row, acts on every pixel"),
            SkipPattern(pattern="proj_out", exact=True, reason="last projection to latents: acts on every pixel"),
        ),
    ),
    steps="num_inference_steps",
    min_share=0.75,  # the rule quantizes 93 %
    prompts=DEMO_PROMPTS,
)
