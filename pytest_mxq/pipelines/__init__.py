"""Build the arms of a model: load, quantize, compile, generate."""
