"""The web page's files: what is served, with which headers, and that scripts and page fit together."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from decimal import Decimal, localcontext
from html.parser import HTMLParser

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.alerts.app import open_stores, routers
from services.alerts.handlers import web
from services.alerts.handlers.http import create_app, problem
from services.alerts.settings import AlertsSettings
from shared.kafka.settings import KafkaSettings
from shared.telemetry.health import Health

FILES = web.static_files()
SCRIPTS = {name: file.content.decode() for name, file in FILES.items() if name.endswith(".js")}
PAGE = FILES["index.html"].content.decode()


class Parsed(HTMLParser):
    """Every start tag with its attributes, and whether a script holds text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    parser = Parsed()
    parser.feed(PAGE)
    return parser


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()
    problem.install(app)
    app.include_router(web.router())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_the_page_is_served_at_the_root_without_a_key(client: TestClient):
    """It holds no data: everything comes from the API, with the key of the person."""
    answer = client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.content == FILES["index.html"].content


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_served_with_its_type_and_guards(client: TestClient, name: str):
    """Scripts and styles come from here only; nothing may frame the page or guess a type."""
    answer = client.get(f"/static/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FILES[name].media_type
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_an_unchanged_file_is_not_sent_again(client: TestClient):
    etag = client.get("/static/app.js").headers["etag"]
    answer = client.get("/static/app.js", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["content-security-policy"] == web.CONTENT_SECURITY_POLICY


def test_head_answers_without_a_body(client: TestClient):
    answer = client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../__init__.py",
        "/static/..%2f__init__.py",
        "/static/%2e%2e/__init__.py",
        "/static/..%5c__init__.py",
        "/static/....//__init__.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/app.js%00.html",
        "/static/__init__.py",
        "/static/",
        "/static/nothing.js",
    ],
)
def test_no_path_leads_out_of_the_folder(client: TestClient, path: str):
    """Only names in the list are answered, however they are written."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_has_no_inline_script_style_or_handler(parsed: Parsed):
    """The policy would refuse them, and the page would stay dead."""
    assert parsed.inline == []
    assert [
        (tag, name)
        for tag, attributes in parsed.tags
        for name in attributes
        if name.startswith("on") or name == "style"
    ] == []


def test_everything_the_page_loads_is_served_from_here(parsed: Parsed):
    """No address of another host, and no file that is not shipped."""
    loaded = [a["src"] for _, a in parsed.tags if "src" in a] + [a["href"] for t, a in parsed.tags if t == "link"]
    assert loaded
    assert {str(address).removeprefix("static/") for address in loaded} <= set(FILES)
    outside = {n: re.findall(r"https?://[^\s\"'`)]+", f.content.decode()) for n, f in FILES.items()}
    assert {n: found for n, found in outside.items() if found} == {
        "dom.js": ["http://www.w3.org/2000/svg"],
        "icon.svg": ["http://www.w3.org/2000/svg"],
    }


def test_every_id_that_scripts_use_is_in_the_page(parsed: Parsed):
    ids = [str(attributes["id"]) for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id stands twice"
    used = {id_ for text in SCRIPTS.values() for id_ in re.findall(r'byId\("([^"]+)"\)', text)}
    assert used
    assert used <= set(ids)
    # Ids that are put together from a name: the beginning must exist.
    built = {start for text in SCRIPTS.values() for start in re.findall(r"byId\(`([^`$]+)\$\{", text)}
    assert all(any(id_.startswith(start) for id_ in ids) for start in built)
    named = {id_ for text in SCRIPTS.values() for list_ in re.findall(r"for \(const \w+ of \[([^\]]+)\]\) show\(byId", text) for id_ in re.findall(r'"([^"]+)"', list_)}  # fmt: skip
    assert named <= set(ids)


def test_labels_and_descriptions_name_elements_that_exist(parsed: Parsed):
    """A screen reader finds what they point to."""
    ids = {attributes.get("id") for _, attributes in parsed.tags}
    pointed = [
        word
        for _, attributes in parsed.tags
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls")
        for word in (attributes.get(name) or "").split()
    ]
    assert pointed
    assert set(pointed) <= ids


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_cannot_turn_data_into_markup(name: str):
    """Text from data is set as text; the key is in no address and no lasting store."""
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|localStorage|document\.cookie|setAttribute\(.style"
    assert re.findall(forbidden, SCRIPTS[name]) == []


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_import_only_what_there_is(name: str):
    """Each name that a module imports is exported by the module it names."""
    for names, source in re.findall(r'import (.+?) from "\./([^"]+)";', SCRIPTS[name]):
        assert source in SCRIPTS
        exported = set(re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", SCRIPTS[source], re.MULTILINE))
        wanted = set(re.findall(r"\w+", names)) if names.startswith("{") else set()
        assert wanted <= exported


def test_the_api_role_serves_the_page():
    """The service's own application answers at the root; the API beside it still asks for a key."""
    settings, kafka = AlertsSettings(), KafkaSettings(bootstrap_servers="127.0.0.1:1")
    stores = open_stores(settings, kafka)
    app = create_app(routers(stores, settings), stores.directory, Health(["database"]))
    client = TestClient(app)
    assert client.get("/").content == FILES["index.html"].content
    assert client.get("/v1/discrepancy-counts").status_code == 401
    assert "/static/{name}" not in client.get("/openapi.json").json()["paths"]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not here")
def test_differences_of_totals_are_exact():
    """Longer than a float is exact, with as many decimals as either amount has."""
    pairs = [("122538.11", "122801.73"), ("4228250", "4272392"), ("0", "0.05"), ("1.5", "-0.25"), ("2.00", "2.00"),
             ("900719925474099312345.00", "0.01")]  # fmt: skip
    functions = re.sub(r"(?m)^import .*$", "", SCRIPTS["format.js"])
    asked = f"console.log(JSON.stringify({json.dumps(pairs)}.map(([left, right]) => minus(left, right))))"
    done = subprocess.run(
        ["node", "--input-type=module"], input=functions + asked, capture_output=True, text=True, check=True
    )
    with localcontext(prec=50):
        expected = [str(Decimal(left) - Decimal(right)) for left, right in pairs]
    assert json.loads(done.stdout) == expected
