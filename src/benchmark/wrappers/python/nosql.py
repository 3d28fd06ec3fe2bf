"""Tables for functions, as SeBS has them: `nosql.nosql.get_instance()`, for Python 3.7 and later.

Speaks DynamoDB's protocol to the server that the environment names: NOSQL_STORAGE_TYPE, NOSQL_STORAGE_ENDPOINT, for
each table NOSQL_STORAGE_TABLE_<its name in the benchmark>, and for a server that checks signatures
SEBS_LITE_NOSQL_ACCESS_KEY, SEBS_LITE_NOSQL_SECRET_KEY and SEBS_LITE_NOSQL_REGION. They are read when a client is made,
and a table's when it is first used, not when this is imported.

A key is a pair, (name, value); for a table without a second key it is None. Numbers go in as int, float or Decimal and
come back as int, of any size, or float; bytes, text, None, bool, lists, dicts and sets come back as they are.
"""

import base64
import decimal
import json
import os

if __package__:
    from . import _sebs_lite_http as http
else:
    import _sebs_lite_http as http

# What a server's refusal and a connection that broke for good are raised as.
ServerError = http.ServerError
NoAnswerError = http.NoAnswerError


class nosql:
    """A client that any number of threads may use."""

    instance = None

    def __init__(self):
        purpose = "NoSQL storage"
        kind = http.setting("NOSQL_STORAGE_TYPE", purpose)
        if kind != "scylladb":
            text = "NOSQL_STORAGE_TYPE is `{}`: only `scylladb`, DynamoDB's protocol, is spoken"
            raise RuntimeError(text.format(kind))
        # Engines of our own check no signature; the protocol has one all the same.
        key = http.Key(os.environ.get("SEBS_LITE_NOSQL_ACCESS_KEY") or "None",
                       os.environ.get("SEBS_LITE_NOSQL_SECRET_KEY") or "None",
                       os.environ.get("SEBS_LITE_NOSQL_REGION") or "us-east-1", "dynamodb")
        address = http.setting("NOSQL_STORAGE_ENDPOINT", purpose)
        self._server = http.Server(address, "NOSQL_STORAGE_ENDPOINT", key, _refusal)

    @staticmethod
    def get_instance():
        if nosql.instance is None:
            nosql.instance = nosql()
        return nosql.instance

    def insert(self, table, primary_key, secondary_key, data):
        """Stores an item, in place of one with the same key."""
        item = dict(data)
        item.update(_key(primary_key, secondary_key))
        self._ask("PutItem", table, {"Item": _to_item(item)})

    def get(self, table, primary_key, secondary_key):
        """The item with that key; a KeyError, as in SeBS, if there is none."""
        key = _key(primary_key, secondary_key)
        # What was inserted before is seen, whatever the engine does by default.
        found = self._ask("GetItem", table, {"Key": _to_item(key), "ConsistentRead": True})
        if "Item" not in found:
            raise KeyError("table `{}` has no item with {}".format(table, key))
        return _from_item(found["Item"])

    def update(self, table, primary_key, secondary_key, updates):
        """Sets attributes of the item with that key, which is made if there is none."""
        request = {"Key": _to_item(_key(primary_key, secondary_key))}
        if updates:
            # Names are given apart from the expression, in which words like `status` have a meaning.
            numbered = list(enumerate(updates.items()))
            request["UpdateExpression"] = "SET " + ", ".join("#n{0} = :v{0}".format(number) for number, _ in numbered)
            request["ExpressionAttributeNames"] = {"#n{}".format(number): name for number, (name, _) in numbered}
            request["ExpressionAttributeValues"] = {
                ":v{}".format(number): _to_value(value) for number, (_, value) in numbered}
        self._ask("UpdateItem", table, request)

    def query(self, table, primary_key, secondary_key_name=None):
        """All items with that first key, in the order of the second one, whose name this protocol does not need."""
        name, value = primary_key
        request = {"KeyConditionExpression": "#k = :k", "ConsistentRead": True,
                   "ExpressionAttributeNames": {"#k": name}, "ExpressionAttributeValues": {":k": _to_value(value)}}
        items = []
        while True:
            page = self._ask("Query", table, request)
            items.extend(_from_item(item) for item in page.get("Items", ()))
            last = page.get("LastEvaluatedKey")
            if not last:
                return items
            request["ExclusiveStartKey"] = last

    def delete(self, table, primary_key, secondary_key):
        """Removes the item with that key; that there is none is fine."""
        self._ask("DeleteItem", table, {"Key": _to_item(_key(primary_key, secondary_key))})

    def _ask(self, operation, table, request):
        request["TableName"] = http.setting("NOSQL_STORAGE_TABLE_" + table, "table `{}`".format(table))
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810." + operation}
        body = json.dumps(request).encode("utf-8")
        # Each operation here, done twice, leaves what it leaves done once.
        call = http.Call("{} of table `{}`".format(operation, table), "POST", "/", (), headers, body)
        return json.loads(self._server.ask(call) or b"{}")


def _key(primary_key, secondary_key):
    return dict(key for key in (primary_key, secondary_key) if key is not None)


def _refusal(content):
    """Name and message of an error, whichever of the protocol's shapes it has."""
    try:
        told = json.loads(content)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return "", " ".join(content.decode("utf-8", "replace").split())[:500]
    code = str(told.get("__type") or "").rpartition("#")[2]
    return code, str(told.get("message") or told.get("Message") or "")


# ---- values ----------------------------------------------------------------------------------------------------

def _to_item(item):
    return {name: _to_value(value) for name, value in item.items()}


def _to_value(value):
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, (int, float, decimal.Decimal)):
        return {"N": _to_number(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"B": base64.b64encode(value).decode("ascii")}
    if isinstance(value, (list, tuple)):
        return {"L": [_to_value(element) for element in value]}
    if isinstance(value, dict):
        return {"M": _to_item(value)}
    if isinstance(value, (set, frozenset)):
        return _to_set([_to_value(element) for element in value])
    raise TypeError("a value of type `{}` cannot be stored in a table".format(type(value).__name__))


def _to_set(values):
    kinds = {kind for value in values for kind in value}
    kind = kinds.pop() if len(kinds) == 1 else ""
    if kind not in ("S", "N", "B"):
        raise TypeError("a set that is stored in a table must have elements, all texts, all numbers or all bytes")
    return {kind + "S": sorted(value[kind] for value in values)}


def _to_number(number):
    # The shortest text that reads back as the same float; a class of its own, as numpy has, may show itself otherwise.
    text = float.__repr__(number) if isinstance(number, float) else int.__repr__(number) \
        if isinstance(number, int) else str(number)
    if text.strip("-").lower()[:1] in ("i", "n", "s"):
        raise ValueError("{} is no number that a table can hold".format(text))
    return text


def _from_item(item):
    return {name: _from_value(value) for name, value in item.items()}


def _from_value(value):
    (kind, content), = value.items()
    if kind == "N":
        return _from_number(content)
    if kind == "M":
        return _from_item(content)
    if kind == "L":
        return [_from_value(element) for element in content]
    if kind == "NULL":
        return None
    if kind == "B":
        return base64.b64decode(content)
    if kind in ("SS", "NS", "BS"):
        return {_from_value({kind[0]: element}) for element in content}
    # Text and truth.
    return content


def _from_number(text):
    if text.lstrip("-").isdigit():
        return int(text)
    number = decimal.Decimal(text)
    # What was written as 2.0 or 1E+3 is whole, however the engine shows it.
    return int(number) if number == number.to_integral_value() else float(number)
