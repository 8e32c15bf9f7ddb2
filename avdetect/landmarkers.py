"""Two families of mediapipe face models behind one seam: find faces in a picture, place a mesh on one face.

`WheelModels` are those inside mediapipe 0.10.21's wheel: the full-range BlazeFace detector and the 478-point
attention mesh. `TaskModels` go through mediapipe's Tasks API with a `face_landmarker.task` bundle that the
user names. Both are used without memory of earlier frames: whoever follows a face says where to look, so
landmarks are never smoothed over time and lips move as they moved. mediapipe and OpenCV are imported with
errors that name the remedy.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from avdetect.errors import MissingDependencyError, ModelError
from avdetect.later import deferred
from avdetect.types import Bytes, Floats

MIN_CONFIDENCE = 0.6
"""Below it a detection is not a face (what mediapipe's own full-range solution asks for, whatever it is told)."""
SYSTEM_LIBRARIES = (
    "apt-get install libgl1 libglib2.0-0 (Debian, Ubuntu) or dnf install mesa-libGL glib2 (Fedora)"
)
UNUSED = (
    "matplotlib",
    "matplotlib.pyplot",
    *(
        f"mediapipe.python.solutions.{name}"
        for name in (
            "drawing_styles",
            "drawing_utils",
            "face_mesh",
            "hands",
            "holistic",
            "pose",
            "selfie_segmentation",
        )
    ),
    "mediapipe.tasks",
    "mediapipe.tasks.python",
)
"""What `import mediapipe` brings with it and finding faces has no need of: a third of the time to a first face."""


def load(name: str) -> ModuleType:
    """Import `name`; MissingDependencyError with the remedy where it or its system library is missing."""
    try:
        with deferred(*UNUSED) if name == "mediapipe" else contextlib.nullcontext():
            return importlib.import_module(name)
    except ImportError as error:
        if ".so" in str(error):
            library = str(error).split(":")[0]
            message = f"{name} needs {library}, which this machine lacks: {SYSTEM_LIBRARIES}"
            raise MissingDependencyError(message) from error
        message = (
            f'{name} cannot be imported ({error}): pip install "mediapipe==0.10.21" opencv-contrib-python'
        )
        raise MissingDependencyError(message) from error


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what C++ writes to file descriptor 2 off the terminal: mediapipe's notes obey no setting."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    try:
        sys.stderr.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@dataclass(frozen=True)
class Region:
    """A square around a face: centre `x`, `y`, side `size` in pixels; turned clockwise by `angle` radians."""

    x: float
    y: float
    size: float
    angle: float = 0.0

    @property
    def box(self) -> Floats:
        """[4] left, top, right, bottom of the square as if it stood straight."""
        half = self.size / 2
        return np.array([self.x - half, self.y - half, self.x + half, self.y + half], np.float32)

    def grown(self, factor: float) -> Region:
        """The same centre, `factor` times the side."""
        return replace(self, size=self.size * factor)

    def matrix(self, side: int) -> NDArray[np.float64]:
        """[2, 3] similarity that takes image pixels to those of a crop of side `side`, the face upright."""
        c, s = side / self.size * math.cos(self.angle), side / self.size * math.sin(self.angle)
        half = side / 2
        return np.array([[c, s, half - c * self.x - s * self.y], [-s, c, half + s * self.x - c * self.y]])


class Models(Protocol):
    """What a family of models does. Images are contiguous RGB [H, W, 3]; not for two threads at once.

    `view_side`: longest side of a picture that the detector gains from. `crop_side` and `crop_margin`: the
    mesh wants a square crop of that many pixels, that many times the face's longer side.
    """

    view_side: int
    crop_side: int
    crop_margin: float

    def detect(self, view: Bytes) -> list[Region]:
        """Squares that just hold the faces in `view`, in its pixels."""

    def mesh(self, crop: Bytes) -> Floats | None:
        """Landmarks [478, 3] of the face that fills `crop`, as shares of its side; None without one."""

    def close(self) -> None:
        """Free the models."""


def _points(landmarks: Any) -> Floats:
    return np.array([(point.x, point.y, point.z) for point in landmarks], np.float32)


_WIRE = np.dtype({"names": ["x", "y", "z"], "formats": ["<f4"] * 3, "offsets": [3, 8, 13], "itemsize": 17})
"""A landmark as protobuf writes it: two bytes that one follows, and before each number one that says which it is."""


def _points_of(message: Any) -> Floats:
    """Of a list of landmarks; read from its bytes: to ask for the numbers one by one takes half a millisecond."""
    wire = message.SerializeToString()
    if len(wire) != _WIRE.itemsize * len(message.landmark):  # visibility or presence stand beside the numbers
        return _points(message.landmark)
    read = np.frombuffer(wire, _WIRE)
    return np.stack([read["x"], read["y"], read["z"]], 1)


def _tilt(right_eye: tuple[float, float], left_eye: tuple[float, float]) -> float:
    """Angle of the line between the eyes, radians, clockwise as seen in the picture."""
    return math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])


