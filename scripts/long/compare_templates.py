"""Renders templates with our interpreter and with jinja2 set up as transformers does, and compares
the texts. Where jinja2 fails ours must fail, too. Run by chat_templates.sh.

Usage: compare_templates.py --program build/tests/binade_templates [--count N] [--seed N] [--show]
                            [--templates FOLDER]
With a folder: the templates of its files *.jinja and */tokenizer_config.json, each with some
conversations, in place of random ones.
"""
import argparse
import copy
import datetime
import json
import pathlib
import random
import subprocess
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def environment():
    def refuse(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda form: datetime.datetime(2025, 7, 22).strftime(form)
    return env


VARIABLES = {
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "tools": None,
    "s": " Hello, W\u00f6rld\n\tend ", "t": "a-b c_d", "n": 7, "m": -3, "x": 2.5, "b": True, "z": None,
    "l": [3, 1, 2], "names": ["beta", "Alpha", "gamma", "Beta"], "e": [],
    "d": {"k": "v", "num": 1, "sub": {"q": [1, {"w": None}]}, "items": "own"},
    "messages": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi\n\"you\" <b>"},
                 {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello \u4f60\u597d"},
                 {"role": "user", "content": [{"type": "text", "text": "part"}]}],
}


class Generator:
    """Random templates out of the constructs that chat templates are made of."""

    def __init__(self, rng):
        self.rng = rng

    def pick(self, *options):
        return self.rng.choice(options)

    def expr(self, depth):
        if depth <= 0:
            return self.pick("s", "t", "n", "m", "x", "b", "z", "l", "e", "d", "names", "messages", "missing", "'ab'", '"q\\n\\u00e9"',
                             "0", "1", "-2", "3.0", "1e3", "true", "none", "[]", "()", "{}", "bos_token", "loop.index0",
                             "loop.last", "item", "ns.v", "messages[0]['role']", "messages[-1].content", "d.sub.q[1].w")
        e = lambda: self.expr(depth - self.rng.randint(1, 3))
        return self.pick(
            lambda: f"{e()} {self.pick('+', '-', '*', '/', '//', '%', '~', '**')} {self.pick('1', '2', 'n', e())}",
            lambda: f"({e()} {self.pick('+', '~', '*')} {e()})",
            lambda: f"{e()} {self.pick('==', '!=', '<', '>=', 'in', 'not in', 'and', 'or')} {e()}",
            lambda: f"not {e()}", lambda: f"({e()} if {e()} else {e()})", lambda: f"({e()} if {e()})",
            lambda: f"({e()})[{self.pick('0', '-1', '1:', ':-1', '::-1', '1:3', '::2', repr('k'), repr('role'))}]",
            lambda: f"({e()}).{self.pick('k', 'role', 'content', 'sub', 'items', 'items()', 'keys()', 'nope', 'get(%s)' % repr('k'))}",
            lambda: f"({e()}) is {self.pick('', 'not ')}" + self.pick(
                "defined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "true",
                "false", "odd", "even", "eq 7", "equalto('v')", "in [1, 2, 'k']", "divisibleby 2", "undefined", "lower", "upper", "gt 2"),
            lambda: f"({e()}) | " + self.pick(
                "trim", "upper", "lower", "title", "capitalize", "length", "join(', ')", "join", "replace('l', 'LL')", "default('dflt')",
                "default('x', true)", "tojson", "tojson(indent=2)", "first", "last", "list", "string", "int", "float", "items | list",
                "selectattr('role', 'equalto', 'user') | list", "rejectattr('role', 'in', ['user']) | list", "selectattr('role') | list | length",
                "map(attribute='role') | list", "map('upper') | list", "map('string') | join('|')", "unique | list", "sort", "sort(reverse=true)",
                "sort(attribute='role')", "reverse | list", "indent(2)", "indent(width=3, first=true)", "dictsort", "abs", "sum", "max", "min",
                "select | list", "reject('odd') | list", "select('string') | list", "string | length", "trim('<')", "tojson(sort_keys=true)",
                "replace('', '.')", "replace('a', 'b', 1)", "safe", "tojson | safe", "safe | string"),
            lambda: f"({self.pick('s', 't', e())})." + self.pick(
                "strip()", "lstrip()", "rstrip()", "rstrip('d ')", "split()", "split(',')", "split('-', 1)", "rsplit(None, 1)", "startswith('a')",
                "endswith(('d', ' '))", "replace('a', 'A')", "upper()", "lower()", "title()", "capitalize()", "find('b')", "count('l')",
                "splitlines()", "split('l')[0]", "split('\\n')[-1].strip()", "removeprefix('a')", "partition('-')", "rfind('l')", "format(n)"),
            lambda: f"'{self.pick('{}', '{0}', '{a}', '{{')} {self.pick('{}', '{1}{0}', '{b}', '}}', '}')}'.format({e()}, {e()}, a=1, b={e()})",
            lambda: f"[{e()}, {e()}]", lambda: f"({e()}, {e()})", lambda: "{'p': %s, 2: %s}" % (e(), e()),
            lambda: f"{self.pick('range', 'macro')}({self.pick('3', '1, n', e())})", lambda: "strftime_now('%d %b %Y')",
            lambda: f"dict(a={e()})", lambda: f"-{e()}", lambda: f"({e()} if {e()} else n | unknown)",
            lambda: f"{self.pick('range', 'macro')}({self.pick('*[2]', '*l[1:]', '1, *' + e())})", lambda: f"macro(a=1, **{self.pick('d', '{}', e())})")()

    def text(self):
        return self.pick("", "x", " ", "\n", "  \n", "a\n  ", "\n\n", "end. ", "<|im_start|>", "{ }", " \t")

    def tag(self, inside):
        return "{%" + self.pick("", "", "", "-", "+") + f" {inside} " + self.pick("", "", "", "-", "+") + "%}"

    def block(self, depth):
        return "".join(self.text() + self.statement(depth) for _ in range(self.rng.randint(1, 3))) + self.text()

    def statement(self, depth):
        e = lambda: self.expr(self.rng.randint(0, 3))
        out = lambda: "{{" + self.pick("", "", "-") + f" {e()} " + self.pick("", "", "-") + "}}"
        if depth <= 0:
            return out()
        inner = lambda: self.block(depth - 1)
        return self.pick(
            out, out, out,
            lambda: self.tag(f"if {e()}") + inner() + (self.tag(f"elif {e()}") + inner() if self.rng.random() < .3 else "")
            + (self.tag("else") + inner() if self.rng.random() < .5 else "") + self.tag("endif"),
            lambda: self.tag(f"for item in {self.pick('l', 'names', 'messages', 'd', 'range(4)', e())}" + self.pick("", "", f" if {e()}"))
            + inner() + self.pick("", self.tag(f"if {e()}") + self.tag(self.pick("break", "continue")) + self.tag("endif"),
                                  "{{ loop.index }}/{{ loop.length }}", "{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex }}")
            + (self.tag("else") + inner() if self.rng.random() < .2 else "") + self.tag("endfor"),
            lambda: self.tag("for k, item in d.items()") + inner() + self.tag("endfor"),
            lambda: self.tag(f"set {self.pick('item', 'fresh', 'ns.v')} = {e()}"),
            lambda: self.tag("set fresh") + inner() + self.tag("endset") + "{{ fresh }}",
            lambda: self.tag("set p, q = 1, s") + "{{ q ~ p }}",
            lambda: self.tag(f"macro macro(a, c={e()})") + inner() + "{{ a ~ c }}" + self.tag("endmacro") + "{{ macro(1) ~ macro(2, c=n) }}",
            lambda: self.tag(f"with item = {e()}") + inner() + self.tag("endwith"),
            lambda: self.tag("filter upper") + inner() + self.tag("endfilter"),
            lambda: self.tag("raw") + " {{ x }} " + self.tag("endraw").replace("+ endraw", " endraw"),
            lambda: self.tag("generation") + inner() + self.tag("endgeneration"),
            lambda: "{#" + self.pick("", "-") + " note " + self.pick("", "-") + "#}")()

    def template(self):
        return self.tag("set ns = namespace(v=1)") + self.block(self.rng.randint(1, 3))


