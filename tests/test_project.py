"""The repository as a whole: files agree, notebooks are clean, the wheel works elsewhere."""

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from contextlib import contextmanager
from email import message_from_string
from email.message import Message
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import yaml
from jupyter_client import BlockingKernelClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bmnas_core

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
REPOSITORY = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
EXTRAS = PROJECT["optional-dependencies"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COPIED = [*NOTEBOOKS, ROOT / "notebooks" / "glossary.md"]
HEAVY = "sklearn matplotlib pandas IPython ipywidgets papermill graphviz wasmtime pooch scipy rich"


def requirements(lines) -> dict[str, Requirement]:
    """Requirement lines by canonical name, each listed once."""
    parsed = [Requirement(line) for line in lines]
    by_name = {canonicalize_name(requirement.name): requirement for requirement in parsed}
    assert len(by_name) == len(parsed), "a requirement is listed twice"
    return by_name


def pins() -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").open())
    return requirements(filter(None, lines))


def direct_dependencies() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *EXTRAS.values()]
    return [Requirement(line) for group in groups for line in group]


# --- dependencies and metadata


def test_environment_yml_lists_the_dependencies_of_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    wanted = requirements(PROJECT["dependencies"])
    torch = f"pytorch-cpu{wanted.pop('torch').specifier}"
    (own,) = (entry for entry in conda if entry.startswith("pytorch"))
    assert Requirement(own).specifier == Requirement(torch).specifier
    assert conda == [f"python{PROJECT['requires-python']}", "graphviz", "pip", own]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[-1] == "-e .[tasks,cluster]"
    assert requirements(pip[:-1]) == wanted


def test_constraints_pin_exactly_one_version_each():
    for pin in pins().values():
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), f"{pin} is not an exact pin"


@pytest.mark.parametrize("requirement", direct_dependencies(), ids=str)
def test_constraints_pin_each_direct_dependency_within_its_range(requirement):
    name = canonicalize_name(requirement.name)
    assert name in pins(), f"constraints.txt does not pin {name}"
    (version,) = (spec.version for spec in pins()[name].specifier)
    assert requirement.specifier.contains(version), f"{version} is outside {requirement}"


@pytest.mark.slow
def test_every_imported_package_is_declared():
    declared = requirements(PROJECT["dependencies"] + EXTRAS["tasks"] + EXTRAS["cluster"])
    distributions = packages_distributions()
    for path in sorted((ROOT / "bmnas_core").rglob("*.py")):
        for name in imported_packages(path):
            if name in sys.stdlib_module_names or name == "bmnas_core":
                continue
            owners = {canonicalize_name(owner) for owner in distributions.get(name, [name])}
            assert owners & declared.keys(), (
                f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not list"
            )


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_the_package_citation_and_pyproject_agree():
    assert bmnas_core.__version__ == PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    assert citation.get("repository-code", "") == REPOSITORY


def test_the_changelog_and_the_readme_name_this_version():
    versions = re.findall(r"\b\d+\.\d+\.\d+\b", (ROOT / "CHANGELOG.md").read_text())
    assert versions[0] == PROJECT["version"]
    wheels = re.findall(r"bmnas-(\S+)-py3-none-any\.whl", (ROOT / "README.md").read_text())
    assert set(wheels) == {PROJECT["version"]}


def test_workflows_and_ci_call_targets_that_the_makefile_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    scripts = [ROOT / ".ci" / "run", *(ROOT / ".github" / "workflows").glob("*.yml")]
    for script in scripts:
        for target in re.findall(r"\bmake ([a-z-]+)", script.read_text()):
            assert target in targets, f"{script.relative_to(ROOT)}: no target {target!r}"


# --- the README


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 1200


