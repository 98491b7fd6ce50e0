"""Every link and every path in the documents leads somewhere. Nothing is asked of the network."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT

DOCUMENTS = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "weights/README.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
# A file or folder of this repository: not what follows a slash, as in a URL, nor a name with a placeholder.
PATH = re.compile(r"(?<![\w/.:-])(?:pneumonia|tools|tests|benchmarks|docs|weights|\.ci|\.github)/[\w./-]*\w|`\w+\.py`")
TEST = re.compile(r"`(test(?:_[a-z\d]+){3,})`")  # the name of a test is a sentence, unlike that of a metric
MODULE = re.compile(r"(?<![\w/.-])(?:pneumonia|tools)(?:\.[a-z]\w*)+")


def fragments_of(text: str) -> set[str]:
    """Return the fragments that GitHub gives a document's headings."""
    seen: Counter[str] = Counter()
    fragments = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        shown = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        fragments.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return fragments


def broken_links(text: str, folder: Path) -> list[str]:
    """Return the links of a document in `folder` that lead nowhere."""
    return [link for link in LINK.findall(FENCE.sub("", text)) if "://" not in link and not leads(link, text, folder)]


def leads(link: str, text: str, folder: Path) -> bool:
    """Return whether there is a link's file, and in it the heading that the link names."""
    name, _, fragment = link.partition("#")
    target = (folder / name).resolve()
    if not target.exists() or not target.is_relative_to(PROJECT):
        return False
    return not fragment or fragment in fragments_of(target.read_text() if name else text)


def missing_paths(text: str) -> list[str]:
    """Return the files, folders and modules of this repository that a document names and that do not exist."""
    text = LINK.sub("]", text)
    paths = [path.strip("`") for path in PATH.findall(text)]
    return [path for path in paths if not (PROJECT / path).exists()] + [
        module for module in MODULE.findall(text) if not is_module(module)
    ]


def missing_tests(text: str) -> list[str]:
    """Return the tests that a document names and that do not exist."""
    files = [path.read_text() for path in (PROJECT / "tests").rglob("test_*.py")]
    return [name for name in TEST.findall(text) if not any(f"def {name}(" in file for file in files)]


def is_module(name: str) -> bool:
    """Return whether a dotted name is a module, or something in a module or package."""
    path = PROJECT
    for part in name.split("."):
        if (path / f"{part}.py").exists():
            return True
        if not (path / part).is_dir():
            return re.search(rf"\b{part}\b", (path / "__init__.py").read_text()) is not None  # as pneumonia.load
        path /= part
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    assert broken_links(text, document.parent) == []
    assert missing_paths(text) == []
    assert missing_tests(text) == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = {PROJECT / "README.md"}
    while waiting:
        reached |= waiting
        links = {
            (document.parent / link.partition("#")[0]).resolve()
            for document in waiting
            for link in LINK.findall(document.read_text())
        }
        waiting = {link for link in links if link.suffix == ".md" and link.exists()} - reached
    assert [str(document) for document in DOCUMENTS if document not in reached] == []


def test_readmes_tree_is_the_checkouts() -> None:
    (tree,) = re.findall(
        r"^```text\n(train_model\.py.*?)^```$", (PROJECT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    named: set[str] = set()
    folder = ""
    for indent, names in re.findall(r"^( *)(\S+(?: \S+)*)", tree, re.MULTILINE):
        folder = folder if indent else names
        named |= {f"{folder}{names}"} if indent else set(names.split())
    packages = {f"pneumonia/{file.parent.name}/" for file in (PROJECT / "pneumonia").glob("*/__init__.py")}
    scripts = {script.name for script in PROJECT.glob("*.py")}
    assert named >= packages | scripts
    assert [name for name in named if not (PROJECT / name).exists()] == []


BROKEN = """# Made up

[no file](docs/nowhere.md), ![no picture](docs/page/nowhere.png), [outside](../elsewhere.md),
[no heading](README.md#nowhere), [not here](#below), [here](#made-up) and [again](#made-up-1), [not asked](https://example.invalid/#nowhere)

## Made up

`tools/nowhere.py`, `nowhere.py`, tests/nowhere/, `python -m pneumonia.serving.nowhere`, but neither `pneumonia.imaging`
nor https://example.invalid/docs/nowhere; `test_nobody_shows_this`, but neither `test_broken_links_are_found` nor
`test_loss`

```bash
# Below
python benchmarks/nowhere.py
```
"""


def test_broken_links_are_found() -> None:
    assert broken_links(BROKEN, PROJECT) == [
        *("docs/nowhere.md", "docs/page/nowhere.png", "../elsewhere.md", "README.md#nowhere", "#below")
    ]
    assert missing_paths(BROKEN) == [
        *("tools/nowhere.py", "nowhere.py", "tests/nowhere", "benchmarks/nowhere.py", "pneumonia.serving.nowhere")
    ]
    assert missing_tests(BROKEN) == ["test_nobody_shows_this"]
