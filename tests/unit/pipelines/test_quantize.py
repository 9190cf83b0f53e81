"""Choosing layers, sharing weights and proving quantization, on small modules."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchao.quantization import Float8WeightOnlyConfig
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.baselines.manifest import Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.formats import Format, built_in_formats
from pytest_mxq.models import SelectionRule, SkipPattern
from pytest_mxq.pipelines.compile import inductor_settings
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
    assert [(layer.name, layer.reason) for layer in chosen.unfit] == [
        ("blocks.2", "in_features 136 is not a multiple of 32")
    ]
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
    assert evidence.unfit == tuple(map(str, chosen.unfit)) != ()
    assert evidence.emulated_by == "PyTorch operations"


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


class Mixed(nn.Module):
    """A Linear in BF16 and one that its class keeps in float32, as Kandinsky 5 does with its modulation."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(128, 128)
        self.modulation = nn.Linear(128, 384)
        self.proj.to(torch.bfloat16)
        self.requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.modulation(x.float()).bfloat16().chunk(3, dim=-1)
        result: torch.Tensor = gate * self.proj(x * scale + shift)
        return result


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_whose_weight_is_not_bf16_is_left_out_with_the_reason_and_the_rest_runs_quantized(name: str) -> None:
    net = Mixed()
    chosen = choose_layers(net, SelectionRule(min_features=128), FORMATS[name])
    assert chosen.names == ("proj",)
    assert [str(layer) for layer in chosen.unfit] == ["modulation (its weight is torch.float32)"]
    quantize_layers(net, chosen, FORMATS[name], emulated=True)
    evidence = collect_evidence(net, chosen)
    assert (evidence.quantized, evidence.chosen, evidence.total, evidence.weight_share) == (1, 1, 2, 0.25)
    assert evidence.unfit == ("modulation (its weight is torch.float32)",)
    assert net(torch.randn(4, 128, dtype=torch.bfloat16)).isfinite().all()


def test_under_diffusers_layerwise_casting_nothing_is_chosen_and_each_layer_says_why() -> None:
    from diffusers import FluxTransformer2DModel

    from pytest_mxq.models.flux import TINY_SIZE

    denoiser = FluxTransformer2DModel(**TINY_SIZE.transformer).to(torch.bfloat16)
    rule = SelectionRule(min_features=320, skip=(SkipPattern(pattern="embed", reason="x"),))
    before = choose_layers(denoiser, rule, FORMATS["mxfp8"])
    denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    cast = choose_layers(denoiser, rule, FORMATS["mxfp8"])
    stays = {name for name in before.names if denoiser.get_submodule(name).weight.dtype is torch.bfloat16}
    assert set(cast.names) == stays < set(before.names)
    assert {layer.reason for layer in cast.unfit} == {"its weight is torch.float8_e4m3fn"}


class Attending(nn.Module):
    """A denoiser of which torch's own attention holds most of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)
        self.proj = nn.Linear(128, 128)
        self.kernel = nn.Conv1d(128, 128, 3, padding=1)
        self.table = nn.Embedding(100, 128)
        self.to(torch.bfloat16)
        self.requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.proj(self.attention(x, x, x, need_weights=False)[0])
        return result


@pytest.mark.parametrize("name", FORMATS)
def test_the_weights_of_torch_s_multihead_attention_are_not_chosen_and_count_in_the_share(name: str) -> None:
    net = Attending().eval()
    chosen = choose_layers(net, SelectionRule(min_features=128), FORMATS[name])
    assert chosen.names == ("proj",)
    assert [str(layer) for layer in chosen.unfit] == [
        "attention.out_proj (nn.MultiheadAttention reads its weight without calling it)"
    ]
    quantize_layers(net, chosen, FORMATS[name], emulated=True)
    assert net(torch.randn(2, 8, 128, dtype=torch.bfloat16)).isfinite().all()
    # Three quarters in_proj_weight, one quarter out_proj, and as much as that again the one quantized Linear.
    assert collect_evidence(net, chosen).weight_share == chosen.weights / chosen.all_weights == pytest.approx(1 / 5)


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


def test_a_configuration_that_sets_inductor_s_leaves_it_as_it_was() -> None:
    config = Float8WeightOnlyConfig()
    assert config.set_inductor_config
    own = replace(FORMATS["float8"], native=lambda: config)
    before = inductor_settings()
    net = Net()
    quantize_layers(net, choose_layers(net, RULE, own), own, emulated=False)
    assert isinstance(net.blocks[0].weight, TorchAOBaseTensor)
    assert inductor_settings() == before
