use super::*;
use crate::mount::MountKind;
use crate::parse;

fn lookup(name: &str) -> Option<String> {
    match name {
        "v" => Some("value".to_owned()),
        "two" => Some("80 81/udp".to_owned()),
        "kind" => Some("cache".to_owned()),
        _ => None,
    }
}

/// The instruction after expansion, with the names that had no value.
fn expand(text: &str) -> Result<(Instruction, Vec<String>), String> {
    let file = parse(format!("FROM a\n{text}\n").as_bytes()).map_err(|error| error.message)?;
    let mut instruction = file.stages[0].instructions[0].node.clone();
    let expander = Expander::new(file.directives.escape);
    let unmatched = instruction.expand(&expander, &lookup).map_err(|error| error.message)?;
    Ok((instruction, unmatched.into_iter().collect()))
}

#[test]
fn what_takes_variables() {
    for (text, plain) in [
        ("ENV $v='$v' b=\"$v\"", "ENV value=\\$v b=value"),
        ("LABEL a $v x", "LABEL a value x"),
        ("USER $v:'$v'", "USER value:$v"),
        ("WORKDIR /$v/${x:-y}", "WORKDIR /value/y"),
        ("VOLUME $v /$v", "VOLUME value /value"),
        ("STOPSIGNAL ${x-SIG}$v", "STOPSIGNAL SIGvalue"),
        ("EXPOSE $two 90", "EXPOSE 80 81/udp 90"),
        ("CMD $v", "CMD $v"),
        ("ENTRYPOINT [\"$v\"]", "ENTRYPOINT [\"$v\"]"),
        ("SHELL [\"$v\"]", "SHELL [\"$v\"]"),
        ("HEALTHCHECK CMD $v", "HEALTHCHECK CMD $v"),
        ("MAINTAINER $v", "MAINTAINER $v"),
        ("ARG a=$v", "ARG a=$v"),
        ("ONBUILD USER $v", "ONBUILD USER $v"),
        (
            "COPY --from=x --chown=$v --chmod=$v --exclude=$v $v $v/",
            "COPY --from=x --chown=value --chmod=value --exclude=$v value value/",
        ),
        ("ADD --checksum=$v --chown=$x a $v", "ADD --checksum=value a value"),
    ] {
        let (found, _) = expand(text).unwrap();
        // What has no variables left is what it says; values of pairs keep their quotes.
        let expected = parse(format!("FROM a\n{plain}\n").as_bytes()).unwrap();
        let mut expected = expected.stages[0].instructions[0].node.clone();
        if let Instruction::Env(pairs) = &mut expected {
            pairs[0].value = "$v".to_owned();
        }
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn mounts() {
    let (instruction, unmatched) =
        expand("RUN --mount='type=$kind,target=/$x$v,\"id=a,b\"' $v").unwrap();
    let Instruction::Run(run) = instruction else { panic!() };
    assert_eq!(run.mounts[0].kind, MountKind::Cache);
    assert_eq!(run.mounts[0].target.as_deref(), Some("/value"));
    assert_eq!(run.mounts[0].id.as_deref(), Some("a,b"));
    assert_eq!(run.command.words, ["$v"]);
    assert_eq!(unmatched, ["x"]);
    assert_eq!(
        expand("RUN --mount=type=cach,target=/a b").unwrap_err(),
        "unsupported mount type \"cach\" (did you mean cache?)"
    );
}

#[test]
fn heredocs() {
    let (instruction, unmatched) = expand("COPY <<A <<'B' /x\nit's $v $y \\$v\nA\n$v\nB").unwrap();
    let Instruction::Copy(copy) = instruction else { panic!() };
    assert_eq!(copy.sources.inline[0].data, "it's value  $v\n");
    assert_eq!(copy.sources.inline[1].data, "$v\n");
    assert_eq!(unmatched, ["y"]);
}

#[test]
fn bounds() {
    let long = |_: &str| Some("x".repeat(crate::expand::MAX_VALUE));
    for (count, fits) in [(30, true), (40, false)] {
        let text = format!("FROM a\nENV{}\n", " a=$b".repeat(count));
        let file = parse(text.as_bytes()).unwrap();
        let mut instruction = file.stages[0].instructions[0].node.clone();
        let result = instruction.expand(&Expander::with_char('\\'), &long);
        assert_eq!(result.is_ok(), fits, "{count}");
    }
}

#[test]
fn escapes_of_the_file() {
    let file = parse(b"# escape=`\nFROM a\nCOPY a `$v C:\\$v\\\n").unwrap();
    let mut instruction = file.stages[0].instructions[0].node.clone();
    instruction.expand(&Expander::new(file.directives.escape), &lookup).unwrap();
    let Instruction::Copy(copy) = instruction else { panic!() };
    assert_eq!(copy.sources.paths, ["a", "$v"]);
    assert_eq!(copy.sources.destination, "C:\\value\\");
}
