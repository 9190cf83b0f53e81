"""The device, the fingerprint that makes numbers comparable, host memory, third-party warnings."""
