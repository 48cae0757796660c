//! Where a stage stands between two instructions: its layers, its image's configuration, and the
//! variables that the next instruction sees.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use silo_dockerfile::ast::CommandLine;
use silo_oci::image::{ContainerConfig, History, ImageConfig};
use silo_store::Lease;
use silo_types::{Digest, Error};
use silo_windows::path::WindowsPath;

use crate::copy::resolve::Names;

/// What history says of where it comes from; clients tell BuildKit's order of steps by it.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// The most bytes of variables, labels and history that a stage may add.
const MAX_WEIGHT: usize = 8 << 20;
/// `PATH` of a Linux image that has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Layers, configuration and variables.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The image so far, but for its layers.
    pub(crate) image: ImageConfig,
    /// Chain id of the top layer.
    pub(crate) chain: Option<Digest>,
    /// Keeps the layers.
    pub(crate) leases: Vec<Arc<Lease>>,
    /// Variables of the next instruction: those of the image, and arguments.
    pub(crate) env: Vec<(String, String)>,
    /// Arguments that were declared, with the values they have.
    pub(crate) args: Vec<(String, Option<String>)>,
    /// The image that the stage began with, or the last one that had a name.
    pub(crate) base: Option<Digest>,
    /// A `CMD` came in this stage.
    pub(crate) cmd_set: bool,
    /// When the last step's layer was made, nanoseconds since 1970, and whether there is one.
    pub(crate) pending: Option<(i64, bool)>,
    /// Bytes that instructions added to variables, labels and history.
    pub(crate) weight: usize,
    /// Why its programs cannot run here.
    pub(crate) inert: Option<String>,
    /// The last step, where steps are told.
    pub(crate) step: Option<usize>,
}

impl State {
    /// The state of an empty image.
    pub(crate) fn scratch(os: &str, architecture: &str, variant: &str) -> Self {
        let image = ImageConfig {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..ImageConfig::default()
        };
        let mut state = Self {
            image,
            chain: None,
            leases: Vec::new(),
            env: Vec::new(),
            args: Vec::new(),
            base: None,
            cmd_set: false,
            pending: None,
            weight: 0,
            inert: None,
            step: None,
        };
        state.default_path();
        if !state.is_windows() {
            "/".clone_into(&mut state.image.config.working_dir);
        }
        state
    }

    /// The state of an image.
    pub(crate) fn of_image(image: &silo_store::Image, lease: Lease) -> Self {
        let mut config = ImageConfig::clone(&image.config);
        config.docker_version.clear();
        config.inline_cache = None;
        let env = config.config.env.iter().flatten();
        let env = env.map(|variable| split(variable)).collect();
        let mut state = Self {
            image: config,
            chain: image.top(),
            leases: vec![Arc::new(lease)],
            env,
            args: Vec::new(),
            base: Some(image.id),
            cmd_set: false,
            pending: None,
            weight: 0,
            inert: None,
            step: None,
        };
        state.default_path();
        state
    }

    fn default_path(&mut self) {
        if !self.is_windows() && self.variable("PATH").is_none() {
            self.set_env("PATH", DEFAULT_PATH);
        }
    }

    pub(crate) fn is_windows(&self) -> bool {
        self.image.os == "windows"
    }

    /// How names of files are compared.
    pub(crate) fn names(&self) -> Names {
        if self.is_windows() { Names::AnyCase } else { Names::Exact }
    }

    /// Defaults of the image's containers.
    pub(crate) fn config(&mut self) -> &mut ContainerConfig {
        &mut self.image.config
    }

    fn is_same(&self, a: &str, b: &str) -> bool {
        if self.is_windows() { a.eq_ignore_ascii_case(b) } else { a == b }
    }

