"""Values in the forms that the embedded base knows."""

import json

import pytest
import yaml

from trainer.embedded import forms, values
from trainer.embedded.draws import Draws
from trainer.embedded.values import Table

TABLE = Table("items", ({"name": "Kalo", "qty": 3, "paid": True}, {"name": "Mir Ta", "qty": -1, "paid": False}))
BARE = Table(None, TABLE.records)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json", '[{"name":"Kalo","qty":3,"paid":true},{"name":"Mir Ta","qty":-1,"paid":false}]'),
        ("yaml", "- name: Kalo\n  qty: 3\n  paid: true\n- name: Mir Ta\n  qty: -1\n  paid: false"),
        ("csv", "name,qty,paid\nKalo,3,true\nMir Ta,-1,false"),
        ("key=value", "name=Kalo qty=3 paid=true\nname=Mir Ta qty=-1 paid=false"),
        ("prose", "name is Kalo, qty is 3 and paid is true.\nname is Mir Ta, qty is -1 and paid is false."),
    ],
)
def test_a_table_without_a_name_has_five_forms(form: str, expected: str) -> None:
    assert forms.render_table(form, BARE) == expected


def test_a_named_table_keeps_its_name_in_json_and_yaml() -> None:
    assert json.loads(forms.render_table("json", TABLE)) == TABLE.tree
    assert forms.render_table("yaml", TABLE).startswith("items:\n  - name: Kalo\n    qty: 3\n")


def test_other_yaml_readers_read_our_yaml() -> None:
    draws = Draws("other readers")
    for _ in range(200):
        tree = values.nested(draws)
        assert yaml.load(forms.as_yaml(tree), yaml.BaseLoader) == as_text(tree)


def as_text(tree: values.Tree) -> object:
    match tree:
        case dict():
            return {key: as_text(value) for key, value in tree.items()}
        case list():
            return [as_text(value) for value in tree]
        case _:
            return forms.word(tree)


def test_a_nested_value_has_no_csv_form_and_the_error_names_those_it_has() -> None:
    with pytest.raises(ValueError, match="csv: no form for nested values; one of json, yaml"):
        forms.render_tree("csv", {"size": {"height": 3}})


def test_no_decimal_is_whole() -> None:
    draws = Draws("decimals")
    drawn = [values.decimal(draws) for _ in range(2000)]
    assert not any(number.is_integer() for number in drawn)


def test_equal_names_give_equal_draws() -> None:
    assert values.table(Draws("a"), 5) == values.table(Draws("a"), 5) != values.table(Draws("b"), 5)
