use std::time::Duration;

use super::*;
use crate::Span;
use crate::ast::Device;
use crate::{parse, parse_trigger};

/// The only instruction behind a `FROM`.
fn one(text: &str) -> Instruction {
    let file = parse(format!("FROM a\n{text}\n").as_bytes()).unwrap();
    let [instruction] = &file.stages[0].instructions[..] else { panic!("{text}") };
    instruction.node.clone()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn stages() {
    let file = parse(
        b"# v is the version\nARG v=1 w\n# Build makes it\nFROM --platform=$BUILDPLATFORM a:$v AS Build\n\
          run b\nFROM scratch\nCOPY --from=build /x /y\n",
    )
    .unwrap();
    assert_eq!(file.meta_args[0].node[0].value.as_deref(), Some("1"));
    assert_eq!(file.meta_args[0].node[0].description.as_deref(), Some("is the version"));
    assert_eq!(file.meta_args[0].node[1].value, None);
    let [build, last] = &file.stages[..] else { panic!() };
    assert_eq!(build.name.as_deref(), Some("build"));
    assert_eq!(build.base, "a:$v");
    assert_eq!(build.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!(build.source, "FROM --platform=$BUILDPLATFORM a:$v AS Build");
    assert_eq!(build.span, Span::new(4, 4));
    assert_eq!(build.instructions[0].source, "run b");
    assert_eq!(build.instructions[0].keyword, "run");
    assert_eq!((last.name.as_deref(), last.base.as_str()), (None, "scratch"));
}

#[test]
fn commands() {
    let line = |words: &[&str], shell| CommandLine { words: texts(words), shell, heredocs: vec![] };
    for (text, expected) in [
        ("CMD a  b", Instruction::Cmd(line(&["a  b"], true))),
        ("CMD [\"a\", \"b c\"]", Instruction::Cmd(line(&["a", "b c"], false))),
        ("CMD []", Instruction::Cmd(line(&[], false))),
        ("CMD", Instruction::Cmd(line(&[], true))),
        ("CMD [\"C:\\a\"]", Instruction::Cmd(line(&["[\"C:\\a\"]"], true))),
        ("ENTRYPOINT ['a']", Instruction::Entrypoint(line(&["['a']"], true))),
        ("SHELL [\"cmd\", \"/S\"]", Instruction::Shell(texts(&["cmd", "/S"]))),
        ("USER a b", Instruction::User("a b".to_owned())),
        ("WORKDIR  C:\\a b ", Instruction::Workdir("C:\\a b".to_owned())),
        ("STOPSIGNAL 9", Instruction::StopSignal("9".to_owned())),
        ("MAINTAINER a b", Instruction::Maintainer("a b".to_owned())),
        ("VOLUME /a  /b", Instruction::Volume(texts(&["/a", "/b"]))),
        ("VOLUME [\"/a b\"]", Instruction::Volume(texts(&["/a b"]))),
        ("EXPOSE 80 7000-7010/udp $x", Instruction::Expose(texts(&["$x", "7000-7010/udp", "80"]))),
        ("ONBUILD  run  a b", Instruction::OnBuild("run  a b".to_owned())),
        ("onbuild RUN <<E\nx\nE", Instruction::OnBuild("RUN <<E\nx\nE".to_owned())),
    ] {
        assert_eq!(one(text), expected, "{text}");
    }
}

#[test]
fn pairs_of_both_forms() {
    let pair = |key: &str, value: &str, legacy| KeyValue {
        key: key.to_owned(),
        value: value.to_owned(),
        legacy,
    };
    for (text, expected) in [
        ("ENV a b  c", vec![pair("a", "b  c", true)]),
        (
            "ENV a=b c='d e' f=\"g\\\"h\" i=j\\ k",
            vec![
                pair("a", "b", false),
                pair("c", "'d e'", false),
                pair("f", "\"g\\\"h\"", false),
                pair("i", "j\\ k", false),
            ],
        ),
    ] {
        assert_eq!(one(text), Instruction::Env(expected), "{text}");
    }
    assert_eq!(one("LABEL \"a b\"=c"), Instruction::Label(vec![pair("\"a b\"", "c", false)]));
}

#[test]
fn copies() {
    let Instruction::Copy(copy) = one(
        "COPY --from=x --chown=1:2 --chmod=755 --link --parents=true --exclude=a --exclude=b c d /e/",
    ) else {
        panic!()
    };
    assert_eq!(
        copy,
        Copy {
            sources: Sources {
                paths: texts(&["c", "d"]),
                inline: vec![],
                destination: "/e/".to_owned()
            },
            from: Some("x".to_owned()),
            chown: Some("1:2".to_owned()),
            chmod: Some("755".to_owned()),
            link: true,
            parents: true,
            exclude: texts(&["a", "b"]),
        }
    );
    let Instruction::Copy(copy) = one("COPY [\"a b\", \"c\"]") else { panic!() };
    assert_eq!(copy.sources.paths, ["a b"]);
    let Instruction::Copy(copy) = one("COPY x <<-A <<'B' /d/\n\ta$v\nA\nb\nB") else { panic!() };
    let inline = |name: &str, data: &str, expand| InlineSource {
        name: name.to_owned(),
        data: data.to_owned(),
        expand,
    };
    assert_eq!(copy.sources.paths, ["x"]);
    assert_eq!(copy.sources.inline, [inline("A", "a$v\n", true), inline("B", "b\n", false)]);
    let Instruction::Add(add) =
        one("ADD --checksum=sha256:1 --keep-git-dir --unpack=false --exclude=x https://a/b c")
    else {
        panic!()
    };
    assert_eq!(add.checksum.as_deref(), Some("sha256:1"));
    assert_eq!((add.keep_git_dir, add.unpack, add.link), (Some(true), Some(false), false));
}

#[test]
fn runs() {
    let Instruction::Run(run) =
        one("RUN --mount=type=cache,target=/c --mount=type=$t,from=x --network=none \
         --security=insecure --device=v.com/d=0,required a && b")
    else {
        panic!()
    };
    assert_eq!(run.command.words, ["a && b"]);
    assert_eq!(run.mount_flags, ["type=cache,target=/c", "type=$t,from=x"]);
    assert_eq!(run.mounts[1].from.as_deref(), Some("x"));
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(run.devices, [Device { name: "v.com/d=0".to_owned(), required: true }]);
    let Instruction::Run(run) = one("RUN <<EOF\na\nEOF") else { panic!() };
    assert_eq!(run.command.words, ["<<EOF"]);
    assert_eq!(run.command.heredocs[0].text(), "a\n");
}

#[test]
fn health_checks() {
    let seconds = Duration::from_secs;
    for (text, expected) in [
        ("HEALTHCHECK none", HealthCheck { test: texts(&["NONE"]), ..HealthCheck::default() }),
        (
            "HEALTHCHECK --interval=1m --timeout=3s --start-period=0s --start-interval=1s \
             --retries=3 CMD a b",
            HealthCheck {
                test: texts(&["CMD-SHELL", "a b"]),
                interval: seconds(60),
                timeout: seconds(3),
                start_period: Duration::ZERO,
                start_interval: seconds(1),
                retries: 3,
            },
        ),
        (
            "HEALTHCHECK CMD [\"a\", \"b\"]",
            HealthCheck { test: texts(&["CMD", "a", "b"]), ..HealthCheck::default() },
        ),
    ] {
        assert_eq!(one(text), Instruction::HealthCheck(expected), "{text}");
    }
}

#[test]
fn refused_instructions() {
    for (text, message) in [
        ("FOO bar", "unknown instruction: FOO (did you mean FROM?)"),
        ("WORKIDR a", "unknown instruction: WORKIDR (did you mean WORKDIR?)"),
        ("cpoy a b", "unknown instruction: cpoy (did you mean copy?)"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "ADD",
            "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("COPY --form=a b c", "unknown flag: --form (did you mean from?)"),
        ("COPY a <<b\nb", "COPY cannot accept a heredoc as a destination"),
        ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
        ("RUN --mount a", "missing a value on flag: --mount"),
        ("RUN --network=x a", "invalid network mode \"x\""),
        ("RUN --security=x a", "security \"x\" is not valid"),
        (
            "RUN --mount=type=bind,from=$x a",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("USER", "USER requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV =a", "ENV names can not be blank"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =a", "ARG names can not be blank"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL a", "SHELL requires the arguments to be in JSON form"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD MAINTAINER a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE a", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK curl", "Unknown type \"CURL\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --interval=1us CMD a", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=-1s CMD a", "Interval \"timeout\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=10 CMD a", "time: missing unit in duration \"10\""),
        ("HEALTHCHECK --timeout=1x CMD a", "time: unknown unit \"x\" in duration \"1x\""),
        ("HEALTHCHECK --timeout=x CMD a", "time: invalid duration \"x\""),
        ("HEALTHCHECK --retries=x CMD a", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        (
            "HEALTHCHECK --retries=9999999999 CMD a",
            "strconv.ParseInt: parsing \"9999999999\": value out of range",
        ),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1b",
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        ("CMD --a b", "unknown flag: --a"),
    ] {
        let text = format!("FROM a\n\n{text}\n");
        let error = parse(text.as_bytes()).unwrap_err();
        let expected = format!("dockerfile parse error on line 3: {message}");
        assert_eq!(error.message, expected, "{text}");
        assert_eq!(error.span.map(|span| span.start_line), Some(3), "{text}");
    }
}

#[test]
fn refused_files() {
    for (text, message) in [
        ("", "the Dockerfile cannot be empty"),
        ("# a", "file with no instructions"),
        ("RUN a", "no build stage in current context"),
        ("ARG a", "dockerfile contains no stages to build"),
        ("FROM a\nENV b", "ENV must have two arguments"),
        (
            "FROM a\nENV b=c d",
            "Syntax error - can't find = in \"d\". Must be of the form: name=value",
        ),
        (
            "FROM a\nCMD [1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("# check=skip\nFROM a", "failed to parse check options: invalid check option \"skip\""),
    ] {
        assert_eq!(parse(text.as_bytes()).unwrap_err().message, message, "{text}");
    }
}

#[test]
fn bounds() {
    let text = "FROM a\n".repeat(crate::MAX_STAGES + 1);
    assert_eq!(parse(text.as_bytes()).unwrap_err().message, "more than 1000 stages");
    let copies = "<<A ".repeat(100);
    let body = format!("{}A\n", "x\n".repeat(1 << 19));
    let text = format!("FROM a\nCOPY {copies} /x/\n{}{body}", "A\n".repeat(99));
    let error = parse(text.as_bytes()).unwrap_err();
    assert!(error.message.ends_with("COPY has more than 16777216 bytes of heredocs"), "{error}");
    // Warnings end some time, and those that suggest something do not compare everything.
    let text = format!("FROM a\n{}", "copy b c\n".repeat(5000));
    assert_eq!(parse(text.as_bytes()).unwrap().warnings.len(), 1);
    let text = format!("FROM a\n{}RUN x\n", "Copy b c\n".repeat(5000));
    assert_eq!(parse(text.as_bytes()).unwrap().warnings.len(), 1000);
}

#[test]
fn carets() {
    let text = b"FROM a\nCOPY --form=b c \\\n  d\n";
    let error = parse(text).unwrap_err();
    assert_eq!(
        error.render("Dockerfile", text),
        "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> COPY --form=b c \\\n     \
         |          ^^^^^^\n   3 | >>>   d\n   4 |     \n--------------------\n"
    );
}

#[test]
fn triggers() {
    assert_eq!(parse_trigger("USER a").unwrap().node, Instruction::User("a".to_owned()));
    let located = parse_trigger("RUN <<E\nx\nE").unwrap();
    assert_eq!(located.source, "RUN <<E");
    for (text, message) in [
        ("", "file with no instructions"),
        ("USER a\nUSER b", "onbuild trigger should be a single expression"),
        ("FROM a", "FROM is not a command type"),
        ("BOGUS", "unknown instruction: BOGUS"),
    ] {
        assert_eq!(parse_trigger(text).unwrap_err().message, message, "{text}");
    }
}
