use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::ignore::Patterns;
use crate::parse;
use crate::path::Os;

/// Line and rule of everything that is found, in order.
fn found(text: &str, ignore: &str) -> Vec<(u32, &'static str)> {
    let file = parse(text.as_bytes()).unwrap();
    let config = crate::config_of(&file.directives).unwrap();
    let ignore = Patterns::parse(ignore.as_bytes()).unwrap();
    let windows = |name: &str| match name {
        "unknown" => None,
        "windows" => Some(Base {
            env: vec![("Path".to_owned(), String::new())],
            shell: false,
            os: Os::Windows,
            platform: "windows/amd64".parse().ok(),
        }),
        _ => Some(Base::default()),
    };
    let context = Context {
        args: &BTreeMap::from([("given".to_owned(), "x".to_owned())]),
        predefined: &[("TARGETPLATFORM".to_owned(), "linux/amd64".to_owned())],
        base: &windows,
        platform: None,
        ignore: Some(&ignore),
        stages: None,
    };
    let mut warnings = file.warnings.clone();
    warnings.extend(check(&file, &config, &context));
    let mut found: Vec<_> =
        warnings.iter().map(|warning| (warning.span.start_line, warning.rule.name)).collect();
    found.sort_unstable();
    found
}

#[test]
fn bases_are_for_the_platform_that_is_asked_for() {
    let platform = |text: &str| text.parse::<silo_oci::platform::Platform>().unwrap();
    let mut arm = platform("windows/arm64");
    arm.os_version = "10.0.1".into();
    let bases = |name: &str| match name {
        "arm" => Some(Base { platform: Some(arm.clone()), ..Base::default() }),
        "amd" => Some(Base { platform: Some(platform("linux/amd64/v2")), ..Base::default() }),
        _ => Some(Base::default()),
    };
    let asked = platform("linux/amd64");
    for (text, platform, expected) in [
        ("FROM amd\n", Some(&asked), None),
        ("FROM arm\n", None, None),
        ("FROM none\n", Some(&asked), None),
        ("FROM arm\n", Some(&asked), Some("linux/amd64")),
        ("FROM --platform=$BUILDPLATFORM arm\n", None, Some("linux/s390x")),
    ] {
        let file = parse(text.as_bytes()).unwrap();
        let context = Context {
            args: &BTreeMap::new(),
            predefined: &[("BUILDPLATFORM".to_owned(), "linux/s390x".to_owned())],
            base: &bases,
            platform,
            ignore: None,
            stages: None,
        };
        let found = check(&file, &Config::default(), &context);
        let found: Vec<&str> = found.iter().map(|warning| warning.message.as_str()).collect();
        let expected: Vec<String> = expected
            .into_iter()
            .map(|expected| {
                format!(
                    "Base image arm was pulled with platform \"windows(10.0.1)/arm64\", expected \
                     \"{expected}\" for current build"
                )
            })
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn rules() {
    for (text, expected) in [
        ("FROM a\nRUN b\n", vec![]),
        ("FROM a\nUSER $x$PATH\n", vec![(2, "UndefinedVar")]),
        ("FROM a\nARG x given\nUSER $x$given\n", vec![]),
        ("FROM unknown\nUSER $x\n", vec![]),
        ("FROM windows\nUSER $PATH\nWORKDIR C:/x\nENV x=1\nUSER $X\n", vec![]),
        ("FROM windows\nWORKDIR C:x\n", vec![(2, "WorkdirRelativePath")]),
        ("FROM a\nWORKDIR C:\\x\n", vec![(2, "WorkdirRelativePath")]),
        ("FROM a AS b\nENV x=1\nWORKDIR /y\nFROM b\nUSER $x\nWORKDIR z\n", vec![]),
        ("ARG t\nFROM a:$t\n", vec![(2, "InvalidDefaultArgInFrom")]),
        ("FROM a:${t:-x}\n", vec![(1, "UndefinedArgInFrom")]),
        ("FROM --platform=linux/arm64 a\n", vec![(1, "FromPlatformFlagConstDisallowed")]),
        ("FROM --platform=linux/arm64 a AS b-arm64\n", vec![]),
        ("FROM --platform=$TARGETPLATFORM a\n", vec![(1, "RedundantTargetPlatform")]),
        (
            "FROM a\nCMD b\nCMD [\"b\"]\n",
            vec![(2, "JSONArgsRecommended"), (2, "MultipleInstructionsDisallowed")],
        ),
        ("FROM a\nSHELL [\"b\"]\nCMD b\n", vec![]),
        ("FROM a\nENV my_key=1 public_key=1 keys=1\n", vec![(2, "SecretsUsedInArgOrEnv")]),
        (
            "FROM a\nEXPOSE 80/TCP 81:81\n",
            vec![(2, "ExposeInvalidFormat"), (2, "ExposeProtoCasing")],
        ),
        (
            "FROM a\nENV a b\nLABEL a b\n",
            vec![(2, "LegacyKeyValueFormat"), (3, "LegacyKeyValueFormat")],
        ),
        (
            "FROM a AS scratch\nFROM a AS b\nFROM a AS b\n",
            vec![(1, "ReservedStageName"), (3, "DuplicateStageName")],
        ),
        ("FROM a\n# check=skip=UndefinedVar\nUSER $x\n", vec![]),
        ("# check=skip=all\nFROM a as B\ncopy b c\n", vec![]),
        (
            "FROM a\nCOPY no /\nCOPY --from=b no /\nADD https://no no/x /\n",
            vec![(2, "CopyIgnoredFile"), (4, "CopyIgnoredFile")],
        ),
    ] {
        assert_eq!(found(text, "no"), expected, "{text}");
    }
    assert_eq!(found("FROM a\nCOPY no /\n", "no\n!no/x"), []);
    assert_eq!(found("FROM a\nCOPY . /\n", "*"), [(2, "CopyIgnoredFile")]);
}

#[test]
fn only_some_stages() {
    let file = parse(b"FROM a AS b\nUSER $x\nFROM a\nUSER $y\n").unwrap();
    let context = Context {
        args: &BTreeMap::new(),
        predefined: &[],
        base: &|_| Some(Base::default()),
        platform: None,
        ignore: None,
        stages: Some(&BTreeSet::from([1])),
    };
    let warnings = check(&file, &Config::default(), &context);
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!(warning.message, "Usage of undefined variable '$y'");
    assert_eq!(
        warning.render("Dockerfile", b"FROM a AS b\nUSER $x\nFROM a\nUSER $y\n"),
        "WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/\n\
         Usage of undefined variable '$y'\n\
         Dockerfile:4\n--------------------\n   2 |     USER $x\n   3 |     FROM a\n   \
         4 | >>> USER $y\n   5 |     \n--------------------\n"
    );
}

#[test]
fn options() {
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (text, expected) in [
        ("", Config::default()),
        ("skip=all", Config { skip_all: true, ..Config::default() }),
        (
            "skip=A, B;error=true",
            Config { skip: names(&["A", "B"]), error: true, ..Config::default() },
        ),
        ("experimental=C", Config { experimental: names(&["C"]), ..Config::default() }),
    ] {
        assert_eq!(Config::parse(text), Ok(expected), "{text}");
    }
    for (text, message) in [
        ("skip", "invalid check option \"skip\""),
        ("bogus=1", "invalid check option \"bogus\""),
        (
            "error=x",
            "failed to parse check option \"error=x\": strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
    ] {
        assert_eq!(Config::parse(text), Err(message.to_owned()), "{text}");
    }
    let file = parse(b"# check=error=true\nFROM a as b\ncopy a b\n").unwrap();
    let config = crate::config_of(&file.directives).unwrap();
    assert_eq!(
        violation(&config, &file.warnings).as_deref(),
        Some("lint violation found for rules: ConsistentInstructionCasing, FromAsCasing")
    );
    assert_eq!(violation(&Config::default(), &file.warnings), None);
}