def render_all(program, requests):
    text = "".join(json.dumps(request) + "\n" for request in requests)
    answers = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(answers) == len(requests), "the program ended early"
    return [json.loads(answer) for answer in answers]


def wanted_text(env, template, variables):
    """The text, or what jinja2 and Python throw."""
    try:
        return env.from_string(template).render(**copy.deepcopy(variables))  # `l | indent` extends l
    except Exception as error:
        return error


def compare(wanted, ours):
    if isinstance(wanted, Exception):
        return "refused by both" if isinstance(ours, dict) else "DIFFERENT"
    if isinstance(ours, dict):
        return "refused by ours only"
    return "equal" if wanted == ours else "DIFFERENT"


def turn(role, content):
    return {"role": role, "content": content}


def conversations():
    """What a template is tried with: name and variables."""
    system, user = turn("system", "Be brief."), turn("user", " Who are you?\n<b>\"W\u00f6rld\"</b> \u4f60\u597d ")
    reply, thought = turn("assistant", "  A model.\n"), turn("assistant", "<think>\nhm\n</think>\n\nA model.")
    more = turn("user", "And\tthen? {{ x }} [INST]")
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    for name, messages in {"one turn": [user], "system": [system, user], "reply": [user, reply], "several turns": [user, reply, more],
                           "system and turns": [system, user, reply, more, reply], "thoughts": [system, user, thought, more, thought],
                           "empty texts": [turn("user", ""), turn("assistant", "")], "nothing": [],
                           "roles that do not alternate": [user, user, reply]}.items():
        for prompt in (False, True):
            shared = {**tokens, "messages": messages, "tools": None, "documents": None, "add_generation_prompt": prompt}
            yield f"{name}{', to be continued' if prompt else ''}", shared
    yield "without thinking", {**shared, "messages": [system, user], "enable_thinking": False}


