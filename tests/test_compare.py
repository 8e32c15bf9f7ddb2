"""Systems side by side: shared clips, paired tests, late fusion, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import call

from avdetect.compare import System, Trial, compare, fused, named, read_systems
from avdetect.errors import DatasetError, InputError
from avdetect.intervals import delong
from avdetect.rows import Journal, Row
from avdetect.types import Claim, ModelInfo

RNG = np.random.default_rng(0)
FAKE = np.arange(60) % 2 == 1
GOOD, POOR = (FAKE * gain + RNG.normal(size=60) for gain in (3.0, 0.3))
NAMES = [f"clip{number}" for number in range(60)]
TRIALS = {
    name: Trial(bool(fake), f"p{i % 10}") for i, (name, fake) in enumerate(zip(NAMES, FAKE, strict=True))
}


def system(name: str, scores: np.ndarray, trials: dict[str, Trial] = TRIALS) -> System:  # type: ignore[type-arg]
    return System(name, dict(zip(NAMES, scores.tolist(), strict=True)), trials)


def rows_file(path: Path, scores: np.ndarray, claim: str = "voice_cloning") -> Path:  # type: ignore[type-arg]
    journal = Journal(path, ModelInfo(path.stem, "1", path.stem))
    for number, (name, score) in enumerate(zip(NAMES, scores, strict=True)):
        row = Row(
            f"/x/{name}.wav", claim, int(FAKE[number]), float(score), "inconclusive", "", "tts", f"p{number % 10}",
            "", model=path.stem, model_sha256=path.stem,
        )  # fmt: skip
        journal.write([row])
    journal.close()
    return path


def test_two_systems_on_the_clips_that_both_scored() -> None:
    half = System("half", {name: float(POOR[i]) for i, name in enumerate(NAMES) if i < 30}, TRIALS)
    result = compare([system("good", GOOD), half], rounds=100)
    assert (result["clips"], result["n_real"], result["n_fake"], result["identities"]) == (30, 15, 15, 10)
    good, less, chance = result["systems"]
    assert (good["coverage"], less["coverage"]) == (1.0, 0.5)
    assert good["auc"] > less["auc"] and chance["name"] == "chance" and chance["auc"] == 0.5
    (pair,) = result["pairs"]
    test = delong(GOOD[:30], POOR[:30], FAKE[:30])
    assert pair["auc"]["delong_p"] == pytest.approx(test.p)
    assert pair["auc"]["difference"] == pytest.approx(test.difference)
    assert pair["auc"]["p"] < 0.05 and pair["eer"]["difference"] < 0


def test_a_system_does_not_differ_from_itself_and_holm_allows_for_many_pairs() -> None:
    result = compare([system(name, GOOD) for name in "ab"] + [system("c", POOR)], rounds=100)
    same, *others = result["pairs"]
    assert same["auc"] | {"p_holm": 1.0} == same["auc"] and same["auc"]["p"] == 1.0
    for pair in others:
        assert pair["auc"]["p_holm"] == pytest.approx(3 * pair["auc"]["p"])


def test_late_fusion_is_the_mean_rank() -> None:
    joined = fused([system("a", GOOD), system("b", -10 * GOOD)])
    assert set(joined.scores.values()) == {61 / 120}  # opposite ranks cancel
    assert fused([system("a", GOOD)]).scores["clip0"] == pytest.approx(sum(GOOD[0] >= GOOD) / 60)


def test_labels_that_differ_are_not_compared() -> None:
    turned = {name: Trial(not trial.fake) for name, trial in TRIALS.items()}
    with pytest.raises(DatasetError, match="clip0: a and b label it differently"):
        compare([system("a", GOOD), system("b", GOOD, turned)])
    with pytest.raises(InputError, match="two systems or more"):
        compare([system("a", GOOD), system("a", POOR)])
    with pytest.raises(DatasetError, match="no clip was scored by all"):
        compare([system("a", GOOD), System("b", {}, TRIALS)])


def test_rows_and_the_score_file_of_another_system(tmp_path: Path) -> None:
    ours = rows_file(tmp_path / "ours.csv", GOOD)
    theirs = tmp_path / "theirs.txt"
    theirs.write_text(
        "".join(f"{name} {-score}\n" for name, score in zip(NAMES[:50], GOOD[:50], strict=True))
    )
    first, second = read_systems(named([str(ours), f"other={theirs}"]))
    assert (first.name, second.name) == ("ours", "other")
    assert second.scores["clip3"] == pytest.approx(GOOD[3])  # the sign was found out
    assert len(second.trials) == 60 and second.trials["clip1"].identity == "p1"


def test_files_of_several_claims_want_to_be_asked_for_one(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "rows.csv", GOOD)
    extra = rows_file(tmp_path / "face.csv", POOR, "face_manipulation").read_bytes().split(b"\r\n", 1)[1]
    path.write_bytes(path.read_bytes() + extra.replace(b",face,face", b",rows,rows"))
    with pytest.raises(DatasetError, match="holds face_manipulation, voice_cloning; say which with --claim"):
        read_systems(named([str(path)]))
    (chosen,) = read_systems(named([str(path)]), Claim.FACE_MANIPULATION)
    assert chosen.scores["clip5"] == pytest.approx(POOR[5])


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    good, poor = rows_file(tmp_path / "good.csv", GOOD), rows_file(tmp_path / "poor.csv", POOR)
    answer = call("evaluate", "compare", good, f"lesser={poor}", "--fusion", "--rounds", "50")
    assert answer.code == 0 and answer.out.startswith("60 clips that all scored (30 real, 30 fake; 10 people")
    for word in ("good", "lesser", "late fusion", "chance", "good - lesser", "DeLong"):
        assert word in answer.out
    result = json.loads(call("evaluate", "compare", good, poor, "--rounds", "50", "--json", "-").out)
    assert len(result["pairs"]) == 1 and result["systems"][0]["tpr_at_fpr_ci"]["0.01"]
    alone = call("evaluate", "compare", good)
    assert alone.code == 1 and len(alone.err) == 1 and "two systems or more" in alone.err[0]
