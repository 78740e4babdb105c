"""Criss-cross attention beside the public implementations: time, memory, and how far from the
matrix products alone. The program is tools/benchmark.py."""
