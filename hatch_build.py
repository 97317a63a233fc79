"""README.md as the package index shows it, and the addresses it shows beside it."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A picture of, or link to, a file of the repository. Code comes first: it stays as it is.
RELATIVE = re.compile(
    r"```.*?```"
    r"|(?P<picture>!?)\[(?P<text>(?:[^\]`]|`[^`]*`)*)\]\((?!https?:|#)(?P<path>[^)\s]+)\)"
    r"|`[^`\n]*`",
    re.DOTALL,
)


class RepositoryAddresses(MetadataHookInterface):
    """Makes README's relative links absolute, by ``repository`` in pyproject.toml."""

    def update(self, metadata: dict) -> None:
        repository = self.config["repository"]
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = RELATIVE.sub(lambda found: _absolute(found, repository), text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = {}
        if repository:
            metadata["urls"] = {
                "Repository": repository,
                "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }


def _absolute(found: re.Match, repository: str) -> str:
    """The link with GitHub's address of the file; without a repository, the text alone."""
    if found["path"] is None:
        return found[0]
    if not repository:
        return f"*(Picture: {found['text']})*" if found["picture"] else found["text"]
    kind = "raw" if found["picture"] else "blob"
    address = f"{repository}/{kind}/HEAD/{found['path']}"
    return f"{found['picture']}[{found['text']}]({address})"