class _Graph:
    """A mediapipe graph that makes one thing of a picture; its `SolutionBase` also makes a class for each result.

    `config`: the graph, with streams "image" and `output`. `start`: the packets that it starts with.
    """

    def __init__(self, mediapipe: Any, config: str, output: str, start: Mapping[str, Any]) -> None:
        self._make = mediapipe.packet_creator
        self._format = mediapipe.ImageFormat.SRGB
        self._time = 0
        self._packet: Any = None
        self._graph: Any = mediapipe.CalculatorGraph(graph_config=_ONE_THREAD + config)
        self._graph.observe_output_stream(output, self._keep, True)
        self._graph.start_run(dict(start))

    def _keep(self, _: str, packet: Any) -> None:
        self._packet = packet

    def __call__(self, image: Bytes) -> Any:
        """The packet that comes of a picture [H, W, 3]; None where none does."""
        self._time += 1
        self._packet = None
        picture = self._make.create_image_frame(image, image_format=self._format)
        self._graph.add_packet_to_input_stream("image", picture.at(self._time))
        self._graph.wait_until_idle()
        found = self._packet
        return None if found is None or found.is_empty() else found

    def close(self) -> None:
        """Frees the models."""
        self._graph.close()
        self._graph = self._packet = (
            None  # it holds `_keep`, and so this, where no garbage collection sees it
        )


_ONE_THREAD = "num_threads: 1\n"
"""One step follows the other; handed from thread to thread they take a tenth more."""
_DETECTION_GRAPH = f"""
input_stream: "image"
output_stream: "detections"
node {{
  calculator: "FaceDetectionFullRangeCpu"
  input_stream: "IMAGE:image"
  output_stream: "DETECTIONS:detections"
  options {{ [mediapipe.FaceDetectionOptions.ext] {{ min_score_thresh: {MIN_CONFIDENCE} }} }}
}}
"""
_MESH_GRAPH = """
input_stream: "image"
input_side_packet: "with_attention"
output_stream: "landmarks"
node {
  calculator: "TensorConverterCalculator"
  input_stream: "IMAGE:image"
  output_stream: "TENSORS:pixels"
  options { [mediapipe.TensorConverterCalculatorOptions.ext] { zero_center: false } }
}
node {
  calculator: "FaceLandmarksModelLoader"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_side_packet: "MODEL:model"
}
node { calculator: "TfLiteCustomOpResolverCalculator" output_side_packet: "OP_RESOLVER:operations" }
node {
  calculator: "InferenceCalculatorCpu"
  input_side_packet: "MODEL:model"
  input_side_packet: "OP_RESOLVER:operations"
  input_stream: "TENSORS:pixels"
  output_stream: "TENSORS:results"
  options { [mediapipe.InferenceCalculatorOptions.ext] { delegate { xnnpack { } } } }
}
node {
  calculator: "SplitTensorVectorCalculator"
  input_stream: "results"
  output_stream: "points"
  output_stream: "presence"
  options {
    [mediapipe.SplitVectorCalculatorOptions.ext] { ranges { begin: 0 end: 6 } ranges { begin: 6 end: 7 } }
  }
}
node {
  calculator: "TensorsToFloatsCalculator"
  input_stream: "TENSORS:presence"
  output_stream: "FLOAT:chance"
  options { [mediapipe.TensorsToFloatsCalculatorOptions.ext] { activation: SIGMOID } }
}
node {
  calculator: "ThresholdingCalculator"
  input_stream: "FLOAT:chance"
  output_stream: "FLAG:present"
  options { [mediapipe.ThresholdingCalculatorOptions.ext] { threshold: 0.5 } }
}
node {
  calculator: "GateCalculator"
  input_stream: "points"
  input_stream: "ALLOW:present"
  output_stream: "points_of_a_face"
}
node {
  calculator: "TensorsToFaceLandmarksWithAttention"
  input_stream: "TENSORS:points_of_a_face"
  output_stream: "LANDMARKS:landmarks"
}
"""
"""The mesh of a crop of the size that the network takes. mediapipe's `FaceLandmarkCpu` makes the same of it, but turns
each crop by nothing first and brings the points back, and its `FaceMesh` would search for a face, and remember it."""


