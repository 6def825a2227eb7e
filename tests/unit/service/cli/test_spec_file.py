"""Job specs as files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.evaluate_specs import EvaluateSpec
from jobs.finetune_specs import FinetuneSpec
from service.cli.errors import CliError
from service.cli.spec_file import local_data, read_spec_file, with_file_ids, with_overrides
from workers.specs import SOURCE_SCHEMES

FILE_ID = "file-0123456789abcdef"
EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "finetune.yaml"


def write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_example_is_a_valid_spec_once_its_data_is_uploaded() -> None:
    spec = read_spec_file(EXAMPLE)
    uploaded = with_file_ids(spec, {"data.train": FILE_ID})
    assert FinetuneSpec.model_validate(uploaded.document).adapter.method == "hyplora"


def test_the_example_comes_with_the_rows_that_it_names() -> None:
    assert local_data(read_spec_file(EXAMPLE)).keys() == {"data.train"}


@pytest.mark.parametrize("text", ["3e-4", "1.0e-3", "2E5", ".5", "5.", "-1.5e+3", "1e5"])
def test_numbers_are_read_as_people_write_them(text: str, tmp_path: Path) -> None:
    value = read_spec_file(write(tmp_path, f"x: {text}")).document["x"]
    assert isinstance(value, float)
    assert value == float(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_an_override(value: float) -> None:
    spec = with_overrides(read_spec_file(EXAMPLE), [f"training.learning_rate={value!r}"])
    assert spec.document["training"]["learning_rate"] == value


@pytest.mark.parametrize("text", ["2026-01-02", ".nan", ".inf", "1e", "e5", "."])
def test_what_json_has_no_number_for_is_text(text: str, tmp_path: Path) -> None:
    assert read_spec_file(write(tmp_path, f"x: {text}")).document == {"x": text}


def test_json_is_read_as_json(tmp_path: Path) -> None:
    path = write(tmp_path, '{\n\t"name": "n", "x": NaN}', "job.json")
    assert read_spec_file(path).document == {"name": "n", "x": "NaN"}


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        ("kind: finetune\nname: [a", "job.yaml", r"job\.yaml:2: not valid YAML: "),
        ("a: 1\nb: x: y\n", "job.yaml", r"job\.yaml:2: not valid YAML: mapping values"),
        ("a: 1\n\tb: 2\n", "job.yaml", r"job\.yaml:2: not valid YAML: "),
        (
            "a: 1\nb:\n  c: 1\n  c: 2\n",
            "job.yaml",
            r"job\.yaml:4: b\.c is given twice, first at .*:3",
        ),
        ("a: !!python/object:os.system x", "job.yaml", r"job\.yaml:1: not valid YAML: could not"),
        ("a: &a [*a]", "job.yaml", r"job\.yaml: holds what JSON cannot: Circular"),
        ("a: !!binary aGk=", "job.yaml", r"job\.yaml: holds what JSON cannot: .*bytes"),
        ("a: \x00", "job.yaml", r"job\.yaml: not valid YAML: "),
        ('{"a": 1,\n}', "job.json", r"job\.json:2: not valid JSON: "),
        ("- a\n", "job.yaml", "a job spec is a mapping"),
        ("", "job.yaml", "a job spec is a mapping"),
    ],
)
def test_a_file_that_is_no_spec_is_refused_with_its_line(
    text: str, name: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(CliError, match=sentence):
        read_spec_file(write(tmp_path, text, name))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="No such file"):
        read_spec_file(tmp_path / "job.yaml")
    (tmp_path / "job.yaml").write_bytes(b"a: \xff")
    with pytest.raises(CliError, match="not UTF-8 text: byte 3"):
        read_spec_file(tmp_path / "job.yaml")


def test_every_field_has_a_place(tmp_path: Path) -> None:
    text = "kind: finetune\nadapter:\n  r: 0\n  target_modules:\n  - q_proj\n  - ''\n"
    spec = read_spec_file(write(tmp_path, text))
    path = tmp_path / "job.yaml"
    assert spec.place_of("adapter.r") == f"{path}:3"
    assert spec.place_of("adapter.target_modules.1") == f"{path}:6"


def test_a_missing_field_belongs_to_the_field_around_it(tmp_path: Path) -> None:
    spec = read_spec_file(write(tmp_path, "kind: finetune\ndata: {}\n"))
    assert spec.place_of("data.train") == f"{tmp_path / 'job.yaml'}:2"
    assert spec.place_of("name") == str(tmp_path / "job.yaml")


def test_overrides_replace_add_and_keep_their_place(tmp_path: Path) -> None:
    spec = read_spec_file(write(tmp_path, "adapter: {r: 4}\n"))
    changed = with_overrides(
        spec, ["adapter.r=16", "training.max_steps=50", "adapter.target_modules=[q_proj, v_proj]"]
    )
    assert changed.document == {
        "adapter": {"r": 16, "target_modules": ["q_proj", "v_proj"]},
        "training": {"max_steps": 50},
    }
    assert changed.place_of("training.max_steps") == "--set training.max_steps"
    assert spec.document == {"adapter": {"r": 4}}, "the file's own content stays"


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("adapter.r", "write key.path=value"),
        ("=1", "write key.path=value"),
        ("adapter..r=1", "write key.path=value"),
        ("adapter.r=[1", "--set adapter.r: not valid YAML"),
        ("name.first=x", "name already holds a value"),
    ],
)
def test_an_override_of_another_form_is_refused(
    assignment: str, sentence: str, tmp_path: Path
) -> None:
    spec = read_spec_file(write(tmp_path, "name: n\n"))
    with pytest.raises(CliError, match=sentence):
        with_overrides(spec, [assignment])


def test_data_in_the_file_is_found_beside_the_file(tmp_path: Path) -> None:
    write(tmp_path, "", "rows.jsonl")
    spec = read_spec_file(write(tmp_path, f"data: {{train: rows.jsonl, validation: {FILE_ID}}}\n"))
    assert local_data(spec) == {"data.train": tmp_path / "rows.jsonl"}


def test_data_in_an_override_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "", "rows.jsonl")
    (tmp_path / "specs").mkdir()
    spec = read_spec_file(write(tmp_path / "specs", "name: n\n"))
    monkeypatch.chdir(tmp_path)
    changed = with_overrides(spec, ["data.train=rows.jsonl"])
    assert local_data(changed) == {"data.train": tmp_path / "rows.jsonl"}


def test_evaluation_sets_are_uploaded_like_other_data(tmp_path: Path) -> None:
    write(tmp_path, "", "svamp.parquet")
    text = (
        "data:\n  train: s3://bucket/rows\n"
        f"  evaluation_sets: {{svamp-1.0: svamp.parquet, gsm8k: {FILE_ID}}}\n"
    )
    spec = read_spec_file(write(tmp_path, text))
    field = "data.evaluation_sets.svamp-1.0"
    assert local_data(spec) == {field: tmp_path / "svamp.parquet"}
    assert with_file_ids(spec, {field: FILE_ID}).document["data"] == {
        "train": "s3://bucket/rows",
        "evaluation_sets": {"svamp-1.0": FILE_ID, "gsm8k": FILE_ID},
    }
    assert spec.document["data"]["evaluation_sets"]["svamp-1.0"] == "svamp.parquet"


@pytest.mark.parametrize(
    "source",
    [
        FILE_ID,
        "file:///rows.jsonl",
        *(f"{scheme}://rows.jsonl" for scheme in SOURCE_SCHEMES),
        "{dataset: openai/gsm8k, config: main}",
    ],
)
def test_data_that_the_workers_read_is_left_alone(source: str, tmp_path: Path) -> None:
    text = f"data:\n  train: {source}\n  validation: {source}\n  evaluation_sets: {{a: {source}}}"
    spec = read_spec_file(write(tmp_path, text))
    assert local_data(spec) == {}
    assert with_overrides(spec, [f"data.train={source}"]).document == spec.document


@pytest.mark.parametrize(
    "assignment",
    [
        "data.evaluation_sets.a=rows.jsonl",
        "data.evaluation_sets={a: rows.jsonl}",
        "data={evaluation_sets: {a: rows.jsonl}}",
    ],
)
def test_every_form_of_override_takes_data_from_the_working_directory(
    assignment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "", "rows.jsonl")
    (tmp_path / "specs").mkdir()
    spec = read_spec_file(write(tmp_path / "specs", "name: n\n"))
    monkeypatch.chdir(tmp_path)
    changed = with_overrides(spec, [assignment])
    assert local_data(changed) == {"data.evaluation_sets.a": tmp_path / "rows.jsonl"}
    assert spec.document == {"name": "n"}


@pytest.mark.parametrize("name", ["gsm8k", "svamp-1.0"])
def test_an_evaluation_set_that_is_not_there_is_refused_with_its_line(
    name: str, tmp_path: Path
) -> None:
    text = f"data:\n  train: {FILE_ID}\n  evaluation_sets:\n    {name}: https://rows\n"
    spec = read_spec_file(write(tmp_path, text))
    with pytest.raises(
        CliError, match=rf"yaml:4: data\.evaluation_sets\.{name}: there is no file .*s3://"
    ):
        local_data(spec)


def test_data_that_is_not_there_is_refused_with_the_line(tmp_path: Path) -> None:
    spec = read_spec_file(write(tmp_path, "name: n\ndata:\n  train: rows.jsonl\n"))
    with pytest.raises(CliError, match=r"job\.yaml:3: data\.train: there is no file .*rows\.jsonl"):
        local_data(spec)


@pytest.mark.parametrize(
    "data", ["5", "[1]", "{train: 5}", "{}", "{evaluation_sets: [rows.jsonl]}"]
)
def test_data_of_another_form_is_left_to_the_service(data: str, tmp_path: Path) -> None:
    spec = read_spec_file(write(tmp_path, f"data: {data}\n"))
    assert local_data(spec) == {}
    assert json.dumps(with_file_ids(spec, {}).document)


EXAM = """kind: evaluate
tasks:
- benchmark: gsm8k
  data: rows.jsonl
  num_shots: 2
  shots: shots.jsonl
