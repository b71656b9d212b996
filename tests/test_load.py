"""Finding a pipeline by what a user types."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import DeclarationError, DeclarationErrors
from penstock.load import load_pipeline

ONE = "import penstock as ps\npipeline = ps.Pipeline('one')\n"


def write(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def test_a_python_file(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path, "one.py", ONE))
    assert pipeline.name == "one"
    assert pipeline.where.line == 2


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "neighbour_of_two.py", "NAME = 'two'\n")
    text = "import penstock as ps\nfrom neighbour_of_two import NAME\np = ps.Pipeline(NAME)\n"
    assert load_pipeline(write(tmp_path, "two.py", text)).name == "two"


def test_an_attribute_chooses_among_several(tmp_path: Path) -> None:
    file = write(tmp_path, "several.py", ONE + "other = ps.Pipeline('other')\n")
    assert load_pipeline(f"{file}:other").name == "other"
    with pytest.raises(DeclarationError, match=r"several\.py:pipeline, .*several\.py:other"):
        load_pipeline(file)


def test_a_module_and_an_application() -> None:
    assert load_pipeline("penstock.apps.ads.pipeline:pipeline").name == load_pipeline("ads").name == "ads"


def test_an_sql_file(tmp_path: Path) -> None:
    file = write(tmp_path, "my-clicks.sql", "CREATE STREAM s (a INT);\nCREATE VIEW v AS SELECT a FROM s;")
    graph = load_pipeline(file).graph()
    assert (graph.name, graph.views[0].where.file, graph.views[0].where.line) == ("my_clicks", file, 2)


def test_mistakes_of_an_sql_file_name_the_file(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path, "wrong.sql", "CREATE STREAM s (a FOO)"))
    with pytest.raises(DeclarationErrors, match=r"wrong.sql:1:20: PS-DECL-006"):
        pipeline.graph()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no application 'nothing'"),
        ("missing.py", "no such file"),
        ("missing.sql", "no such file"),
        ("no_such_module_of_ours:p", "cannot be imported"),
        ("penstock.apps.ads.pipeline:nope", "has no pipeline nope"),
    ],
)
def test_what_cannot_be_found(text: str, message: str) -> None:
    with pytest.raises(DeclarationError, match=message) as caught:
        load_pipeline(text)
    assert caught.value.code == "PS-DECL-014"


@pytest.mark.parametrize(
    ("text", "line"), [("import penstock\n\n1 / 0\n", 3), ("def f(:\n", 1), ("x = 1\nimport no_such_module\n", 2)]
)
def test_an_error_in_the_file_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    file = write(tmp_path, "wrong.py", text)
    with pytest.raises(DeclarationError) as caught:
        load_pipeline(file)
    assert caught.value.where is not None
    assert (caught.value.where.file, caught.value.where.line) == (file, line)


def test_a_file_without_a_pipeline(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="holds no pipeline"):
        load_pipeline(write(tmp_path, "none.py", "x = 1\n"))
