"""The fused kernels for GPUs in Triton: see README.md."""
