#include "temporary_folder.h"

#include <binade/core/error.h>
#include <binade/data/chat_template.h>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using Messages = std::vector<Message>;

namespace {

const Messages kMessages = {{"system", " Be brief. "},
                            {"user", "Hi\n\"you\" <b>"},
                            {"assistant", "Hello \u4f60\u597d"},
                            {"user", "Bye"}};

struct Case {
  const char *name, *source, *expected;
};

// The expected texts are those of jinja2 3.1.6, set up as transformers does
// (scripts/long/compare_templates.py).
const Case kCases[] = {
    {"what does not run in a condition",
     "{% if tools %}{{ tools | from_yaml }}{% for t in tools %}{% if t is odder %}x{% endif %}{% "
     "endfor %}{% endif %}{{ tools | from_yaml if tools else 'none' }}",
     "none"},
    {"thoughts of earlier turns",
     "{%- set ns = namespace(last=0) %}{% for m in messages if m.role == 'user' %}{% set ns.last = "
     "loop.index0 %}{% endfor %}{% for m in messages %}{% set text = m.content %}{% set thought = "
     "'' %}{% if m.role == 'assistant' and '</think>' in text %}{% set thought = "
     "text.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{% set text = "
     "text.split('</think>')[-1].lstrip('\\n') %}{% endif %}<{{ m.role }}>{{ text }}{% if not "
     "loop.last and loop.nextitem.role != m.role %}|{% endif %}{% endfor %}{{ ns.last }}",
     "<system> Be brief. |<user>Hi\n\"you\" <b>|<assistant>Hello "
     "\344\275\240\345\245\275|<user>Bye1"},
    {"dates, tools and documents that are absent",
     "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif "
     "%}{{ date_string }}{% if tools is not none and tools is defined %}T{% endif %}{{ documents "
     "is none }}{% set first = messages[0]['content']|trim if messages[0].role == 'system' else '' "
     "%}{% set loop_messages = messages[1:] if first else messages %}{{ first }}{{ "
     "loop_messages|length }}{{ messages[-1]['content'][:2] }}",
     "22 Jul 2025TrueBe brief.3By"},
    {"every filter",
     "{{ -2|abs }},{{ 'ab'|capitalize }},{{ names|count }},{{ no|d('x') }},{{ no|default('y') "
     "}},{{ d|dictsort|list }},{{ names|first }},{{ '1.5'|float }},{{ 'a\\nb'|indent(1) }},{{ "
     "'7'|int }},{{ d|items|list|length }},{{ names|join('-') }},{{ names|last }},{{ names|length "
     "}},{{ 'ab'|list }},{{ 'AB'|lower }},{{ names|map('upper')|list }},{{ [1, 2]|max }},{{ [1, "
     "2]|min }},{{ [1, 2]|reject('odd')|list }},{{ messages|rejectattr('role', 'in', "
     "['user'])|map(attribute='role')|list }},{{ 'aba'|replace('a', 'c') }},{{ 'abc'|reverse }},{{ "
     "names|reverse|list }},{{ 'abc'|safe }},{{ 'abc'|tojson|safe }},{{ [0, 2]|select|list }},{{ "
     "messages|selectattr('role', '==', 'user')|list|length }},{{ names|sort }},{{ 1|string }},{{ "
     "[1, 2]|sum }},{{ 'ab cd'|title }},{{ names|tojson }},{{ ' x '|trim }},{{ [1, 1]|unique|list "
     "}},{{ 'ab'|upper }}",
     "2,Ab,4,x,y,[('a', {'x': 'y'}), ('b', [1, 2.5, None, True])],beta,1.5,a\n "
     "b,7,2,beta-Alpha-gamma-Beta,Beta,4,['a', 'b'],ab,['BETA', 'ALPHA', 'GAMMA', "
     "'BETA'],2,1,[2],['system', 'assistant'],cbc,cba,['Beta', 'gamma', 'Alpha', "
     "'beta'],abc,\"abc\",[2],2,['Alpha', 'beta', 'Beta', 'gamma'],1,3,Ab Cd,[\"beta\", \"Alpha\", "
     "\"gamma\", \"Beta\"],x,[1],AB"},
    {"safe strings",
     "{% set v = d.a | tojson | safe if d is mapping else d | string %}{{ '<p>' ~ v ~ '</p>' }}{{ "
     "(v ~ '<') | upper }}{{ '\"' | safe + messages[1].content + (\"'&\" | safe) }}{{ [v, v | "
     "string] }}{{ v | replace('y', '<') }}{{ v == '{\"x\": \"y\"}' }}{{ '<' + v }}",
     "<p>{\"x\": \"y\"}</p>{\"X\": \"Y\"}<\"Hi\n&#34;you&#34; &lt;b&gt;'&[Markup('{\"x\": "
     "\"y\"}'), Markup('{\"x\": \"y\"}')]{\"x\": \"<\"}True&lt;{\"x\": \"y\"}"},
    {"format and unpacked arguments",
     "{% macro f(a, b='-', c='.') %}{{ a ~ b ~ c }}{% endmacro %}{% set args = [1, 2] %}{{ "
     "'<{}|{}>{{}}'.format(names[0], none) }} {{ '{1}{0}{x}'.format(1, 'b', x=2.0) }} {{ f(*args) "
     "}} {{ f(0, *args) }} {{ f(1, **{'c': 3}) }} {{ f(*[1], c=2) }}",
     "<beta|None>{} b12.0 12. 012 1-3 1-2"},
    {"ChatML",
     "{%- for message in messages %}\n    {{- '<|im_start|>' + message['role'] + '\\n' + "
     "message.content | trim + '<|im_end|>' + '\\n' }}\n{%- endfor %}\n{%- if "
     "add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
     "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi\n\"you\" "
     "<b><|im_end|>\n<|im_start|>assistant\nHello "
     "\344\275\240\345\245\275<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>"
     "assistant\n"},
    {"Llama 2's turns",
     "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = "
     "messages[0]['content'].strip() %}{% else %}{% set rest = messages %}{% set sys = '' %}{% "
     "endif %}{{ bos_token }}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == "
     "0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.first and sys %}{% "
     "set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m.content %}{% else %}{% set "
     "content = m.content %}{% endif %}{% if m.role == 'user' %}[INST] {{ content }} [/INST]{% "
     "else %} {{ content }} {{ eos_token }}{% endif %}{% endfor %}",
     "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi\n\"you\" <b> [/INST] Hello "
     "\344\275\240\345\245\275 </s>[INST] Bye [/INST]"},
    {"a reversed search with a namespace",
     "{%- set ns = namespace(last=-1, multi=true) %}\n{%- for m in messages[::-1] %}\n    {%- set "
     "index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi and m.role == \"user\" "
     "and m.content is string and not(m.content.startswith('<x>') and m.content.endswith('</x>')) "
     "%}\n        {%- set ns.multi = false %}\n        {%- set ns.last = index %}\n    {%- endif "
     "%}\n{%- endfor %}\n{{ ns.last }} {{ ns.multi }} {{ index is defined }}",
     "3 False False"},
    {"macros and filtered loops",
     "{% macro turn(role, text='none', end=eos_token) %}\n[{{ role | upper }}] {{ text }}{{ end "
     "}}\n{% endmacro %}\n{% for m in messages if m.role != 'system' %}\n{{ turn(m.role, "
     "m.content) }}{{ loop.index }}/{{ loop.length }} {{ (loop.previtem or m).role }}>{{ "
     "(loop.nextitem or m).role }}\n{% else %}\nnothing\n{% endfor %}\n{{ turn('x', end='!') }}{{ "
     "turn('y') }}",
     "[USER] Hi\n\"you\" <b></s>\n1/3 user>assistant\n[ASSISTANT] Hello "
     "\344\275\240\345\245\275</s>\n2/3 user>user\n[USER] Bye</s>\n3/3 assistant>user\n[X] "
     "none!\n[Y] none</s>\n"},
    {"white space control",
     "  {% if true %}\n  a {# a comment #}\n  {%- if false %}b{% elif none %}c{% else %} d {%- "
     "endif +%}\n  e\n  {% endif %}\n\tf {{- ' g ' -}} h\n{% raw %}{{ raw }} {% x %}\n{% endraw "
     "%}\n{#- trimmed -#}\nend\n",
     "  a  d\n  e\n\tf g h\n{{ raw }} {% x %}\nend"},
    {"JSON",
     "{{ d | tojson }}\n{{ d | tojson(indent=2) }}\n{{ {'k': '<\303\251\"\\n\\u007f>', 1: [], 'e': "
     "{}} | tojson }} {{ d | tojson(separators=(',', ':'), sort_keys=true) }}",
     "{\"b\": [1, 2.5, null, true], \"a\": {\"x\": \"y\"}}\n{\n  \"b\": [\n    1,\n    2.5,\n    "
     "null,\n    true\n  ],\n  \"a\": {\n    \"x\": \"y\"\n  }\n}\n{\"k\": "
     "\"<\303\251\\\"\\n\177>\", \"1\": [], \"e\": {}} "
     "{\"a\":{\"x\":\"y\"},\"b\":[1,2.5,null,true]}"},
    {"arithmetic",
     "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1e16 }} "
     "{{ 1e15 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ true + 1 }} {{ 3 * 'ab' }} {{ [1] + [2] * 2 }} {{ 1 "
     "< 2 < 3 }} {{ -5.5 // 2 }} {{ -1.0 % 3 }}",
     "3 -4 2 3.5 1024 0.5 1e+16 1000000000000000.0 0.30000000000000004 1e-05 2 ababab [1, 2, 2] "
     "True -3.0 2.0"},
    {"printing",
     "{{ none }} {{ true }} {{ [none, 'it\\'s', \"q\\\"\", 1.0] }} {{ (1,) }} {{ () }} {{ {'a': "
     "(1, 'b\\n')} }} {{ missing }}| {{ [missing] }} {{ 'a' ~ none ~ 1 ~ missing }}",
     "None True [None, \"it's\", 'q\"', 1.0] (1,) () {'a': (1, 'b\\n')} | [Undefined] aNone1"},
    {"tests",
     "{{ missing is defined }} {{ d is mapping }} {{ 'x' is iterable }} {{ [] is sequence }} {{ 1 "
     "is number }} {{ true is integer }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ none is none "
     "}} {{ 'a' is not string }} {{ 2 is in [1, 2] }} {{ 1 is eq 1.0 }} {{ 'Ab' is lower }} {{ 1 "
     "is true }} {{ messages is iterable and messages is not mapping }}",
     "False True True True True False True True True False True True False False True"},
    {"list filters",
     "{{ names | sort | join(',') }} {{ names | sort(case_sensitive=true, reverse=true) | "
     "join(',') }} {{ names | unique | list }} {{ names | map('upper') | join('-') }} {{ messages "
     "| selectattr('role', 'equalto', 'user') | map(attribute='content') | list }} {{ messages | "
     "rejectattr('role', 'in', ['user', 'system']) | list | length }} {{ d | dictsort | first | "
     "first }} {{ d | items | list }} {{ names | first }}{{ names | last }}{{ [] | first }}",
     "Alpha,beta,Beta,gamma gamma,beta,Beta,Alpha ['beta', 'Alpha', 'gamma'] BETA-ALPHA-GAMMA-BETA "
     "['Hi\\n\"you\" <b>', 'Bye'] 1 a [('b', [1, 2.5, None, True]), ('a', {'x': 'y'})] betaBeta"},
    {"text filters",
     "{{ 'hELLO wORLD-x (y)' | title }} {{ 'hELLO' | capitalize }} {{ 'a\\nb\\n\\nc' | indent(2) "
     "}} {{ 'xaxa' | replace('x', 'y', 1) }} {{ '42.9' | int }} {{ 'z' | int(-1) }} {{ ' 1.5 ' | "
     "float }} {{ none | default('d') }} {{ '' | default('d', true) }} {{ missing | default('d') "
     "}} {{ 'abc' | reverse }} {{ [3, 1] | sum }} {{ [3, 1] | max }} {{ '\303\251\344\275\240' | "
     "length }}",
     "Hello World-X (Y) Hello a\n  b\n\n  c yaxa 42 -1 1.5 None d d cba 4 3 2"},
    {"methods",
     "{{ ' a b  c '.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a-b-c'.rsplit('-', 1) }} {{ "
     "'xxaxx'.strip('x') }} {{ 'ab'.startswith(('x', 'a')) }} {{ 'abcb'.find('b') }} {{ "
     "'abcb'.rfind('z') }} {{ 'they\\'re ok'.title() }} {{ 'a\\r\\nb\\u2028c'.splitlines() }} {{ "
     "'\303\251\344\275\240x'[1] }} {{ '\303\251\344\275\240x'[::-1] }} {{ 'stra\303\237e'.upper() "
     "}} {{ '\316\221\316\243 \316\243\316\221'.lower() }} {{ 'x</think>y'.split('</think>')[-1] "
     "}} {{ 'a'.join(['1', '2']) }}",
     "['a', 'b', 'c'] ['a', 'b', '', 'c'] ['a-b', 'c'] a True 1 -1 They'Re Ok ['a', 'b', 'c'] "
     "\344\275\240 x\344\275\240\303\251 STRASSE \316\261\317\202 \317\203\316\261 y 1a2"},
    {"scopes and blocks",
     "{% set x = 1 %}{% for i in [1, 2, 3] %}{% set x = x + i %}{{ x }}{% if i == 2 %}{% break "
     "%}{% endif %}{% endfor %} {{ x }} {% for k, v in d.items() %}{{ k }}={{ v }};{% if loop.last "
     "%}{% continue %}{% endif %}&{% endfor %} {% set block %}<{{ x }}>{% endset %}{{ block }} {% "
     "with x = 5, y = x %}{{ x }}{{ y }}{% endwith %} {% filter upper | replace('A', '_') "
     "%}banana{% endfilter %}",
     "23 1 b=[1, 2.5, None, True];&a={'x': 'y'}; <1> 51 B_N_N_"},
    {"members",
     "{{ d.get('a').x }} {{ d.get('q', 'none') }} {{ d.keys() | list }} {{ d['b'][1:] }} {{ d.b.0 "
     "}} {{ d['b'][-1] }} {{ names[5] }} {{ d.nope }} {{ 'a' in d }} {{ 'h' in 'hi' }} {{ 1 not in "
     "[] }} {{ range(1, 10, 3) | list }} {{ dict(a=1) }} {{ 'a' if false }} {{ ('x' if d else 'y') "
     "}} {{ not d or 'z' }} {{ loop is defined }}",
     "y none ['b', 'a'] [2.5, None, True] 1 True   True True True [1, 4, 7] {'a': 1}  x z False"},
    {"dates and literals",
     "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %-d. %H:%M') }} {{ \"tab\\there "
     "\\x41\\u00e9 \\q\" }} {{ 'con' 'cat' }}",
     "22 Jul 2025 Tuesday, July 22. 00:00 tab\there A\303\251 \\q concat"},
};

std::string rendered(std::string_view source, const RenderOptions& options = {}) {
  return ChatTemplate::parse(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}})
      .render(kMessages, options);
}

