from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import BrokenData, DataMissing, stream
from robustplug.recipe.errors import RecipeError
from robustplug_advagent.dialogues import fetch as fetching
from robustplug_advagent.dialogues.data import (
    encode,
    parse_dialogue,
    read_dialogues,
    read_scenarios,
    vocabulary,
)
from robustplug_advagent.dialogues.fetch import LICENCE, fetch
from robustplug_advagent.dialogues.layout import DISAGREE, HEAD, SPECIALS, UNKNOWN, lengths, swapped, turns
from robustplug_advagent.dialogues.scripted import bundle, scripted_lines

GOOD = (
    "<input> 1 4 4 1 1 2 </input> <dialogue> THEM: i would like 4 hats <eos> YOU: deal <eos> "
    "THEM: <selection> </dialogue> <output> item0=1 item1=0 item2=1 item0=0 item1=4 item2=0 </output> "
    "<partner_input> 1 0 4 2 1 2 </partner_input>"
)
BAD = {
    "not of the form": "hello",
    "6 whole numbers": GOOD.replace("1 4 4 1 1 2 </input>", "1 4 4 1 1 </input>"),
    "partner_input": GOOD.replace("1 0 4 2 1 2 </partner", "1 0 3 2 1 2 </partner"),
    "begin with YOU:": GOOD.replace("> THEM: i", "> i"),
    "twice in a row": GOOD.replace("YOU: deal", "THEM: deal"),
    "end with <selection>": GOOD.replace("THEM: <selection>", "THEM: bye"),
    "must be item0=": GOOD.replace("item0=1 item1=0", "item0=1 item2=0"),
    "of which|there are": GOOD.replace("item1=4", "item1=3"),
    "counts are at most 4": GOOD.replace("1 4 4 1 1 2 </input>", "12 4 4 1 1 2 </input>"),
    "values are at most 10": GOOD.replace("1 4 4 1 1 2 </input>", "1 11 4 1 1 2 </input>"),
    "has 9999999": GOOD.replace("1 4 4 1 1 2 </input>", f"1 {'9' * 5000} 4 1 1 2 </input>"),
    "<input> is worth 9 in all": GOOD.replace("1 4 4 1 1 2 </input>", "1 3 4 1 1 2 </input>"),
    "<partner_input> is worth 12": GOOD.replace("1 0 4 2 1 2 </partner", "1 2 4 2 1 2 </partner"),
    "contains <pad>": GOOD.replace("would like", "<pad> like"),
    "does not end with its only <eos>": GOOD.replace("deal <eos>", "deal"),
    "its only <eos>: “deal <eos> deal": GOOD.replace("deal <eos>", "deal <eos> deal <eos>"),
    "<selection> alone": GOOD.replace("THEM: <selection>", "THEM: bye <selection>"),
    "the dialogue has 200": GOOD.replace("deal <eos>", "deal " * 20_000 + "<eos>"),
    "a turn has 2001 words": GOOD.replace("deal <eos>", "deal " * 2000 + "<eos>"),
    "the dialogue has 60": GOOD.replace("<dialogue> ", "<dialogue> " + "THEM: a <eos> YOU: b <eos> " * 1000),
}


def test_a_line_is_read() -> None:
    found = parse_dialogue(GOOD)
    assert found.counts == (1, 4, 1)
    assert found.own == (4, 1, 2)
    assert found.other == (0, 2, 2)
    assert found.words[:2] == ("THEM:", "i")
    assert found.outcome == (1, 0, 1, 0, 4, 0)
    disagreed = GOOD.replace("item0=1 item1=0 item2=1 item0=0 item1=4 item2=0", " ".join(["<disagree>"] * 6))
    assert parse_dialogue(disagreed).outcome == (DISAGREE,) * 6