- benchmark: svamp
  data: s3://bucket/rows
"""


def test_the_rows_of_tasks_are_uploaded_under_the_names_of_their_fields(tmp_path: Path) -> None:
    write(tmp_path, "", "rows.jsonl")
    write(tmp_path, "", "shots.jsonl")
    spec = read_spec_file(write(tmp_path, EXAM))
    fields = {"tasks.0.data": FILE_ID, "tasks.0.shots": FILE_ID.replace("0", "1")}
    assert local_data(spec) == {
        "tasks.0.data": tmp_path / "rows.jsonl",
        "tasks.0.shots": tmp_path / "shots.jsonl",
    }
    uploaded = with_file_ids(spec, fields)
    named = EvaluateSpec.model_validate({**uploaded.document, "name": "n", "base_model": "b"})
    assert named.sources() == fields | {"tasks.1.data": "s3://bucket/rows"}


def test_the_rows_of_an_analysis_are_uploaded(tmp_path: Path) -> None:
    write(tmp_path, "", "rows.jsonl")
    spec = read_spec_file(write(tmp_path, "kind: analyze\ndata: rows.jsonl\n"))
    assert local_data(spec) == {"data": tmp_path / "rows.jsonl"}
    assert with_file_ids(spec, {"data": FILE_ID}).document["data"] == FILE_ID


def test_rows_of_a_task_that_are_not_there_are_refused_with_the_line(tmp_path: Path) -> None:
    write(tmp_path, "", "rows.jsonl")
    spec = read_spec_file(write(tmp_path, EXAM))
    with pytest.raises(CliError, match=r"job\.yaml:6: tasks\.0\.shots: there is no file"):
        local_data(spec)


@pytest.mark.parametrize("tasks", ["5", "[5]", "{a: 5}", "[[x]]", "null", "[{data: 5}]"])
def test_tasks_of_another_form_are_left_to_the_service(tasks: str, tmp_path: Path) -> None:
    assert local_data(read_spec_file(write(tmp_path, f"tasks: {tasks}\n"))) == {}


@pytest.mark.parametrize(
    "assignment",
    ["tasks.0.data=rows.jsonl", "tasks.0={data: rows.jsonl}", "tasks=[{data: rows.jsonl}]"],
)
def test_an_override_reaches_into_a_list(
    assignment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "specs").mkdir()
    write(tmp_path, "", "rows.jsonl")
    write(tmp_path / "specs", "", "rows.jsonl")
    write(tmp_path / "specs", "", "shots.jsonl")
    spec = read_spec_file(write(tmp_path / "specs", EXAM))
    monkeypatch.chdir(tmp_path)
    changed = with_overrides(spec, [assignment])
    assert local_data(changed)["tasks.0.data"] == tmp_path / "rows.jsonl"
    assert spec.document["tasks"][0]["data"] == "rows.jsonl"


@pytest.mark.parametrize("place", ["2", "-1", "first"])
def test_an_override_beyond_a_list_is_refused(place: str, tmp_path: Path) -> None:
    spec = read_spec_file(write(tmp_path, EXAM))
    with pytest.raises(CliError, match=rf"{place} is no place in a list of 2; count from 0"):
        with_overrides(spec, [f"tasks.{place}.max_rows=1"])


SEARCH = """kind: search
data: {train: rows.jsonl}
space:
  adapter.curvature: {loguniform: [0.1, 10]}
  adapter.r:
    choice: [4, 8]
