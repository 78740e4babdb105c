"""A trained model that is applied to images: the interface for Python programs.

    import ccsa

    predictor = ccsa.Predictor.from_run("output/digits/ccnet_mask_rcnn/1")
    found = predictor("photo.jpg")
    found.instances, found.classes, found.draw(), found.to_coco()

``tools/demo.py`` uses the same class.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from detectron2.config import CfgNode

from ccsa.checkpoint import Checkpointer
from ccsa.data.image_reader import intensity_range, is_file, read_image
from ccsa.engine.compilation import check_compilation, compile_parts
from ccsa.engine.trained_model import trained_cfg, with_confidence, with_weights
from ccsa.engine.trainer import Trainer
from ccsa.errors import UserError, at_least, shown
from ccsa.inference import ModelPredictor, build_inference
from ccsa.prediction.class_names import category_ids, drawing_metadata, model_classes
from ccsa.prediction.coco_file import annotate_folder
from ccsa.prediction.result import Prediction

Picture = np.ndarray | str | Path
Pictures = list[Any] | tuple[Any, ...]
_BATCH = {"cpu": 1}  # images at once, by device; a larger batch does not save time on a CPU
_USUAL_BATCH = 8


class Predictor:
    """Apply a trained model to images.

    Args:
        config: a configuration file (YAML), or a configuration with the keys of ccsa.
        weights: a ``.pth``, ``.safetensors`` or ``.pkl`` file; by default ``MODEL.WEIGHTS`` of the
            configuration.
        device: where the model runs, e.g. ``cpu`` or ``cuda:1``; by default that of the
            configuration.
        confidence: the lowest score of the objects that are returned, from 0 to 1.
        options: KEY VALUE words that override a configuration file, e.g.
            ``["INPUT.MIN_SIZE_TEST", "0"]``.
        imports: Python files or modules that register blocks, heads or datasets.
        batch_size: images that the model receives at once; by default 1 on a CPU, and 8 on other
            devices.

    Attributes:
        cfg: the configuration, frozen.
        model: the model, on its device.
        confidence: the lowest score of the objects that are returned.
        clip: the frames of a clip, for a model that takes clips; None for a model that takes
            images.
        classes: the names of the classes of objects; of a model that detects none, those of pixels.
        load_report: which weights were loaded, as lines of text; empty for random weights.

    Raises:
        UserError: the configuration or the weights do not exist, are not valid, or do not fit each
            other, or the device does not exist.

    Example:
        >>> predictor = Predictor("configs/own/mask_rcnn.yaml", "model.pth")  # doctest: +SKIP
        >>> predictor("photo.jpg").instances  # doctest: +SKIP
    """

    def __init__(
        self,
        config: CfgNode | str | Path,
        weights: str | Path = "",
        *,
        device: str = "",
        confidence: float = 0.5,
        options: Sequence[object] = (),
        imports: Sequence[str] = (),
        batch_size: int | None = None,
    ):
        if isinstance(config, CfgNode):
            if options or imports:
                raise UserError(
                    "options and imports are for configuration files; merge them into the "
                    "configuration before it is passed"
                )
            cfg = with_weights(config, str(weights), device)
        else:
            words = argparse.Namespace(
                config_file=str(config),
                weights=str(weights),
                opts=[str(word) for word in options],
                imports=list(imports),
            )
            cfg = trained_cfg(words, device)
        self._load(cfg, confidence, batch_size)

    @classmethod
    def of(
        cls, cfg: CfgNode, *, confidence: float = 0.5, batch_size: int | None = None
    ) -> "Predictor":
        """Load the model of a configuration that has been checked, see
        :func:`ccsa.engine.trained_cfg`; weights that are empty stay random."""
        predictor = cls.__new__(cls)
        predictor._load(cfg, confidence, batch_size)
        return predictor

    def _load(self, cfg: CfgNode, confidence: float, batch_size: int | None) -> None:
        if batch_size is not None:
            at_least(1, batch_size=batch_size)
        self.cfg = cfg = with_confidence(cfg, confidence)
        self.confidence = confidence
        self.model = Trainer.build_model(cfg)
        checkpointer = Checkpointer(self.model)
        checkpointer.load(cfg.MODEL.WEIGHTS)
        check_compilation(cfg, self.model)
        compile_parts(cfg, self.model)
        self.load_report = list(checkpointer.report.lines) if checkpointer.report else []
        self._names = model_classes(cfg)
        self._metadata = drawing_metadata(cfg, self._names)
        self.classes = self._names.things or self._names.stuff
        self._ids = category_ids(cfg, self.classes)
        self._intensities = intensity_range(cfg.INPUT.INTENSITY_RANGE)
        self._runner = ModelPredictor(cfg, build_inference(cfg, self.model))
        self.clip = self._runner.clip
        kind = torch.device(cfg.MODEL.DEVICE).type
        self.batch_size = batch_size or _BATCH.get(kind, _USUAL_BATCH)

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The classes as COCO's ``categories``."""
        pairs = zip(self._ids, self.classes, strict=True)
        return [{"id": number, "name": name} for number, name in pairs]

    @classmethod
    def from_run(cls, run: str | Path, **keywords: Any) -> "Predictor":
        """Load the model of a run, with the weights of its last checkpoint.

        The device is the one that this machine has, whatever the run was trained on.

        Args:
            run: the folder of a run, or a checkpoint in it.
            keywords: ``device``, ``confidence``, ``options``, ``imports``, ``batch_size``; see
                :class:`Predictor`.

        Raises:
            UserError: the folder is not that of a run, or has no checkpoint.
        """
        return cls("", run, **keywords)

    @overload
    def __call__(self, image: Picture, *, size: tuple[int, int] | None = None) -> Prediction: ...

    @overload
    def __call__(self, image: Pictures) -> list[Prediction]: ...

    def __call__(
        self, image: Picture | Pictures, *, size: tuple[int, int] | None = None
    ) -> Prediction | list[Prediction]:
        """Return the prediction for an image, or a list of predictions for a list of images.

        Args:
            image: RGB of shape (H, W, 3), uint8, or the path of an image file, which is read as in
                training. A model that takes clips needs an array (T, H, W, 3). A list gives a list,
                in the same order; neighbors of the same size run in one batch.
            size: height and width of the prediction in pixels; by default those of the image. It
                is for single images.

        Raises:
            UserError: an image has another type or shape, or cannot be read. In a list, types,
                shapes and paths are checked before the first prediction.

        Example:
            >>> predictor(np.zeros((480, 640, 3), np.uint8))  # doctest: +SKIP
            >>> predictor(["a.jpg", "b.jpg"])  # doctest: +SKIP
        """
        if isinstance(image, list | tuple):
            if size is not None:
                raise UserError("size is for single images; call the predictor once for each image")
            return list(self.stream(image))
        return self._predict([self.read(image)], size)[0]

    def stream(self, images: Sequence[Picture]) -> Iterator[Prediction]:
        """Yield the prediction for each image, in order, so that few are in memory at a time.

        Args:
            images: see :meth:`__call__`.

        Raises:
            UserError: see :meth:`__call__`.
        """
        for image in images:
            self._check(image)
        pixels = (self.read(image) for image in images)
        for _, neighbors in itertools.groupby(pixels, key=np.shape):
            while batch := list(itertools.islice(neighbors, self.batch_size)):
                yield from self._predict(batch)

    def annotate_folder(
        self, folder: str | Path, output: str | Path, *, overwrite: bool = False
    ) -> Path:
        """Write predictions for a folder of images without annotations to a COCO JSON file.

        The file can be reviewed in an annotation tool, and read by :func:`ccsa.data.read_folder`
        and ``--data FILE.json --images FOLDER``. Its annotations also have a ``score``.

        Args:
            folder: images, also in folders below it.
            output: the JSON file.
            overwrite: replace the file if it exists.

        Returns:
            The path of the file.

        Raises:
            UserError: the folder has no images, or the file exists or cannot be written; found
                before the first prediction. Or images cannot be read; the file has been written
                with the others.

        Example:
            >>> predictor.annotate_folder("photos", "photos.json")  # doctest: +SKIP
        """
        return annotate_folder(self, Path(folder), Path(output), overwrite=overwrite)

    def prepare(self, image: Picture) -> dict[str, Any]:
        """Return the input of :attr:`model` for one image, in Detectron2's format, for example for
        ``ccsa.analysis.attention_maps(predictor.model, [predictor.prepare(image)])``.

        Args:
            image: see :meth:`__call__`.
        """
        return self._runner.prepare(self.read(image))

    def _predict(
        self, images: Sequence[np.ndarray], size: tuple[int, int] | None = None
    ) -> list[Prediction]:
        outputs = self._runner.run([self._runner.prepare(image, size) for image in images])
        found = []
        for image, output in zip(images, outputs, strict=True):
            frame = image if self.clip is None else image[self.clip.labelled]
            shape = size or (frame.shape[0], frame.shape[1])
            found.append(Prediction(frame, shape, output, self._names, self._metadata, self._ids))
        return found

    def read(self, image: Picture) -> np.ndarray:
        """Return the pixels of an image file as the model is given them: RGB of shape (H, W, 3),
        uint8. An array is returned unchanged.

        Raises:
            UserError: see :meth:`__call__`.
        """
        self._check(image)
        if isinstance(image, np.ndarray):
            return image
        return read_image(image, intensity_range=self._intensities)

    def read_clip(self, files: Sequence[str | Path]) -> np.ndarray:
        """Return the pixels of image files that are the frames of a clip, in order of time, as the
        model is given them: RGB of shape (T, H, W, 3), uint8.

        Raises:
            UserError: the model does not take clips of that many frames, a file cannot be read, or
                the frames have different sizes.
        """
        wanted = self.clip.frames if self.clip else 0
        if len(files) != wanted:
            takes = f"clips of {wanted} frames" if wanted else "single images"
            raise UserError(
                f"the model takes {takes} and was given a clip of {len(files)}; name as many files"
            )
        frames = [read_image(file, intensity_range=self._intensities) for file in files]
        for file, frame in zip(files, frames, strict=True):
            if frame.shape != frames[0].shape:
                height, width = frame.shape[:2]
                raise UserError(
                    f"{file} has {width} x {height} pixels, and {files[0]} has "
                    f"{frames[0].shape[1]} x {frames[0].shape[0]}; the frames of a clip need the "
                    "same size"
                )
        return np.stack(frames)

    def _check(self, image: Picture) -> None:
        """Check the type and shape of an image, or that its file exists.

        Raises:
            UserError: it cannot be predicted.
        """
        frames = self.clip.frames if self.clip else 0
        if isinstance(image, str | Path):
            if frames:
                raise UserError(
                    f"the model takes clips of {frames} frames, and {image} is one image; pass a "
                    f"uint8 array of shape ({frames}, H, W, 3)"
                )
            if not is_file(Path(image)):
                raise UserError(
                    f"image {image} is not a file that exists; pass the path of an image, or a "
                    "uint8 array of shape (H, W, 3)"
                )
            return
        expected = f"({frames}, H, W, 3)" if frames else "(H, W, 3)"
        if not isinstance(image, np.ndarray):
            raise UserError(
                f"an image must be a uint8 array of shape {expected}, RGB, or a path, not "
                f"{shown(image)}; convert it by numpy.asarray"
            )
        leading = (frames,) if frames else ()
        fits = image.ndim == 3 + len(leading) and image.shape[: len(leading)] == leading
        if image.dtype != np.uint8 or not fits or image.shape[-1] != 3 or not image.size:
            raise UserError(
                f"an image must be a uint8 array of shape {expected}, RGB, not {image.dtype} of "
                f"shape {image.shape}; convert it, or pass the path of the file"
            )
