//! Docker's JSON.

use silo_oci::runtime::{SeccompAction, SeccompArch};

use crate::{Arch, Error, Host, docker_profile_json};

const HOST: Host = Host { arch: Arch::X86_64, kernel: (5, 15) };

fn names(json: &str, caps: &[&str]) -> Vec<String> {
    let profile = docker_profile_json(json.as_bytes(), caps, &HOST).unwrap().unwrap();
    profile.syscalls.into_iter().flat_map(|rule| rule.names).collect()
}

#[test]
fn a_whole_profile() {
    let json = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}
        ],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{
            "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "comment": "x",
            "args": [{"index": 1, "value": 2114060288, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}],
            "includes": {}, "excludes": {}
        }, {"name": "read", "action": "SCMP_ACT_ALLOW", "args": null, "names": null}]
    }"#;
    let profile = docker_profile_json::<&str>(json.as_bytes(), &[], &HOST).unwrap().unwrap();
    assert_eq!(profile.default_action, SeccompAction::Errno);
    assert_eq!(profile.default_errno_ret, Some(38));
    assert_eq!(profile.architectures, [SeccompArch::X86_64, SeccompArch::X86]);
    assert_eq!(profile.flags.len(), 1);
    assert_eq!(profile.syscalls[0].errno_ret, Some(5));
    assert_eq!(profile.syscalls[0].args[0].value, 0x7e02_0000);
    assert_eq!(profile.syscalls[0].args[0].value_two, 3);
    assert_eq!(profile.syscalls[1].names, ["read"]);
}

#[test]
fn conditions_of_rules() {
    let with = |part: &str, filter: &str| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls":
               [{{"names": ["read"], "action": "SCMP_ACT_ALLOW", "{part}": {filter}}}]}}"#
        )
    };
    for (part, filter, caps, there) in [
        ("includes", r#"{"caps": ["CAP_A", "CAP_B"]}"#, &["CAP_A"][..], false),
        ("includes", r#"{"caps": ["CAP_A", "CAP_B"]}"#, &["CAP_B", "CAP_A"][..], true),
        ("excludes", r#"{"caps": ["CAP_A", "CAP_B"]}"#, &["CAP_B"][..], false),
        ("excludes", r#"{"caps": ["CAP_A"]}"#, &["CAP_C"][..], true),
        ("includes", r#"{"arches": ["amd64", "x86"]}"#, &[][..], true),
        ("includes", r#"{"arches": ["arm64"]}"#, &[][..], false),
        ("excludes", r#"{"arches": ["amd64"]}"#, &[][..], false),
        ("includes", r#"{"minKernel": "5.15"}"#, &[][..], true),
        ("includes", r#"{"minKernel": "5.16"}"#, &[][..], false),
        ("excludes", r#"{"minKernel": "4.8"}"#, &[][..], false),
        ("excludes", r#"{"minKernel": ""}"#, &[][..], true),
        ("includes", r#"{"caps": ["CAP_A"], "minKernel": "6.0"}"#, &["CAP_A"][..], false),
        ("includes", "null", &[][..], true),
    ] {
        assert_eq!(!names(&with(part, filter), caps).is_empty(), there, "{part} {filter} {caps:?}");
    }
}

#[test]
fn nothing_said_is_no_filter() {
    assert_eq!(docker_profile_json::<&str>(b"{}", &[], &HOST).unwrap(), None);
}

#[test]
fn senseless_profiles() {
    let error = |json: &str| docker_profile_json::<&str>(json.as_bytes(), &[], &HOST).unwrap_err();
    assert!(matches!(error("["), Error::Decode(_)));
    assert!(matches!(error(r#"{"defaultAction": "SCMP_ACT_NONE"}"#), Error::Decode(_)));
    assert!(matches!(
        error(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#
        ),
        Error::ArchitecturesTwice
    ));
    let one =
        |rule: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
    assert!(matches!(
        error(&one(r#"{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}"#)),
        Error::NamesTwice
    ));
    for version in ["5", "5.x", "5.4.3", "0.0", "256.1"] {
        let rule =
            format!(r#"{{"action": "SCMP_ACT_ALLOW", "includes": {{"minKernel": "{version}"}}}}"#);
        assert!(matches!(error(&one(&rule)), Error::KernelVersion(_)), "{version}");
    }
}