std::string error_of(std::string_view source) {
  try {
    return "rendered: " + rendered(source);
  } catch (const Error& error) {
    return error.what();
  }
}

// What each span covers.
std::vector<std::string> replies(const RenderedChat& chat) {
  std::vector<std::string> out;
  for (const ByteSpan& span : chat.replies) {
    out.push_back(chat.text.substr(span.begin, span.end - span.begin));
  }
  return out;
}

constexpr std::string_view kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor "
    "%}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

}  // namespace

TEST_CASE("templates render as jinja2 renders them", "[data][chat_template]") {
  const RenderOptions options = {
      .add_generation_prompt = true,
      .variables = {{"d", R"({"b": [1, 2.5, null, true], "a": {"x": "y"}})"},
                    {"names", R"(["beta", "Alpha", "gamma", "Beta"])"}},
      .now = std::chrono::sys_seconds(std::chrono::seconds(1753142400))};  // 2025-07-22
  for (const Case& test : kCases) {
    INFO(test.name);
    CHECK(rendered(test.source, options) == test.expected);
  }
}

TEST_CASE("what is not executed is refused at once, by name and line",
          "[data][chat_template][bad_input]") {
  const auto refused = [](std::string_view source) {
    try {
      ChatTemplate::parse(source, {}, "t");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("parsed");
  };
  for (const char* statement : {"include 'x'", "import 'x' as y", "extends 'x'", "block x",
                                "call f()", "do x", "autoescape true", "nonsense"}) {
    CHECK_THAT(
        refused(concat("\n{% ", statement, " %}")),
        StartsWith("t:2: the statement \"" +
                   std::string(statement, std::string(statement).find(' ') != std::string::npos
                                              ? std::string(statement).find(' ')
                                              : std::string(statement).size()) +
                   "\" is not supported"));
  }
  CHECK_THAT(refused("\n\n{{ x | custom }}"), StartsWith("t:3: the filter \"custom\""));
  CHECK_THAT(refused("{{ x is odder }}"), StartsWith("t:1: the test \"odder\""));
  // In a condition as well, unless it is never asked for.
  CHECK_THAT(refused("{% for x in y %}{{ x | custom }}{% endfor %}"), Contains("custom"));
  CHECK_THAT(refused("{% if x %}{% endif %}{{ y | custom }}"), Contains("custom"));
  CHECK_THAT(error_of("{% if messages %}{{ 1 | custom }}{% endif %}"),
             StartsWith("chat template:1: the filter \"custom\""));
  CHECK_THAT(error_of("{{ 1 if 1 is odder else 2 }}"), Contains("the test \"odder\""));
  CHECK_THAT(refused("{% for x in y recursive %}{% endfor %}"), Contains("recursive"));
  CHECK_THAT(refused("{% macro f() %}{{ caller() }}{% endmacro %}"), Contains("caller"));
}

TEST_CASE("malformed templates are refused with their line", "[data][chat_template][bad_input]") {
  for (const char* source : {"{{",
                             "{{ x",
                             "{% if x %}",
                             "{% endif %}",
                             "{{ 'x }}",
                             "{{ ) }}",
                             "{{ (1 }}",
                             "{{ }}",
                             "{# x",
                             "{% for x %}{% endfor %}",
                             "{% set x %}",
                             "{% set 1 = 2 %}",
                             "{{ 1 + }}",
                             "{% raw %}",
                             "{{ 'a' 1 }}",
                             "{% break %}",
                             "{{ x.  }}",
                             "{{ '\\ud800' }}",
                             "{{ 99999999999999999999 }}",
                             "{{ a ? b }}",
                             "{% for loop in x %}{% endfor %}",
                             "{% if x %}{% else %}{% else %}{% endif %}",
                             "{{ x[1:2:3:4] }}"}) {
    INFO(source);
    CHECK_THROWS_WITH(ChatTemplate::parse(source, {}, "t"), StartsWith("t:1: "));
  }
  CHECK_THROWS_WITH(ChatTemplate::parse("\xFF", {}, "t"), Contains("not valid UTF-8"));
  std::string deep(5000, '('), bars = "{{ x", sums = "{{ 1", tags;
  for (int i = 0; i < 5000; ++i) {
    bars += "|trim";
    sums += "+1";
    tags += "{% if x %}";
  }
  for (const std::string& source :
       {"{{" + deep, bars + "}}", sums + "}}", tags, "{{" + std::string(5000, '-') + "1}}"})
    CHECK_THROWS_AS(ChatTemplate::parse(source), Error);
}

TEST_CASE("errors while a template runs give its line", "[data][chat_template][bad_input]") {
  CHECK_THAT(error_of("\n{{ raise_exception('no tools') }}"),
             StartsWith("chat template:2: ") && Contains("no tools"));
  CHECK_THAT(error_of("{{ missing.member }}"), Contains("missing"));
  CHECK_THAT(error_of("{{ 1 + 'a' }}"), Contains("an integer + a string"));
  CHECK_THAT(error_of("{{ 1 // 0 }}"), Contains("division by zero"));
  CHECK_THAT(error_of("{{ messages.append(1) }}"), Contains("\"append\""));
  CHECK_THAT(error_of("{{ missing() }}"), Contains("cannot be called"));
  CHECK_THAT(error_of("{% set missing.x = 1 %}"), Contains("namespace"));
  CHECK_THAT(error_of("{% for a, b in [1] %}{% endfor %}"), Contains("cannot be iterated"));
  CHECK_THAT(error_of("{{ 9223372036854775807 + 1 }}"), Contains("too large"));
  CHECK_THAT(error_of("{{ -9223372036854775807 - 2 }}"), Contains("too large"));
  CHECK_THAT(error_of("{{ messages | tojson(indent=1000) }}"), Contains("indent"));
  // What Python's Markup would escape.
  for (const char* expression : {"('a' | safe) | upper", "('a' | safe).strip()", "('a' | safe)[0]",
                                 "('a' | safe)[1:]", "('a' | safe) * 2", "'a' | safe | trim"}) {
    INFO(expression);
    CHECK_THAT(error_of(concat("{{ ", expression, " }}")), Contains("\"safe\" string"));
  }
  for (const char* expression :
       {"'{'.format()", "'}'.format()", "'{}'.format()", "'{0} {}'.format(1, 2)",
        "'{:>5}'.format(1)", "'{x.y}'.format(x=1)", "'{x}'.format(1)",
        "'{99999999999999999999}'.format(1)"}) {
    INFO(expression);
    CHECK_THAT(error_of(concat("{{ ", expression, " }}")), Contains("format: "));
  }
  CHECK_THAT(error_of("{{ range(*1) }}"), Contains("unpacked"));
  CHECK_THAT(error_of("{{ dict(**[1]) }}"), Contains("unpacked"));
}

TEST_CASE("runaway templates end in an error", "[data][chat_template][bad_input]") {
  CHECK_THAT(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), Contains("recursion"));
  CHECK_THAT(
      error_of("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
      Contains("too long"));
  CHECK_THAT(error_of("{{ range(99999999) }}"), Contains("range"));
  CHECK_THAT(error_of("{{ 'x' * 99999999999 }}"), Contains("too long"));
  CHECK_THAT(error_of("{% set ns = namespace(x='xxxxxxxx') %}{% for a in range(99) %}{% set ns.x = "
                      "ns.x ~ ns.x %}"
                      "{% endfor %}"),
             Contains("long"));
  CHECK_THAT(error_of("{% set ns = namespace(x=1) %}{% for a in range(9999) %}{% set ns.x = [ns.x] "
                      "%}{% endfor %}"),
             Contains("nest"));
  CHECK_THAT(error_of("{{ 2 ** 99999999 }}"), Contains("too large"));
  // What holds itself is given back (the sanitizers would tell).
  CHECK(rendered("{% set ns = namespace() %}{% set ns.x = ns %}{% macro f() %}{% endmacro %}") ==
        "");
}

TEST_CASE("text that is not UTF-8 is refused", "[data][chat_template][bad_input]") {
  const auto chat = ChatTemplate::parse(kChatMl);
  CHECK_THROWS_WITH(chat.render(Messages{{"user", "a"}, {"user", "\xC3"}}),
                    Contains("content of message 1 is not valid UTF-8"));
  CHECK_THROWS_WITH(chat.render(kMessages, {.variables = {{"tools", "{"}}}), Contains("tools"));
}

TEST_CASE("a folder's template and special tokens are found", "[data][chat_template]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(ChatTemplate::load(folder.path()), Contains("has no chat template"));
  CHECK_FALSE(ChatTemplate::find(folder.path()).has_value());
  folder.write("special_tokens_map.json",
               R"({"bos_token": "wrong", "eos_token": {"content": "</e>"}})");
  folder.write(
      "tokenizer_config.json",
      R"({"bos_token": "<b>", "pad_token": null, "chat_template": "{{ bos_token ~ eos_token ~ pad_token }}"})");
  const Messages none;
  CHECK(ChatTemplate::load(folder.path()).render(none) == "<b></e>");
  folder.write("chat_template.jinja", "file {{ eos_token }}\n");
  CHECK(ChatTemplate::load(folder.path()).render(none) == "file </e>");
  // One that is not executed is no reason to do without.
  folder.write("chat_template.jinja", "{{ x | custom }}");
  CHECK_THROWS_WITH(ChatTemplate::find(folder.path()), Contains("custom"));
  std::filesystem::remove(folder / "chat_template.jinja");
  folder.write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]})");
  CHECK(ChatTemplate::load(folder.path()).render(none) == "D");
  CHECK(ChatTemplate::load(folder.path(), "rag").render(none) == "R");
  CHECK_THROWS_WITH(ChatTemplate::load(folder.path(), "x"),
                    Contains("no template of the name \"x\""));
}