_MESH = "modules/face_landmark/face_landmark_with_attention.tflite"


class WheelModels:
    """The full-range detector and the attention mesh that mediapipe 0.10.21's wheel carries."""

    view_side = 192
    crop_side = 192
    crop_margin = 1.5

    def __init__(self) -> None:
        mediapipe: Any = load("mediapipe")
        home = Path(mediapipe.__file__).parent
        if not (home / _MESH).is_file():
            raise MissingDependencyError(
                f"mediapipe {mediapipe.__version__} carries no face models: name a face_landmarker.task, "
                'or pip install "mediapipe==0.10.21"'
            )
        self._get = mediapipe.packet_getter
        with silence():
            mediapipe.resource_util.set_resource_dir(str(home.parent))
            self._detector = _Graph(mediapipe, _DETECTION_GRAPH, "detections", {})
            start = {"with_attention": mediapipe.packet_creator.create_bool(True)}
            self._mesh = _Graph(mediapipe, _MESH_GRAPH, "landmarks", start)
            self._noisy = True
            blank = np.zeros((self.crop_side, self.crop_side, 3), np.uint8)
            self.detect(
                blank
            )  # models load, and make their notes, in threads of their own until the first result
            self.mesh(blank)

    def detect(self, view: Bytes) -> list[Region]:
        """See `Models`."""
        height, width = view.shape[:2]
        found = self._detector(view)
        detections = [] if found is None else self._get.get_proto_list(found)
        return [self._region(detection.location_data, width, height) for detection in detections]

    @staticmethod
    def _region(location: Any, width: int, height: int) -> Region:
        box, eyes = location.relative_bounding_box, location.relative_keypoints
        angle = _tilt(*((eye.x * width, eye.y * height) for eye in eyes[:2]))
        x, y = (box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height
        return Region(x, y, max(box.width * width, box.height * height), angle)

    def mesh(self, crop: Bytes) -> Floats | None:
        """See `Models`."""
        with silence() if self._noisy else contextlib.nullcontext():  # one more note beside the first face
            found = self._mesh(crop)
        self._noisy = self._noisy and found is None
        return None if found is None else _points_of(self._get.get_proto(found))

    def close(self) -> None:
        """See `Models`."""
        self._detector.close()
        self._mesh.close()


class TaskModels:
    """A `face_landmarker.task` bundle through mediapipe's Tasks API (any mediapipe from 0.10.21 on).

    The bundle's own detector is a short-range one: it finds small faces less well than the wheel's.
    """

    view_side = 256
    crop_side = 256
    crop_margin = 2.0  # the bundle looks for the face inside the crop first, and wants some room around it

    def __init__(self, bundle: Path, max_faces: int) -> None:
        if not bundle.is_file():
            raise ModelError(f"{bundle}: no such file; name a mediapipe face_landmarker.task bundle")
        self._mediapipe = load("mediapipe")
        vision = load("mediapipe.tasks.python.vision")
        with silence():
            try:
                self._one, self._many = (self._open(vision, bundle, faces) for faces in (1, max_faces))
            except (RuntimeError, ValueError) as error:
                raise ModelError(f"{bundle}: not a mediapipe face_landmarker.task bundle") from error
            self._find(self._one, np.zeros((self.crop_side, self.crop_side, 3), np.uint8))
            self._find(self._many, np.zeros((self.crop_side, self.crop_side, 3), np.uint8))

    @staticmethod
    def _open(vision: ModuleType, bundle: Path, faces: int) -> Any:
        base = load("mediapipe.tasks.python").BaseOptions(model_asset_path=str(bundle))
        options = vision.FaceLandmarkerOptions(base, vision.RunningMode.IMAGE, num_faces=faces)
        return vision.FaceLandmarker.create_from_options(options)

    def _find(self, landmarker: Any, image: Bytes) -> list[Floats]:
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=image)
        return [_points(face) for face in landmarker.detect(picture).face_landmarks]

    def detect(self, view: Bytes) -> list[Region]:
        """See `Models`."""
        height, width = view.shape[:2]
        return [self._region(points[:, :2] * (width, height)) for points in self._find(self._many, view)]

    @staticmethod
    def _region(points: Floats) -> Region:
        low, high = points.min(0), points.max(0)
        (x, y), size = (low + high) / 2, (high - low).max()
        return Region(float(x), float(y), float(size), _tilt(*points[[33, 263]].tolist()))

    def mesh(self, crop: Bytes) -> Floats | None:
        """See `Models`."""
        found = self._find(self._one, crop)
        return found[0] if found else None

    def close(self) -> None:
        """See `Models`."""
        self._one.close()
        self._many.close()
