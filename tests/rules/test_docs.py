"""What the documents, the configs and the fixture say is so."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import sno_dist
from sno_dist.config.load import load_config
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import open_manifest
from sno_dist.shards.reader import Reader
from tests.rules import test_rules as rules

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"),
    *("benchmarks/README.md", "data_shards/README.md", "launch/README.md"),
)
FIXTURE = ROOT / "data_shards/fixture"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)


def paths_of_tree(text: str) -> list[str]:
    """The files of a tree that is indented by two spaces, folders ending in a slash."""
    folders: list[str] = []
    found = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = [*folders[:depth], name]
        if not name.endswith("/"):
            found.append("".join(folders))
    return found


# --------------------------------------------------------------------------- documents


def test_the_tree_names_every_file_of_the_package_once() -> None:
    (tree,) = [block for block in blocks("ARCHITECTURE.md", "") if block.startswith("sno_dist/")]
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sno_dist").rglob("*.py")}
    assert sorted(paths_of_tree(tree)) == sorted(there)


def test_every_file_and_function_that_architecture_cites_is_there() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "ARCHITECTURE.md").read_text())
    packages = "|".join(p.name for p in (ROOT / "sno_dist").iterdir() if p.is_dir())
    cited = re.findall(rf"`((?:{packages})/[\w/]+\.py)(?:: ([\w.]+))?", text)
    assert len(cited) > 40
    for file, names in cited:
        source = (ROOT / "sno_dist" / file).read_text()
        for name in names.split(".") if names else []:
            assert re.search(rf"^ *(?:class|def) {name}\b", source, re.M), f"{file}: {name}"


def test_every_test_that_architecture_cites_is_there() -> None:
    cited = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(cited) > 10
    missing = [(f, n) for f, n in cited if f"def {n}(" not in (ROOT / f).read_text()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_local_files_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [link for link in links if not ((ROOT / document).parent / link).exists()] == []


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "data_shards/README.md"])
def test_commands_parse_in_these_documents_too(document: str) -> None:
    rules.test_every_command_that_a_document_shows_parses(ROOT / document)


def test_overrides_that_the_readme_shows_are_valid_without_a_file_too() -> None:
    shown = rules.invocations((ROOT / "README.md").read_text())
    bare = [words for words in shown if "-c" not in words and any("=" in w for w in words)]
    assert len(bare) >= 3
    for words in bare:
        load_config(None, [word for word in words if "=" in word])


@pytest.mark.parametrize("code", blocks("README.md", "python"), ids=["operator", "stages"])
def test_the_readme_calls_what_there_is_with_arguments_that_fit(code: str) -> None:
    tree = ast.parse(code)
    calls = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "sno_dist":
            assert {alias.name for alias in node.names} <= set(sno_dist.__all__)
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in sno_dist.__all__:
                function, receiver = getattr(sno_dist, name), []
            case ast.Attribute(value=ast.Name(id="sno"), attr=name):
                function, receiver = getattr(sno_dist.ScoreNeuralOperator, name), [None]
            case _:
                continue
        named = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        inspect.signature(function).bind(*receiver, *node.args, **named)
        calls += 1
    assert calls >= 5


# ----------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_config_loads_under_its_own_name_and_is_in_the_readme(path: Path) -> None:
    assert load_config(path).name == path.stem
    assert f"[`configs/{path.name}`](configs/{path.name})" in (ROOT / "README.md").read_text()


# ----------------------------------------------------------------------------- fixture

KNOWN = {  # first and last sample in the role `model`
    "21-22-03-33": ((0.8925373, -2.2026963), (-1.9341975, -0.3648968)),
    "40-41-25-35": ((2.1318176, 0.67216915), (-1.5360163, 1.2989990)),
    "00-50-13-15": ((-2.3817306, 2.3184292), (2.0696902, -1.8374327)),
    "00-02-33-34": ((1.0555764, 0.78452241), (1.0577341, 0.46942648)),
}


def test_the_fixture_opens_verifies_and_holds_what_it_held() -> None:
    manifest = open_manifest(load_config(None, [f"shards.path={FIXTURE}"]))
    assert manifest.population == "fixture"
    assert (manifest.domain, manifest.shape, manifest.dtype) == ("vector", (2,), "float32")
    assert [entry.name for entry in manifest.entries] == list(KNOWN)
    assert [entry.split for entry in manifest.entries] == ["seen", "seen", "seen", "unseen"]
    reader = Reader(manifest)
    for entry in manifest.entries:
        samples = reader.all(entry, "model")
        assert (samples.shape, reader.all(entry, "reference").shape) == ((24, 2), (8, 2))
        np.testing.assert_allclose(samples[[0, -1]], KNOWN[entry.name], rtol=1e-6)


def test_the_fixture_is_built_again_to_the_byte(tmp_path: Path) -> None:
    (command,) = [
        words
        for words in rules.invocations((ROOT / "data_shards/README.md").read_text())
        if "name=fixture" in words
    ]
    build_shards(load_config(None, [*command[1:], f"shards.path={tmp_path / 'fixture'}"]))
    files = [path.relative_to(FIXTURE) for path in FIXTURE.rglob("*") if path.is_file()]
    assert len(files) == 10
    changed = [
        f for f in files if (tmp_path / "fixture" / f).read_bytes() != (FIXTURE / f).read_bytes()
    ]
    assert changed == []


# the library leaves its stream for the garbage collector to close
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_ways_of_reading_that_are_shown_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = []
    for code in blocks("data_shards/README.md", "python"):
        names: dict[str, object] = {}
        exec(compile(code, "data_shards/README.md", "exec"), names)
        found.append(np.asarray(names["samples"]))
    assert len(found) == 3
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_the_manifest_that_is_shown_is_the_fixtures() -> None:
    shown = ast.literal_eval(blocks("data_shards/README.md", "json")[0])
    there = ast.literal_eval((FIXTURE / "manifest.json").read_text())
    assert shown["entries"] == there["entries"][:1]
    assert shown == {**there, "entries": shown["entries"]}
