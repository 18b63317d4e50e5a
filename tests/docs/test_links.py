"""Links of README and docs lead somewhere, every page and picture is linked, and quoted results are the results."""

import re
import tomllib

import pytest

from tests.docs.pages import PAGES, README, ROOT, Page

LONGEST_README = 220
RESULTS = [ROOT / "results" / "README.md", *sorted((ROOT / "results" / "studies").glob("*/table.md"))]
ELSEWHERE = ("http://", "https://")


def of_all_pages():
    return [pytest.param(page, id=str(page)) for page in PAGES]


@pytest.mark.parametrize("page", of_all_pages())
def test_links_lead_somewhere(page):
    for link in page.links:
        if link.startswith(ELSEWHERE):
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), f"{page}: {link}"
        assert target.is_relative_to(ROOT), f"{page}: {link} leaves the project"
        if anchor:
            assert anchor in Page(target).anchors, f"{page}: {link}"


def test_every_page_is_linked_from_the_readme():
    linked = {(README.path.parent / link.partition("#")[0]).resolve() for link in README.links}
    assert {page.path for page in PAGES} - linked == {README.path}


@pytest.mark.slow
def test_every_picture_is_shown():
    shown = {(page.path.parent / link).resolve() for page in PAGES for link in page.links}
    assert {*(ROOT / "docs" / "pictures").iterdir()} <= shown


def test_the_readme_is_short():
    assert README.text.count("\n") <= LONGEST_README


@pytest.mark.parametrize("page", of_all_pages())
def test_quoted_results_are_those_of_the_tables(page):
    """`86.9 [60.2, 100.0]` in a text stands in a generated table, without its marks and signs."""
    interval = re.compile(r"[+-]?\d+\.\d[°†‡]* \[[+-]?\d+\.\d, [+-]?\d+\.\d\]")
    known = {re.sub("[°†‡]", "", each) for path in RESULTS for each in interval.findall(path.read_text())}
    quoted = {re.sub("[°†‡]", "", " ".join(each.split())) for each in interval.findall(page.prose)}
    assert quoted <= known, quoted - known


def test_what_the_source_archive_holds():
    """Pages and their pictures travel with the source."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    include = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"docs", "examples", "README.md", "results", "tests"} <= {*include}
    assert project["project"]["readme"] == "README.md"
