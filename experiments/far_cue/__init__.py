"""How far each context block can see: docs/FAR_CUE.md."""
