"""The kinds of problems that a dataset may have: severity, meaning, and how to fix each."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of problem.

    Attributes:
        severity: ``error`` or ``warning``.
        meaning: what is wrong.
        fix: how to fix it.
        can_be_allowed: whether training works if ``DATASETS.ALLOW`` names the kind.
    """

    severity: str
    meaning: str
    fix: str
    can_be_allowed: bool = True


ERROR, WARNING = "error", "warning"

KINDS: dict[str, Kind] = {
    # Files
    "missing_image": Kind(
        ERROR,
        "an image that the annotations name does not exist",
        "copy the file there, or remove its record from the annotations",
        can_be_allowed=False,
    ),
    "unreadable_image": Kind(
        ERROR,
        "an image cannot be decoded",
        "replace the file by a good copy, or remove its record",
        can_be_allowed=False,
    ),
    "outside": Kind(
        ERROR,
        "a file name, or a link to a file, leads outside the folder of the dataset; only the links "
        "(as in data of DVC or git-annex) are read if this is allowed",
        "move the file into the folder and use a relative name",
    ),
    "not_a_file": Kind(
        ERROR,
        "a name leads to something that is not a regular file (a folder, a pipe or a device)",
        "replace it by a regular file",
        can_be_allowed=False,
    ),
    "unlisted_image": Kind(
        WARNING,
        "an image in the folder has no record in the annotations",
        "add its record (without annotations if nothing is in it), or move the image away",
    ),
    "encoding": Kind(
        WARNING, "a text file is not plain UTF-8", "save it as UTF-8 without a byte order mark"
    ),
    # Structure of the annotations
    "missing_field": Kind(
        ERROR, "a record lacks a field that it needs", "add the field, or remove the record"
    ),
    "wrong_type": Kind(
        ERROR, "a field has a value of the wrong type", "correct the value in the annotations"
    ),
    "quoted_number": Kind(
        WARNING,
        "a number is written in quotes; it is read as a number",
        "remove the quotes in the annotations",
    ),
    "null_field": Kind(
        WARNING,
        "a field is null; its default is used",
        "remove the field, or write its value",
    ),
    "missing_size": Kind(
        WARNING,
        "an image record has no width and height; they are read from the file",
        "add width and height to the record",
    ),
    "duplicate_image_id": Kind(
        ERROR, "two image records have the same id", "give every image its own id"
    ),
    "duplicate_image_file": Kind(
        WARNING,
        "two image records name the same file",
        "keep one record per file and move the annotations to it",
    ),
    "duplicate_annotation_id": Kind(
        WARNING,
        "annotations share an id; they are numbered anew, because evaluation would drop one",
        "give every annotation its own id",
    ),
    "annotation_id_zero": Kind(
        WARNING,
        "an annotation has the id 0, which COCO evaluation never matches; ids are numbered anew",
        "number annotations from 1",
    ),
    "duplicate_annotation": Kind(
        WARNING,
        "an image has the same object twice (same class, box and mask)",
        "remove one of the two annotations",
    ),
    "unknown_image": Kind(
        ERROR,
        "an annotation refers to an image id that does not exist",
        "add the image record, or remove the annotation",
    ),
    "unknown_category": Kind(
        ERROR,
        "an annotation refers to a category that does not exist",
        "add the category, or correct the annotation",
    ),
    "duplicate_category": Kind(
        ERROR,
        "two categories have the same id or the same name",
        "give every category its own id and name",
    ),
    # Classes
    "dropped_category": Kind(
        WARNING,
        "category 0 is only the supercategory of the others (as Roboflow writes it); it is dropped",
        "remove it from the categories",
    ),
    "class_without_objects": Kind(
        WARNING,
        "a class has no object in the training set",
        "add examples, or remove the class",
    ),
    "class_in_one_split": Kind(
        WARNING,
        "a class has objects in one split only",
        "move some of its images to the other split",
    ),
    "classes_numbered_differently": Kind(
        WARNING,
        "splits number the same class names differently; classes are matched by name",
        "use one list of categories for all splits",
    ),
    "classes_differ": Kind(
        WARNING,
        "splits have different class names; the union is used",
        "use one list of categories for all splits",
    ),
    # Boxes
    "normalized_coordinates": Kind(
        ERROR,
        "all boxes or polygons of a file have coordinates from 0 to 1, but COCO's are in pixels",
        "multiply x and width by the width of the image, y and height by its height",
    ),
    "invalid_box": Kind(
        ERROR,
        "a box is not four finite numbers [x, y, width, height]",
        "correct the box, or remove the annotation",
    ),
    "empty_box": Kind(
        WARNING,
        "a box has no area; the annotation is left out",
        "correct the box, or remove the annotation",
    ),
    "box_outside_image": Kind(
        WARNING,
        "a box reaches beyond the image",
        "clip the box to the image; check whether it is [x, y, width, height] in pixels",
    ),
    "box_beyond_image": Kind(
        ERROR,
        "a box lies completely outside its image",
        "check the size of the image and the unit of the box (pixels)",
    ),
    "box_mask_mismatch": Kind(
        WARNING,
        "a box and the mask of the same annotation do not overlap as they should",
        "check whether the box is [x, y, width, height] rather than [x1, y1, x2, y2]",
    ),
    "area_mismatch": Kind(
        WARNING,
        "the area of most annotations differs from that of their masks by more than a factor of 2, "
        "so AP by size is wrong",
        "write the area of the mask in pixels, or remove the field",
    ),
    # Masks
    "invalid_polygon": Kind(
        ERROR,
        "a polygon is not a list of at least three points with finite coordinates near the image",
        "correct the polygon, or remove the annotation",
    ),
    "degenerate_polygon": Kind(
        WARNING,
        "a polygon has fewer than three points; it is left out",
        "draw the object again, or remove the annotation",
    ),
    "polygon_outside_image": Kind(
        WARNING,
        "a polygon reaches beyond the image",
        "clip the polygon to the image; check the size of the image",
    ),
    "invalid_rle": Kind(
        ERROR,
        "a run-length encoded mask is damaged",
        "export the mask again, or remove the annotation",
    ),
    "rle_size": Kind(
        ERROR,
        "a run-length encoded mask has another size than its image",
        "export the masks at the size of the images",
    ),
    "empty_mask": Kind(
        WARNING,
        "a mask contains no pixel; the annotation is left out",
        "draw the object again, or remove the annotation",
    ),
    "missing_mask": Kind(
        WARNING,
        "an annotation has a box but no mask; models that need masks leave it out",
        "add the mask, or train a box model (MODEL.MASK_ON False)",
    ),
    "mostly_without_masks": Kind(
        ERROR,
        "most annotations have no mask, but the model needs masks",
        "add masks, or train a box model (MODEL.MASK_ON False or a RetinaNet config)",
    ),
    "ignored_annotation": Kind(
        WARNING,
        "an annotation is marked ignore: 1; it is treated as a crowd region",
        "remove the mark, or use iscrowd: 1",
    ),
    "masks_marked_crowd": Kind(
        WARNING,
        "masks are marked iscrowd: 1, as CVAT does; in its file instances_*.json they are read as "
        "single objects, elsewhere as crowd regions, which are not trained",
        "write iscrowd: 0 for single objects",
    ),
    "all_crowd": Kind(
        ERROR,
        "every annotation of the training set is marked iscrowd: 1, so nothing would be trained",
        "write iscrowd: 0 for single objects",
        can_be_allowed=False,
    ),
    "crowd_only_image": Kind(
        WARNING,
        "an image has crowd regions only; it is left out of training",
        "annotate single objects, or accept it",
    ),
    # Splits
    "empty_split": Kind(
        ERROR,
        "a split has no image with annotations",
        "add annotated images to the split",
        can_be_allowed=False,
    ),
    "image_in_two_splits": Kind(
        WARNING,
        "the same image (by content) is in the training and in another split, so scores are too "
        "high",
        "remove it from one of them",
    ),
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
