"""Problems of the pixels of images and labels."""

from ccsa.data.problem_kinds.kind import ERROR, WARNING, Kind

PIXELS: dict[str, Kind] = {
    # Pixels
    "size_mismatch": Kind(
        ERROR,
        "an image has another size than its record says",
        "correct width and height, or restore the image that was annotated",
        can_be_allowed=False,
    ),
    "exif_rotation": Kind(
        ERROR,
        "an image is rotated by its EXIF tag, but the annotations were made without the rotation",
        "save the image without the EXIF orientation, or annotate it as it is displayed",
        can_be_allowed=False,
    ),
    "exif_orientation": Kind(
        WARNING,
        "an image is rotated by its EXIF tag; annotations must refer to the image as displayed",
        "save the images upright to be sure",
    ),
    "bit_depth": Kind(
        WARNING,
        "an image has more than 8 bits per channel; INPUT.INTENSITY_RANGE maps it to 8 bits",
        "check the range that the log states",
    ),
    "channels": Kind(
        WARNING,
        "an image has unusual channels (alpha, CMYK or several pages); it is converted to RGB",
        "convert the images to RGB yourself if colors matter",
    ),
    "intensity_range": Kind(
        WARNING,
        "more than 5 % of the pixels of a split are outside INPUT.INTENSITY_RANGE and clipped",
        "scale the images alike, or set INPUT.INTENSITY_RANGE '[low, high]' for all splits",
    ),
    "mostly_outside_range": Kind(
        ERROR,
        "more than half of the pixels of a split are outside INPUT.INTENSITY_RANGE and clipped",
        "scale the images alike, or set INPUT.INTENSITY_RANGE '[low, high]' for all splits",
    ),
    "not_finite": Kind(
        WARNING,
        "an image contains NaN or infinite values; they become black or white",
        "replace these values in the image",
    ),
    "mixed_channels": Kind(
        WARNING,
        "gray and color images are mixed in the training set",
        "check that this is intended",
    ),
    "tiny_image": Kind(
        WARNING, "an image is smaller than 8 pixels on a side", "remove it from the dataset"
    ),
    "extreme_aspect_ratio": Kind(
        WARNING,
        "an image is more than 20 times as long as wide",
        "crop it, or cut it into tiles",
    ),
    "too_large_image": Kind(
        ERROR,
        "an image has so many pixels that the image reader refuses it (more than 178 megapixels)",
        "cut it into tiles, or resize it",
        can_be_allowed=False,
    ),
    "giant_image": Kind(
        WARNING,
        "an image has more than 50 megapixels; reading it takes seconds and gigabytes",
        "cut it into tiles, or resize it",
    ),
    # Label images
    "missing_label": Kind(
        ERROR,
        "an image has no label file of the same name",
        "add the label file, or move the image away",
        can_be_allowed=False,
    ),
    "unpaired_label": Kind(
        WARNING,
        "a label file has no image of the same name",
        "add the image, or remove the label file",
    ),
    "label_of_another_image": Kind(
        ERROR,
        "images are paired with labels of other names, as after renaming or losing one file",
        "give every label the name of its image, and every image its label",
    ),
    "unreadable_label": Kind(
        ERROR,
        "a label file cannot be decoded",
        "replace the file by a good copy",
        can_be_allowed=False,
    ),
    "label_channels": Kind(
        ERROR,
        "a label file has several different channels instead of one of class indices",
        "save the labels as one channel (gray or palette) of class indices",
        can_be_allowed=False,
    ),
    "label_rgb": Kind(
        WARNING,
        "a label file has three equal channels; the first one is read",
        "save the labels as one channel",
    ),
    "label_size": Kind(
        ERROR,
        "a label file has another size than its image",
        "export the labels at the size of the images",
        can_be_allowed=False,
    ),
    "label_out_of_range": Kind(
        ERROR,
        "a label file contains a value that is not a class",
        "correct the labels, add the class to classes.txt, or map the value: "
        "DATASETS.LABEL_MAPPING {value: class}; if the values number objects, use --data-format "
        "instance_labels",
        can_be_allowed=False,
    ),
    "ignored_class": Kind(
        ERROR,
        "most labels of a split contain only 0 and 255, and 255 means 'ignore', so their objects "
        "would not be trained or scored",
        "map the value: DATASETS.LABEL_MAPPING {255: 1}",
    ),
    "ignored_objects": Kind(
        WARNING,
        "of two classes, a label file contains only 0 and 255, which means 'ignore', while most "
        "files contain 1; if 255 stands for the class there, its objects are not trained or scored",
        "write 1 instead of 255 in these files, or map the value in all files: "
        "DATASETS.LABEL_MAPPING {255: 1}",
    ),
    "class_or_ignored": Kind(
        WARNING,
        "a class has no pixel in a split whose labels contain 255, which means 'ignore'; 255 may "
        "stand for the class",
        "if it does, map the value: DATASETS.LABEL_MAPPING {255: class}",
    ),
    "single_class": Kind(
        ERROR,
        "the labels have one class, which cannot be learned",
        "write background as the first line of classes.txt; if the values number objects, use "
        "--data-format instance_labels",
        can_be_allowed=False,
    ),
    "only_ignored_pixels": Kind(
        WARNING, "a label file contains the ignore value only", "label it, or remove it"
    ),
    # Panoptic
    "segment_mismatch": Kind(
        ERROR,
        "the segments of a panoptic PNG and of its JSON record differ",
        "export both files again",
    ),
}