"""


@pytest.mark.parametrize(
    ("assignment", "field", "expected"),
    [
        ("space.adapter.curvature.loguniform=[1, 2]", "adapter.curvature", {"loguniform": [1, 2]}),
        ("space.adapter.r={integers: [1, 4]}", "adapter.r", {"integers": [1, 4]}),
        ("space.adapter.alpha.choice=[8]", "adapter.alpha", {"choice": [8]}),
        ("space={adapter.r: {choice: [4]}}", "adapter.r", {"choice": [4]}),
    ],
)
def test_the_ranges_of_a_search_can_be_overridden(
    assignment: str, field: str, expected: object, tmp_path: Path
) -> None:
    spec = with_overrides(read_spec_file(write(tmp_path, SEARCH)), [assignment])
    assert spec.document["space"][field] == expected
    assert all("." in name for name in spec.document["space"])


@pytest.mark.parametrize("field", ["space.", "space..r", "space.adapter.", "space.adapter.r."])
def test_a_range_without_a_name_is_refused(field: str, tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"write key\.path=value"):
        with_overrides(read_spec_file(write(tmp_path, SEARCH)), [f"{field}=[1]"])


def test_the_data_of_a_search_is_uploaded_and_its_ranges_have_places(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    path = write(tmp_path, SEARCH)
    spec = read_spec_file(path)
    assert local_data(spec).keys() == {"data.train"}
    assert spec.place_of("space.adapter.r.choice.1") == f"{path}:6"
    assert spec.place_of("space.adapter.curvature.loguniform.0") == f"{path}:4"
