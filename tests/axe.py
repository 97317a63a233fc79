"""What axe-core finds wrong with a part of a page."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe


def faults(page, *include: str) -> list[str]:
    """Serious and critical faults of the elements ``include``, or of the whole page: one a line."""
    context = {"include": [[part] for part in include]} if include else None
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(page, context=context, options=options).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]} {' '.join(node['target'])[-80:]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
