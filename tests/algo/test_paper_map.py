from pathlib import Path

import hildaft
from hildaft.algo.paper_map import main, render, scan_package

PACKAGE = Path(hildaft.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "paper.md"


def test_equations_1_to_17_have_one_owner_each() -> None:
    owners = scan_package(PACKAGE).equations
    assert {number: owners[number] for number in range(1, 18) if len(owners[number]) != 1} == {}
    assert set(owners) == set(range(1, 18))


def test_every_line_of_algorithm_1_has_one_owner() -> None:
    owners = scan_package(PACKAGE).algorithm
    assert {line: owner for line, owner in owners.items() if len(owner) != 1} == {}
    assert set(owners) == set(range(1, 31))


def test_named_departures_are_listed() -> None:
    names = {name for name, _, _ in scan_package(PACKAGE).departures}
    assert {"X1", "X2", "X3", "bc_data", "null_bypass", "target_clip", "eta_3"} <= names


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(scan_package(PACKAGE))


def test_scan_reads_docstrings_of_functions_classes_and_fields(tmp_path: Path) -> None:
    package = tmp_path / "method"
    package.mkdir()
    (package / "part.py").write_text(
        '"""A module that mentions Paper: Eq. 9. inside a line."""\n'
        "def f():\n"
        '    """One.\n\n    Paper: Eq. 4.\n    Paper: Alg. 1, lines 2-3, 7.\n    """\n'
        "class C:\n"
        '    """Two.\n\n    Differs from the paper (X9): since it\n    helps.\n    """\n'
        "    field: int = 0\n"
        '    """Three.\n\n    Paper: Eq. 5.\n    """\n',
        encoding="utf-8",
    )
    found = scan_package(package)
    assert {number: owner for number, owner in found.equations.items() if owner} == {
        4: ["method.part:f"]
    } | ({5: ["method.part:C.field"]})
    assert [line for line, owner in found.algorithm.items() if owner] == [2, 3, 7]
    assert found.departures == [("X9", "since it helps.", "method.part:C")]


def test_main_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "paper.md"
    main([str(page)])
    assert page.read_text(encoding="utf-8").startswith("# The paper, in the code\n")
