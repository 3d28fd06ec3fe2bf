# Fetches the newest pip that fits this Python from the user's package index, and prints the path of its wheel.
#
# Called as `python3 pip_bootstrap.py FOLDER` where the interpreter has no pip. A wheel that is in FOLDER already and
# has the index's hash is not fetched again. Settings are pip's own: PIP_INDEX_URL, PIP_CERT, SSL_CERT_FILE, proxies.

import base64
import hashlib
import os
import re
import ssl
import sys
import urllib.parse
import urllib.request
from html.parser import HTMLParser


# Host -> value of the header that logs in there.
LOGINS = {}


class Links(HTMLParser):
    """The attributes of each link of a page of the index (the "simple repository API", PEP 503)."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs))


def main(folder):
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
    page_url = index.rstrip("/") + "/pip/"
    page, page_url = fetch(page_url)
    links = Links()
    links.feed(page.decode("utf-8"))
    version, url, digest = choose(links.found, page_url)
    path = os.path.join(folder, "pip-{}-py3-none-any.whl".format(".".join(map(str, version))))
    if not (os.path.exists(path) and sha256(read(path)) == digest):
        wheel, _ = fetch(url)
        if sha256(wheel) != digest:
            sys.exit("{} does not have the SHA-256 that the index says: {}".format(shown(url), digest))
        with open(path + ".part", "wb") as file:
            file.write(wheel)
        os.replace(path + ".part", path)
    print(path)


def choose(links, page_url):
    """Version, URL and SHA-256 of the newest wheel that is released, not yanked, and fit for this Python."""
    best = None
    for link in links:
        url = urllib.parse.urljoin(page_url, link.get("href") or "")
        url, _, fragment = url.partition("#")
        name = urllib.parse.unquote(url.split("?")[0].rsplit("/", 1)[-1])
        match = re.match(r"pip-(\d+(?:\.\d+)*)-py(?:2\.py)?3-none-any\.whl$", name)
        digest = re.match(r"sha256=([0-9a-f]{64})$", fragment)
        if not match or not digest or "data-yanked" in link:
            continue
        if not fits(link.get("data-requires-python") or ""):
            continue
        version = tuple(int(part) for part in match.group(1).split("."))
        if best is None or version > best[0]:
            best = (version, url, digest.group(1))
    if best is None:
        sys.exit("{} has no pip with a SHA-256 for Python {}.{}".format(shown(page_url), *sys.version_info[:2]))
    return best


def fits(requirement, version=None):
    """Does this Python's version fit a list such as `>=3.8, !=3.9.1, <4`?"""
    version = version or sys.version_info[:3]
    for clause in filter(None, (clause.strip() for clause in requirement.split(","))):
        match = re.match(r"(>=|<=|==|!=|~=|>|<)\s*([0-9.]+?)(\.\*)?$", clause)
        if not match:
            return False
        operator, text, star = match.groups()
        wanted = tuple(int(part) for part in text.split("."))
        mine = tuple(version[: len(wanted)]) if star or operator == "~=" else tuple(version)
        padded = wanted if star or operator == "~=" else wanted + (0,) * (len(mine) - len(wanted))
        if operator == "~=":
            good = mine >= wanted and version[: len(wanted) - 1] == wanted[:-1]
        else:
            good = {
                ">=": mine >= padded,
                "<=": mine <= padded,
                "==": mine == padded,
                "!=": mine != padded,
                ">": mine > padded,
                "<": mine < padded,
            }[operator]
        if not good:
            return False
    return True


def fetch(url):
    """The content at a URL, and the URL it came from in the end."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Accept": "text/html, */*;q=0.1", "User-Agent": "sebs-lite"}
    if parts.username is not None:
        # urllib takes no name and password in a URL; the wheel is fetched from the same host with the same ones.
        login = urllib.parse.unquote(parts.username) + ":" + urllib.parse.unquote(parts.password or "")
        LOGINS[parts.hostname] = "Basic " + base64.b64encode(login.encode()).decode()
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.hostname in LOGINS:
        headers["Authorization"] = LOGINS[parts.hostname]
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or None
    try:
        context = ssl.create_default_context(cafile=certificates)
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return answer.read(), answer.geturl()
    except (OSError, ValueError) as error:
        sys.exit("failed to fetch {}: {}".format(shown(url), error))


def shown(url):
    """The URL without the password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//", url)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def read(path):
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    main(sys.argv[1])
