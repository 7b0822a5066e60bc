"""Every kind of bad file: the exact sentence, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import SpecError
from deploykit.spec.load import load
from deploykit.spec.model import Project


def read(tmp_path: Path, text: str, **environ: str) -> Project:
    path = tmp_path / "compose.yaml"
    path.write_text(text, encoding="utf-8")
    return load([path], directory=None, project_name="p", environ=environ)


def web(*lines: str) -> str:
    """A file whose service ``web`` has these lines, the first one on line 4."""
    return "services:\n  web:\n    image: x\n" + "".join(f"    {line}\n" for line in lines)


def rollout(*lines: str) -> str:
    """The first line is line 6, at column 9."""
    return web("x-deploykit:", "  rollout:", *(f"    {line}" for line in lines))


CASES = {
    "empty": ("", "1:1: the file is empty"),
    "a list": ("- a\n", "1:1: a Compose file must be a mapping, not a list"),
    "a string": ("hello", "1:1: a Compose file must be a mapping, not a string"),
    "two documents": ("a: 1\n---\nb: 2\n", "2:1: a second document starts here, one file holds one project"),
    "broken": ("services: [\n", "2:1: this is not YAML: while parsing a flow node did not find expected node content"),
    "duplicate": (web("image: y"), "4:5: the key 'image' is here twice, first at line 3"),
    "no anchor": (web("user: *nobody"), "4:11: there is no anchor '&nobody' before this alias"),
    "bad merge": (web("<<: 5"), "4:9: `<<` merges a mapping or a list of mappings, not a number"),
    "tag": (web("labels: !wrong {}"), "4:13: unknown tag '!wrong', expected !reset or !override"),
    "deep": ("a: " + "[" * 120 + "]" * 120, "1:103: nested deeper than 100 levels"),
    "top key": ("servces: {}\n", "1:1: unknown key 'servces' at the top level, did you mean 'services'?"),
    "key": (web("imagee: y"), "4:5: unknown key 'imagee' under services.web, did you mean 'image'?"),
    "nested key": (
        web("build: {contxt: .}"),
        "4:13: unknown key 'contxt' under services.web.build, did you mean 'context'?",
    ),
    "name": ("services: {'a b': {image: x}}", "1:12: 'a b' is not a name for services"),
    "not a mapping": ("services: {web: 5}", "1:12: services.web must be a mapping, not a number"),
    "type": (web("ports: 80"), "4:5: services.web.ports must be a list, not a number"),
    "user": (web("user: 1000"), "4:5: services.web.user must be a string, not a number"),
    "enum": (
        web("deploy: {update_config: {order: start-frist}}"),
        "4:30: services.web.deploy.update_config.order must be one of start-first, stop-first, not 'start-frist'"
        ", did you mean 'start-first'?",
    ),
    "required": (
        web("depends_on: {db: {restart: true}}"),
        "4:18: services.web.depends_on.db needs the key 'condition'",
    ),
    "no image": ("services:\n  web: {command: x}\n", "2:3: services.web has neither an image nor a build"),
    "port": (web("ports: ['80:x']"), "4:13: '80:x' is not a port"),
    "port digits": (web(f"ports: ['{'9' * 5000}']"), f"4:13: '{'9' * 5000}' is not a port"),
    "duration long": (
        web("stop_grace_period: " + "9" * 400 + "h"),
        f"4:24: services.web.stop_grace_period must be a duration, not '{'9' * 400}h'",
    ),
    "size long": (
        web("mem_limit: " + "9" * 400 + "g"),
        f"4:16: services.web.mem_limit must be a size, not '{'9' * 400}g'",
    ),
    "env file name": (web('env_file: "a\\0"'), "4:15: the env file '{dir}/a\\x00' has no usable name"),
    "port range": (web("ports: ['80-90:80-81']"), "4:13: the two port ranges of '80-90:80-81' differ in length"),
    "port high": (web("ports: ['70000:80']"), "4:13: a port is 1 to 65535, not '70000'"),
    "port backward": (web("ports: ['90-80:90-80']"), "4:13: the port range '90-80' ends before it starts"),
    "port protocol": (web("ports: ['80/foo']"), "4:13: the protocol of '80/foo' must be tcp or udp"),
    "port host": (web("ports: ['nohost:80:80']"), "4:13: 'nohost' is not an IP address"),
    "port target": (web("ports: [{published: 80}]"), "4:13: a port needs the key 'target'"),
    "volume": (web("volumes: ['a:b:c:d']"), "4:15: 'a:b:c:d' is not a volume"),
    "volume undeclared": (web("volumes: ['data:/data']"), "4:15: the volume 'data' is not declared"),
    "network undeclared": (web("networks: [front]"), "4:16: the network 'front' is not declared"),
    "secret undeclared": (web("secrets: [key]"), "4:15: the secret 'key' is not declared"),
    "network near": (
        web("networks: [frnt]") + "networks: {front: }\n",
        "4:16: the network 'frnt' is not declared, did you mean 'front'?",
    ),
    "modes": (
        web("network_mode: host", "networks: [a]") + "networks: {a: }\n",
        "4:5: network_mode and networks exclude each other",
    ),
    "depends": (
        web("depends_on: [webb]"),
        "4:18: services.web depends on 'webb', which is not a service, did you mean 'web'?",
    ),
    "disabled": (
        web("depends_on: [db]") + "  db: {image: y, profiles: [full]}\n",
        "4:18: services.web depends on 'db', which no active profile enables",
    ),
    "circle": (
        web("depends_on: [db]") + "  db: {image: y, depends_on: [web]}\n",
        "5:31: services depend on each other in a circle: web -> db -> web",
    ),
    "same port": (
        web("ports: ['80:80']") + "  two: {image: y, ports: ['80:81']}\n",
        "5:27: services.two publishes port 80, which services.web has at {file}:4:13",
    ),
    "duration": (web("stop_grace_period: soon"), "4:24: services.web.stop_grace_period must be a duration, not 'soon'"),
    "size": (web("mem_limit: big"), "4:16: services.web.mem_limit must be a size, not 'big'"),
    "boolean": (web("read_only: maybe"), "4:16: services.web.read_only must be true or false, not 'maybe'"),
    "integer": (web("scale: few"), "4:12: services.web.scale must be an integer, not 'few'"),
    "replicas": (web("scale: -1"), "4:12: services.web.scale must be at least 0, not -1"),
    "number": (web("cpus: lots"), "4:11: services.web.cpus must be a number, not 'lots'"),
    "distinct": (
        web("scale: 2", "deploy: {replicas: 3}"),
        "5:24: services.web: 'scale' and 'deploy.replicas' are both set and differ",
    ),
    "restart": (
        web("restart: sometimes"),
        "4:14: services.web.restart must be no, always, on-failure[:N] or unless-stopped, not 'sometimes'",
    ),
    "health test": (
        web("healthcheck: {test: [curl]}"),
        "4:25: services.web.healthcheck.test must start with NONE, CMD or CMD-SHELL",
    ),
    "command": (
        web("command: echo 'open"),
        "4:14: services.web.command cannot be split into words: no closing quotation",
    ),
    "environment": (web("environment: ['=x']"), "4:19: services.web.environment has an entry without a name"),
    "expose": (web("expose: [http]"), "4:14: services.web.expose must hold ports, not 'http'"),
    "env file": (web("env_file: no.env"), "4:15: the env file {dir}/no.env is not there"),
    "extends": (web("extends: {service: w}"), "4:24: services.web extends 'w', which is not a service"),
    "extends circle": (
        web("extends: two") + "  two: {extends: web}\n",
        "5:18: services extend each other in a circle: web -> two -> web",
    ),
    "extends file": (web("extends: {service: w, file: no.yaml}"), "4:33: there is no file {dir}/no.yaml"),
    "include": ("include: [no.yaml]\n", "1:11: there is no file {dir}/no.yaml"),
    "include circle": ("include: [compose.yaml]\n", "1:11: files include each other in a circle: {file}"),
    "required variable": (web("user: ${WHO:?say who}"), "4:11: the required variable WHO is not set: say who"),
    "open brace": (web('user: "ab${WHO"'), "4:14: a '${' without its '}'"),
    "no variable": (web("user: a${}"), "4:12: no variable name after '${', expected letters, digits and '_'"),
    "operator": (
        web("user: ${A!}"),
        "4:14: '!' after '${A', expected '}' or one of :- :? :+ - ? +",
    ),
    "platform": (
        web("platform: a", "build: {platforms: [b, c]}"),
        "4:15: services.web.platform must be one of its build.platforms: b, c",
    ),
    "x unknown": (
        web("x-deploykit: {helth: {}}"),
        "4:19: unknown key 'helth' under services.web.x-deploykit, did you mean 'health'?",
    ),
    "x type": (web("x-deploykit: 5"), "4:18: services.web.x-deploykit must be a mapping, not a number"),
    "x health": (
        web("x-deploykit: {health: {path: readyz}}"),
        "4:34: services.web.x-deploykit.health.path must be a path that starts with '/', not 'readyz'",
    ),
    "x interval": (
        web("x-deploykit: {health: {interval: 0s}}"),
        "4:38: services.web.x-deploykit.health.interval must be more than 0s",
    ),
    "x drain": (
        web("x-deploykit: {drain: 5}"),
        "4:26: services.web.x-deploykit.drain must be a duration, not '5'",
    ),
    "x strategy": (
        rollout("strategy: canarry"),
        "6:19: services.web.x-deploykit.rollout.strategy must be one of rolling, canary, blue-green, recreate"
        ", not 'canarry'",
    ),
    "x weight": (
        rollout("steps: [{set_weight: 101}]"),
        "6:30: services.web.x-deploykit.rollout.steps[0].set_weight must be 0 to 100, not 101",
    ),
    "x order": (
        rollout("steps: [{set_weight: 50}, {set_weight: 5}]"),
        "6:48: services.web.x-deploykit.rollout.steps[1].set_weight is 5, less than the 50 before it",
    ),
    "x both": (
        rollout("steps: [{set_weight: 5, pause: 1s}]"),
        "6:17: services.web.x-deploykit.rollout.steps[0] must have either set_weight or pause",
    ),
    "x steps": (rollout("steps: 5"), "6:16: services.web.x-deploykit.rollout.steps must be a list, not a number"),
    "x budget": (
        rollout("analysis: {error_budget: 150%}"),
        "6:34: services.web.x-deploykit.rollout.analysis.error_budget must be 0 to 1, not 150%",
    ),
    "x fraction": (
        rollout("analysis: {error_budget: some}"),
        "6:34: services.web.x-deploykit.rollout.analysis.error_budget must be a fraction, not 'some'",
    ),
    "x alarm": (
        rollout("analysis: {false_alarm: 0}"),
        "6:33: services.web.x-deploykit.rollout.analysis.false_alarm must lie between 0 and 1, both excluded, not 0",
    ),
    "x metric": (
        rollout("analysis: {metrics: [{tolerance: 1%}]}"),
        "6:30: services.web.x-deploykit.rollout.analysis.metrics[0] needs the key 'name'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(tmp_path: Path, case: str) -> None:
    text, expected = CASES[case]
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    file = tmp_path / "compose.yaml"
    wanted = expected.replace("{file}", str(file)).replace("{dir}", str(tmp_path))
    assert caught.value.message == f"{file}:{wanted}"


def test_hint_names_the_known_keys_and_details_the_further_faults(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, web("build: {qqq: .}", "ports: 80"))
    assert caught.value.hint.startswith("known keys: additional_contexts, args, ")
    assert caught.value.details == (
        f"{tmp_path / 'compose.yaml'}:5:5: services.web.ports must be a list, not a number",
    )


def test_a_number_where_a_string_is_due_says_put_it_in_quotes(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, web("user: 1000"))
    assert caught.value.hint == 'put it in quotes: "1000"'


def test_alias_bomb_fails_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(SpecError, match=r":5:\d+: aliases expand to more than 200000 values"):
        read(tmp_path, "\n".join(lines))


def test_deep_nesting_does_not_overflow(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        read(tmp_path, "[" * 100_000)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="the file is larger than 4 MiB"):
        read(tmp_path, "# " + "x" * (4 * 1024 * 1024))


def test_missing_folder_and_binary(tmp_path: Path) -> None:
    missing = tmp_path / "no.yaml"
    with pytest.raises(SpecError) as caught:
        load([missing], directory=None, project_name=None, environ={})
    assert caught.value.message == f"{missing}:1:1: there is no file {missing}"
    with pytest.raises(SpecError) as caught:
        load([tmp_path], directory=None, project_name=None, environ={})
    assert caught.value.message == f"{tmp_path}:1:1: {tmp_path} is a folder, expected a file"
    missing.write_bytes(b"a: \xff\xfe")
    with pytest.raises(SpecError) as caught:
        load([missing], directory=None, project_name=None, environ={})
    assert caught.value.message == f"{missing}:1:1: {missing} is not UTF-8 text (byte 3)"


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no Compose file here or in a folder above"):
        load(None, directory=tmp_path, project_name=None, environ={})
