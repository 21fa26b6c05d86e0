"""The fused kernels for CPUs: C++ (src/), compiled (build.py), loaded (library.py) and called (backend.py)."""
