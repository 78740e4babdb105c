"""Benchmarks of criss-cross attention: time and memory, compared with public implementations and
with the matrix multiplications only. Run them with ``python -m benchmarks``."""
