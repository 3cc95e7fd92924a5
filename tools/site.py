"""Hook of MkDocs: pages that are made from the sources when `make docs` builds the site.

Tutorials come from their scripts and recorded output, the reference from public names and from the command line
itself, the picture of the house from the imports. CHANGELOG, CONTRIBUTING and SECURITY are taken from the top folder.
"""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tools import house, tutorials  # noqa: E402

PACKAGES = ("faultsim", "neuralfuse", "energy")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for path, text in made_pages():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the house as a document of its own, so that pointing at a box says what it does."""
    return re.sub(
        r'<img [^>]*src="house.svg"[^>]*>', '<object type="image/svg+xml" data="house.svg"></object>', html
    )


def made_pages() -> Iterator[tuple[str, str]]:
    """Yield the path of each page below docs/, and its text."""
    yield "house.svg", house.draw()
    for name in tutorials.names():
        yield f"tutorials/{name}.md", tutorials.page(name)
    for package in PACKAGES:
        yield f"reference/{package}.md", reference(package)
    yield "reference/commands.md", commands()
    for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY"):
        yield f"{name.lower()}.md", taken(name)


def taken(name: str) -> str:
    """Take a document of the top folder. Links to files that are no pages become plain names."""
    text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([^\]]+)\]\((tests|benchmarks|results)/[^)]*\)", r"`\1`", text)


def reference(package: str) -> str:
    """List all public names of a package; mkdocstrings fills in what their docstrings say."""
    module = importlib.import_module(package)
    names = sorted(set(module.__all__) - {"__version__"} - set(PACKAGES), key=str.lower)
    return "\n\n".join(
        [f"# {package}", (module.__doc__ or "").strip(), *(f"::: {package}.{name}" for name in names)]
    )


def commands() -> str:
    """The `--help` of every command."""
    import typer

    from faultsim.cli import app

    top = typer.main.get_command(app)
    parts = ["# Command line", "What `faultsim COMMAND --help` prints."]
    for name, command in _commands(top, "faultsim"):
        context = command.make_context(
            name, [], resilient_parsing=True, terminal_width=100, max_content_width=100
        )
        context.info_name = name
        parts += [
            f"## {name.removeprefix('faultsim ')}",
            f"```text\n{command.get_help(context).strip()}\n```",
        ]
    return "\n\n".join(parts) + "\n"


def _commands(group: object, name: str) -> Iterator[tuple[str, object]]:
    for word, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command
