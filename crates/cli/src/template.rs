//! Go's text templates: the part of the language that people use with `--format`.
//!
//! Text with actions in `{{` `}}`: fields and keys (`.State.Status`), variables, pipelines,
//! `if`/`else if`/`else`, `range` with `break` and `continue`, `with`, comments, trim markers,
//! and Go's and Docker's functions. `define`, `block`, `template` and methods are not there.
//! Errors are worded as Go's, `template: :LINE: ...`; a caller puts Docker's prefix before.
//!
//! Templates come from the user's own command line. Nesting is still bounded, so that odd input
//! ends in an error.

mod exec;
mod functions;
mod lex;
mod parse;
mod printf;

pub(crate) use printf::quote;

use crate::value::Value;

/// A template that has been parsed.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<parse::Node>,
    source: String,
}

/// How a template is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For values.
    Values,
    /// For the heading of a table: functions hand on the column's name.
    Header,
}

impl Template {
    /// Parses `source`.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let nodes = parse::parse(source)?;
        Ok(Self { nodes, source: source.to_owned() })
    }

    /// Executes on `data`, writing to `out`. What was written before an error stays.
    pub(crate) fn execute(&self, data: &Value, mode: Mode, out: &mut String) -> Result<(), String> {
        exec::execute(&self.nodes, &self.source, data, mode, out)
    }

    /// Whether a field of this name is used anywhere.
    pub(crate) fn uses_field(&self, name: &str) -> bool {
        parse::any_field(&self.nodes, &mut |fields| fields.iter().any(|field| field == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Row;

    fn sample() -> Value {
        Value::parse(
            br#"{"Id":"abc","State":{"Status":"running","Running":true,"Pid":42},
            "Config":{"Cmd":["sh","-c","true"],"Labels":{"b":"2","a":"1"},"Env":null},
            "NetworkSettings":{"IPAddress":"","Ports":{"80/tcp":[{"HostIp":"0.0.0.0",
            "HostPort":"8080"}],"81/tcp":null}},"Size":2.5,"Mounts":[{"Type":"bind"},
            {"Type":"volume"}]}"#,
        )
        .unwrap()
    }

    fn render(source: &str) -> Result<String, String> {
        let mut out = String::new();
        Template::parse(source)?.execute(&sample(), Mode::Values, &mut out)?;
        Ok(out)
    }

    #[test]
    fn renders() {
        for (source, expected) in [
            ("plain", "plain"),
            ("{{.Id}}", "abc"),
            ("{{.ID}}", "abc"),
            ("{{ .State.Status }}!", "running!"),
            ("{{.State.Pid}} {{.State.Running}} {{.Size}}", "42 true 2.5"),
            ("{{.Config.Cmd}}", "[sh -c true]"),
            ("{{.Config.Labels}}", "map[a:1 b:2]"),
            ("{{.Config.Labels.a}}", "1"),
            ("{{.Config.Labels.missing}}", "<no value>"),
            ("{{index .Config.Labels \"missing\"}}", ""),
            ("{{index .Config.Cmd 1}}", "-c"),
            ("{{(index .Config.Cmd 1)}}", "-c"),
            ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{json .Config.Cmd}}", r#"["sh","-c","true"]"#),
            ("{{json .State}}", r#"{"Status":"running","Running":true,"Pid":42}"#),
            ("{{.State | json}}", r#"{"Status":"running","Running":true,"Pid":42}"#),
            ("{{len .Config.Cmd}} {{len .Id}} {{len .Config.Labels}}", "3 3 2"),
            ("{{upper .Id}} {{.Id | upper | lower}} {{title \"ab cd\"}}", "ABC abc Ab Cd"),
            ("{{join .Config.Cmd \", \"}}", "sh, -c, true"),
            ("{{range split \"a:b\" \":\"}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range .Config.Cmd}}{{.}};{{end}}", "sh;-c;true;"),
            ("{{range $i, $e := .Config.Cmd}}{{$i}}={{$e}} {{end}}", "0=sh 1=-c 2=true "),
            ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}},{{end}}", "a:1,b:2,"),
            ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
            ("{{range .Config.Cmd}}{{if eq . \"-c\"}}{{break}}{{end}}{{.}}{{end}}", "sh"),
            ("{{range .Config.Cmd}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}}{{end}}", "shtrue"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .Config.Env}}a{{else if .NetworkSettings.IPAddress}}b{{else}}c{{end}}", "c"),
            ("{{if and .State.Running (not .Config.Env)}}y{{end}}", "y"),
            ("{{or .NetworkSettings.IPAddress \"none\"}}", "none"),
            ("{{if and (gt .State.Pid 1) (le .State.Pid 42) (ne .Id \"x\")}}y{{end}}", "y"),
            ("{{if eq .State.Status \"exited\" \"running\"}}y{{end}}", "y"),
            ("{{if lt 1 2}}{{if ge 2.5 .Size}}y{{end}}{{end}}", "y"),
            ("{{with .State}}{{.Status}}{{end}}{{with .Config.Env}}x{{else}}-{{end}}", "running-"),
            ("{{$x := .Id}}{{$x}}{{$x = \"n\"}}{{$x}}{{$.State.Pid}}", "abcn42"),
            (
                "{{printf \"%s-%d|%5d|%-5s|%q|%v|%05d|%%\" .Id 7 42 \"a\" \"q\" true 3}}",
                "abc-7|   42|a    |\"q\"|true|00003|%",
            ),
            ("{{println .Id 1}}", "abc 1\n"),
            ("{{print .Id 1 2 \"x\"}}", "abc1 2x"),
            ("a {{- .Id -}} b", "aabcb"),
            ("{{/* note */}}x{{- /* y */ -}} z", "xz"),
            ("{{\"a\\tb\"}}{{`r\\w`}}{{'a'}}", "a\tbr\\w97"),
            ("{{pad \"x\" 1 2}}|", " x  |"),
            ("{{truncate .Id 2}}", "ab"),
            ("{{slice .Id 1 2}}", "b"),
            ("{{.Config.Env}}", "<no value>"),
            ("{{range .Mounts}}{{.Type}} {{end}}", "bind volume "),
            ("{{true}} {{not true}} {{-3}} {{0x10}}", "true false -3 16"),
            ("{{html \"<a>\"}}{{urlquery \"a b\"}}", "&lt;a&gt;a+b"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn errors_have_gos_words() {
        let deep = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
        for (source, message) in [
            ("{{.Id", "template: :1: unclosed action"),
            ("{{.Id}", "template: :1: bad character U+007D '}'"),
            ("{{:}}", "template: :1: expected :="),
            ("{{1x}}", "template: :1: bad number syntax: \"1x\""),
            (
                "{{join .Id \",\"}}",
                "template: :1:7: executing \"\" at <.Id>: wrong type for value; expected \
                 []string; got string",
            ),
            ("{{", "template: :1: unclosed action"),
            ("{{}}", "template: :1: missing value for command"),
            ("{{foo .Id}}", "template: :1: function \"foo\" not defined"),
            ("\n{{if .Id}}", "template: :2: unexpected EOF"),
            ("{{end}}", "template: :1: unexpected {{end}}"),
            ("{{else}}", "template: :1: unexpected {{else}}"),
            ("{{\"x}}", "template: :1: unterminated quoted string"),
            ("{{`x}}", "template: :1: unterminated raw quoted string"),
            ("{{$x}}", "template: :1: undefined variable \"$x\""),
            ("{{(.Id}}", "template: :1: unclosed left paren"),
            ("{{.Id)}}", "template: :1: unexpected right paren"),
            ("{{@}}", "template: :1: unexpected \"@\" in command"),
            ("{{if}}x{{end}}", "template: :1: missing value for if"),
            ("{{range}}x{{end}}", "template: :1: missing value for range"),
            ("{{/* x}}", "template: :1: unclosed comment"),
            ("{{break}}", "template: :1: {{break}} outside {{range}}"),
            (&deep, "template: :1: template nesting is too deep"),
            (
                "{{.Foo}}",
                "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"",
            ),
            (
                "x\n y{{.State.Foo}}",
                "template: :2:10: executing \"\" at <.State.Foo>: map has no entry for key \
                 \"Foo\"",
            ),
            (
                "{{.Id.X}}",
                "template: :1:5: executing \"\" at <.Id.X>: can't evaluate field X in type \
                 interface {}",
            ),
            (
                "{{.Config.Env.X}}",
                "template: :1:9: executing \"\" at <.Config.Env.X>: nil pointer evaluating \
                 interface {}.X",
            ),
            (
                "{{index .Config.Cmd 9}}",
                "template: :1:2: executing \"\" at <index .Config.Cmd 9>: error calling index: \
                 index out of range: 9",
            ),
            (
                "{{range .Id}}{{end}}",
                "template: :1:8: executing \"\" at <.Id>: range can't iterate over abc",
            ),
            (
                "{{upper}}",
                "template: :1:2: executing \"\" at <upper>: wrong number of args for upper: want \
                 1 got 0",
            ),
            (
                "{{lt 1 \"a\"}}",
                "template: :1:2: executing \"\" at <lt 1 \"a\">: error calling lt: incompatible \
                 types for comparison",
            ),
        ] {
            assert_eq!(render(source).unwrap_err(), message, "{source}");
        }
    }

    #[test]
    fn rows() {
        let row = Value::Row(Row {
            type_name: "*formatter.ContainerContext",
            fields: vec![("Names", Value::text("n")), ("ID", Value::text("i"))],
            labels: vec![("a.b".into(), "1".into())],
        });
        let render = |source: &str| {
            let mut out = String::new();
            Template::parse(source)?.execute(&row, Mode::Values, &mut out)?;
            Ok::<_, String>(out)
        };
        assert_eq!(render("{{.ID}} {{.Label \"a.b\"}}{{.Label \"x\"}}").unwrap(), "i 1");
        assert_eq!(render("{{json .}}").unwrap(), r#"{"ID":"i","Names":"n"}"#);
        assert_eq!(
            render("{{.Foo}}").unwrap_err(),
            "template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type \
             *formatter.ContainerContext"
        );
    }

    #[test]
    fn any_input_ends() {
        let pieces = [
            "{{", "}}", "{{-", "-}}", "if", "range", ".", "$x", ":=", "(", ")", "|", "\"", "end",
            "else", " ", "1", "'", "`", "/*", "a", ",", "=", "%!", "é",
        ];
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut source = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                source.push_str(pieces[usize::try_from(seed >> 33).unwrap() % pieces.len()]);
            }
            render(&source).ok();
        }
    }

    #[test]
    fn used_fields() {
        let template =
            Template::parse("{{if .A}}{{range .B.C}}{{upper (.D)}}{{end}}{{end}}").unwrap();
        for field in ["A", "B", "C", "D"] {
            assert!(template.uses_field(field), "{field}");
        }
        assert!(!template.uses_field("E"));
    }
}