def test_files_and_make_targets_that_the_readme_names_exist():
    text, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link
    for target in re.findall(r"\bmake ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.fixture(params=["", "https://example.org/someone/bmnas"], ids=["unset", "set"])
def indexed(request, tmp_path) -> tuple[str, Message]:
    """An address of the repository, and the metadata that a wheel has with it."""
    for name in ("README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path)
    text, line = (ROOT / "pyproject.toml").read_text(), r'^repository = ".*"$'
    text, changed = re.subn(line, f'repository = "{request.param}"', text, flags=re.MULTILINE)
    assert changed == 1
    (tmp_path / "pyproject.toml").write_text(text)
    script = "import hatchling.build as b; print(b.prepare_metadata_for_build_wheel('.'))"
    folder = run_python("-c", script, cwd=tmp_path).strip()
    return request.param, message_from_string((tmp_path / folder / "METADATA").read_text())


LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def test_a_package_index_shows_the_readme_with_links_that_lead_somewhere(indexed):
    repository, metadata = indexed
    readme, shown = (ROOT / "README.md").read_text(), metadata.get_payload()
    fences = re.compile(r"```.*?```", re.DOTALL)
    assert fences.findall(shown) == fences.findall(readme)
    wanted = LINK.findall(fences.sub("", readme))
    links = LINK.findall(fences.sub("", shown))
    assert all(address.startswith("https://") for _, _, address in links)
    if not repository:
        assert links == [link for link in wanted if link[2].startswith("https://")]
        assert all(text in shown for _, text, _ in wanted)
        return
    assert [link[:2] for link in links] == [link[:2] for link in wanted]
    for (picture, _, address), (_, _, path) in zip(links, wanted, strict=True):
        if not path.startswith("https://"):
            assert address == f"{repository}/{'raw' if picture else 'blob'}/HEAD/{path}"
            assert (ROOT / path).exists()


def test_a_package_index_shows_the_repository_only_if_there_is_one(indexed):
    repository, metadata = indexed
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL", []))
    assert urls.get("Repository", "") == repository
    assert all(address.startswith("https://") for address in urls.values())
    assert len(urls) == (3 if repository else 0)


# --- what is committed


def test_no_committed_file_holds_a_path_of_one_machine(committed_files):
    place = re.compile(rb"(?<![\w.-])/(?:home|root|Users|work|tmp|var/folders)/[\w.-]+")
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in committed_files
        for match in place.finditer(path.read_bytes())
    ]
    assert not found, "\n".join(found)


def test_the_kit_names_the_encoding_of_its_texts():
    """Windows has another default than UTF-8."""
    without = []
    for path in (ROOT / "bmnas_core").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if called == "open" or called.endswith((".read_text", ".write_text")):
                given = ast.unparse(call)
                if not re.search(r"'(utf-8|ascii|[rwa]\+?b)'", given):
                    without.append(f"{path.name}:{call.lineno}: {given}")
    assert not without


@pytest.mark.parametrize("name", ["bmnas_core", "bmnas_core.cli", "bmnas_core.experiments.sweep"])
def test_the_kit_and_its_command_start_without_a_heavy_package(name):
    heavy = f"{HEAVY} torch"
    script = f"import sys, {name}; print(*sorted(set({heavy!r}.split()) & set(sys.modules)))"
    assert run_python("-c", script, cwd=ROOT).split() == []


@pytest.mark.slow
def test_a_search_loads_torch_and_no_other_heavy_package():
    script = (
        "import sys, torch; before = set(sys.modules); import bmnas_core as bm; "
        "bm.Search, bm.train, bm.load_task, bm.draw; "
        f"print(*sorted(set({HEAVY!r}.split()) & (set(sys.modules) - before)))"
    )
    assert run_python("-c", script, cwd=ROOT).split() == []


@pytest.mark.slow
def test_a_search_and_a_training_do_not_load_pytorchs_compiler():
    script = (
        "import sys, tiny, bmnas_core as bm; task = tiny.tiny_task(); "
        "search = bm.Search(task, bm.SearchConfig(epochs=1), device='cpu'); list(search); "
        "bm.train(search.best_genotype, task, progress=False, device='cpu'); "
        "bm.train_backbone(task, 'Image', progress=False, device='cpu'); "
        "print('torch._dynamo' in sys.modules)"
    )
    assert run_python("-c", script, cwd=ROOT / "tests").split() == ["False"]


@pytest.mark.slow
def test_every_name_that_the_kit_offers_is_there():
    script = "import bmnas_core as bm, bmnas_core.train, bmnas_core.probe, bmnas_core.draw\n"
    script += "for name in dir(bm): getattr(bm, name)\n"
    script += "print(*{type(part).__name__ for part in (bm.train, bm.probe, bm.draw)})"
    assert run_python("-c", script, cwd=ROOT).split() == ["function"]


# --- notebooks as committed


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def cells(path: Path, kind: str | None = None) -> list[dict]:
    every = json.loads(path.read_text())["cells"]
    return [cell for cell in every if kind in (None, cell["cell_type"])]


def source(cell: dict) -> str:
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def test_a_notebook_opens_with_a_heading(notebook):
    first = cells(notebook)[0]
    assert first["cell_type"] == "markdown"
    assert source(first).startswith("# ")


def test_a_notebook_has_one_parameters_cell(notebook):
    tagged = [
        cell for cell in cells(notebook, "code") if "parameters" in cell["metadata"].get("tags", [])
    ]
    assert len(tagged) == 1


def test_a_notebook_was_run_once_from_top_to_bottom(notebook):
    counts = [cell["execution_count"] for cell in cells(notebook, "code") if source(cell).strip()]
    assert counts == list(range(1, len(counts) + 1))
    assert any(cell["outputs"] for cell in cells(notebook, "code")), "committed without outputs"


def test_a_notebook_shows_no_error(notebook):
    for cell in cells(notebook, "code"):
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        assert not errors, f"{errors[0]['ename']}: {errors[0]['evalue']}"


@pytest.mark.parametrize(
    ("tag", "most", "calls"),
    [
        ("ten-lines", 10, ["Task.from_features(", "bm.draw(", "bm.evaluate("]),
        ("five-lines", 5, ["save_network(", "load_network(", "network_source(", "bm.predict("]),
    ],
)
def test_notebook_09_goes_from_arrays_to_a_network_in_as_many_lines_as_it_says(tag, most, calls):
    path = ROOT / "notebooks" / "09_own_task.ipynb"
    found = [c for c in cells(path, "code") if tag in c["metadata"].get("tags", [])]
    (text,) = map(source, found)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= most and "class " not in text and ";" not in text
    assert all(call in text for call in calls)


def test_a_notebook_is_under_one_megabyte(notebook):
    assert notebook.stat().st_size < 1_000_000


def test_a_notebook_leads_only_to_what_comes_with_it(notebook):
    text = "\n".join(source(cell) for cell in cells(notebook, "markdown"))
    for _, _, address in LINK.findall(text):
        if not address.startswith(("https://", "#")):
            address = address.partition("#")[0]
            assert (notebook.parent / address).exists() and "/" not in address, address
    assert "notebooks/" not in text, "a path that only the checkout has"


# --- the wheel


@pytest.fixture(scope="module")
def built(shared_folder) -> Path:
    """A folder with the sdist and, made from that sdist, the wheel."""
    build = ["-m", "build", "--no-isolation", str(ROOT), "--outdir"]
    return shared_folder("dist", lambda folder: run_python(*build, str(folder), cwd=folder))


@pytest.fixture(scope="module")
def elsewhere(built, shared_folder) -> Path:
    """A folder, far from the checkout, into which the wheel alone is installed."""
    (wheel,) = built.glob("*.whl")
    command = ["-m", "pip", "install", "--no-index", "--no-deps", "--target", "site", str(wheel)]
    return shared_folder("elsewhere", lambda folder: run_python(*command, cwd=folder))


def run_python(*arguments: str, cwd: Path, **environment: str) -> str:
    completed = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_should(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"bmnas_core", f"{PROJECT['name']}-{PROJECT['version']}.dist-info"}
    assets = {"/".join(name.split("/")[2:3]) for name in names if "bmnas_core/assets/" in name}
    assert assets == {"digits", "avmnist", "ntu", "results"}
    inside = {name for name in names if "bmnas_core/notebooks/" in name}
    assert inside == {f"bmnas_core/notebooks/{path.name}" for path in COPIED}

    (sdist,) = built.glob("*.tar.gz")
    top = f"{PROJECT['name']}-{PROJECT['version']}/"
    with tarfile.open(sdist) as archive:
        members = {name.removeprefix(top) for name in archive.getnames()}
    for folder in ("assets/digits/", "assets/avmnist/", "notebooks/", "tests/"):
        assert any(name.startswith(folder) for name in members), f"no {folder} in the sdist"
    golden = {str(p.relative_to(ROOT)) for p in (ROOT / "tests" / "golden").rglob("*.*")}
    assert golden and golden <= members
    assert {"README.md", "LICENSE", "CITATION.cff", "constraints.txt", "Makefile"} <= members
    assert {"CHANGELOG.md", "hatch_build.py"} <= members


@pytest.mark.slow
def test_a_wheel_leaves_out_what_notebooks_write_beside_them(tmp_path):
    for name in ("README.md", "LICENSE", "hatch_build.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("bmnas_core/__init__.py", "notebooks/00.ipynb"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for name in ("runs/q/result.json", "runs/q/00.ipynb", ".ipynb_checkpoints/00.ipynb"):
        (tmp_path / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notebooks" / name).touch()
    run_python("-m", "build", "--wheel", "--no-isolation", "--outdir", ".", cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name]
    assert sorted(names) == ["bmnas_core/__init__.py", "bmnas_core/notebooks/00.ipynb"]


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_loads_digits(elsewhere):
    script = (
        "import bmnas_core as bm; print(bm.__file__); task = bm.load_task('digits', rule='sum')"
    )
    output = run_python("-c", script, cwd=elsewhere, PYTHONPATH=str(elsewhere / "site"))
    assert Path(output.splitlines()[0]).is_relative_to(elsewhere)


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_has_the_bmnas_command(elsewhere):
    usage = bmnas(elsewhere, "--help")
    assert "Usage: bmnas" in usage and "run" in usage


def bmnas(elsewhere: Path, *words: str) -> str:
    """What the command of the installed wheel prints, run in its folder."""
    script = str(elsewhere / "site" / "bin" / "bmnas")
    return run_python(script, *words, cwd=elsewhere, PYTHONPATH=str(elsewhere / "site"))


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_copies_the_notebooks(elsewhere):
    bmnas(elsewhere, "notebooks", "copies")
    copies = {path.name: path.read_bytes() for path in (elsewhere / "copies").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in COPIED}


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize(
    ("name", "quick"),
    [
        pytest.param(
            "00_quickstart",
            "-p search_epochs 1 -p epochs 1 -p selection argmax",
            marks=pytest.mark.nightly,
        ),
        ("02_primitive_operations", ""),
    ],
)
def test_a_copied_notebook_runs_by_the_wheel_alone(elsewhere, name, quick):
    bmnas(elsewhere, "notebooks", "copies")
    words = ("run", f"copies/{name}.ipynb", *quick.split(), "-p", "device", "cpu")
    printed = bmnas(elsewhere, *words, "--out", f"runs/{name}", "--quiet")
    assert f"runs/{name}/{name}.html" in printed.splitlines()


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_opens_jupyterlab(elsewhere):
    with served(elsewhere, elsewhere / "lab") as (ask, runtime):
        assert ask("api/status")["kernels"] == 0
        listed = {entry["name"] for entry in ask("api/contents")["content"]}
        assert listed == {path.name for path in COPIED}
        for path in NOTEBOOKS:
            content = ask(f"api/contents/{path.name}")["content"]
            code = [cell for cell in content["cells"] if "outputs" in cell]
            assert all(cell["metadata"]["trusted"] for cell in code)
        with pytest.raises(HTTPError, match="403"):
            ask("api/contents", token="")

        kernel = ask("api/kernels", {"name": "python3"})["id"]
        client = BlockingKernelClient(connection_file=str(runtime / f"kernel-{kernel}.json"))
        threads, place = said_by(client, THREADS_AND_PLACE)
        assert threads == "1" and Path(place).is_relative_to(elsewhere)


THREADS_AND_PLACE = """
import os, bmnas_core
print(os.environ["OMP_NUM_THREADS"], bmnas_core.__file__, sep="\\n")
"""


def said_by(client: BlockingKernelClient, code: str) -> list[str]:
    """The lines that a kernel prints."""
    texts = []
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        client.execute_interactive(
            code, timeout=30, output_hook=lambda m: texts.append(m["content"].get("text", ""))
        )
    finally:
        client.stop_channels()
    return "".join(texts).splitlines()


@contextmanager
def served(elsewhere: Path, folder: Path):
    """`bmnas lab` of the wheel: a function that asks its server, and the server's own folder.

    In the end the server is asked to stop, and must leave nothing.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runtime = elsewhere / "jupyter" / "runtime"
    environment = {**os.environ, "PYTHONPATH": str(elsewhere / "site")}
    for name in ("OMP_NUM_THREADS", "JUPYTER_TOKEN"):
        environment.pop(name, None)
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(elsewhere / "jupyter" / name.lower())
    command = [sys.executable, str(elsewhere / "site" / "bin" / "bmnas"), "lab", str(folder), "--"]
    command += ["--no-browser", f"--port={port}", "--ServerApp.port_retries=0"]
    log = elsewhere / "server.log"
    with log.open("w") as said:
        server = subprocess.Popen(command, cwd=elsewhere, env=environment, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + 60
        while not (started := list(runtime.glob("jpserver-*.json"))) or not started[0].read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        about = json.loads(started[0].read_text())
        assert Path(about["root_dir"]) == folder.resolve() and about["hostname"] == "127.0.0.1"

        def ask(path: str, data: dict | None = None, token: str = about["token"]):
            body = None if data is None else json.dumps(data).encode()
            request = Request(f"{about['url']}{path}", body, {"Authorization": f"token {token}"})
            with urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or "null")

        while True:
            try:
                ask("api")
                break
            except URLError:
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield ask, runtime
        ask("api/shutdown", {})
        assert server.wait(30) == 0, log.read_text()
        assert "/lab/tree/00_quickstart.ipynb?token=" in log.read_text()
        assert not [*runtime.glob("jpserver-*.json"), *runtime.glob("kernel-*.json")]
    finally:
        server.kill()