TEST_CASE("replies are marked, their end-of-turn token included", "[data][chat_template]") {
  const Messages two = {{"user", "a"}, {"assistant", "b "}, {"user", "c"}, {"assistant", "d"}};
  const auto marked = ChatTemplate::parse(kChatMl).render_with_mask(two);
  CHECK(marked.text == ChatTemplate::parse(kChatMl).render(two));
  CHECK(replies(marked) == std::vector<std::string>{"b<|im_end|>", "d<|im_end|>"});
  // Where no token ends the turn, white space does.
  const auto plain = ChatTemplate::parse(
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
      "{% if add_generation_prompt %}assistant:{% endif %}");
  CHECK(replies(plain.render_with_mask(two)) == std::vector<std::string>{" b \n", " d\n"});
  // A template's own blocks go before the rule.
  const auto blocks = ChatTemplate::parse(
      "{% for m in messages %}{% if m.role == 'assistant' %}[{% generation %}{{ m.content }}!"
      "{% endgeneration %}]{% else %}{{ m.content }}{% endif %}{% endfor %}");
  const auto by_blocks = blocks.render_with_mask(two);
  CHECK(by_blocks.text == "a[b !]c[d!]");
  CHECK(replies(by_blocks) == std::vector<std::string>{"b !", "d!"});
  CHECK(ChatTemplate::parse(kChatMl).render_with_mask(Messages{{"user", "a"}}).replies.empty());
}

TEST_CASE("a reply that cannot be marked is an error", "[data][chat_template][bad_input]") {
  const Messages two = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}};
  // Earlier turns are shortened.
  const auto shortens = ChatTemplate::parse(
      "{% for m in messages %}{{ m.content if loop.last else '-' }}{% endfor %}");
  CHECK_THROWS_WITH(shortens.render_with_mask(two), Contains("message 1 cannot be marked"));
  const auto refuses = ChatTemplate::parse("{{ messages[0].content }}");
  CHECK_THROWS_WITH(refuses.render_with_mask(Messages{{"assistant", "x"}}),
                    Contains("message 0 cannot be marked"));
  const auto hidden =
      ChatTemplate::parse("{% set x %}{% generation %}a{% endgeneration %}{% endset %}");
  CHECK_THROWS_WITH(hidden.render_with_mask(two), Contains("generation"));
}
