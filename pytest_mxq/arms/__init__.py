"""Arms: one pipeline in one format, loaded, quantized (or emulated), compiled, and proved to be so."""
