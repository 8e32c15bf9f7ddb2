from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray

from avdetect import tracks
from avdetect.faces import Box, FaceFinder, region_of
from avdetect.landmarkers import Region
from avdetect.tracks import FaceTracker, Samples, SceneCuts, flatness, grey_face, sharpness, shots
from avdetect.types import Face, Floats, Frame, TrackSummary

cv2: Any = importlib.import_module("cv2")  # its stubs know too little of arrays

Image = NDArray[np.uint8]
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""A public-domain photograph that comes with matplotlib: one face, 191 px wide, looking at the camera."""


def scenery(seed: int = 0, size: tuple[int, int] = (640, 480)) -> Image:
    """A smooth picture of nothing."""
    rough = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(rough, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def drawn_face(index: int = 0) -> Image:
    """A cartoon of a talking face in plain colours."""
    image = np.full((480, 480, 3), (250, 220, 180), np.uint8)
    cv2.circle(image, (240, 240), 150, (255, 200, 150), -1)
    cv2.circle(image, (240, 240), 150, (0, 0, 0), 3)
    for x in (185, 295):
        cv2.ellipse(image, (x, 200), (28, 36), 0, 0, 360, (255, 255, 255), -1)
        cv2.circle(image, (x, 205), 12, (20, 20, 60), -1)
    cv2.ellipse(image, (240, 310), (55, 4 + index % 18), 0, 0, 360, (180, 30, 30), -1)
    cv2.line(image, (240, 230), (232, 268), (120, 60, 40), 4)
    return image


@pytest.fixture(scope="module")
def finder() -> Iterator[FaceFinder]:
    with FaceFinder() as made:
        yield made


@pytest.fixture(scope="module")
def task_finder(shared_dir: Path) -> Iterator[FaceFinder]:
    bundle = shared_dir / "weights" / "mediapipe" / "face_landmarker.task"
    if not bundle.is_file():
        pytest.skip(f"no face_landmarker.task at {bundle}")
    with FaceFinder(bundle) as made:
        yield made


@pytest.fixture(scope="module")
def head() -> Image:
    picture = cv2.imread(str(PORTRAIT))
    assert picture is not None, PORTRAIT
    return np.ascontiguousarray(picture[60:420, 100:420, ::-1])


@pytest.fixture(scope="module")
def mesh(finder: FaceFinder, head: Image) -> Floats:
    return finder.find(head)[0]


def paste(canvas: Image, head: Image, x: int, y: int, width: int) -> Image:
    """The canvas with the head, its face about `width` px wide, at x, y."""
    scale = width / 191
    small = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = canvas.copy()
    canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
    return canvas


def run(
    finder: FaceFinder, images: Sequence[Image]
) -> tuple[list[list[Face]], list[TrackSummary], FaceTracker]:
    tracker = FaceTracker(finder)
    frames = (Frame(index, index / 25, image) for index, image in enumerate(images))
    faces = [tracker.update(frame, cut) for frame, cut in shots(frames)]
    return faces, tracker.finish(), tracker


@pytest.mark.parametrize("task", [False, True])
def test_a_moving_face_is_one_track(
    finder: FaceFinder, head: Image, task: bool, request: pytest.FixtureRequest
) -> None:
    finder = request.getfixturevalue("task_finder") if task else finder
    images = [paste(scenery(), head, 40 + 8 * index, 60 + 2 * index, 90) for index in range(40)]
    faces, (summary,), tracker = run(finder, images)
    assert all([face.track for face in frame] == [0] for frame in faces)
    shift = faces[-1][0].landmarks.mean(0) - faces[0][0].landmarks.mean(0)
    assert shift[:2] == pytest.approx([8 * 39, 2 * 39], abs=3)
    assert [summary.start, summary.end] == pytest.approx([0.0, 1.6])
    assert summary.assessable and summary.found == 1.0
    assert summary.size == pytest.approx(90, abs=10) and summary.yaw < 10
    assert summary.thumbnail is not None and summary.thumbnail.shape == (96, 96, 3)
    assert tracker.warnings == ()


def test_two_faces_keep_their_ids(finder: FaceFinder, head: Image) -> None:
    images = [
        paste(paste(scenery(), head, 30 + 2 * index, 40, 100), head[:, ::-1], 420 - 2 * index, 220, 70)
        for index in range(30)
    ]
    faces, summaries, _ = run(finder, images)
    assert [summary.id for summary in summaries] == [0, 1]
    assert all([face.track for face in frame] == [0, 1] for frame in faces)
    assert all(frame[0].box[0] < frame[1].box[0] or index > 40 for index, frame in enumerate(faces))
    assert summaries[0].size > summaries[1].size


@pytest.mark.parametrize(("gap", "ids"), [(6, [0]), (20, [0, 1])])
def test_a_face_that_is_gone_briefly_keeps_its_track(
    finder: FaceFinder, head: Image, gap: int, ids: list[int]
) -> None:
    shown, empty = paste(scenery(), head, 200, 100, 60), scenery()
    _, summaries, _ = run(finder, [shown] * 20 + [empty] * gap + [shown] * 20)
    assert [summary.id for summary in summaries] == ids
    if gap == 6:
        assert 38 / 46 <= summaries[0].found <= 40 / 46
    else:
        assert summaries[0].end == pytest.approx(0.8) and summaries[1].start >= 40 / 25


def test_a_cut_begins_a_new_track_of_the_same_face_in_the_same_place(finder: FaceFinder, head: Image) -> None:
    shots = [paste(scenery(seed), head, 200, 100, 80) for seed in (1, 2)]
    faces, summaries, _ = run(finder, [shots[0]] * 15 + [shots[1]] * 15)
    assert [frame[0].track for frame in faces] == [0] * 15 + [1] * 15
    bounds = [time for summary in summaries for time in (summary.start, summary.end)]
    assert bounds == pytest.approx([0.0, 0.6, 0.6, 1.2])


def flashed(image: Image, light: int) -> Image:
    return np.clip(image.astype(int) + light, 0, 255).astype(np.uint8)


def test_light_and_motion_are_no_cuts() -> None:
    base = (scenery(3, (1280, 480)) * 0.5 + 50).astype(np.uint8)
    pan = [base[:, 6 * index : 6 * index + 640] for index in range(40)]
    flash = [flashed(pan[-1], 70 if index == 5 else 0) for index in range(10)]
    cuts = SceneCuts()
    assert [cuts.update(image) for image in pan + flash] == [False] * 50
    assert cuts.update(scenery(4)) is True


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (720, 1280)])
def test_cuts_in_any_size(size: tuple[int, int]) -> None:
    cuts = SceneCuts()
    assert not any(cuts.update(np.zeros((*size, 3), np.uint8)) for _ in range(3))


def test_a_brief_false_face_is_dropped(finder: FaceFinder, head: Image) -> None:
    shown, empty = paste(scenery(), head, 200, 100, 60), scenery()
    _, summaries, _ = run(finder, [empty] * 8 + [shown] * 4 + [empty] * 20)
    assert summaries == []


def small(head: Image) -> list[Image]:
    return [paste(scenery(), head, 200, 100, 30)] * 20


def blurred(head: Image) -> list[Image]:
    return [cv2.GaussianBlur(paste(scenery(), head, 200, 100, 120), (0, 0), 4.5)] * 20


def brief(head: Image) -> list[Image]:
    return [paste(scenery(), head, 200, 100, 80)] * 8 + [scenery()] * 20


def one_frame(head: Image) -> list[Image]:
    return [paste(scenery(), head, 200, 100, 80)]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (small, r"face is [23]\d px wide; at least 40 px are needed"),
        (blurred, r"face is too blurred \(sharpness \d+; at least 15 is needed\)"),
        (brief, r"face is seen for 0\.\d+ s only; at least 0\.5 s are needed"),
        (one_frame, "face is seen in 1 frame only"),
    ],
)
def test_reasons_are_told_with_values(
    finder: FaceFinder, head: Image, make: Callable[[Image], list[Image]], reason: str
) -> None:
    _, (summary,), _ = run(finder, make(head))
    assert not summary.assessable and summary.reason is not None
    assert re.fullmatch(reason, summary.reason), summary.reason


class Scripted(FaceFinder):
    """A finder that sees what the test says: `script(index)` gives the meshes of the index-th frame."""

    def __init__(self, script: Callable[[int], list[Floats]]) -> None:
        self.max_faces = 8
        self.script = script

    def _now(self, image: Image) -> list[Floats]:
        return self.script(int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]))

    def detect(self, image: Image, parts: Sequence[Box] | None = None) -> list[Region]:
        return sorted((region_of(mesh) for mesh in self._now(image)), key=lambda region: -region.size)

    def landmarks(self, image: Image, region: Region) -> Floats | None:
        near = [mesh for mesh in self._now(image) if abs(region_of(mesh).x - region.x) < 0.3 * region.size]
        return near[0] if near else None


def numbered(count: int, shot: Callable[[int], int] = lambda index: 0) -> list[Image]:
    """Small frames that carry their number in their first pixel, with scenery that changes with the shot."""
    images = []
    for index in range(count):
        image = scenery(shot(index), (64, 48))
        image[0, 0] = (index % 256, index // 256, 0)
        images.append(image)
    return images


def test_a_profile_is_told(mesh: Floats) -> None:
    c, s = math.cos(math.radians(75)), math.sin(math.radians(75))
    turned = ((mesh - mesh.mean(0)) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) + 150).astype(np.float32)
    _, (summary,), _ = run(Scripted(lambda index: [turned]), numbered(20))
    assert summary.reason is not None and "in profile nearly all the time (turned by 7" in summary.reason
    _, (summary,), _ = run(Scripted(lambda index: [turned if index > 5 else mesh]), numbered(20))
    assert summary.reason is None or "profile" not in summary.reason


def test_a_face_that_is_rarely_found_is_told(mesh: Floats) -> None:
    _, (summary,), _ = run(Scripted(lambda index: [mesh] if index % 8 == 0 else []), numbered(100))
    assert summary.found < 0.5
    assert summary.reason == f"face is found in {summary.found:.0%} of its frames; at least 50% are needed"


def test_forty_faces_give_the_largest_and_a_warning(mesh: Floats) -> None:
    crowd = [
        ((mesh - mesh.mean(0)) * (0.2 + 0.02 * index) + (300 * index, 200, 0)).astype(np.float32)
        for index in range(40)
    ]
    faces, summaries, tracker = run(Scripted(lambda index: crowd), numbered(20))
    assert all(len(frame) == 8 for frame in faces) and len(summaries) == 8
    assert min(summary.size for summary in summaries) > np.ptp(crowd[30][:, 0])
    assert tracker.warnings == ("more than 8 faces are seen at once: only the 8 largest are looked at",)


def test_a_larger_face_takes_the_place_of_a_small_one(mesh: Floats) -> None:
    def place(scale: float, x: float) -> Floats:
        return np.asarray((mesh - mesh.mean(0)) * scale + (x, 200, 0), np.float32)

    few = [place(0.4, 300 * index) for index in range(8)]
    late = [*few, place(1.5, 4000)]
    faces, _, _ = run(Scripted(lambda index: few if index < 10 else late), numbered(60))
    assert (
        all(len(frame) <= 8 for frame in faces)
        and max(np.ptp(face.landmarks[:, 0]) for face in faces[-1]) > 200
    )
    assert sorted(face.track for face in faces[-1])[-1] == 8


def test_a_long_clip_keeps_little(mesh: Floats) -> None:
    shots = 90
    _, summaries, _ = run(Scripted(lambda index: [mesh]), numbered(shots * 6, lambda index: index // 6))
    assert len(summaries) == shots
    assert sum(summary.thumbnail is not None for summary in summaries) == tracks.MAX_THUMBNAILS


def test_samples_stay_few_and_spread() -> None:
    samples = Samples(room=64)
    for value in range(100_000):
        samples.add(value)
    assert len(samples.values) < 64
    assert samples.quantile(0.5) == pytest.approx(50_000, rel=0.05)
    assert Samples().quantile(0.5) == 0.0


def test_sharpness_tells_blur_and_not_darkness(head: Image, mesh: Floats) -> None:
    crisp = sharpness(grey_face(head, mesh))
    dark = sharpness(grey_face((head * 0.25).astype(np.uint8), mesh))
    blurred = sharpness(grey_face(cv2.GaussianBlur(head, (0, 0), 8), mesh))
    assert dark == pytest.approx(crisp, rel=0.2)
    assert blurred < tracks.MIN_BLUR < crisp / 3


def test_plain_colours_are_told_from_skin(head: Image, mesh: Floats) -> None:
    compressed = cv2.imdecode(cv2.imencode(".jpg", head, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], cv2.IMREAD_COLOR)
    dim = (head * 0.25).astype(np.uint8)
    assert flatness(grey_face(head, mesh)) < 0.2
    assert max(flatness(grey_face(image, mesh)) for image in (compressed, dim)) < tracks.MAX_FLAT
    assert flatness(grey_face(drawn_face(), mesh)) > tracks.MAX_FLAT
    assert flatness(np.full((128, 128), 7, np.uint8)) == 1.0


def test_a_drawn_face_cannot_be_assessed(finder: FaceFinder) -> None:
    frames = (Frame(index, index / 25, drawn_face(index)) for index in range(25))
    tracker = FaceTracker(finder)
    assert any([tracker.update(frame, cut) for frame, cut in shots(frames)]), "it is taken for a face"
    (summary,) = tracker.finish()
    assert not summary.assessable and re.match(
        r"face is drawn, .*plain over \d\d% of it", summary.reason or ""
    )
