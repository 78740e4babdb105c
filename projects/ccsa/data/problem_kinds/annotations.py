"""Problems of classes, boxes, masks and splits."""

from ccsa.data.problem_kinds.kind import ERROR, WARNING, Kind

ANNOTATIONS: dict[str, Kind] = {
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
    "thing_or_stuff": Kind(
        ERROR,
        "a class is a thing in one split and stuff in another",
        "write the same 'isthing' in the categories of all splits",
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
}
