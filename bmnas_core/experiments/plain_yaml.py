"""Plain values from YAML: numbers, text, true, false, null, lists and dicts of them."""

import re
from pathlib import Path

from ..errors import BmnasError, in_line, quoted
from ..reading import read_bytes
from .results import as_json

#: The most bytes of a file; reading takes long beyond that.
MAX_BYTES = 100_000
SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]{1,300}",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}
TAG = "tag:yaml.org,2002:"


def read_yaml(path: Path, refused: type[BmnasError], what: str) -> object:
    """The plain values in a file. Raises ``refused``, with the line, for anything else.

    A value is what YAML 1.2 takes it for: 1e-3 is a number, and no, on and 1:30 are text. Tags,
    aliases, whose expansion can have any size, and keys that occur twice are refused.
    """
    import yaml

    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
        return as_json(yaml.load(text, _plain_loader()), str(path))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        syntax = isinstance(error, (yaml.parser.ParserError, yaml.scanner.ScannerError))
        found = f"no YAML ({error.problem})" if syntax else error.problem
        raise refused(f"{path}{line}", found, "plain YAML") from None
    except OSError as error:
        raise refused(path, in_line(error), what) from None
    except UnicodeDecodeError:
        raise refused(path, "no UTF-8", what) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise refused(path, f"no plain YAML ({type(error).__name__})", what) from None


def _plain_loader() -> type:
    import yaml

    class PlainLoader(yaml.SafeLoader):
        yaml_implicit_resolvers = {}
        yaml_constructors = {}

        def compose_node(self, parent, index):
            event = self.peek_event()
            extra = "an anchor or alias" if getattr(event, "anchor", None) else None
            extra = "a tag" if getattr(event, "tag", None) else extra
            if extra:
                raise yaml.composer.ComposerError(None, None, extra, event.start_mark)
            return super().compose_node(parent, index)

        def mapping(self, node):
            found = {}
            for key_node, value_node in node.value:
                key = self.construct_object(key_node, deep=True)
                if type(key) is not str or key in found:
                    wrong = f"key {quoted(key)}{' again' if type(key) is str else ', no text'}"
                    mark = key_node.start_mark
                    raise yaml.constructor.ConstructorError(None, None, wrong, mark)
                found[key] = self.construct_object(value_node, deep=True)
            return found

        def sequence(self, node):
            return [self.construct_object(part, deep=True) for part in node.value]

    constructors = {
        "null": lambda loader, node: None,
        "bool": lambda loader, node: node.value.lower() == "true",
        "int": lambda loader, node: int(node.value),
        "float": lambda loader, node: float(node.value),
        "str": lambda loader, node: node.value,
        "map": PlainLoader.mapping,
        "seq": PlainLoader.sequence,
    }
    for name, pattern in SCALARS.items():
        PlainLoader.add_implicit_resolver(TAG + name, re.compile(f"^(?:{pattern})$"), None)
    for name, constructor in constructors.items():
        PlainLoader.add_constructor(TAG + name, constructor)
    return PlainLoader
