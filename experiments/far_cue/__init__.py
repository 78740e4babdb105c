"""The experiment of docs/FAR_CUE.md: how far each context block can see, in space and in time."""
