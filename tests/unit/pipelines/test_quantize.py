"""Choosing layers, sharing weights and proving quantization, on small modules."""

import pytest
import torch
from torch import nn
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.baselines.manifest import Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.formats import Format, built_in_formats
from pytest_mxq.models import SelectionRule, SkipPattern
from pytest_mxq.pipelines.quantize import choose_layers, collect_evidence, native_bytes, quantize_layers, share_copy

FORMATS = {number_format.name: number_format for number_format in built_in_formats()}
RULE = SelectionRule(
    min_features=128,
    skip=(SkipPattern(pattern="embed", reason="x"), SkipPattern(pattern="out", reason="x", exact=True)),
)


class Net(nn.Module):
    """Multiples of 128, so that the blocked layout of the scales needs no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedder = nn.Linear(128, 128)
        self.blocks = nn.ModuleList([nn.Linear(128, 128), nn.Linear(128, 256), nn.Linear(136, 128), nn.Linear(64, 128)])
        self.out = nn.Linear(128, 128)
        self.norm_out = nn.Linear(128, 128)
        self.to(torch.bfloat16)
        self.requires_grad_(requires_grad=False)


def test_the_rule_skips_names_and_small_layers_and_lists_unfit_ones() -> None:
    chosen = choose_layers(Net(), RULE, FORMATS["mxfp8"])
    assert chosen.names == ("blocks.0", "blocks.1", "norm_out")
    assert chosen.unfit == ("blocks.2",)
    assert chosen.total == 7


def test_choosing_works_on_the_meta_device() -> None:
    with torch.device("meta"):
        net = Net()
    assert choose_layers(net, RULE, FORMATS["nvfp4"]).names == ("blocks.0", "blocks.1", "norm_out")


@pytest.mark.parametrize(("name", "ratio"), [("mxfp8", 0.515625), ("nvfp4", 0.28125), ("mxfp4", 0.265625)])
def test_evidence_tells_layers_share_and_native_bytes(name: str, ratio: float) -> None:
    net = Net()
    chosen = choose_layers(net, RULE, FORMATS[name])
    quantize_layers(net, chosen, FORMATS[name], emulated=True)
    evidence = collect_evidence(net, chosen)
    assert (evidence.quantized, evidence.chosen, evidence.total) == (3, 3, 7)
    assert evidence.weight_share == pytest.approx(
        (128 * 128 * 2 + 128 * 256) / sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Linear))
    )
    assert evidence.weight_bytes / evidence.bf16_bytes == pytest.approx(ratio, abs=0.001)
    assert evidence.layers_sha256 == Selection.of(chosen.names, total=7, weight_share=0.5).sha256
    assert evidence.unfit == ("blocks.2",)


def test_a_share_copy_shares_every_weight_and_quantizing_it_leaves_the_original_alone() -> None:
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    twin = share_copy(net)
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    quantize_layers(twin, choose_layers(twin, RULE, FORMATS["nvfp4"]), FORMATS["nvfp4"], emulated=True)
    assert isinstance(twin.get_submodule("blocks.0").weight, TorchAOBaseTensor)
    assert not isinstance(net.get_submodule("blocks.0").weight, TorchAOBaseTensor)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert twin.get_submodule("embedder").weight.data_ptr() == net.embedder.weight.data_ptr()  # type: ignore[operator]


def test_a_rule_that_skips_everything_quantizes_nothing_and_the_evidence_says_so() -> None:
    net = Net()
    rule = SelectionRule(min_features=4096)
    chosen = choose_layers(net, rule, FORMATS["mxfp8"])
    quantize_layers(net, chosen, FORMATS["mxfp8"], emulated=True)
    assert collect_evidence(net, chosen).quantized == 0


def test_a_format_without_emulation_says_so() -> None:
    lonely = Format(
        name="lonely", summary="", capability=(10, 0), in_multiple=1, out_multiple=1, native=object, emulation=None
    )
    net = Net()
    with pytest.raises(MxqError, match="'lonely' cannot be emulated"):
        quantize_layers(net, choose_layers(net, RULE, lonely), lonely, emulated=True)


def test_native_bytes_of_a_torchao_tensor_are_its_inner_tensors() -> None:
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

    weight = NVFP4Tensor.to_nvfp4(torch.randn(64, 128, dtype=torch.bfloat16), per_tensor_scale=torch.tensor(1.0))
    assert native_bytes(weight) == 64 * 128 // 2 + 64 * 128 // 16 + 4
