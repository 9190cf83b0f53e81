"""pytest-mxq: a pytest plugin that gates the quantization of diffusion models on accuracy and speed."""
