"""Pages that explain runs: the attention explorer."""
