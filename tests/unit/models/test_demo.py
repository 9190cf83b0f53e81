"""What the packaged model's recipe keeps in BF16, and the prompts that gates generate."""

from pytest_mxq.models.demo import DEMO
from pytest_mxq.models.prompts import GATE_PROMPTS


def test_the_demo_rule_keeps_embeddings_last_layers_and_small_layers() -> None:
    assert DEMO.rule.skips("x_embedder", 192, 192)
    assert DEMO.rule.skips("norm_out.linear", 192, 384)
    assert DEMO.rule.skips("proj_out", 192, 192)
    assert DEMO.rule.skips("transformer_blocks.0.ff", 128, 192)
    assert not DEMO.rule.skips("single_transformer_blocks.0.proj_out", 960, 192)


def test_prompt_sets_are_24_different_prompts() -> None:
    for prompts in (DEMO.prompts, GATE_PROMPTS):
        assert len(prompts) == len(set(prompts)) == 24
