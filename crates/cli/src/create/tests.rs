//! The requests, compared with what Docker's command line 28.2 was recorded to send.

use super::*;
use crate::flags::{Parsed, parse};
use crate::options::UpdateFlags;

const EVERY_FLAG: &[&str] = &[
    "--name",
    "n",
    "-it",
    "--init",
    "-h",
    "host",
    "--domainname",
    "dom",
    "-e",
    "X=1",
    "-e",
    "HOME",
    "--env-file",
    "@ENV@",
    "-l",
    "k=v",
    "-l",
    "k2",
    "--label-file",
    "@LABELS@",
    "-p",
    "80",
    "-p",
    "127.0.0.1:8080:81/udp",
    "-p",
    "9000-9001:90-91",
    "-p",
    "100-105:99",
    "-p",
    "[::1]:70:71",
    "--expose",
    "5000-5001/udp",
    "-v",
    "/a:/b:ro",
    "-v",
    "name:/c",
    "-v",
    "/anon",
    "-v",
    "./rel:/r",
    "--mount",
    "type=bind,src=/x,dst=/y,readonly,bind-propagation=rslave",
    "--mount",
    "type=volume,source=v,target=/v,volume-nocopy,volume-label=a=b,volume-driver=local,\
     volume-opt=type=tmpfs,volume-subpath=s",
    "--mount",
    "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770",
    "--tmpfs",
    "/run:rw,size=1m",
    "--tmpfs",
    "/x1",
    "--ulimit",
    "nofile=1024:2048",
    "--ulimit",
    "core=-1",
    "--device",
    "/dev/null:/dev/xx:rw",
    "--device",
    "/dev/zero",
    "--device-cgroup-rule",
    "c 1:* rwm",
    "--memory",
    "64m",
    "--memory-swap",
    "-1",
    "--memory-reservation",
    "32m",
    "--memory-swappiness",
    "10",
    "--cpus",
    "1.5",
    "--cpu-shares",
    "10",
    "--cpu-period",
    "1000",
    "--cpu-quota",
    "2000",
    "--cpuset-cpus",
    "0-1",
    "--cpuset-mems",
    "0",
    "--pids-limit",
    "10",
    "--blkio-weight",
    "300",
    "--blkio-weight-device",
    "/dev/sda:20",
    "--device-read-bps",
    "/dev/sda:1mb",
    "--device-write-iops",
    "/dev/sda:5",
    "--gpus",
    "all",
    "--cap-add",
    "NET_ADMIN",
    "--cap-drop",
    "ALL",
    "--group-add",
    "5",
    "--security-opt",
    "no-new-privileges",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "systempaths=unconfined",
    "--sysctl",
    "net.a=1",
    "--annotation",
    "a=b",
    "--add-host",
    "h:1.2.3.4",
    "--add-host",
    "h2=::1",
    "--dns",
    "8.8.8.8",
    "--dns-search",
    "ex.com",
    "--dns-opt",
    "ndots:1",
    "--link",
    "c1:al",
    "--restart",
    "on-failure:3",
    "--log-driver",
    "json-file",
    "--log-opt",
    "max-size=1m",
    "--stop-signal",
    "TERM",
    "--stop-timeout",
    "7",
    "--health-cmd",
    "x y",
    "--health-interval",
    "5s",
    "--health-retries",
    "3",
    "--health-timeout",
    "1m",
    "--health-start-period",
    "1s",
    "--entrypoint",
    "/e",
    "-u",
    "1:2",
    "-w",
    "/w",
    "--read-only",
    "--privileged",
    "--pid",
    "host",
    "--uts",
    "host",
    "--ipc",
    "host",
    "--userns",
    "host",
    "--cgroupns",
    "private",
    "--shm-size",
    "128m",
    "--storage-opt",
    "size=1g",
    "--cgroup-parent",
    "/p",
    "--volumes-from",
    "o:ro",
    "--volume-driver",
    "local",
    "--runtime",
    "r",
    "--isolation",
    "default",
    "--oom-kill-disable",
    "--oom-score-adj",
    "5",
    "--network",
    "name=bridge",
    "-P",
    "busybox",
    "cmd",
    "a",
    "b",
];

fn create(args: &[&str]) -> Result<Json, String> {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let Parsed::Flags(flags, words) = parse::<RunFlags>(&args, false)? else {
        panic!("no test asks for help")
    };
    request(&flags, &words[0], &words[1..], Attach::of(&flags), (0, 0))
}

