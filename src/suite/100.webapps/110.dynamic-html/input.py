# How many random numbers 110.dynamic-html has to show for each size, and how to tell that its page shows them.

NUMBERS = {"test": 10, "small": 1000, "large": 100000}


def buckets_count():
    return (0, 0)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    return {"username": "Ada & Bob", "random_len": NUMBERS[size]}


def validate_output(data_dir, input_config, output, language, storage):
    page = output.get("result")
    if not isinstance(page, str):
        return "the result should be a page of HTML and is a {}".format(type(page).__name__)
    if "Ada &amp; Bob" not in page:
        return "the page does not greet its user, with the name escaped"
    shown = page.count('<td class="number">')
    if shown != input_config["random_len"]:
        return "{} numbers were asked for, the page shows {}".format(input_config["random_len"], shown)
    if not page.rstrip().endswith("</html>"):
        return "the page is cut off"
    return None
