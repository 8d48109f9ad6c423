"""YAML that people write for tieout (rules, mappings), read without surprises."""

from typing import Any

import yaml

from shared.errors import UsageError


class YamlInvalid(UsageError):
    """The text is no YAML; the message says where."""


class _Loader(yaml.SafeLoader):
    """A key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, name: str) -> Any:
    """Return the document in `text`; `name` is what errors call it.

    Raises:
        YamlInvalid: no YAML, or a key is given twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise YamlInvalid(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
