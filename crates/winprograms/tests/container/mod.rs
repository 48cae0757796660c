//! A Wine session for one test.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It ran.
    Exit(u32),
    /// It could not be started.
    Error {
        /// What failed.
        step: String,
        /// Windows' error.
        code: u32,
    },
}

/// What a program did. Line ends are those of Linux.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) end: End,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[derive(Debug)]
pub(crate) struct Container {
    runtime: PathBuf,
    work: TempDir,
    records: Vec<String>,
}

/// Counts the running test as skipped.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped {test}: {reason}");
    if let Some(file) = std::env::var_os("SILO_TEST_SKIPS") {
        let file = PathBuf::from(file);
        let mut file = fs_err::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}

/// Runs a program of the host in a directory.
pub(crate) fn command(words: &[String], directory: &Path) -> Output {
    Command::new(&words[0]).args(&words[1..]).current_dir(directory).output().unwrap()
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status();
    assert!(status.unwrap().success(), "cp {} {}", from.display(), to.display());
}

/// Marks a program as Wine's own.
fn marked(program: &[u8]) -> Vec<u8> {
    let mut bytes = program.to_vec();
    bytes[64..96].fill(0);
    bytes[64..80].copy_from_slice(b"Wine builtin DLL");
    bytes
}

impl Container {
    /// Prepares one; the error says why that is impossible here.
    pub(crate) fn new() -> Result<Self, String> {
        let runtime = std::env::var_os("SILO_TEST_WINE")
            .map(PathBuf::from)
            .ok_or("SILO_TEST_WINE does not name a Wine runtime")?;
        let uid = Command::new("id").arg("-u").output().map_err(|error| error.to_string())?.stdout;
        if uid != b"0\n" {
            return Err("it needs root".to_owned());
        }
        let work = tempfile::tempdir_in("/tmp").unwrap();
        for name in ["upper/Windows/System32", "overlay", "root", "programs"] {
            fs_err::create_dir_all(work.path().join(name)).unwrap();
        }
        copy(&runtime.join("prefix"), &work.path().join("prefix"));
        fs_err::create_dir_all(work.path().join("prefix/.silo/test")).unwrap();
        fs_err::write(work.path().join("wineboot.exe"), marked(silo_winprograms::boot())).unwrap();
        for program in silo_winprograms::programs() {
            let upper = work.path().join("upper/Windows/System32").join(program.name);
            fs_err::write(upper, program.bytes).unwrap();
            fs_err::write(work.path().join("programs").join(program.name), marked(program.bytes))
                .unwrap();
        }
        let records = [
            "environment=SystemRoot=C:\\Windows",
            "environment=PATH=C:\\Windows\\system32;C:\\Windows",
            "environment=ComSpec=C:\\Windows\\system32\\cmd.exe",
            "environment=USERNAME=ContainerAdministrator",
            "environment=TEMP=C:\\Windows\\temp",
        ]
        .map(str::to_owned);
        Ok(Self { runtime, work, records: records.to_vec() })
    }

    /// Adds a record to what silo-run is told.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.records.push(format!("{key}={value}"));
    }

    /// A file's path on the host.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.work.path().join("upper").join(name)
    }

    /// Makes a file on C:.
    pub(crate) fn put(&mut self, name: &str, data: &[u8]) {
        let path = self.file(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, data).unwrap();
    }

    /// Reads a file of C:.
    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        fs_err::read(self.file(name)).unwrap()
    }

    /// Runs lines of a script for cmd in `C:\`.
    pub(crate) fn script(&mut self, lines: &str) -> Ran {
        self.put("script.cmd", format!("@echo off\r\n{lines}").as_bytes());
        self.set("directory", "C:\\");
        self.run("cmd /c C:\\script.cmd", b"")
    }

    /// Runs one more command with the same C:, in a new session.
    pub(crate) fn again(&mut self, command: &str) -> Ran {
        for file in ["start", "exit", "error"] {
            drop(fs_err::remove_file(self.work.path().join("prefix/.silo/test").join(file)));
        }
        self.run(&format!("cmd /c {command}"), b"")
    }

    /// Runs a command and gives it input.
    pub(crate) fn run(&mut self, command: &str, input: &[u8]) -> Ran {
        let mut child = self.spawn(command);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ran = self.finish(child);
        writer.join().unwrap();
        ran
    }

    /// Runs a command, and asks for Ctrl-C when it has written something.
    pub(crate) fn interrupt(&mut self, command: &str) -> Ran {
        let mut child = self.spawn(command);
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        let control = self.work.path().join("prefix/.silo/test");
        fs_err::write(control.join("asked"), b"event=ctrl-c\0").unwrap();
        fs_err::rename(control.join("asked"), control.join("request")).unwrap();
        fs_err::write(control.join("wake.fifo"), b"\x01").unwrap();
        // It would also end with its input.
        let input = child.stdin.take();
        let ran = self.finish(child);
        drop(input);
        ran
    }

    fn spawn(&self, command: &str) -> Child {
        let mut start = format!("version=1\0command={command}\0");
        for record in &self.records {
            start += record;
            start.push('\0');
        }
        fs_err::write(self.work.path().join("prefix/.silo/test/start"), start).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container.sh");
        // A session that goes wrong starts processes without end.
        Command::new("sh")
            .args(["-c", LIMITED, "sh"])
            .arg(script)
            .args([&*self.runtime, self.work.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn finish(&self, child: Child) -> Ran {
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let control = self.work.path().join("prefix/.silo/test");
        let record = |file: &str, key: &str| {
            let bytes = fs_err::read(control.join(file)).ok()?;
            let text = String::from_utf8(bytes).unwrap();
            text.split('\0').find_map(|record| Some(record.strip_prefix(key)?.to_owned()))
        };
        let number = |text: String| text.parse().unwrap();
        let end = match (record("exit", "code="), record("error", "step=")) {
            (Some(code), None) => End::Exit(number(code)),
            (None, Some(step)) => {
                End::Error { step, code: number(record("error", "code=").unwrap()) }
            }
            other => panic!("{other:?}, {}, {out}, {err}", output.status),
        };
        Ran { end, out, err }
    }
}

/// Sets a limit of processes, and leaves no control group.
const LIMITED: &str = r#"
group=/sys/fs/cgroup/pids; [ -d $group ] || group=/sys/fs/cgroup
group=$group/silo-wine-test-$$
mkdir $group && echo 300 > $group/pids.max || exit 96
(exec sh -c 'echo $$ > $0/cgroup.procs && exec unshare -muinp --fork --kill-child "$@"' $group "$@")
code=$?
while ! rmdir $group 2>/dev/null; do :; done
exit $code
"#;