@pytest.mark.parametrize("why", BAD)
def test_a_malformed_line_is_refused_with_the_reason(why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_dialogue(BAD[why])


def test_malformed_lines_are_all_reported_with_file_and_line_and_skipped_on_request(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    lines = [GOOD, "", *BAD.values(), GOOD]
    path.write_text("\n".join(lines))
    with pytest.raises(BrokenData) as caught:
        read_dialogues(path)
    places = [f"{path}:{number}:" for number in range(3, 3 + len(BAD))]
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()[1:]] == places
    assert "skip_malformed" in str(caught.value)
    notes: list[str] = []
    assert len(read_dialogues(path, notes)) == 2
    (note,) = notes
    assert note.startswith(f"{len(BAD)} malformed lines of {path} were left out; the first: {path}:3: ")
    path.write_text("nothing\n")
    with pytest.raises(BrokenData, match="no usable data"):
        read_dialogues(path, [])


def test_only_the_first_of_many_malformed_lines_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("x\n" * 50)
    with pytest.raises(BrokenData, match="… and 30 more"):
        read_dialogues(path)


def test_scenarios_are_pairs_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "selfplay.txt"
    path.write_text("1 0 1 1 3 3\n1 1 1 0 3 3\n")
    assert read_scenarios(path).tolist() == [[1, 1, 3, 0, 1, 3, 1, 0, 3]]
    path.write_text("1 0 1 1 3 3\n1 1 1 0 3 3\n1 0 2 2 2 3\n1 1 1 0 3 3\n1 1 1 0 3 3\n")
    with pytest.raises(BrokenData) as caught:
        read_scenarios(path)
    assert f"{path}:3: the two lines" in str(caught.value)
    assert f"{path}:5: a scenario is two lines" in str(caught.value)


def test_a_line_that_is_not_utf_8_is_named_and_only_line_feeds_end_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    odd = GOOD.replace("would", "w\x85ou\u2028ld")
    path.write_bytes(b"\xef\xbb\xbf" + odd.encode() + b"\r\n" + GOOD.encode().replace(b"would", b"w\xffuld"))
    with pytest.raises(BrokenData, match=rf"{path}:2: is not UTF-8: byte 0xff"):
        read_dialogues(path)
    notes: list[str] = []
    assert len(read_dialogues(path, notes)) == 1
    assert notes
    path = tmp_path / "selfplay.txt"
    path.write_bytes(b"1 0 1 1 3 3\n1 1 1 0 3 3\n1 0 1 \xff 3 3\n1 1 1 0 3 3\n")
    with pytest.raises(BrokenData, match=rf"{path}:3: is not UTF-8"):
        read_scenarios(path)


def test_malformed_data_end_a_training_before_its_folder_exists_or_are_noted(tmp_path: Path) -> None:
    folder = published(tmp_path / "negotiate")
    path = folder / "train.txt"
    path.write_text(path.read_text() + "\n" + BAD["counts are at most 4"])
    task = {"use": "negotiation", "root": str(folder), "unknown_below": 1, "scenarios": 5}
    recipe = {
        "name": "x",
        "task": task,
        "method": {"use": "erm", "vicinity": {"use": "rules"}, "loss": {"use": "dialogue"}},
    }
    with pytest.raises(RecipeError, match=rf"{path}:61: <input> has 12"):
        robustplug.train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    options = {key: value for key, value in task.items() if key != "use"}
    found = robustplug.build("task", "negotiation", **options, skip_malformed=True)
    (note,) = found.notes
    assert "1 malformed lines" in note


def test_the_scenarios_of_a_test_come_from_a_file_of_either_kind(tmp_path: Path) -> None:
    folder = published(tmp_path / "negotiate")
    options: dict[str, Any] = {"root": str(folder), "unknown_below": 1, "scenarios": 5}
    dialogues, pairs = tmp_path / "dialogues.txt", tmp_path / "pairs.txt"
    dialogues.write_text(GOOD)
    pairs.write_text("1 4 4 1 1 2\n1 0 4 2 1 2\n")
    for path in (dialogues, pairs):
        task = robustplug.build("task", "negotiation", test=str(path), **options)
        assert task.scenarios("test").tolist() == [[1, 4, 1, 4, 1, 2, 0, 2, 2, -1, -1, -1]]
        assert task.info.sizes["test"] == 1
        assert task.info.words == robustplug.build("task", "negotiation", **options).info.words
    with pytest.raises(DataMissing, match=r"task.test: there is no file"):
        robustplug.build("task", "negotiation", test=str(tmp_path / "absent"), **options)


def test_the_vocabulary_holds_words_above_the_threshold() -> None:
    words = vocabulary([parse_dialogue(GOOD)] * 3, 3)
    assert words.all == SPECIALS
    words = vocabulary([parse_dialogue(GOOD)] * 3, 2)
    assert words.all[len(SPECIALS) :] == ("4", "deal", "hats", "i", "like", "would")
    assert words.encode(["hats", "boats", "YOU:"]) == [words.all.index("hats"), UNKNOWN, 3]


def test_dialogues_are_rows_and_the_other_side_sees_them_swapped() -> None:
    dialogue = parse_dialogue(GOOD)
    words = vocabulary([dialogue], 0)
    x, outcome = encode([dialogue, dialogue._replace(words=dialogue.words[-2:])], words)
    assert lengths(x).tolist() == [len(dialogue.words), 2]
    assert outcome.tolist() == [list(dialogue.outcome)] * 2
    assert words.decode(x[0, HEAD:].tolist()) == list(dialogue.words)
    assert x[0, :HEAD].tolist() == [1, 4, 1, 4, 1, 2, 0, 2, 2, -1, -1, -1]
    other = swapped(x)
    assert other[0, :HEAD].tolist() == [1, 4, 1, 0, 2, 2, 4, 1, 2, -1, -1, -1]
    assert words.decode(other[1, HEAD : HEAD + 2].tolist()) == ["YOU:", "<selection>"]
    assert torch.equal(swapped(other), x)
    assert [who for who, _ in turns(x[0, HEAD:].tolist())] == [4, 3, 4]


def test_scripted_dialogues_pass_the_parser_and_both_sides_tell_the_same_story() -> None:
    lines = scripted_lines(60, stream(0, "script"))
    assert lines == scripted_lines(60, stream(0, "script"))
    dialogues = [parse_dialogue(line) for line in lines]
    endings = set()
    for mine, theirs in zip(dialogues[::2], dialogues[1::2], strict=True):
        assert (mine.own, mine.other) == (theirs.other, theirs.own)
        assert mine.outcome[:3] == theirs.outcome[3:]
        swapped_words = {"YOU:": "THEM:", "THEM:": "YOU:"}
        assert tuple(swapped_words.get(word, word) for word in mine.words) == theirs.words
        endings.add(mine.outcome[0] > 4)
    assert False in endings
    assert bundle((1, 2, 0), (1, 3, 2)) == "the book and 2 hats"
    assert bundle((0, 0, 0), (1, 3, 2)) == "nothing"


def published(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(scripted_lines(30, stream(0, "script")))
    for name in ("train.txt", "val.txt"):
        (folder / name).write_text(lines)
    return folder


def test_the_published_files_are_found_and_their_scenarios_learned_from(tmp_path: Path) -> None:
    folder = published(tmp_path / "negotiate")
    options: dict[str, Any] = {"unknown_below": 1, "scenarios": 5, "learn_from": "scenarios"}
    task = robustplug.build("task", "negotiation", root=str(tmp_path), train_scenarios=7, **options)
    assert task.info.sizes == {"train": 7, "validation": 5, "test": 5}
    (folder / "selfplay.txt").write_text("1 0 1 1 3 3\n1 1 1 0 3 3\n")
    (folder / "test.txt").write_text((folder / "val.txt").read_text())
    task = robustplug.build("task", "negotiation", root=str(folder), **options)
    assert task.scenarios("train")[:, :9].tolist() == [[1, 1, 3, 0, 1, 3, 1, 0, 3]]
    assert len(task.dialogues("test")[0]) == 60


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"train.txt, val.txt .*task.download = true.*scripted-negotiation"):
        robustplug.build("task", "negotiation", root=str(tmp_path))
    recipe = {
        "name": "x",
        "task": {"use": "negotiation", "root": str(tmp_path)},
        "method": {"use": "erm", "vicinity": {"use": "rules"}, "loss": {"use": "dialogue"}},
    }
    with pytest.raises(RecipeError, match="not found in"):
        robustplug.train(recipe, out=tmp_path / "run")


def test_files_are_fetched_on_request_with_their_licence_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = published(tmp_path / "source")
    for name in ("test.txt", "selfplay.txt"):
        (source / name).write_text("1 0 1 1 3 3\n1 1 1 0 3 3\n")
    good = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.glob("*.txt")}
    monkeypatch.setattr(fetching, "FILES", good)
    fetch(tmp_path / "here", source.as_uri())
    assert LICENCE in capsys.readouterr().err
    assert "CC BY-NC 4.0" in LICENCE
    assert sorted(path.name for path in (tmp_path / "here").glob("*.txt")) == sorted(good)
    monkeypatch.setattr(fetching, "FILES", good | {"val.txt": "0" * 64})
    with pytest.raises(BrokenData, match=r"val.txt is not the published file"):
        fetch(tmp_path / "there", source.as_uri())
    assert not (tmp_path / "there" / "val.txt").exists()
    with pytest.raises(DataMissing, match="cannot be fetched"):
        fetch(tmp_path / "nowhere", (tmp_path / "absent").as_uri())
