"""The torch side of the evaluation's protocols: generation, benchmark, outputs."""
