from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray

from avdetect import faces, landmarkers
from avdetect.errors import MissingDependencyError, ModelError
from avdetect.faces import FaceFinder, box_of, crop_face, crop_mouth, head_pose, overlap, views
from avdetect.landmarkers import Region
from avdetect.later import deferred
from avdetect.types import Floats

cv2: Any = importlib.import_module("cv2")  # its stubs know too little of arrays

Image = NDArray[np.uint8]
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""A public-domain photograph that comes with matplotlib: one face, 191 px wide, looking at the camera."""
EYES = ((221.0, 191.0), (305.0, 188.0))
"""Where its pupils are, read off under a magnifier."""


@pytest.fixture(scope="module")
def portrait() -> Image:
    picture = cv2.imread(str(PORTRAIT))
    assert picture is not None, PORTRAIT
    return np.ascontiguousarray(picture[:, :, ::-1])


@pytest.fixture(scope="module")
def bundle(shared_dir: Path) -> Path:
    path = shared_dir / "weights" / "mediapipe" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip(f"no face_landmarker.task at {path}")
    return path


@pytest.fixture(scope="module", params=["wheel", "task"])
def finder(request: pytest.FixtureRequest) -> Iterator[FaceFinder]:
    task = request.getfixturevalue("bundle") if request.param == "task" else None
    with FaceFinder(task) as made:
        yield made


@pytest.fixture(scope="module")
def wheel() -> Iterator[FaceFinder]:
    with FaceFinder() as made:
        yield made


@pytest.fixture(scope="module")
def mesh(wheel: FaceFinder, portrait: Image) -> Floats:
    return wheel.find(portrait)[0]


def pasted(portrait: Image, scale: float, at: tuple[int, int], size: tuple[int, int]) -> Image:
    """A grey canvas `size` (width, height) with the portrait, `scale` times its size, at `at`."""
    canvas = np.full((size[1], size[0], 3), 120, np.uint8)
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas[at[1] : at[1] + small.shape[0], at[0] : at[0] + small.shape[1]] = small
    return canvas


def eyes(mesh: Floats) -> NDArray[np.float32]:
    return np.stack([mesh[list(corners), :2].mean(0) for corners in faces.EYE_CORNERS])


def test_landmarks_lie_on_the_face(finder: FaceFinder, portrait: Image) -> None:
    (mesh,) = finder.find(portrait)
    assert mesh.shape == (478, 3) and mesh.dtype == np.float32
    assert np.abs(eyes(mesh) - EYES).max() < 5
    left, _, right, bottom = box_of(mesh)
    assert 160 < right - left < 220 and mesh[152, 1] == pytest.approx(bottom, abs=5)  # 152: the chin


def test_both_families_agree(wheel: FaceFinder, portrait: Image, bundle: Path) -> None:
    with FaceFinder(bundle) as task:
        (ours,), (theirs,) = wheel.find(portrait), task.find(portrait)
    assert np.linalg.norm(ours[:, :2] - theirs[:, :2], axis=1).mean() < 0.03 * np.ptp(ours[:, 0])


def test_follow_comes_back_to_the_face_from_beside_it(finder: FaceFinder, portrait: Image) -> None:
    (mesh,) = finder.find(portrait)
    followed = finder.follow(portrait, mesh + np.array((25, 15, 0), np.float32))
    assert followed is not None and np.abs(eyes(followed) - eyes(mesh)).max() < 6


def test_follow_tells_an_empty_place(finder: FaceFinder, mesh: Floats) -> None:
    assert finder.follow(np.full((600, 512, 3), 120, np.uint8), mesh) is None


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (720, 1280)])
def test_small_faces_in_large_frames(
    wheel: FaceFinder, portrait: Image, mesh: Floats, size: tuple[int, int]
) -> None:
    scale, at = 60 / 191, (size[0] - 200, size[1] - 300)
    (found,) = wheel.find(pasted(portrait, scale, at, size))
    assert np.abs(eyes(found) - (eyes(mesh) * scale + at)).max() < 4


def test_a_huge_frame_answers_in_its_own_pixels(wheel: FaceFinder, portrait: Image, mesh: Floats) -> None:
    huge = np.zeros((8000, 8000, 3), np.uint8)
    huge[200:6200, 1500:6620] = cv2.resize(portrait, None, fx=10, fy=10)
    (found,) = wheel.find(huge)
    assert np.abs(eyes(found) - (eyes(mesh) * 10 + (1500, 200))).max() < 40


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (3, 700), (2, 5000), (2000, 20), (240, 320)])
def test_frames_without_a_face(finder: FaceFinder, shape: tuple[int, int]) -> None:
    assert finder.find(np.full((*shape, 3), 128, np.uint8)) == []


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 93])
@pytest.mark.parametrize("shape", [(720, 1280), (96, 97), (5, 200), (1, 1)])
def test_sparse_pixels_are_those_of_a_slice(shape: tuple[int, int], step: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(faces.sparse(image, step), image[::step, ::step])


@pytest.mark.parametrize("shape", [(720, 1280), (1080, 1080), (2160, 3840)])
def test_looks_at_parts_of_large_frames_keep_their_proportions(shape: tuple[int, int]) -> None:
    """Each shows what a slice of the part shows, borders included."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = shape
    for left, top, right, bottom in faces.views(width, height):
        view, scale = faces._look(image, (left, top, right, bottom), 192)
        size = (round((bottom - top) * scale), round((right - left) * scale))
        assert np.abs(np.subtract(view.shape[:2], size)).max() <= 1
        part = image[max(top, 0) : bottom, max(left, 0) : right]
        coarse = max(1, int(0.5 / scale))
        sparse = np.ascontiguousarray(part[coarse // 2 :: coarse, coarse // 2 :: coarse])
        inside = (round(part.shape[1] * scale), round(part.shape[0] * scale))
        plain = cv2.resize(sparse, inside, interpolation=cv2.INTER_AREA)
        row, column = (round(max(-start, 0) * scale) for start in (top, left))
        found = view[row : row + inside[1], column : column + inside[0]]
        np.testing.assert_array_equal(found, plain)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_finder_that_is_closed_leaves_nothing_behind() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    FaceFinder().close()
    before = threads()
    for _ in range(3):
        FaceFinder().close()
    assert threads() <= before


def test_grey_and_strided_images(finder: FaceFinder, portrait: Image) -> None:
    grey = np.repeat(portrait.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    mirrored = portrait[:, ::-1]  # not contiguous, as a decoder's frames may be
    assert len(finder.find(grey)) == 1
    assert eyes(finder.find(mirrored)[0])[0, 0] == pytest.approx(512 - EYES[1][0], abs=8)


def test_a_crowd_gives_its_largest_faces(wheel: FaceFinder, portrait: Image) -> None:
    face = portrait[80:400, 120:408]
    crowd = np.zeros((720, 1280, 3), np.uint8)
    for index in range(40):
        row, column = divmod(index, 8)
        height = 140 if row == 2 else 90
        small = cv2.resize(face, (height * 9 // 10, height), interpolation=cv2.INTER_AREA)
        crowd[row * 144 : row * 144 + height, column * 160 : column * 160 + small.shape[1]] = small
    assert len(wheel.detect(crowd)) >= 30
    found = wheel.find(crowd)
    assert len(found) == wheel.max_faces == 8
    assert all(288 < mesh[:, 1].mean() < 432 for mesh in found)


def test_views_cover_the_frame() -> None:
    for width, height in [(16, 16), (640, 360), (1280, 720), (1080, 1920), (8000, 8000)]:
        whole, wide, *tiles = views(width, height)
        assert whole == (0, 0, width, height) and len(tiles) <= 8
        assert wide[0] <= 0 and wide[2] >= width
        seen = np.zeros((height, width), bool)
        for left, top, right, bottom in tiles or [whole]:
            seen[top:bottom, left:right] = True
        assert seen.all()


def test_overlap_is_a_share_of_the_smaller_box() -> None:
    big, inside, beside = (np.array(box, np.float32) for box in ([0, 0, 8, 8], [2, 2, 4, 4], [7, 0, 9, 2]))
    assert overlap(big, inside) == 1.0
    assert overlap(big, beside) == 0.5
    assert overlap(inside, beside) == 0.0


@pytest.mark.parametrize("degrees", [0, 35, -50])
def test_face_crops_are_upright(wheel: FaceFinder, portrait: Image, degrees: float) -> None:
    turn = cv2.getRotationMatrix2D((256, 250), -degrees, 0.8)
    turned = cv2.warpAffine(portrait, turn, (512, 600), borderMode=cv2.BORDER_REPLICATE)
    (mesh,) = wheel.find(turned)
    crop, points = crop_face(turned, mesh)
    assert crop.shape == (224, 224, 3) and crop.dtype == np.uint8 and points.shape == (478, 2)
    (right, left) = (points[list(corners)].mean(0) for corners in faces.EYE_CORNERS)
    assert abs(math.degrees(math.atan2(left[1] - right[1], left[0] - right[0]))) < 0.5
    assert (
        points.min() > 10
        and points.max() < 214
        and np.ptp(points, axis=0).max() == pytest.approx(224 / 1.3, abs=1)
    )
    assert head_pose(mesh)[2] == pytest.approx(degrees, abs=6)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0, 9.0])
def test_crop_landmarks_point_at_the_same_thing(mesh: Floats, scale: float) -> None:
    scaled = mesh * np.float32(scale)
    image = np.zeros((round(600 * scale), round(512 * scale), 3), np.uint8)
    nose = scaled[1, :2]
    cv2.circle(
        image,
        (round(float(nose[0]) - 0.5), round(float(nose[1]) - 0.5)),
        max(1, round(3 * scale)),
        (255,) * 3,
        -1,
    )
    crop, points = crop_face(image, scaled)
    rows, columns = np.nonzero(crop[:, :, 0] > 100)
    assert np.abs(points[1] - (columns.mean() + 0.5, rows.mean() + 0.5)).max() < 1.0


def test_shrinking_averages(mesh: Floats) -> None:
    board = (np.indices((2400, 2048)).sum(0) % 2 * 255).astype(np.uint8)
    crop, _ = crop_face(np.repeat(board[:, :, None], 3, axis=2), mesh * np.float32(4))
    assert crop[20:-20, 20:-20].std() < 3 and crop.mean() == pytest.approx(127.5, abs=2)


def test_a_crop_beyond_the_image_repeats_its_border(mesh: Floats) -> None:
    crop, _ = crop_face(np.full((300, 300, 3), 200, np.uint8), mesh - np.array((400, 400, 0), np.float32))
    assert (crop == 200).all()


def test_mouth_crops_are_placed_by_the_skull(portrait: Image, mesh: Floats) -> None:
    crop = crop_mouth(portrait, mesh)
    assert crop.shape == (64, 64) and crop.dtype == np.uint8
    moved = mesh.copy()
    lips = [0, 13, 14, 17, 61, 291, 152, 146, 375]
    moved[lips, 1] += 20
    assert (crop_mouth(portrait, moved) == crop).all()
    centre = (mesh[[61, 291, 13, 14], :2].mean(0),)
    marked = cv2.circle(
        portrait.copy(), tuple(np.round(centre[0]).astype(int).tolist()), 4, (255, 0, 255), -1
    )
    rows, columns = np.nonzero(np.abs(crop_mouth(marked, mesh).astype(int) - crop) > 30)
    assert abs(columns.mean() - 32) < 6 and abs(rows.mean() - 32) < 8


def test_mouth_crops_do_not_depend_on_the_head_s_place(portrait: Image, mesh: Floats) -> None:
    turn = cv2.getRotationMatrix2D((256, 250), 20, 0.9)
    turned = cv2.warpAffine(portrait, turn, (512, 600))
    points = np.column_stack([faces.place(mesh, turn), mesh[:, 2] * 0.9]).astype(np.float32)
    still, moved = crop_mouth(portrait, mesh), crop_mouth(turned, points)
    assert np.corrcoef(still.ravel(), moved.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    ("axis", "index", "sign"),
    [("yaw", 0, 1), ("yaw", 0, -1), ("pitch", 1, 1), ("pitch", 1, -1), ("roll", 2, 1)],
)
def test_head_pose_by_known_turns(mesh: Floats, axis: str, index: int, sign: int) -> None:
    c, s = math.cos(math.radians(30)), sign * math.sin(math.radians(30))
    turn = {
        "yaw": [[c, 0, -s], [0, 1, 0], [s, 0, c]],  # the left ear, at the image's right, goes back: z grows
        "pitch": [[1, 0, 0], [0, c, -s], [0, s, c]],  # the chin goes back
        "roll": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis]
    before, after = head_pose(mesh), head_pose((mesh @ np.array(turn).T).astype(np.float32))
    assert after[index] - before[index] == pytest.approx(30 * sign, abs=3)


def test_regions_map_their_centre_to_the_crops() -> None:
    matrix = Region(100, 50, 40, math.radians(30)).matrix(200)
    assert matrix @ [100, 50, 1] == pytest.approx([100, 100])
    corner = (100 + 20 * math.cos(math.radians(30)), 50 + 20 * math.sin(math.radians(30)))
    assert matrix @ [*corner, 1] == pytest.approx([200, 100])


@pytest.mark.parametrize("task", [False, True])
def test_nothing_of_mediapipe_s_reaches_the_terminal(task: bool, request: pytest.FixtureRequest) -> None:
    code = """
import sys, cv2
from pathlib import Path
from avdetect.faces import FaceFinder
with FaceFinder(*map(Path, sys.argv[2:])) as finder:
    print(len(finder.find(cv2.imread(sys.argv[1])[:, :, ::-1])))
print("still there", file=sys.stderr)
"""
    bundles = [str(request.getfixturevalue("bundle"))] if task else []
    command = [sys.executable, "-c", code, str(PORTRAIT), *bundles]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("1\n", "still there\n")


def test_what_finding_faces_has_no_need_of_is_imported_when_it_is_used() -> None:
    code = """
import sys
from avdetect.faces import FaceFinder
FaceFinder().close()
unused = ("matplotlib", "mediapipe.python.solutions.pose", "mediapipe.tasks.python")
print([name for name in unused if name in sys.modules])
import mediapipe
print(mediapipe.solutions.drawing_utils.plt.figure.__module__, mediapipe.tasks.BaseOptions.__name__)
from avdetect.landmarkers import load
print(load("mediapipe.tasks.python.vision").FaceLandmarker.__name__, sys.modules["matplotlib"].__file__ is not None)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:3] == ["[]", "matplotlib.pyplot BaseOptions", "FaceLandmarker True"]


def test_deferring_leaves_alone_what_is_there() -> None:
    wave = importlib.import_module("wave")
    del sys.modules["wave"]
    before = dict(sys.modules)
    with deferred("json", "wave", "wave.nowhere"):
        assert sys.modules["json"] is before["json"]
        late = importlib.import_module("wave.nowhere")
        with pytest.raises(AttributeError):
            _ = late.__wrapped__
    assert "wave.nowhere" not in sys.modules and sys.modules.get("wave") is before.get("wave")
    with pytest.raises(ModuleNotFoundError):
        _ = late.anything
    sys.modules["wave"] = wave
    with deferred("wave.nowhere"):
        pass
    assert not hasattr(wave, "nowhere")  # nothing in there imported it


def test_a_module_inside_a_deferred_one_is_found() -> None:
    code = """
import sys
from avdetect.later import defer
defer("xml", "xml.dom")
from xml.dom import minidom
print(minidom.__name__, type(sys.modules["xml.dom"]).__name__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "xml.dom.minidom module\n"


def failing_import(text: str) -> Any:
    def fail(name: str) -> ModuleType:
        raise ImportError(text)

    return fail


@pytest.mark.parametrize("library", ["libGL.so.1", "libgthread-2.0.so.0"])
def test_a_missing_system_library_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    text = f"{library}: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(importlib, "import_module", failing_import(text))
    with pytest.raises(MissingDependencyError) as caught:
        landmarkers.load("cv2")
    message = str(caught.value)
    assert (
        library in message and "apt-get install libgl1 libglib2.0-0" in message and "dnf install" in message
    )
    assert "\n" not in message


def test_a_missing_package_is_told_with_its_remedy() -> None:
    with pytest.raises(MissingDependencyError, match=r'nowhere.*pip install "mediapipe==0\.10\.21"'):
        landmarkers.load("nowhere")


def test_a_mediapipe_without_models_asks_for_the_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = SimpleNamespace(__version__="1.2.2", __file__=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(landmarkers, "load", lambda name: bare)
    with pytest.raises(MissingDependencyError, match=r"mediapipe 1\.2\.2 .*face_landmarker\.task"):
        FaceFinder()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.task: no such file"):
        FaceFinder(tmp_path / "none.task")
    (tmp_path / "text.task").write_text("not a bundle")
    with pytest.raises(ModelError, match=r"text\.task: not a mediapipe face_landmarker\.task"):
        FaceFinder(tmp_path / "text.task")