#[test]
fn requests_are_dockers() {
    let directory = tempfile::tempdir().unwrap();
    let (env, labels) = (directory.path().join("env"), directory.path().join("labels"));
    fs_err::write(&env, "A=1\n# c\nNO_SUCH_VARIABLE_\nHOME\n").unwrap();
    fs_err::write(&labels, "l1=x\n").unwrap();
    let home = std::env::var("HOME").unwrap();
    let here = std::env::current_dir().unwrap();
    for (args, recorded) in [
        (&["busybox"][..], include_str!("recorded/plain.json")),
        (&["-i", "busybox", "x"], include_str!("recorded/interactive.json")),
        (
            &["--network", "host", "-a", "stderr", "busybox"],
            include_str!("recorded/host_network.json"),
        ),
        (EVERY_FLAG, include_str!("recorded/every_flag.json")),
    ] {
        let args: Vec<&str> = args
            .iter()
            .map(|arg| match *arg {
                "@ENV@" => env.to_str().unwrap(),
                "@LABELS@" => labels.to_str().unwrap(),
                other => other,
            })
            .collect();
        let recorded = recorded.replace("@CWD@", here.to_str().unwrap()).replace("@HOME@", &home);
        let recorded: Json = serde_json::from_str(&recorded).unwrap();
        let made = create(&args).unwrap();
        for (name, value) in recorded["HostConfig"].as_object().unwrap() {
            assert_eq!(&made["HostConfig"][name], value, "HostConfig.{name} of {args:?}");
        }
        assert_eq!(made, recorded, "{args:?}");
    }
}

#[test]
fn update_is_dockers() {
    let args = ["--memory", "1g", "--restart", "always", "--cpus", "2"].map(str::to_owned);
    let Ok(Parsed::Flags(flags, _)) = parse::<UpdateFlags>(&args, true) else {
        panic!("not parsed")
    };
    let recorded: Json = serde_json::from_str(include_str!("recorded/update.json")).unwrap();
    assert_eq!(update_request(&flags).unwrap(), recorded);
}

#[test]
fn refused() {
    for (args, message) in [
        (
            &["--rm", "--restart", "always", "x"][..],
            "conflicting options: cannot specify both --restart and --rm",
        ),
        (
            &["--memory-swappiness", "101", "x"],
            "invalid value: 101. Valid memory swappiness range is 0-100",
        ),
        (&["--pid", "x", "x"], "--pid: invalid PID mode"),
        (&["--uts", "x", "x"], "--uts: invalid UTS mode"),
        (
            &["--restart", ":1", "x"],
            "invalid restart policy format: no policy provided before colon",
        ),
        (
            &["--restart", "on-failure:x", "x"],
            "invalid restart policy format: maximum retry count must be an integer",
        ),
        (
            &["--log-driver", "none", "--log-opt", "a=b", "x"],
            "invalid logging opts for driver none",
        ),
        (&["--security-opt", "foo", "x"], "invalid --security-opt: \"foo\""),
        (
            &["--env-file", "/nonexistent", "x"],
            "--env-file: open /nonexistent: no such file or directory",
        ),
        (
            &["--no-healthcheck", "--health-cmd", "x", "x"],
            "--no-healthcheck conflicts with --health-* options",
        ),
        (&["--health-interval", "-1s", "x"], "--health-interval cannot be negative"),
        (&["--device", "a:b:c:d", "x"], "bad format for path: a:b:c:d"),
        (&["--device", "/a:b", "x"], "b is not an absolute path"),
        (&["--device", "/a:/b:x", "x"], "bad mode specified: x"),
        (&["--storage-opt", "x", "x"], "invalid storage option"),
        (&["-p", "x", "x"], "invalid containerPort: x"),
        (&["-v", "/a::b", "x"], "invalid spec: /a::b: empty section between colons"),
    ] {
        assert_eq!(create(args).unwrap_err(), message, "{args:?}");
    }
}

#[test]
fn env_files() {
    let mut out = Vec::new();
    read_lines("\u{feff}A=1\r\n  B=2 \n#x\n\nC==\n".as_bytes(), true, &mut out).unwrap();
    assert_eq!(out, ["A=1", "B=2 ", "C=="]);
    for (text, message) in [
        (&b"=x"[..], "no variable name on line '=x'"),
        (b"a b=x", "variable 'a b' contains whitespaces"),
        (b"ok=1\n\xff", "invalid utf8 bytes at line 2: [255]"),
    ] {
        assert_eq!(read_lines(text, true, &mut Vec::new()).unwrap_err(), message);
    }
}
