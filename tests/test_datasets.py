"""Each reader on a miniature tree of exactly the official layout, and each trap that a set is known for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from avdetect.datasets import DATASETS, index, load
from avdetect.datasets.asvspoof2019 import LA_PARTS, read_cm_protocol
from avdetect.errors import DatasetError
from avdetect.manifest import read_manifest, write_manifest
from avdetect.survey import Survey
from avdetect.types import CLAIMS, Claim, Item, Label, Segment, Split

Tree = Mapping[str, str]
REAL = Label(False, False, False)


@pytest.fixture
def grow(tmp_path: Path) -> Callable[[Tree], Path]:
    """Makes files below a folder; no content stands for media, which no reader looks into."""

    def make(tree: Tree) -> Path:
        for name, content in tree.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content or "media", encoding="utf-8")
        return tmp_path / "root"

    return make


def _by_name(items: list[Item]) -> dict[str, Item]:
    return {item.path.name: item for item in items}


def _report(root: Path, name: str) -> str:
    return "\n".join(index(name, root)[1].report())


LA = "LA/ASVspoof2019_LA_"
LA_EVAL = f"{LA}cm_protocols/ASVspoof2019.LA.cm.eval.trl.txt"
DF_ROW = "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim {} traditional_vocoder - - - -\n"
META = "source,target1,target2,method,category,type,race,gender,path,\n"
FAVC = "FakeAVCeleb_v1.2/"
AVD = {"audio_model": "vits", "video_frames": 100, "audio_frames": 64000}


def _lav_row(number: int, video: bool, audio: bool) -> dict[str, object]:
    return {
        "file": f"dev/{number:06}.mp4",
        "n_fakes": int(video or audio),
        "fake_periods": [[1.5, 2.0]] if video or audio else [],
        "duration": 4.2,
        "original": "dev/000001.mp4" if video or audio else None,
        "modify_video": video,
        "modify_audio": audio,
        "split": "dev",
        "video_frames": 103,
        "audio_channels": 1,
        "audio_frames": 65536,
    }


LAV_ROWS = [_lav_row(1, False, False), _lav_row(2, False, True), _lav_row(3, True, True)]

TREES: Mapping[str, Tree] = {
    "dfd": {
        "original_sequences/actors/raw/videos/01__exit_phone_room.mp4": "",
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4": "",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4": "",
        "manipulated_sequences/DeepFakeDetection/masks/videos/01_02__exit_phone_room__YVGY8LOK.mp4": "",
    },
    "faceforensics": {
        "original_sequences/youtube/c23/videos/071.mp4": "",
        "original_sequences/youtube/c23/videos/953.mp4": "",
        "manipulated_sequences/Deepfakes/c23/videos/071_054.mp4": "",
        "manipulated_sequences/Deepfakes/c23/videos/054_071.mp4": "",
        "manipulated_sequences/FaceShifter/c40/videos/071_054.mp4": "",
        "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4": "",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4": "",
        "splits/train.json": '[["071", "054"]]',
        "splits/val.json": '[["720", "672"]]',
        "splits/test.json": '[["953", "974"]]',
    },
    "asvspoof2019-la": {
        f"{LA}cm_protocols/ASVspoof2019.LA.cm.train.trn.txt": "LA_0079 LA_T_1138215 - - bonafide\n",
        LA_EVAL: "LA_0039 LA_E_2834763 - A11 spoof\nLA_0014 LA_E_8877452 - A14 spoof\n",
        f"{LA}asv_protocols/ASVspoof2019.LA.asv.eval.gi.trl.txt": "LA_0039 LA_E_0000001 bonafide target\n",
        f"{LA}train/flac/LA_T_1138215.flac": "",
        f"{LA}eval/flac/LA_E_2834763.flac": "",
        f"{LA}eval/flac/LA_E_0000001.flac": "",
    },
    "asvspoof2019-pa": {
        "PA/ASVspoof2019_PA_cm_protocols/ASVspoof2019.PA.cm.dev.trl.txt": (
            "PA_0079 PA_D_0000001 aaa - bonafide\nPA_0079 PA_D_0000002 acb BC spoof\n"
        ),
        "PA/ASVspoof2019_PA_dev/flac/PA_D_0000001.flac": "",
        "PA/ASVspoof2019_PA_dev/flac/PA_D_0000002.flac": "",
    },
    "asvspoof2021-la": {
        "keys/LA/CM/trial_metadata.txt": (
            "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval\n"
            "LA_0009 LA_E_9332882 none - bonafide bonafide notrim progress\n"
        ),
        "keys/DF/CM/trial_metadata.txt": DF_ROW.format("eval"),
        "ASVspoof2021_LA_eval/flac/LA_E_9332881.flac": "",
        "ASVspoof2021_LA_eval/flac/LA_E_9332882.flac": "",
    },
    "asvspoof2021-df": {
        "keys/DF/CM/trial_metadata.txt": DF_ROW.format("progress")
        + DF_ROW.format("eval").replace("2000011", "2000012"),
        "keys/LA/CM/trial_metadata.txt": "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval\n",
        "ASVspoof2021_DF_eval/flac/DF_E_2000011.flac": "",
        "ASVspoof2021_DF_eval/flac/DF_E_2000012.flac": "",
    },
    "asvspoof5": {
        "ASVspoof5.train.tsv": "T_4850 T_0000000000 F - - - AC3 A05 spoof -\n",
        "ASVspoof5.dev.track_1.tsv": "D_0062 D_0000000001 M C05 2 1 - bonafide bonafide -\n",
        "flac_T/T_0000000000.flac": "",
        "flac_D/D_0000000001.flac": "",
    },
    "in-the-wild": {
        "release_in_the_wild/meta.csv": (
            "file,speaker,label\n0.wav,Alec Guinness,spoof\n1.wav,Alec Guinness,bona-fide\n"
        ),
        "release_in_the_wild/0.wav": "",
        "release_in_the_wild/1.wav": "",
    },
    "wavefake": {
        "generated_audio/ljspeech_hifiGAN/LJ008-0217_generated.wav": "",
        "generated_audio/ljspeech_waveglow/LJ008-0217.wav": "",
        "generated_audio/jsut_multi_band_melgan/BASIC5000_0001_gen.wav": "",
        "LJSpeech-1.1/wavs/LJ008-0217.wav": "",
    },
    "fakeavceleb": {
        f"{FAVC}meta_data.csv": META
        + "id00076,-,-,real,A,RealVideo-RealAudio,African,men,00109.mp4,FakeAVCeleb/RealVideo-RealAudio/x\n"
        + "id00076,id01452,-,faceswap,C,FakeVideo-RealAudio,African,men,00109_id01452_x_faceswap.mp4,F/x\n",
        f"{FAVC}RealVideo-RealAudio/African/men/id00076/00109.mp4": "",
        f"{FAVC}RealVideo-FakeAudio/African/men/id00076/00109_fake.mp4": "",
        f"{FAVC}FakeVideo-RealAudio/African/men/id00076/00109_id01452_x_faceswap.mp4": "",
        f"{FAVC}FakeVideo-FakeAudio/African/men/id00076/00109_id00166_wavtolip.mp4": "",
    },
    "lav-df": {
        "LAV-DF/metadata.json": json.dumps(LAV_ROWS),
        "LAV-DF/dev/000001.mp4": "",
        "LAV-DF/dev/000002.mp4": "",
        "LAV-DF/dev/000003.mp4": "",
    },
    "av-deepfake1m": {
        "train_metadata.json": json.dumps(
            [
                AVD
                | {
                    "file": "id01591/q7LU-D4bH_c/00167/fake_video_fake_audio.mp4",
                    "original": "id01591/q7LU-D4bH_c/00167/real.mp4",
                    "split": "train",
                    "modify_type": "both_modified",
                    "fake_segments": [[1.0, 1.5], [3.0, 3.2]],
                    "audio_fake_segments": [[1.0, 1.5]],
                    "visual_fake_segments": [[3.0, 3.2]],
                },
                AVD
                | {
                    "file": "id01591/q7LU-D4bH_c/00167/real_video_fake_audio.mp4",
                    "original": None,
                    "split": "train",
                    "modify_type": "audio_modified",
                    "fake_segments": [[1.0, 1.5]],
                    "audio_fake_segments": [[1.0, 1.5]],
                    "visual_fake_segments": [[1.0, 1.5]],
                },
            ]
        ),
        "train/id01591/q7LU-D4bH_c/00167/fake_video_fake_audio.mp4": "",
        "train/id01591/q7LU-D4bH_c/00167/real_video_fake_audio.mp4": "",
        "train/id01591/q7LU-D4bH_c/00167/real.mp4": "",
        "test/000001.mp4": "",
    },
    "dfdc": {
        "dfdc_train_part_0/metadata.json": json.dumps(
            {
                "aagfhgtpmv.mp4": {"label": "FAKE", "split": "train", "original": "vudstovrck.mp4"},
                "vudstovrck.mp4": {"label": "REAL", "split": "train"},
            }
        ),
        "dfdc_train_part_0/aagfhgtpmv.mp4": "",
        "dfdc_train_part_0/vudstovrck.mp4": "",
        "test/metadata.json": '{"ytddugrwph.mp4": {"is_fake": 1}}',
        "test/ytddugrwph.mp4": "",
    },
    "deepspeak": {
        "annotations-split-def.csv": "identity,split\n10,train\n11,train\n87,test\n",
        "annotations-fake.csv": "video-file,engine,identity-source,identity-target\n"
        "diff2lip-6868-6860-playht.mp4,diff2lip,87,87\n",
        "real/87-0.mp4": "",
        "fake/facefusion--10-11--4100-4897--0.mp4": "",
        "fake/wav2lip--10-87--4100-4897--0.mp4": "",
        "fake/diff2lip-6868-6860-playht.mp4": "",
    },
    "idforge": {
        "IDForge_v1/pristine/id00/id00_03/id00_scene_0010-0.mp4": "",
        "IDForge_v1/face_audiomismatch_textmismatch/id00/id00_03/id00_scene_0015_0_infoswap.mp4": "",
        "IDForge_v1/tts_textgen/id00/id00_03/id00_scene_0014.mp3.mp4": "",
        "IDForge_v1/train.csv": "pristine/id00/id00_03/id00_scene_0010-0.mp4\n",
        "IDForge_v1/val.csv": "\n",
        "IDForge_v1/test.csv": "tts_textgen/id00/id00_03/id00_scene_0014.mp3.mp4\n",
    },
    "polyglotfake": {"real/en/en_12.mp4": "", "fake/to_zh/en_12_to_zh_xtts.mp4": ""},
    "avlips": {"AVLips/0_real/0.mp4": "", "AVLips/1_fake/0.mp4": "", "AVLips/wav/0_real/0.wav": ""},
    "kodf": {
        "original/0123456789abcdef0123/0123456789abcdef0123_001.mp4": "",
        "fsgan/20200101/100002/100002_100001_3_0090.mp4": "",
    },
    "manifest": {"manifest.csv": "file,voice_cloning\na.wav,1\ngone.wav,0\n", "a.wav": ""},
}


@pytest.mark.parametrize("name", list(DATASETS))
def test_contract(name: str, grow: Callable[[Tree], Path], tmp_path: Path) -> None:
    """What every data set owes: typed items of files that exist, in order, which a manifest keeps."""
    root = grow(TREES[name])
    items, _ = index(name, root)
    assert [str(item.path) for item in items] == sorted(str(item.path) for item in items)
    assert len({item.path for item in items}) == len(items)
    assert all(item.path.is_file() and item.extra["dataset"] == name for item in items)
    assert any(item.label[claim] is not None for item in items for claim in CLAIMS)
    assert all(isinstance(value, str) and value for item in items for value in item.extra.values())
    write_manifest(items, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv") == items
    dataset = load(name)
    assert all(
        (dataset.title, dataset.labels, dataset.size, dataset.licence, dataset.access, dataset.citation)
    )


@pytest.mark.parametrize("name", list(DATASETS))
def test_an_empty_folder_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"nothing of {name} found") as caught:
        index(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_folders() -> None:
    with pytest.raises(DatasetError, match="did you mean 'faceforensics'"):
        load("faceforensic")
    with pytest.raises(DatasetError, match="no such folder"):
        index("dfd", "/nowhere/at/all")


# Video


def test_dfd_says_face_only_and_both_actors(grow: Callable[[Tree], Path]) -> None:
    items, survey = index("dfd", grow(TREES["dfd"]))
    fake = next(item for item in items if item.label.face_manipulation)
    assert fake.label == Label(face_manipulation=True) and fake.split is None
    assert fake.identities == ("dfd-01", "dfd-02")
    assert fake.pair_id == "dfd-01__exit_phone_room" == items[-1].pair_id
    assert len(items) == 3  # the mask, which is called like the fake, is not a clip
    assert "c23 fake: 1 of 3,068 files" in survey.report()


def test_dfd_takes_c0_for_raw(grow: Callable[[Tree], Path]) -> None:
    items, _ = index("dfd", grow({"original_sequences/actors/c0/videos/07__kitchen_pan.mp4": ""}))
    assert items[0].extra["compression"] == "raw"


def test_dfd_in_somebody_s_own_folders_is_read_and_said(grow: Callable[[Tree], Path]) -> None:
    root = grow({"DFD_original sequences/07__kitchen_pan.mp4": "", "DFD_manipulated_sequences/x.mp4": ""})
    assert "compression unknown: DFD_original sequences/07__kitchen_pan.mp4" in _report(root, "dfd")
    assert "not those of DFD, left out: DFD_manipulated_sequences/x.mp4" in _report(root, "dfd")


def test_faceforensics_pair_gives_both_fakes_and_both_reals(grow: Callable[[Tree], Path]) -> None:
    items, _ = index("faceforensics", grow(TREES["faceforensics"]))
    found = {(item.method, item.path.stem): item for item in items}
    assert set(found) == {
        (None, "071"),
        (None, "953"),
        ("Deepfakes", "071_054"),
        ("Deepfakes", "054_071"),
        ("FaceShifter", "071_054"),
    }
    assert found["Deepfakes", "054_071"].split is found[None, "071"].split is Split.TRAIN
    assert found[None, "953"].split is Split.TEST
    assert found["Deepfakes", "054_071"].label == Label(face_manipulation=True)


def test_faceforensics_official_split_has_its_numbers(shared_dir: Path, grow: Callable[[Tree], Path]) -> None:
    lists = {
        f"splits/{p.name}": p.read_text() for p in (shared_dir / "fixtures/faceforensics").glob("*.json")
    }
    reals = {f"original_sequences/youtube/c23/videos/{number:03}.mp4": "" for number in range(1000)}
    items, survey = index("faceforensics", grow({**lists, **reals}))
    assert Counter(item.split for item in items) == {Split.TRAIN: 720, Split.VAL: 140, Split.TEST: 140}
    assert "c23 real: 1,000 of 1,000 files" in survey.report()


def test_faceforensics_refuses_a_split_list_that_is_none(grow: Callable[[Tree], Path]) -> None:
    tree = {**TREES["faceforensics"], "splits/train.json": '[["071", 54]]'}
    with pytest.raises(DatasetError, match=r"train\.json, pair 1"):
        index("faceforensics", grow(tree))


# Speech


def _official(shared_dir: Path, part: str) -> Path:
    return next((shared_dir / "fixtures/asvspoof2019").glob(f"ASVspoof2019.LA.cm.{part}.*.txt"))


def test_la_official_counts(shared_dir: Path) -> None:
    trials = {part: list(read_cm_protocol(_official(shared_dir, part))) for part in ("train", "dev", "eval")}
    assert [len(rows) for rows in trials.values()] == [25_380, 24_844, 71_237]
    assert [sum(not row.spoofed for row in rows) for rows in trials.values()] == [2_580, 2_548, 7_355]
    attacks = Counter(row.attack for row in trials["eval"] if row.attack)
    assert attacks == {f"A{number:02}": 4_914 for number in range(7, 20)}
    published = [(part.bonafide, part.spoofed) for part in LA_PARTS]
    assert published == [(2_580, 22_800), (2_548, 22_296), (7_355, 63_882)]


def test_la_partial_download_says_what_is_missing(shared_dir: Path, tmp_path: Path) -> None:
    for part in ("train", "dev", "eval"):
        path = _official(shared_dir, part)
        (tmp_path / path.name).write_bytes(path.read_bytes())
    trials = list(read_cm_protocol(_official(shared_dir, "train")))[:6_000]
    for trial in trials:
        (tmp_path / f"{trial.file}.flac").write_bytes(b"x")
    items, survey = index("asvspoof2019-la", tmp_path)
    assert len(items) == 6_000 and {item.split for item in items} == {Split.TRAIN}
    report = survey.report()
    assert "A07\u2013A19: 0 of 63,882 files" in report
    assert "bona fide in train: 2,580 of 2,580 files" in report
    assert "A01\u2013A06 in train: 3,420 of 22,800 files" in report
    assert "bona fide in eval: 0 of 7,355 files" in report


def test_la_system_is_the_fourth_column_and_enrolment_is_left_out(grow: Callable[[Tree], Path]) -> None:
    items, survey = index("asvspoof2019-la", grow(TREES["asvspoof2019-la"]))
    found = _by_name(items)
    spoof = found["LA_E_2834763.flac"]
    assert (spoof.method, spoof.label, spoof.split) == ("A11", Label(voice_cloning=True), Split.TEST)
    assert spoof.extra["vocoder"] == "Griffin-Lim" and "not confirmed" in spoof.extra["attack_origin"]
    assert found["LA_T_1138215.flac"].label == Label(voice_cloning=False)
    assert "LA_E_0000001.flac" not in found
    assert any("enrolment speech" in line and "LA_E_0000001" in line for line in survey.report())
    assert any("protocols not found" in line and "cm.dev.trl" in line for line in survey.report())


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("LA_0039 LA_E_1 - A20 spoof", "row 2: attack is 'A20'"),
        ("LA_0039 LA_E_1 - A11 bonafide", "row 2: key is 'bonafide', yet the attack is 'A11'"),
        ("LA_0039 LA_E_1 - - spoof", "row 2: key is 'spoof', yet the attack is '-'"),
        ("LA_0039 LA_E_1 - A11 fake", "row 2: key is 'fake', must be one of bonafide, spoof"),
        ("LA_0039 LA_E_1 bonafide target", "row 2: 4 columns, expected 5"),
    ],
)
def test_la_refuses_what_nobody_knows(row: str, told: str, grow: Callable[[Tree], Path]) -> None:
    root = grow({LA_EVAL: f"LA_0039 LA_E_2834763 - A11 spoof\n{row}\n"})
    with pytest.raises(DatasetError, match=told) as caught:
        index("asvspoof2019-la", root)
    assert "ASVspoof2019.LA.cm.eval.trl.txt" in str(caught.value)


def test_pa_replay_is_not_cloning(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("asvspoof2019-pa", grow(TREES["asvspoof2019-pa"]))[0])
    assert found["PA_D_0000001.flac"].label == Label(voice_cloning=False)
    replay = found["PA_D_0000002.flac"]
    assert replay.label == Label() and replay.split is Split.VAL
    assert (replay.extra["key"], replay.extra["environment"], replay.extra["attack"]) == (
        "spoof",
        "acb",
        "BC",
    )


def test_2021_tracks_are_told_apart_and_only_eval_is_test(grow: Callable[[Tree], Path]) -> None:
    la = _by_name(index("asvspoof2021-la", grow(TREES["asvspoof2021-la"]))[0])
    assert la["LA_E_9332881.flac"].split is Split.TEST and la["LA_E_9332882.flac"].split is None
    assert la["LA_E_9332881.flac"].extra["codec"] == "alaw"
    assert la["LA_E_9332882.flac"].label == Label(voice_cloning=False)
    df = _by_name(index("asvspoof2021-df", grow(TREES["asvspoof2021-df"]))[0])
    assert set(df) == {"DF_E_2000011.flac", "DF_E_2000012.flac"}
    assert df["DF_E_2000011.flac"].split is None and df["DF_E_2000011.flac"].extra["subset"] == "progress"
    assert df["DF_E_2000012.flac"].extra["vocoder"] == "traditional_vocoder"


def test_asvspoof5_tsv_is_parted_by_blanks(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("asvspoof5", grow(TREES["asvspoof5"]))[0])
    assert (found["T_0000000000.flac"].method, found["T_0000000000.flac"].split) == ("A05", Split.TRAIN)
    assert found["D_0000000001.flac"].label == Label(voice_cloning=False)
    assert found["D_0000000001.flac"].extra["codec"] == "C05"


def test_in_the_wild_spells_bona_fide_with_a_hyphen(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("in-the-wild", grow(TREES["in-the-wild"]))[0])
    assert found["1.wav"].label == Label(voice_cloning=False) and found["0.wav"].label.voice_cloning is True
    with pytest.raises(DatasetError, match=r"meta\.csv, row 2: label is 'bonafide'"):
        index("in-the-wild", grow({"release_in_the_wild/meta.csv": "file,speaker,label\n1.wav,x,bonafide\n"}))


def test_wavefake_is_labelled_by_folder_not_by_name(grow: Callable[[Tree], Path]) -> None:
    items, survey = index("wavefake", grow(TREES["wavefake"]))
    same_name = {item.path.parent.name: item for item in items if item.path.name == "LJ008-0217.wav"}
    assert same_name["ljspeech_waveglow"].label.voice_cloning is True
    assert same_name["wavs"].label.voice_cloning is False
    assert {item.pair_id for item in items if item.language == "en"} == {"ljspeech-LJ008-0217"}
    assert "ljspeech MelGAN: 0 of 13,100 files" in survey.report()


def test_wavefake_says_that_the_real_half_is_elsewhere(grow: Callable[[Tree], Path]) -> None:
    assert "no real speech: put LJSpeech-1.1" in _report(
        grow({"ljspeech_melgan/LJ1_gen.wav": ""}), "wavefake"
    )


# Video with sound


def test_fakeavceleb_labels_each_stream(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("fakeavceleb", grow(TREES["fakeavceleb"]))[0])
    assert found["00109.mp4"].label == REAL
    assert found["00109_fake.mp4"].label == Label(False, True, None)
    swapped = found["00109_id01452_x_faceswap.mp4"]
    assert (swapped.label, swapped.method) == (Label(True, False, None), "faceswap")
    assert swapped.identities == ("voxceleb2-id00076", "voxceleb2-id01452")
    assert {item.pair_id for item in found.values()} == {"fakeavceleb-id00076-00109"}


@pytest.mark.parametrize(
    "table",
    [
        "source,target1,target2,method,category,type,race,gender,filename,path\n"
        "id00076,-,-,rtvc,B,RealVideo-FakeAudio,African,men,00109_fake.mp4,FakeAVCeleb/RealVideo-FakeAudio/x\n",
        "source,target1,target2,method,category,type,race,gender,path,filename\n"
        "id00076,-,-,rtvc,B,RealVideo-FakeAudio,African,men,FakeAVCeleb/RealVideo-FakeAudio/x,00109_fake.mp4\n",
        META.replace(",\n", "\n")
        + "id00076,-,-,rtvc,B,RealVideo-FakeAudio,African,men,F/RealVideo-FakeAudio/x/00109_fake.mp4\n",
    ],
)
def test_fakeavceleb_metadata_in_all_its_forms(table: str, grow: Callable[[Tree], Path]) -> None:
    items, _ = index("fakeavceleb", grow({**TREES["fakeavceleb"], f"{FAVC}meta_data.csv": table}))
    assert _by_name(items)["00109_fake.mp4"].method == "rtvc"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("faceswap,C", "faceswop,C", "method is 'faceswop'"), ("faceswap,C", "faceswap,B", "category B is not")],
)
def test_fakeavceleb_refuses_what_contradicts(
    old: str, new: str, told: str, grow: Callable[[Tree], Path]
) -> None:
    table = TREES["fakeavceleb"][f"{FAVC}meta_data.csv"].replace(old, new)
    with pytest.raises(DatasetError, match=f"row 3: {told}"):
        index("fakeavceleb", grow({**TREES["fakeavceleb"], f"{FAVC}meta_data.csv": table}))


def test_fakeavceleb_names_of_the_public_test_list(shared_dir: Path, grow: Callable[[Tree], Path]) -> None:
    lines = (shared_dir / "fixtures/fakeavceleb/favc_test_split.csv").read_text().splitlines()[1:]
    items, _ = index("fakeavceleb", grow({line.split(",")[2]: "" for line in lines[::10]}))
    letters = Counter(line.split(",")[1] for line in lines[::10])
    assert Counter(item.extra["category"] for item in items) == letters


def test_lav_df_segments_carry_the_claim_of_the_modified_stream(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("lav-df", grow(TREES["lav-df"]))[0])
    voice, face = (Segment(1.5, 2.0, claim) for claim in (Claim.VOICE_CLONING, Claim.FACE_MANIPULATION))
    assert found["000001.mp4"].label == REAL and found["000001.mp4"].split is Split.VAL
    assert found["000002.mp4"].label == Label(False, True, None, (voice,))
    assert found["000003.mp4"].label == Label(True, True, None, (face, voice))
    assert {item.pair_id for item in found.values()} == {"lavdf-dev/000001.mp4"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"modify_audio": true', '"modify_audio": "True"', "modify_audio is 'True', must be bool"),
        ('"split": "dev"', '"split": "develop"', "split is 'develop'"),
        ("[[1.5, 2.0]]", "[[2.0, 1.5]]", "not in order"),
        ('"fake_periods"', '"periods"', "no field 'fake_periods'"),
    ],
)
def test_lav_df_refuses_damaged_metadata(old: str, new: str, told: str, grow: Callable[[Tree], Path]) -> None:
    damaged = TREES["lav-df"]["LAV-DF/metadata.json"].replace(old, new)
    with pytest.raises(DatasetError, match=told):
        index("lav-df", grow({**TREES["lav-df"], "LAV-DF/metadata.json": damaged}))


def test_half_a_metadata_file_is_told_as_such(grow: Callable[[Tree], Path]) -> None:
    half = TREES["lav-df"]["LAV-DF/metadata.json"][:200]
    with pytest.raises(DatasetError, match="is the download complete"):
        index("lav-df", grow({**TREES["lav-df"], "LAV-DF/metadata.json": half}))


def test_avdeepfake1m_both_modified_is_both(grow: Callable[[Tree], Path]) -> None:
    items, survey = index("av-deepfake1m", grow(TREES["av-deepfake1m"]))
    found = _by_name(items)
    assert found["fake_video_fake_audio.mp4"].label == Label(
        True, True, None, (Segment(3.0, 3.2, Claim.FACE_MANIPULATION), Segment(1.0, 1.5, Claim.VOICE_CLONING))
    )
    audio_only = found["real_video_fake_audio.mp4"]
    assert audio_only.label == Label(False, True, None, (Segment(1.0, 1.5, Claim.VOICE_CLONING),))
    assert found["real.mp4"].label == REAL  # by its name: the metadata lacks it
    assert found["000001.mp4"].label == Label() and found["000001.mp4"].split is Split.TEST
    assert audio_only.identities == ("voxceleb2-id01591",)
    assert any(
        "visual_fake_segments of clips whose modify_type denies them" in line for line in survey.report()
    )


@pytest.mark.parametrize(
    ("new", "told"),
    [("both-modified", "modify_type is 'both-modified', must be one of"), ("real", "yet the clip is called")],
)
def test_avdeepfake1m_refuses_types_that_nobody_knows(
    new: str, told: str, grow: Callable[[Tree], Path]
) -> None:
    table = TREES["av-deepfake1m"]["train_metadata.json"].replace("both_modified", new)
    with pytest.raises(DatasetError, match=r"train_metadata\.json, clip 1: .*" + told):
        index("av-deepfake1m", grow({**TREES["av-deepfake1m"], "train_metadata.json": table}))


def test_avdeepfake1m_reads_a_json_for_each_clip(grow: Callable[[Tree], Path]) -> None:
    row = json.loads(TREES["av-deepfake1m"]["train_metadata.json"])[0]
    clip = "id01591/q7LU-D4bH_c/00167/fake_video_fake_audio"
    for folder in ("val_metadata", "val"):  # AV-Deepfake1M, and ++
        tree = {f"{folder}/{clip}.json": json.dumps(row), f"val/{clip}.mp4": ""}
        assert len(index("av-deepfake1m", grow(tree))[0][-1].label.segments) == 2


def test_avdeepfake1m_official_names_say_what_the_public_labels_say(
    shared_dir: Path, grow: Callable[[Tree], Path]
) -> None:
    lines = (shared_dir / "fixtures/avdeepfake1m/av1m_test_labels.csv").read_text().splitlines()[1:400]
    labels = dict(line.rsplit(",", 1) for line in lines)
    root = grow({f"test/{path}": "" for path in labels})
    for item in index("av-deepfake1m", root)[0]:
        assert item.label.is_fake == (labels[str(item.path.relative_to(root / "test"))] == "1")


def test_dfdc_leaves_the_voice_unknown(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("dfdc", grow(TREES["dfdc"]))[0])
    assert found["aagfhgtpmv.mp4"].label == Label(face_manipulation=True)
    assert found["vudstovrck.mp4"].label == Label(face_manipulation=False)
    assert found["ytddugrwph.mp4"].label.face_manipulation is True
    assert found["aagfhgtpmv.mp4"].pair_id == found["vudstovrck.mp4"].pair_id
    with pytest.raises(DatasetError, match=r"x\.mp4: label is 'Fake'"):
        index("dfdc", grow({"metadata.json": '{"x.mp4": {"label": "Fake"}}'}))


def test_deepspeak_names_of_both_releases(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("deepspeak", grow(TREES["deepspeak"]))[0])
    assert found["87-0.mp4"].label == REAL and found["87-0.mp4"].split is Split.TEST
    first = found["facefusion--10-11--4100-4897--0.mp4"]
    assert first.identities == ("deepspeak-11", "deepspeak-10") and first.split is Split.TRAIN
    assert first.label == Label(face_manipulation=True)
    assert found["wav2lip--10-87--4100-4897--0.mp4"].split is None  # its people stand on two sides
    second = found["diff2lip-6868-6860-playht.mp4"]
    assert second.label == Label(True, True) and second.identities == ("deepspeak-87",)
    with pytest.raises(DatasetError, match="engine is 'newswap'"):
        index("deepspeak", grow({"newswap--10-11--4100-4897--0.mp4": ""}))


def test_idforge_tasks(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("idforge", grow(TREES["idforge"]))[0])
    assert found["id00_scene_0010-0.mp4"].label == REAL
    assert found["id00_scene_0010-0.mp4"].split is Split.TRAIN
    voice_only = found["id00_scene_0014.mp3.mp4"]
    assert (voice_only.label, voice_only.split) == (Label(False, True), Split.TEST)
    assert found["id00_scene_0015_0_infoswap.mp4"].label == Label(True, None, True)


def test_polyglotfake_names(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("polyglotfake", grow(TREES["polyglotfake"]))[0])
    dubbed = found["en_12_to_zh_xtts.mp4"]
    assert (dubbed.label, dubbed.language, dubbed.method) == (Label(True, True), "zh", "xtts")
    assert dubbed.pair_id == found["en_12.mp4"].pair_id


def test_avlips_sound_beside_its_video(grow: Callable[[Tree], Path]) -> None:
    root = grow(TREES["avlips"])
    real, fake = index("avlips", root)[0]
    assert real.audio_path == root / "AVLips/wav/0_real/0.wav" and fake.audio_path is None
    assert (real.label, fake.label) == (REAL, Label(face_manipulation=True))


def test_kodf_names(grow: Callable[[Tree], Path]) -> None:
    found = _by_name(index("kodf", grow(TREES["kodf"]))[0])
    fake = found["100002_100001_3_0090.mp4"]
    assert (fake.method, fake.identities) == ("FSGAN", ("kodf-100002", "kodf-100001"))
    with pytest.raises(DatasetError, match="method code is '9'"):
        index("kodf", grow({"100002_100001_9_0090.mp4": ""}))


def test_a_manifest_of_one_s_own(grow: Callable[[Tree], Path]) -> None:
    root = grow(TREES["manifest"])
    for place in (root, root / "manifest.csv"):
        items, survey = index("manifest", place)
        assert [item.path.name for item in items] == ["a.wav"]
        assert any("not there" in line and "gone.wav" in line for line in survey.report())


# The look at a folder


def test_half_downloaded_and_hidden_files_are_not_clips(grow: Callable[[Tree], Path]) -> None:
    folder = "original_sequences/actors/c23/videos"
    root = grow(
        {
            f"{folder}/{name}": ""
            for name in ("01__kitchen_pan.mp4", "._01__kitchen_pan.mp4", "02__x.mp4.part")
        }
    )
    (root / folder / "03__kitchen_pan.mp4").touch()
    (root / folder / "04__kitchen_pan.mp4").symlink_to(root / "nowhere.mp4")
    items, survey = index("dfd", root)
    assert [item.path.name for item in items] == ["01__kitchen_pan.mp4"]
    assert any("unfinished download" in line and "03__kitchen_pan" in line for line in survey.report())


def test_links_to_folders_are_followed_once(grow: Callable[[Tree], Path], tmp_path: Path) -> None:
    root = grow({"a/one.wav": ""})
    (tmp_path / "other").mkdir()
    (tmp_path / "other/two.wav").write_text("x")
    (root / "linked").symlink_to(tmp_path / "other")
    (root / "again").symlink_to(tmp_path / "other")
    (root / "a/loop").symlink_to(root)
    assert sorted(path.rsplit("/", 1)[-1] for path in Survey(root).files) == ["one.wav", "two.wav"]


def test_progress_counts_files(grow: Callable[[Tree], Path]) -> None:
    seen: list[int] = []
    assert len(Survey(grow({f"{n}.wav": "" for n in range(7)}), seen.append).files) == seen[-1] == 7


DAMAGE: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "a page instead": lambda _: b"<html>404 not found</html>",
    "zeros": lambda _: bytes(200),
    "noise": lambda _: bytes(range(255, 0, -1)),
    "another json": lambda _: b'["a", 1, null]',
    "another table": lambda _: b'{"a": {"b": [1]}}',
    "too deep": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if any(tree.values())])
def test_damaged_and_half_downloaded_sets_end_in_a_report(name: str, grow: Callable[[Tree], Path]) -> None:
    """Every table of every set, damaged in every way: an account of what is there, or one line that says why not."""
    tree = TREES[name]

    def reported(what: str) -> None:
        try:
            lines = index(name, root)[1].report()
        except DatasetError as error:
            lines = [str(error)]
        assert lines and all("\n" not in line for line in lines), what

    for table in (file for file, content in tree.items() if content):
        root = grow(tree)
        for kind, damaged in DAMAGE.items():
            (root / table).write_bytes(damaged(tree[table].encode()))
            reported(f"{table}: {kind}")
        (root / table).unlink()
        reported(f"{table}: gone")
        (root / table).symlink_to(root / "nowhere")
        reported(f"{table}: dead link")
        (root / table).unlink()
        (root / table).mkdir()
        reported(f"{table}: a folder")
        (root / table).rmdir()
    for clip in (file for file, content in tree.items() if not content):
        root = grow(tree)
        (root / clip).unlink()
        reported(f"{clip}: gone")
