"""A server on this machine that speaks as much of the Hugging Face hub's API as models need."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_jane"


class HubServer(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        commits: of each repository, {commit: {path: content}}.
        branches: of each repository, {branch: commit}.
        spoiled: how many downloads of weights are still to be spoiled on their way.
        requests: methods and paths, in order.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits, self.branches, self.objects = {}, {}, {}
        self.spoiled, self.requests = 0, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.shutdown()
        self.server_close()

    def commit(self, repository, branch, files):
        number = hashlib.sha1(repr((repository, len(self.commits[repository]))).encode()).hexdigest()
        before = self.commits[repository].get(self.branches[repository].get(branch), {})
        self.commits[repository][number] = before | files
        self.branches[repository][branch] = number
        return number


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value, status=200, **headers):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, code, status=404):
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def handle_any(self):
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.server.requests.append(f"{self.command} {path}")
        content = self.body()
        writes = self.command == "POST" and path != "/api/validate-yaml"
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse("Unauthorized", 401)
        for pattern, name in ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return getattr(self, name)(*found.groups(), content=content, query=parse_qs(address.query))
        return self.refuse("EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - as http.server calls them

    def validate(self, content, query):
        card = json.loads(content)["content"]
        assert yaml.safe_load(card.split("---")[1])["library_name"] == "recurrent-asr"
        self.answer({"errors": [], "warnings": []})

    def create(self, content, query):
        values = json.loads(content)
        repository = f"{values['organization']}/{values['name']}"
        known = repository in self.server.commits
        self.server.commits.setdefault(repository, {})
        self.server.branches.setdefault(repository, {})
        self.answer({"url": f"{self.server.url}/{repository}"}, 409 if known else 200)

    def create_branch(self, repository, branch, content, query):
        self.server.branches[repository].setdefault(branch, self.server.branches[repository].get("main"))
        self.answer({})

    def preupload(self, repository, _branch, content, query):
        files = [
            {
                "path": item["path"],
                "uploadMode": "lfs" if item["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for item in json.loads(content)["files"]
        ]
        self.answer({"files": files})

    def lfs_batch(self, _repository, content, query):
        objects = [
            item | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}}
            for item in json.loads(content)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid, content, query):
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.objects[oid] = content
        self.answer({})

    def receive_commit(self, repository, branch, content, query):
        files = {}
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        number = self.server.commit(repository, branch, files)
        self.answer({"commitUrl": f"{self.server.url}/{repository}/commit/{number}", "commitOid": number})

    def commit_of(self, repository, revision):
        if repository not in self.server.commits:
            return self.refuse("RepoNotFound")
        number = self.server.branches[repository].get(revision, revision)
        return number if number in self.server.commits[repository] else self.refuse("RevisionNotFound")

    def information(self, repository, revision=None, *, content, query):
        if number := self.commit_of(repository, revision or "main"):
            self.answer({"id": repository, "modelId": repository, "sha": number, "siblings": []})

    def tree(self, repository, revision, content, query):
        if number := self.commit_of(repository, revision):
            files = self.server.commits[repository][number]
            self.answer([self.entry(path, data) for path, data in files.items()])

    def entry(self, path, data):
        entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if path.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def resolve(self, repository, revision, path, content, query):
        number = self.commit_of(repository, revision)
        if not number:
            return None
        data = self.server.commits[repository][number].get(path)
        if data is None:
            return self.refuse("EntryNotFound")
        entry = self.entry(path, data)
        etag = entry.get("lfs", entry)["oid"]
        if self.command == "GET" and path.endswith(".safetensors") and self.server.spoiled:
            self.server.spoiled -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        return self.answer(data, ETag=f'"{etag}"', X_Repo_Commit=number)

    def models(self, content, query):
        assert query["filter"] == ["recurrent-asr"]
        words = query.get("search", [""])[0]
        found = [name for name in self.server.commits if words in name]
        self.answer([{"id": name, "modelId": name, "downloads": 7} for name in found])


REPOSITORY = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (r"POST /api/validate-yaml", "validate"),
    (r"POST /api/repos/create", "create"),
    (rf"POST /api/models/{REPOSITORY}/branch/(.+)", "create_branch"),
    (rf"POST /api/models/{REPOSITORY}/preupload/(.+)", "preupload"),
    (rf"POST /{REPOSITORY}\.git/info/lfs/objects/batch", "lfs_batch"),
    (r"PUT /lfs/(\w+)", "lfs_upload"),
    (rf"POST /api/models/{REPOSITORY}/commit/(.+)", "receive_commit"),
    (r"GET /api/models", "models"),
    (rf"GET /api/models/{REPOSITORY}/tree/([^/]+)", "tree"),
    (rf"GET /api/models/{REPOSITORY}(?:/revision/(.+))?", "information"),
    (rf"(?:GET|HEAD) /{REPOSITORY}/resolve/([^/]+)/(.+)", "resolve"),
)
