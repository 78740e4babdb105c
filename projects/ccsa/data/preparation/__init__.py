"""Making the label files that Detectron2 needs from those that a dataset is published with."""