def templates_of(folder):
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        yield path.stem, path.read_text()
    for path in sorted(pathlib.Path(folder).glob("*/tokenizer_config.json")):
        given = json.loads(path.read_text()).get("chat_template", [])
        for entry in given if isinstance(given, list) else [{"name": "default", "template": given}]:
            yield f"{path.parent.name}, {entry['name']}", entry["template"]


def compare_folder(program, env, folder):
    """A line for each template of the folder; whether all are as they should be."""
    good = found = True
    for found, (name, template) in enumerate(templates_of(folder), 1):
        cases = list(conversations())
        answers = render_all(program, [[template, variables] for _, variables in cases])
        counts, first = {}, ""
        for (case, variables), ours in zip(cases, answers):
            wanted = wanted_text(env, template, variables)
            outcome = compare(wanted, ours)
            counts[outcome] = counts.get(outcome, 0) + 1
            if not first and outcome not in ("equal", "refused by both"):
                first = f"\n    {case}\n    jinja2: {str(wanted)!r:.300}\n    ours:   {ours!r:.300}"
        good = good and not counts.get("DIFFERENT") and counts.get("equal", 0) > 0
        print(f"{name}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + first)
    return good and found is not True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--templates")
    args = parser.parse_args()
    generator, env = Generator(random.Random(args.seed)), environment()
    if args.templates:
        sys.exit(not compare_folder(args.program, env, args.templates))
    templates = [generator.template() for _ in range(args.count)]
    counts, reasons, wrong = {}, {}, []
    for template, ours in zip(templates, render_all(args.program, [[t, VARIABLES] for t in templates])):
        wanted = wanted_text(env, template, VARIABLES)
        outcome = compare(wanted, ours)
        counts[outcome] = counts.get(outcome, 0) + 1
        if outcome == "refused by ours only":
            reasons.setdefault(ours["error"].split(": ", 1)[-1], template)
        elif outcome == "DIFFERENT":
            wrong.append((template, wanted, ours))
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    if args.show:
        for reason, template in sorted(reasons.items()):
            print("REFUSED", reason, "\n   ", repr(template)[:300])
    for template, wanted, ours in wrong[:12]:
        print("DIFFERS", repr(template), "\n  jinja2:", repr(wanted)[:300], "\n  ours:  ", repr(ours)[:300])
    sys.exit(bool(wrong) or counts.get("equal", 0) < args.count // 10)


main()
