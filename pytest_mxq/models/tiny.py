"""Pieces of the tiny pipelines for tests: tokenizers made here, seeded weights that matter, saving."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_mxq.environment.third_party_warnings import silence_third_party_warnings
from pytest_mxq.models.blocks import named_repeated_blocks

BLOCK_GAIN = 3.0
"""By how much the Linear weights of a tiny denoiser's blocks are larger than the constructors make them.

As constructed, the blocks hardly act on the image: with all of their weights zero it is as near to the original (PSNR
38 to 54 dB) as a quantized one, so that no gate could tell. At three times the weights FLUX and Qwen-Image are 21 to
33 dB away without their blocks, and 32 to 46 dB in MXFP8 and NVFP4.
"""

_PRINTABLE = string.ascii_letters + string.digits + string.punctuation
_SPACE = "\u2581"  # how SentencePiece's models write a space


def clip_tokenizer() -> Any:
    """Return a CLIPTokenizer that writes each byte as a token."""
    from transformers import CLIPTokenizer

    alphabet = _byte_alphabet()
    ends = [f"{letter}</w>" for letter in alphabet]
    vocabulary = _numbered([*alphabet, *ends, "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    """Return a T5Tokenizer (Unigram) that writes each printable ASCII character as a token."""
    from transformers import T5Tokenizer

    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    letters = [(letter, -1.0) for letter in (_SPACE, *_PRINTABLE)]
    return T5Tokenizer(vocab=[*special, *letters], extra_ids=0, model_max_length=512)


def qwen2_tokenizer(texts: Iterable[str]) -> Any:
    """Return a Qwen2Tokenizer that writes each word of some texts as one token, and any other word byte by byte.

    Args:
        texts: such as a pipeline's prompt template, of whose tokens it drops as many as the real tokenizer makes;
            without the special tokens.
    """
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer().train_new_from_iterator(
        texts,
        vocab_size=100_000,  # more than there are pairs to merge
        new_special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=_byte_alphabet(),
        min_frequency=1,
        show_progress=False,
    )


def gemma_tokenizer() -> Any:
    """Return a GemmaTokenizer that writes each printable ASCII character as a token and begins with BOS."""
    from tokenizers.processors import TemplateProcessing
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = _numbered([*special, *fallback, _SPACE, *_PRINTABLE])
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=1024)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return tokenizer


def _byte_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Generate the weights of what is built meanwhile at a seed, and leave torch's generator on the CPU as it was."""
    import torch

    with silence_third_party_warnings(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def strengthen_blocks(denoiser: Any) -> None:
    """Multiply every Linear weight of a denoiser's repeated blocks by `BLOCK_GAIN`."""
    import torch

    for block in named_repeated_blocks(denoiser).values():
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data.mul_(BLOCK_GAIN)


def save_pipeline(pipe: Any, folder: Path) -> None:
    """Save a freshly built pipeline in the layout of ``save_pretrained``.

    Use what is loaded from there with ``dtype=torch.bfloat16`` rather than the pipeline itself: a built module is in
    training mode, and casting one to BF16 also casts the rotary tables that loading keeps in float32.
    """
    pipe.save_pretrained(folder)
