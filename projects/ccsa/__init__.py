"""ccsa: context attention for dense prediction in Detectron2."""
