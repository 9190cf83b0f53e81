"""What stands in the place of a text encoder where a pipeline is built with random weights."""

from __future__ import annotations

from typing import Any


def embedding_table(rows: int, features: int) -> Any:
    """Return a module that holds nothing but ``rows``: a text encoder's output for one prompt, (rows, features).

    It is a ModelMixin, since a pipeline takes no other module as a component.
    """
    import torch
    from diffusers import ModelMixin

    class EmbeddingTable(ModelMixin):  # type: ignore[misc]  # diffusers is untyped
        def __init__(self) -> None:
            super().__init__()
            self.rows = torch.nn.Parameter(torch.empty(rows, features))

    return EmbeddingTable()
