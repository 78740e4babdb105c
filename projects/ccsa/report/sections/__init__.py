"""The sections of an evaluation report: each computes its data from the files of a run."""
