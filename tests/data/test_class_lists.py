"""Every form of a list of class names gives the same names in the same order, or an error that says where it fails."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.data.class_lists import listed_names
from resnet_tools.data.labels import read_labels
from resnet_tools.errors import ResnetToolsError

NAMES = ["tench, Tinca tinca", "ankle boot", "t-shirt", "größe"]
IDS = ["n01440764", "n02000000", "n02000001", "n09999999"]


def lines(form: str, start: int = 0) -> str:
    return "".join(
        form.format(n=n, name=name, id=wordnet) + "\n"
        for n, (name, wordnet) in enumerate(zip(NAMES, IDS, strict=True), start)
    )


FORMS = {
    "one name per line": ("", lines("{name}")),
    "number: name": ("`number: name`, numbered from 0", lines("{n}: {name}")),
    "number: name from 1": ("numbered from 1", lines("{n}: {name}", 1)),
    "YAML with quotes": ("`number: name`", "names:\n" + lines('  {n}: "{name}"')),
    "YAML list": ("a YAML list", "names:\n" + lines("- {name}")),
    "number = name": ("`number: name`, numbered from 0", lines("{n} = {name}")),
    "number,name": ("`number,name`", lines("{n},{name}")),
    "number,name quoted with a header": ("`number,name`", "index,label\n" + lines('{n},"{name}"')),
    "number;name": ("`number,name`", lines("{n};{name}")),
    "number tab name": ("`number<tab>name`", lines("{n}\t{name}")),
    "number name": ("`number name`", lines("{n} {name}")),
    "number) name": ("`number name`", lines("{n}) {name}", 1)),
    "name number": ("`name number`", lines("{name} {n}")),
    "name number from 1": ("`name number`, numbered from 1", lines("{name} {n}", 1)),
    "name,number": ("`name,number`", lines('"{name}",{n}')),
    "name: number": ("`name: number`", lines("{name}: {n}")),
    "name tab number": ("`name<tab>number`", lines("{name}\t{n}")),
    "synsets": ("lines of `WORDNET-ID name`", lines("{id} {name}")),
    "synsets with a comma": ("`WORDNET-ID name`", lines("{id},{name}")),
    "number, synset and name": ("`number,name`, numbered from 0, `WORDNET-ID name`", lines("{n},{id},{name}")),
    "synset number name": ("`WORDNET-ID number name`, numbered from 1", lines("{id} {n} {name}", 1)),
    "JSON list": ("a list", json.dumps(NAMES)),
    "JSON list over lines": ("a list", json.dumps(NAMES, indent=1, ensure_ascii=False)),
    "JSON list of pairs": ("a list", json.dumps([list(pair) for pair in zip(IDS, NAMES, strict=True)])),
    "JSON list of entries": (
        "a list of numbered entries, numbered from 1",
        json.dumps([{"id": n, "name": name} for n, name in reversed(list(enumerate(NAMES, 1)))]),
    ),
    "Keras's class index": (
        "a dict of number -> name, numbered from 0",
        json.dumps({str(n): pair for n, pair in enumerate(zip(IDS, NAMES, strict=True))}),
    ),
    "JSON number -> name": ("number -> name", json.dumps(dict(reversed(list(enumerate(NAMES)))))),
    "JSON name -> number": ("name -> number", json.dumps({name: n for n, name in reversed(list(enumerate(NAMES)))})),
    "JSON name -> number as text": ("name -> number", json.dumps({name: str(n) for n, name in enumerate(NAMES)})),
    "config.json": ("number -> name", json.dumps({"architectures": [], "id2label": dict(enumerate(NAMES))})),
    "under a key": ("a list", json.dumps({"classes": NAMES, "epochs": 90})),
    "Python dict": ("number -> name", "{" + ",\n ".join(f"{n}: {name!r}" for n, name in enumerate(NAMES)) + ",\n}\n"),
    "Python dict with a name": ("number -> name", f"class_names = {dict(enumerate(NAMES, 1))}"),
    "Python dict of names": ("name -> number", str({name: n for n, name in enumerate(NAMES)})),
    "JSON lines": ("strings in quotes", "".join(f"{json.dumps(name)}\n" for name in NAMES)),
    "JSON lines of objects": (
        "JSON lines, numbered from 1",
        "\n".join(json.dumps({"id": n, "name": name}) for n, name in reversed(list(enumerate(NAMES, 1)))),
    ),
    "JSON lines of names": ("JSON lines", "".join(f"{json.dumps({'name': name})}\n" for name in NAMES)),
    "JSON lines of pairs": ("JSON lines, numbered", "".join(f"[{n}, {json.dumps(k)}]\n" for n, k in enumerate(NAMES))),
    "JSON lines of one key": ("JSON lines, numbered", "".join(f"{json.dumps({k: n})}\n" for n, k in enumerate(NAMES))),
    "JSON lines of Windows": ("JSON lines", "\r\n\r\n".join(json.dumps({"name": name}) for name in NAMES)),
    "COCO": (
        "numbered entries, numbered from 1",
        json.dumps({"images": [], "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)]}),
    ),
    "deep under a key": ("name -> number", json.dumps({"data": {"label2id": {k: n for n, k in enumerate(NAMES)}}})),
    "quoted lines of a program": ("strings in quotes", "".join(f"  '{name}',\n" for name in NAMES)),
    "TensorFlow's label map": (
        "items with an id and a name, numbered from 1",
        "".join(f'item {{\n  id: {n}\n  name: "/m/0{n}"\n  display_name: "{k}"\n}}\n' for n, k in enumerate(NAMES, 1)),
    ),
    "data.yaml, numbered": (
        "the key `names`",
        "path: ../x\nnc: 4\nnames:\n" + lines("  {n}: {name}  # {n}") + "x: 1\n",
    ),
    "data.yaml, listed": ("the key `names`", "train: a\nnames:\n" + lines("- '{name}'") + "nc: 4\n"),
    "data.yaml, in brackets": ("the key `names`", "nc: 4\nnames: " + json.dumps(NAMES, indent=1) + "\nval: b\n"),
    "data.yaml, Python's quotes": ("the key `names`", f"nc: 4\nnames: {NAMES}\n"),
    "table of three columns": ("the column 'name'", "id;color;name\n" + lines("{n};red;{name}")),
    "column with a header": ("a column below its header 'label'", "label\n" + lines("{name}")),
    "quoted column with a header": ("a column below", '"name"\n' + lines('"{name}"')),
    "number -> name": ("`number: name`", lines("{n} -> {name}")),
    "number | name": ("`number: name`", lines("{n} | {name}")),
    "name => number": ("`name: number`", lines("{name} => {n}")),
    "numbers of a spreadsheet": ("`number,name`", lines("{n}.0,{name}")),
    "lines that end in commas": ("lines that end in commas", lines("{name},")),
    "Python tuple in a list": ("a list", str(list(zip(IDS, NAMES, strict=True)))),
}


@pytest.mark.parametrize("case", FORMS)
def test_every_form_gives_the_names_in_the_order_of_the_outputs(case):
    form, text = FORMS[case]
    names, found = listed_names(text)
    assert names == NAMES
    assert (form in found) if form else found == ""


@pytest.mark.parametrize(
    "case",
    [case for case in FORMS if "`" in FORMS[case][0] and "data.yaml" not in case and "WORDNET" not in FORMS[case][0]],
)
def test_the_numbers_and_not_the_lines_say_the_order(case):
    content = FORMS[case][1].splitlines()
    head = content[:-4]
    assert listed_names("\n".join([*head, *reversed(content[-4:])]))[0] == NAMES


@pytest.mark.parametrize(
    "names",
    [
        ["boeing 707", "boeing 747", "airbus 320"],
        ["label 0", "label 1", "label 2"],
        ["cat", "dog 1", "bird 2"],
        ["3 musketeers", "101 dalmatians", "12 monkeys"],
        ["0", "1", "2"],
        ["7: the film", "cat", "dog"],
        ["n01440764", "n02000000", "n02000001"],
        ["[unknown]", "cat", "[padding]"],
        ["{x}", "y"],
        ["a, b", "c, d"],
        ["only one 1"],
    ],
)
def test_names_that_only_look_like_a_form_stay_as_they_are(names):
    assert listed_names("\n".join(names) + "\n") == (names, "")


def test_numbers_with_gaps_behind_a_space_are_taken_for_parts_of_the_names_and_said():
    with pytest.warns(UserWarning, match="the lines end in numbers, which are not 0 to 2 without gaps"):
        assert listed_names("cat 0\ndog 1\nbird 3\n") == (["cat 0", "dog 1", "bird 3"], "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0: cat\n1: dog\n3: bird\n", "line 3 has the number 3, and none has 2; expected 3 numbers"),
        ("0: cat\n1: dog\n1: bird\n", "line 3 has the number 1 a second time; line 2 has it"),
        ("2,cat\n3,dog\n", "line 2 has the number 3, and none has 1"),
        ("0 cat\n1 dog\n3 bird\n", "line 3 has the number 3, and none has 2"),
        ("cat,0\ndog,2\n", "line 2 has the number 2, and none has 1"),
        ("0: a\n1: b\nbird\n3: c\n4: d\n", "line 3 is 'bird'; expected `number: name`"),
        ("class,index\na,0\nb,1\nc\nd,2\ne,3\n", "line 4 is 'c'; expected `name,number`"),
        ("n01440764 a\nn01440765 b\nc\nn01440766 d\nn01440767 e\n", "line 3 is 'c'; expected `WORDNET-ID name`"),
        ("n01440765 1 a\nn01440764 2 b\nn01440766 3 c\n", "they may be ILSVRC2012_IDs"),
        ('{"0": "a", "2": "b"}', "key '2' has the number 2, and none has 1"),
        ('{"0": "a", "0": "b"}', "the key '0' occurs twice"),
        ("{0: 'a', 0: 'b'}", "the key '0' occurs twice"),
        ('{"a": 0, "b": 0}', "the number of 'b' has the number 0 a second time"),
        ('{"a": 0, "b": "c"}', "the entry 'b' has the value 'c'"),
        ('{"a": true, "b": false}', "the entry 'a' has the value True"),
        ('["a", 1]', "entry 2 of the list is 1; expected a class name"),
        ('["a", ""]', "entry 2 of the list is ''"),
        ("[]", "holds no class names"),
        ("{}", "holds no class names"),
        ('["a",\n "b"\n "c"]', "line 3 is neither JSON nor a Python literal"),
        ("{0: 'a', 1: open('x')}", "is neither JSON nor a Python literal"),
        ("{**{0: 'a'}}", "is neither JSON nor a Python literal"),
        ("[" * 10_000 + "]" * 10_000, "brackets|no JSON"),
        ("{0: " + "-" * 100_000 + "1}", "neither JSON nor a Python literal"),
        ("-1 cat\n0 dog\n1 bird\n", "line 1 has the number -1; expected numbers from 0 or from 1"),
        ("cat 0\ndog -1\n", "line 2 has the number -1"),
        ("-1: cat\n0: dog\n", "line 1 has the number -1"),
        ("cat,1\ndog,-2\n", "line 2 has the number -2"),
        ('{"-1": "a", "0": "b"}', "key '-1' has the number -1"),
        ("2 cat\n3 dog\n4 bird\n", "line 3 has the number 4, and none has 1.*write the names as a JSON list"),
        ("1 cat\n2 dog\n2 bird\n", "line 3 has the number 2 a second time; line 2 has it"),
        ("0: \n1: dog\n", "line 1 has the number 0 and no name"),
        ("99999999999: cat\n1: dog\n", "line 1 has the number 99999999999"),
        ('{"id": 0, "name": "a"}\n{"id": 1\n', "line 2 is .*; expected a JSON object, as the other lines"),
        ('{"id": 0, "name": "a"}\n{"id": 0, "name": "b"}\n', "line 2 has the number 0 a second time; line 1 has it"),
        ('{"id": 0, "name": "a"}\n{"name": "b"}\n', "line 2 has no number; expected one, as others have"),
        ('{"id": -1, "name": "a"}\n{"id": 0, "name": "b"}\n', "line 1 has the number -1"),
        (
            '{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "entry 2 of the list has the number 1 a sec",
        ),
        ("item {\n  id: 1\n}\n", "item 1 is 'id: 1'; expected an id and a name"),
        ("nc: 2\nnames:\n  0: a\n  2: b\n", "line 4 has the number 2, and none has 1"),
        ("nc: 2\nnames: [a, b\n", "line 2 begins a list that does not end"),
        ("id,color,name\n0,red,a\n1,b\n", "line 3 is '1,b'; expected 3 columns"),
        ("<!DOCTYPE html>\n<html>\n", "is an HTML or XML page"),
        ("", "holds no class names"),
        ("cat\n\ndog\n", "line 2 is empty"),
    ],
)
def test_what_does_not_fit_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        listed_names(text)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("case", ["one name per line", "number: name", "JSON list over lines"])
def test_every_encoding_gives_the_same_names_and_the_form_is_said_in_one_line(tmp_path, encoding, case):
    form, text = FORMS[case]
    file = tmp_path / "names"
    file.write_bytes(text.encode(encoding))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_labels(file) == NAMES
    assert [str(warning.message) for warning in caught] == (
        [f"{file}: read as {listed_names(text)[1]}"] if form else []
    )


def test_a_file_of_null_bytes_is_no_text(tmp_path):
    (tmp_path / "names").write_bytes(bytes(999))
    with pytest.raises(ResnetToolsError, match="null bytes"):
        read_labels(tmp_path / "names")


@given(st.lists(st.text("ab01 ,:;\t\n[]{}\"'n=-\\\ud800", max_size=12), max_size=6).map("\n".join))
def test_any_text_is_names_or_an_error(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            names, _ = listed_names(text)
        except ValueError:
            return
    assert names
    assert all(isinstance(name, str) and name.strip() for name in names)


@pytest.mark.parametrize("line", [" " * 1_000_000 + "a", "a" + " " * 1_000_000 + "b", "a " * 500_000, ": " * 500_000])
def test_long_lines_take_no_time(line):
    begin = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listed_names(f"{line}\n{line}\n{line}\n")
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "resnet_tools" / "data").glob("*_labels.txt")))
def test_the_lists_that_come_with_the_package_are_plain(path):
    assert listed_names(path.read_text(encoding="utf-8"))[1] == ""


def test_a_list_that_convert_wrote_has_one_name_a_line_even_if_they_end_in_numbers(tmp_path):
    file = tmp_path / "net.classes.txt"
    file.write_text("cat 0\ndog 1\n")
    assert read_labels(file) == ["cat 0", "dog 1"]


@pytest.mark.filterwarnings("ignore:.*read as a list of numbered entries")
def test_ids_with_gaps_count_in_their_order_if_the_number_of_classes_fits(tmp_path):
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"categories": [{"id": 7, "name": "dog"}, {"id": 1, "name": "cat"}]}))
    with pytest.warns(
        UserWarning, match=r"instances.json: the ids are 1 to 7 with gaps \(none is 2\); the 2 names are"
    ):
        assert read_labels(file, 2) == ["cat", "dog"]
    with pytest.raises(
        ResnetToolsError, match=r"instances.json: the net has 7 classes, but 2 names are here; the ids are"
    ):
        read_labels(file, 7)


def test_another_number_of_names_names_the_file(tmp_path):
    for name in ("names.txt", "net.classes.txt"):
        (tmp_path / name).write_text("cat\ndog\n")
        with pytest.raises(ResnetToolsError, match=rf"{name}: the net has 10 classes, but 2 names are here"):
            read_labels(tmp_path / name, 10)


def test_comments_before_the_names_are_left_out_and_said():
    with pytest.warns(UserWarning, match="the first 2 lines, which begin with #, are left out"):
        assert listed_names("# classes\n# of it\ncat\n#dog\n") == (["cat", "#dog"], "")
    assert listed_names("#1\n#2\n") == (["#1", "#2"], "")


def test_lines_may_end_as_on_old_macs():
    assert listed_names("cat\rdog\r")[0] == ["cat", "dog"]
