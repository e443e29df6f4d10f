"""The forms that the base is taught to write values in: JSON, YAML lines, CSV, key=value and sentences; TOON is left out on purpose.

Every string that `values` makes is a plain word, name, code or date, so no form here needs quoting rules beyond JSON's.
"""

import json

from trainer.embedded.values import Record, Scalar, Table, Tree


def word(value: Scalar) -> str:
    """A scalar as all forms but JSON write it."""
    return value if isinstance(value, str) else json.dumps(value)


def as_json(tree: Tree) -> str:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def as_yaml(tree: Tree, indent: str = "") -> str:
    match tree:
        case dict():
            return "\n".join(_yaml_entry(key, value, indent) for key, value in tree.items())
        case list():
            return "\n".join(f"{indent}- {as_yaml(item, indent + '  ').lstrip()}" for item in tree)
        case _:
            return indent + word(tree)


def _yaml_entry(key: str, value: Tree, indent: str) -> str:
    if isinstance(value, dict | list):
        return f"{indent}{key}:\n{as_yaml(value, indent + '  ')}"
    return f"{indent}{key}: {word(value)}"


def as_csv(records: tuple[Record, ...]) -> str:
    lines = [",".join(records[0])]
    lines += [",".join(word(value) for value in record.values()) for record in records]
    return "\n".join(lines)


def as_pairs(records: tuple[Record, ...]) -> str:
    return "\n".join(" ".join(f"{key}={word(value)}" for key, value in record.items()) for record in records)


def as_prose(records: tuple[Record, ...]) -> str:
    return "\n".join(_sentence(record) for record in records)


def _sentence(record: Record) -> str:
    parts = [f"{key} is {word(value)}" for key, value in record.items()]
    head, last = parts[:-1], parts[-1]
    return (", ".join(head) + " and " if head else "") + last + "."


TABLE_FORMS = ("json", "yaml", "csv", "key=value", "prose")
"""Forms of a table without a name; JSON and YAML also hold named tables and nested records."""
TREE_FORMS = ("json", "yaml")


def render_tree(form: str, tree: Tree) -> str:
    match form:
        case "json":
            return as_json(tree)
        case "yaml":
            return as_yaml(tree)
        case _:
            raise ValueError(f"{form}: no form for nested values; one of {', '.join(TREE_FORMS)}")


def render_table(form: str, table: Table) -> str:
    match form:
        case "csv":
            return as_csv(table.records)
        case "key=value":
            return as_pairs(table.records)
        case "prose":
            return as_prose(table.records)
        case _:
            return render_tree(form, table.tree)
