"""A server of ClearML's API as far as its datasets need one, in memory: its package asks one for every command.

    python -m benchmarks.servers.clearml_api            prints the port, and serves until its input ends

Projects and tasks are kept as they are sent. Files are no concern of it: datasets of the benchmark lie in a folder.
The calls are those that release 2.1 of the package makes; whatever else is called is answered with nothing done.
"""

import base64
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Document = dict[str, Any]

_API = "2.23"


def now() -> str:
    return datetime.now(UTC).isoformat()


def token() -> str:
    """A token that says which API is spoken; the package reads it and does not check who signed it."""

    def part(value: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    began = int(time.time())
    claims = {"api_version": _API, "server_version": "2.0.0", "feature_set": "basic", "exp": began + 86_400}
    return ".".join([part({"alg": "HS256", "typ": "JWT"}), part(claims), "AAAA"])


def picked(document: Document, fields: Iterable[str]) -> Document:
    """The fields that were asked for, by the first part of their names; all where none were."""
    wanted = {one.split(".")[0] for one in fields}
    return {key: value for key, value in document.items() if not wanted or key == "id" or key in wanted}


def matches(document: Document, asked: Mapping[str, Any]) -> bool:
    """Whether a project or task is among those that a `get_all` asks for."""
    for field in ("id", "project", "status", "type"):
        wanted = asked.get(field)
        if wanted and document.get(field) not in ([wanted] if isinstance(wanted, str) else wanted):
            return False
    if asked.get("name") and not re.search(asked["name"], document.get("name", "")):
        return False
    for field in ("tags", "system_tags"):
        for tag in asked.get(field) or []:
            if not tag.startswith("__$") and (tag.lstrip("-") in document.get(field, [])) == tag.startswith("-"):
                return False
    return True


class Api:
    """What was created, and the calls that make, change and find it."""

    def __init__(self) -> None:
        self.projects: dict[str, Document] = {}
        self.tasks: dict[str, Document] = {}
        self.lock = threading.Lock()
        self.calls: dict[str, Callable[[Document], Document]] = {
            "auth.login": lambda _: {"token": token()},
            "projects.create": self.create_project,
            "projects.get_by_id": lambda asked: {"project": self.projects[asked["project"]]},
            "projects.get_all": lambda asked: {"projects": self.found(self.projects, asked)},
            "projects.update": lambda asked: self.change(self.projects[asked.pop("project")], asked),
            "tasks.create": self.create_task,
            "tasks.get_by_id": lambda asked: {"task": self.task(asked)},
            "tasks.get_all": lambda asked: {"tasks": self.found(self.tasks, asked)},
            "tasks.edit": lambda asked: self.change(self.task(asked), asked),
            "tasks.started": lambda asked: self.change(self.task(asked), {"status": "in_progress"}),
            "tasks.completed": lambda asked: self.change(self.task(asked), {"status": "completed"}),
            "tasks.add_or_update_artifacts": self.add_artifacts,
            "tasks.edit_hyper_params": self.edit_parameters,
            "events.add_batch": lambda asked: {"added": 1, "errors": 0},
        }

    def answer(self, call: str, asked: Document) -> Document:
        done = self.calls.get(call)
        with self.lock:
            return done(asked) if done else {"updated": 1}

    def create(self, documents: dict[str, Document], asked: Document) -> Document:
        made = {"id": uuid.uuid4().hex, "created": now(), "last_update": now(), "tags": [], "system_tags": []} | asked
        documents[made["id"]] = made
        return {"id": made["id"]}

    def create_project(self, asked: Document) -> Document:
        """A project, and those that its name says it is in."""
        there = {one["name"]: identity for identity, one in self.projects.items()}
        whole = asked["name"].split("/")
        for name in ("/".join(whole[:depth]) for depth in range(1, len(whole))):
            if name not in there:
                self.create(self.projects, {"name": name})
        return self.create(self.projects, asked)

    def create_task(self, asked: Document) -> Document:
        parts = ("hyperparams", "configuration", "runtime", "execution", "output", "script", "models", "last_metrics")
        empty: Document = {part: {} for part in parts}
        return self.create(self.tasks, {**empty, "status": "created", "user": "benchmark", "last_iteration": 0} | asked)

    def task(self, asked: Document) -> Document:
        return self.tasks[asked["task"]]

    def found(self, documents: dict[str, Document], asked: Document) -> list[Document]:
        some = [picked(one, asked.get("only_fields") or []) for one in documents.values() if matches(one, asked)]
        newest = "-created" in (asked.get("order_by") or []) or "-last_update" in (asked.get("order_by") or [])
        some = some[::-1] if newest else some
        size = asked.get("page_size") or asked.get("size") or len(some) or 1
        begin = (asked.get("page") or 0) * size
        return some[begin : begin + size]

    def change(self, document: Document, asked: Document) -> Document:
        given = {key: value for key, value in asked.items() if key not in ("task", "force") and value is not None}
        if "output_dest" in given:
            document["output"]["destination"] = given.pop("output_dest")
        if "execution" in given:
            given["execution"] = document["execution"] | given["execution"]
        document.update(given, last_update=now())
        return {"updated": 1, "fields": given}

    def add_artifacts(self, asked: Document) -> Document:
        execution = self.task(asked)["execution"]
        kept = {one["key"]: one for one in execution.get("artifacts", [])}
        execution["artifacts"] = [*(kept | {one["key"]: one for one in asked["artifacts"]}).values()]
        return {"updated": 1}

    def edit_parameters(self, asked: Document) -> Document:
        for one in asked["hyperparams"]:
            self.task(asked)["hyperparams"].setdefault(one["section"], {})[one["name"]] = one
        return {"updated": 1}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: Api

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = self.path.partition("?")[0].rsplit("/", 1)[-1]
        if call.endswith("_batch") or not body:
            asked: Document = {}
        else:
            asked = {key: value for key, value in json.loads(body).items() if key != "method"}
        try:
            code, data, told = 200, self.api.answer(call, asked), "OK"
        except KeyError as missing:
            code, data, told = 400, {}, f"There is no {missing}."
        meta = {"id": "", "trx": "", "endpoint": {"name": call, "requested_version": _API, "actual_version": _API}}
        meta |= {"result_code": code, "result_subcode": 0, "result_msg": told, "error_stack": "", "error_data": {}}
        self.reply(code, json.dumps({"meta": meta, "data": data}).encode())

    do_GET = do_POST  # noqa: N815

    def reply(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    Handler.api = Api()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