    /// The value of a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(key, _)| self.is_same(key, name)).map(|(_, value)| value.clone())
    }

    /// Sets a variable for instructions, but not for the image.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        let at = self.env.iter().position(|(key, _)| self.is_same(key, name));
        self.weight += name.len() + value.len();
        let pair = (name.to_owned(), value.to_owned());
        match at {
            Some(at) => self.env[at] = pair,
            None => self.env.push(pair),
        }
    }

    /// Sets a variable of the image.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.set_variable(name, value);
        let windows = self.is_windows();
        let list = self.config().env.get_or_insert_default();
        let text = format!("{name}={value}");
        let is_same = |variable: &String| {
            let (key, _) = split(variable);
            if windows { key.eq_ignore_ascii_case(name) } else { key == name }
        };
        match list.iter().position(is_same) {
            Some(at) => list[at] = text,
            None => list.push(text),
        }
    }

    /// Notes an argument.
    pub(crate) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = &value {
            self.set_variable(name, value);
        }
        self.args.retain(|(known, _)| known != name);
        self.args.push((name.to_owned(), value));
    }

    /// The shell of the shell form.
    pub(crate) fn shell(&self) -> Vec<String> {
        if let Some(shell) = self.image.config.shell.as_ref().filter(|shell| !shell.is_empty()) {
            return shell.clone();
        }
        let words: &[&str] =
            if self.is_windows() { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The words of a command, and whether they are one line that Windows gets as it is.
    pub(crate) fn command(&self, command: &CommandLine) -> (Vec<String>, bool) {
        if !command.shell {
            return (command.words.clone(), false);
        }
        let mut words = self.shell();
        words.extend(command.words.iter().cloned());
        if self.is_windows() { (vec![words.join(" ")], true) } else { (words, false) }
    }

    /// Notes an instruction in the history.
    pub(crate) fn note(&mut self, created_by: impl Into<String>, with_layer: bool) {
        let created_by = created_by.into();
        self.weight += created_by.len();
        self.image.history.push(History {
            created: None,
            created_by,
            comment: COMMENT.to_owned(),
            empty_layer: !with_layer,
            ..History::default()
        });
    }

    /// Notes an instruction that may have made a layer.
    pub(crate) fn note_layer(&mut self, created_by: impl Into<String>) {
        let (created, with_layer) = self.pending.take().unwrap_or((0, false));
        self.note(created_by, with_layer);
        if let Some(history) = self.image.history.last_mut().filter(|_| with_layer) {
            history.created = rfc3339(created);
        }
    }

    /// Notes something that made a layer at this time.
    pub(crate) fn note_at(&mut self, created_by: &str, created: i64) {
        self.pending = Some((created, true));
        self.note_layer(created_by);
    }

    /// The image's configuration as it would be now: times of what made no layer are those of
    /// what came before.
    pub(crate) fn finished(&self) -> ImageConfig {
        let mut image = self.image.clone();
        let mut last = image.history.iter().find_map(|history| history.created.clone());
        for history in &mut image.history {
            match &history.created {
                Some(created) => last = Some(created.clone()),
                None => history.created.clone_from(&last),
            }
        }
        image.created = last.or(image.created);
        image
    }

    /// Fails when a stage's instructions have added more than any image needs: values that double
    /// each other would fill the memory.
    pub(crate) fn check_weight(&self) -> Result<(), Error> {
        if self.weight > MAX_WEIGHT {
            return Err(Error::invalid(format!(
                "the variables, labels and commands of a stage have more than {MAX_WEIGHT} bytes"
            )));
        }
        Ok(())
    }

    /// A directory relative to the working directory, as the image's configuration has it.
    pub(crate) fn workdir(&self, path: &str) -> Result<String, Error> {
        let now = &self.image.config.working_dir;
        if self.is_windows() {
            let base = if now.is_empty() { "C:\\" } else { now };
            let joined = WindowsPath::parse(base).and_then(|base| base.join(path));
            return joined.map(|path| path.to_string()).map_err(|e| Error::invalid(e.to_string()));
        }
        let joined = Path::new("/").join(now).join(path);
        Ok(format!("/{}", silo_sys::path::clean(joined).display()))
    }

    /// Where a path of an instruction leads, from the root of the image's files, with a last slash
    /// if it has one. For Windows from the root of C:.
    pub(crate) fn place(&self, path: &str) -> Result<String, Error> {
        let windows = self.is_windows();
        let is_slash = |c: char| c == '/' || (windows && c == '\\');
        let is_folder = path.is_empty()
            || path == "."
            || path.ends_with(is_slash)
            || path.strip_suffix('.').is_some_and(|rest| rest.ends_with(is_slash));
        let place = if windows {
            let base = self.workdir(".")?;
            let path = if path.is_empty() { "." } else { path };
            let joined = WindowsPath::parse(&base).and_then(|base| base.join(path));
            let joined = joined.map_err(|error| Error::invalid(error.to_string()))?;
            if joined.drive != 'C' {
                return Err(Error::invalid(format!(
                    "Windows does not support {path} with a destination not on the system drive (C:)"
                )));
            }
            PathBuf::from(joined.names.join("/"))
        } else {
            let joined = Path::new("/").join(&self.image.config.working_dir).join(path);
            silo_sys::path::clean(joined)
        };
        let slash = if is_folder && place.as_os_str() != "" { "/" } else { "" };
        Ok(format!("/{}{slash}", place.display()))
    }
}

/// A time as documents have it.
pub(crate) fn rfc3339(nanoseconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
    Some(silo_types::time::rfc3339_nano(time))
}

/// Name and value of `NAME=value`.
pub(crate) fn split(variable: &str) -> (String, String) {
    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
    (name.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let mut linux = State::scratch("linux", "amd64", "");
        linux.config().working_dir = "/app".into();
        for (path, expected) in [
            ("x", "/app/x"),
            (".", "/app/"),
            ("./", "/app/"),
            ("x/.", "/app/x/"),
            ("/", "/"),
            ("../../etc/", "/etc/"),
            ("/a//b", "/a/b"),
        ] {
            assert_eq!(linux.place(path).unwrap(), expected, "{path}");
        }
        assert_eq!(linux.workdir("../b").unwrap(), "/b");
        let mut windows = State::scratch("windows", "amd64", "");
        windows.config().working_dir = "C:\\app".into();
        for (path, expected) in [
            ("x", "/app/x"),
            (".", "/app/"),
            ("c:\\x\\", "/x/"),
            ("/x/y", "/x/y"),
            ("sub\\", "/app/sub/"),
        ] {
            assert_eq!(windows.place(path).unwrap(), expected, "{path}");
        }
        assert!(windows.place("d:\\x").is_err());
        assert_eq!(windows.workdir("/nginx").unwrap(), "C:\\nginx");
    }

    #[test]
    fn what_a_stage_adds_is_bounded() {
        let mut state = State::scratch("linux", "amd64", "");
        let value = "x".repeat(1 << 20);
        for name in ["A", "B", "C"] {
            state.set_env(name, &value);
            state.note(format!("ENV {name}={value}"), false);
        }
        state.check_weight().unwrap();
        state.set_env("D", &value);
        state.note(format!("ENV D={value}"), false);
        assert!(state.check_weight().is_err());
    }

    #[test]
    fn variables_of_windows_have_no_case() {
        let mut state = State::scratch("windows", "amd64", "");
        state.set_env("Path", "a");
        state.set_env("PATH", "b");
        assert_eq!(state.image.config.env.as_deref(), Some(&["PATH=b".to_owned()][..]));
        assert_eq!(state.variable("path").as_deref(), Some("b"));
        let linux = State::scratch("linux", "amd64", "");
        assert!(linux.variable("PATH").is_some());
        assert_eq!(linux.variable("Path"), None);
    }
}
