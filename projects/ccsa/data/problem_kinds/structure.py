"""Problems of files and of the structure of annotations."""

from ccsa.data.problem_kinds.kind import ERROR, WARNING, Kind

STRUCTURE: dict[str, Kind] = {
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
}
