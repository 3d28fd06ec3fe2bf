# Answers a list of requests to a shopping cart that is kept in a table.

import time

from . import nosql

client = nosql.nosql.get_instance()

TABLE = "shopping_cart"


def handler(event):
    begin = time.perf_counter()
    results = [answer(request) for request in event["requests"]]
    end = time.perf_counter()
    return {"result": results, "measurement": {"compute_time": (end - begin) * 1000000}}


def answer(request):
    route, body = request["route"], request["body"]
    cart = ("cart_id", body["cart"])
    if route == "PUT /cart":
        data = {name: body[name] for name in ("name", "price", "quantity")}
        client.insert(TABLE, cart, ("product_id", body["product_id"]), data)
        return {}
    if route == "GET /cart/{id}":
        return client.get(TABLE, cart, ("product_id", request["path"]["id"]))
    if route == "GET /cart":
        return summary(client.query(TABLE, cart, "product_id"))
    raise ValueError("there is no route " + route)


def summary(products):
    total = sum(product["price"] * product["quantity"] for product in products)
    pieces = sum(product["quantity"] for product in products)
    return {
        "products": [product["name"] for product in products],
        "total_cost": total,
        "avg_price": total / pieces if pieces > 0 else 0.0,
    }
