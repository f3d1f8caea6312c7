"""Sphinx: `make docs` builds docs/_build/html. The pages are plain Markdown, which GitHub shows as well."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from IPython.lib.lexers import IPythonLexer
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "reference"))
import generate  # noqa: E402

import ipyrunner  # noqa: E402

project = "ipyrunner"
release = version = ipyrunner.__version__
html_title = f"ipyrunner {release}"
copyright = ""
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build", "pictures/*.ipynb"]
templates_path = ["_templates"]
nitpicky = True
# Names of the annotations that are no public names; without network there are no inventories of other projects.
nitpick_ignore_regex = [
    (
        "py:class",
        r"_?asyncio\..*|collections\..*|contextvars\..*|os\..*|IPython\..*|InteractiveShell|Changes|TaskTable|Trace|(.*\.)?_T",
    )
]
autodoc_typehints = "signature"

# Anchors are GitHub's.
myst_heading_anchors = 4
# Each build executes the tutorial anew.
nb_execution_mode = "force"
nb_execution_timeout = 60
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
os.environ["IPYTHONDIR"] = str(DOCS / "_build" / "ipython")  # without the user's own settings
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else debugpy says in an output that modules are frozen

html_theme = "pydata_sphinx_theme"
html_logo = html_favicon = "../src/ipyrunner/kernel/resources/logo-svg.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {"**": ["all-pages"]}
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": html_title},
    "navbar_center": [],
    "navbar_persistent": [],
    "navbar_end": ["search-button", "theme-switcher"],
    "secondary_sidebar_items": {"**": ["page-toc"], "comparison": []},  # a wide table
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "github-dark",
}

# The left navigation: a new page is in without a line of its own.
NAVIGATION = {
    "Start": ["tutorial"],
    "How-to": ["howto/background", "howto/concurrent", "howto/nesting", "howto/widgets", "howto/*"],
    "Explanation": [
        "explanation/main",
        "explanation/loops",
        "explanation/interrupts",
        "explanation/safety",
        "explanation/*",
    ],
    "Reference": ["reference/index", "reference/magics", "reference/settings", "reference/*"],
    "Front ends": ["frontends/index", "frontends/*"],
    "More": ["faq", "troubleshooting", "comparison", "changelog"],
}


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == "index":
        for caption, patterns in NAVIGATION.items():
            files = [path for pattern in patterns for path in sorted(DOCS.glob(f"{pattern}.*"))]
            pages = dict.fromkeys(filter(None, (app.env.path2doc(str(path)) for path in files)))
            lines = [f"Overview <{page}>" if page.endswith("/index") else page for page in pages]
            source[0] += "\n".join([f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n", *lines, "```\n"])


# Pages that stand outside of docs for GitHub's sake.
PAGES = {"README.md": "index", "CHANGELOG.md": "changelog"}
URLS = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"].get("urls", {})
REPOSITORY = next((url.rstrip("/") for name, url in URLS.items() if name in ("Repository", "Source", "Homepage")), None)


class LinksOutOfDocs(SphinxTransform):
    """A link to what is outside of docs leads to the repository; while that has no address, to a copy of the file."""

    default_priority = 5

    def apply(self, **options: Any) -> None:
        for link in [*self.document.findall(pending_xref), *self.document.findall(download_reference)]:
            if path := self.outside(link):
                name = path.relative_to(DOCS.parent).as_posix()
                link.replace_self(self.to_page(link, name) or self.to_file(link, name))

    def outside(self, link: Any) -> Path | None:
        """Return what the link leads to, if that is a part of the repository outside of docs."""
        # MyST has cut the suffix of what could be a page.
        target = self.document.settings.env.doc2path(self.env.docname).parent / link.get("reftarget", "").split("#")[0]
        for suffix in ("", ".md", ".ipynb"):
            path = Path(os.path.normpath(f"{target}{suffix}"))
            if path.exists() and path.is_relative_to(DOCS.parent) and not path.is_relative_to(DOCS):
                return path
        return None

    def to_page(self, link: Any, name: str) -> Any:
        if name not in PAGES:
            return None
        about = {"refdomain": "doc", "reftype": "myst", "refdoc": self.env.docname, "refexplicit": True}
        return pending_xref("", *link.children, reftarget=PAGES[name], reftargetid=None, **about)

    def to_file(self, link: Any, name: str) -> Any:
        if "reftitle" in link:  # which only a reference shows
            link.children = [nodes.abbreviation("", "", *link.children, explanation=link["reftitle"])]
        if REPOSITORY:
            return nodes.reference("", "", *link.children, refuri=f"{REPOSITORY}/blob/main/{name}")
        if (DOCS.parent / name).is_dir():
            return nodes.inline("", "", *link.children)
        # Sphinx copies it; a path with a slash in front is relative to docs.
        return download_reference(
            "", "", *link.children, reftarget=f"/../{name}", refdoc=self.env.docname, reftype="myst"
        )


class DarkPictures(SphinxTransform):
    """A picture NAME-light.png gets NAME-dark.png in the dark theme."""

    default_priority = 5

    def apply(self, **options: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            dark = re.sub(r"-light(\.\w+)$", r"-dark\1", image["uri"])
            if dark != image["uri"] and (DOCS / self.env.docname).parent.joinpath(dark).exists():
                other = image.deepcopy()
                other["uri"] = dark
                image["classes"].append("only-light")
                other["classes"].append("only-dark")
                image.parent.insert(image.parent.index(image) + 1, other)


def setup(app: Sphinx) -> None:
    generate.write()
    app.add_lexer("python", IPythonLexer)
    app.connect("source-read", add_navigation)
    app.add_transform(LinksOutOfDocs)
    app.add_transform(DarkPictures)
