"""The dataset mapper: Detectron2's, with a clear word about a file that cannot be read."""

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError, read_image

from ccsa.errors import UserError


class ReportingMapper(DatasetMapper):
    """DatasetMapper that names the file it cannot read, and the cure."""

    def __call__(self, dataset_dict: dict) -> dict:
        """As DatasetMapper.

        Raises:
            UserError: an image or label file that is missing, corrupt or of another size than its
                annotation says.
        """
        try:
            return super().__call__(dataset_dict)
        except (OSError, SyntaxError, SizeMismatchError) as error:
            raise UserError(
                f"cannot read {_culprit(dataset_dict)} ({error}); put a good copy in its place "
                "or take it out of the annotations, then --resume"
            ) from error


def _culprit(dataset_dict: dict) -> str:
    """The label file if it is what cannot be read, else the image."""
    labels = dataset_dict.get("sem_seg_file_name")
    if labels is not None:
        try:
            read_image(labels)
        except (OSError, SyntaxError):
            return labels
    return dataset_dict["file_name"]
