# The requests that 130.crud-api answers for each size, and how to tell that its carts hold what was put into them.

TABLE = "shopping_cart"

# In the cart that is only read, before the first request.
PRODUCTS = [
    ("teapot", "Teapot", 24.5, 1),
    ("cup", "Cup", 6, 4),
    ("kettle", "Kettle", 39.75, 1),
    ("tea", "Darjeeling, 100 g", 8.25, 3),
    ("sugar", "Sugar", 0, 2),
]
ROUNDS = 100


def allocate_nosql():
    return {TABLE: {"primary_key": "cart_id", "secondary_key": "product_id"}}


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    # The same names each time, so that a table does not grow from run to run.
    full, filled = "full-" + size, "filled-" + size
    for product_id, name, price, quantity in PRODUCTS:
        data = {"name": name, "price": price, "quantity": quantity}
        nosql_func("130.crud-api", TABLE, data, ("cart_id", full), ("product_id", product_id))
    if size == "test":
        requests = [put(filled, 0), get(filled, "product-0"), get(full, "tea")]
    elif size == "small":
        requests = [get(full, product[0]) for product in PRODUCTS] + [get_all(full)]
        requests += [put(filled, 0), put(filled, 1), get(filled, "product-1"), get_all(filled)]
    else:
        requests = []
        for number in range(ROUNDS):
            requests += [put(filled, number), get(filled, "product-{}".format(number))]
            if number % 10 == 9:
                requests.append(get_all(filled))
    return {"requests": requests}


def put(cart, number):
    product = {
        "cart": cart,
        "product_id": "product-{}".format(number),
        "name": "Product {}".format(number),
        "price": 2.25 * number,
        "quantity": 1 + number % 7,
    }
    return {"route": "PUT /cart", "body": product}


def get(cart, product_id):
    return {"route": "GET /cart/{id}", "path": {"id": product_id}, "body": {"cart": cart}}


def get_all(cart):
    return {"route": "GET /cart", "body": {"cart": cart}}


def validate_output(data_dir, input_config, output, language, storage):
    requests, results = input_config["requests"], output.get("result")
    if not isinstance(results, list) or len(results) != len(requests):
        return "{} requests should be answered by a list of as many, not {!r}".format(len(requests), results)
    # What is known to be in each cart, and what another invocation of the same input may have put there before.
    carts, possible = {}, {}
    for request in requests:
        cart = request["body"]["cart"]
        if cart not in carts:
            is_full = cart.startswith("full-")
            carts[cart] = {item[0]: item[1:] for item in PRODUCTS} if is_full else {}
            possible[cart] = dict(carts[cart])
        if request["route"] == "PUT /cart":
            possible[cart].update(item_of(request["body"]))
    for number, (request, result) in enumerate(zip(requests, results)):
        cart = request["body"]["cart"]
        if request["route"] == "PUT /cart":
            carts[cart].update(item_of(request["body"]))
            reason = None if result == {} else "nothing was to be answered"
        elif request["route"] == "GET /cart/{id}":
            reason = wrong_item(request, result, carts[cart])
        else:
            reason = wrong_cart(result, carts[cart], possible[cart])
        if reason is not None:
            return "request {} ({}): {}, not {!r}".format(number, request["route"], reason, result)
    return None


def item_of(body):
    return {body["product_id"]: (body["name"], body["price"], body["quantity"])}


def wrong_item(request, result, cart):
    product_id = request["path"]["id"]
    if product_id not in cart:
        return None if result is None else "there is no such product"
    name, price, quantity = cart[product_id]
    expected = {
        "cart_id": request["body"]["cart"],
        "product_id": product_id,
        "name": name,
        "price": price,
        "quantity": quantity,
    }
    return None if result == expected else "the product is {!r}".format(expected)


def wrong_cart(result, known, possible):
    if not isinstance(result, dict) or not isinstance(result.get("products"), list):
        return "the products of the cart should be told"
    by_name = {name: (price, quantity) for name, price, quantity in possible.values()}
    names = result["products"]
    if len({str(name) for name in names}) != len(names) or not all(str(name) in by_name for name in names):
        return "there should be these products at most, each once: {!r}".format(sorted(by_name))
    missing = {name for name, _, _ in known.values()} - set(names)
    if missing:
        return "the cart should hold {!r} too".format(sorted(missing))
    # Sums of quarters are exact, in any order.
    total = sum(by_name[name][0] * by_name[name][1] for name in names)
    pieces = sum(by_name[name][1] for name in names)
    average = total / pieces if pieces else 0
    if result.get("total_cost") != total or abs(result.get("avg_price", -1) - average) > 1e-9 * average:
        return "the total should be {} and the average {}".format(total, average)
    return None
