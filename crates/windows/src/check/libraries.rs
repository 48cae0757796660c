//! What Wine and an image have of what programs need.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use silo_pe::{ApiSets, Exports, Found, Pe, Symbol};

use super::{Drive, Surroundings};

/// Most libraries that a function is followed through.
const MAX_FORWARDS: usize = 8;

/// A library that is asked for, and its functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Need {
    /// The library's name, in lower case.
    pub library: String,
    /// Whether for a 32-bit program.
    #[serde(default)]
    pub narrow: bool,
    /// Functions by name, or by number as `#12`.
    #[serde(default)]
    pub functions: Vec<String>,
}

/// What there is of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    /// Whether the library is there.
    pub present: bool,
    /// Functions that it does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Functions that Wine only has a name for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stubs: Vec<String>,
}

/// What a base has of what is needed, as the engine tells its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LookedUp {
    /// The version of Wine.
    pub wine: String,
    /// The base image that was looked at.
    pub base: String,
    /// An answer for each need.
    pub answers: Vec<Answer>,
    /// What there is beside libraries.
    pub surroundings: Surroundings,
}

/// A library that was opened.
#[derive(Debug)]
struct Library {
    file: File,
    /// None of what offers nothing, or cannot be read.
    exports: Option<Exports>,
}

/// The system's libraries on a drive C:.
#[derive(Debug)]
pub(super) struct System {
    sets: ApiSets,
    libraries: HashMap<(bool, String), Option<Rc<Library>>>,
}

impl System {
    /// The system of a drive. One without Windows' files has nothing.
    pub(super) fn new(drive: &mut Drive) -> io::Result<Self> {
        let schema = drive.open_names(&["Windows", "System32", "apisetschema.dll"])?;
        let sets = schema.and_then(|file| Pe::open(&file).ok()?.api_sets().ok());
        Ok(Self { sets: sets.unwrap_or_default(), libraries: HashMap::new() })
    }

    /// Looks for a library and its functions.
    pub(super) fn look_up(&mut self, drive: &mut Drive, need: &Need) -> io::Result<Answer> {
        let mut answer = Answer::default();
        let Some(library) = self.behind(&need.library) else { return Ok(answer) };
        let Some(found) = self.library(drive, need.narrow, &library)? else { return Ok(answer) };
        answer.present = true;
        let mut pe = Pe::open(&found.file).ok();
        for function in &need.functions {
            let symbol = match function.strip_prefix('#').map(str::parse) {
                Some(Ok(number)) => Symbol::Ordinal(number),
                _ => Symbol::Name(function.clone()),
            };
            let here = match (&found.exports, &mut pe) {
                // What cannot be read may well be there.
                (Some(exports), Some(pe)) => exports.find(pe, &symbol).unwrap_or(Found::Function),
                _ => Found::Missing,
            };
            let found = match here {
                Found::Forward { library, symbol } => {
                    self.function(drive, need.narrow, &library, symbol)?
                }
                here => here,
            };
            match found {
                Found::Missing => answer.missing.push(function.clone()),
                Found::Stub => answer.stubs.push(function.clone()),
                Found::Function | Found::Forward { .. } => {}
            }
        }
        Ok(answer)
    }

    /// Whether a library is there.
    pub(super) fn has(
        &mut self,
        drive: &mut Drive,
        narrow: bool,
        library: &str,
    ) -> io::Result<bool> {
        match self.behind(library) {
            Some(library) => Ok(place(drive, narrow, &library)?.is_some()),
            None => Ok(false),
        }
    }

    /// The library that a name stands for.
    fn behind(&self, library: &str) -> Option<String> {
        let mut library = library.to_ascii_lowercase();
        if !library.contains('.') {
            library.push_str(".dll");
        }
        if ApiSets::is_set(&library) {
            return self.sets.library(&library).map(str::to_owned);
        }
        Some(library)
    }

    fn library(
        &mut self,
        drive: &mut Drive,
        narrow: bool,
        name: &str,
    ) -> io::Result<Option<Rc<Library>>> {
        let key = (narrow, name.to_owned());
        if !self.libraries.contains_key(&key) {
            let library = place(drive, narrow, name)?.map(|file| {
                let exports = Pe::open(&file).and_then(|mut pe| pe.exports());
                Rc::new(Library { exports: exports.ok().flatten(), file })
            });
            self.libraries.insert(key.clone(), library);
        }
        Ok(self.libraries.get(&key).cloned().flatten())
    }

    fn function(
        &mut self,
        drive: &mut Drive,
        narrow: bool,
        library: &str,
        symbol: Symbol,
    ) -> io::Result<Found> {
        let Some(mut library) = self.behind(library) else { return Ok(Found::Missing) };
        let mut symbol = symbol;
        for _ in 0..MAX_FORWARDS {
            let Some(found) = self.library(drive, narrow, &library)? else {
                return Ok(Found::Missing);
            };
            let Some(exports) = &found.exports else { return Ok(Found::Missing) };
            let looked = Pe::open(&found.file).and_then(|mut pe| exports.find(&mut pe, &symbol));
            match looked {
                Ok(Found::Forward { library: next, symbol: name }) => {
                    let Some(next) = self.behind(&next) else { return Ok(Found::Missing) };
                    (library, symbol) = (next, name);
                }
                Ok(found) => return Ok(found),
                // It may well be there.
                Err(_) => return Ok(Found::Function),
            }
        }
        Ok(Found::Missing)
    }
}

/// A library of the system: where Windows looks after the program's own directory.
fn place(drive: &mut Drive, narrow: bool, name: &str) -> io::Result<Option<File>> {
    let system = if narrow { "SysWOW64" } else { "System32" };
    for directory in [&["Windows", system][..], &["Windows"]] {
        let mut path = directory.to_vec();
        path.push(name);
        if let Some(file) = drive.open_names(&path)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// What a drive's system has of what is needed; whether functions are there is only looked at
/// `with_functions`.
pub fn answers(drive: &mut Drive, needs: &[Need], with_functions: bool) -> io::Result<Vec<Answer>> {
    let mut system = System::new(drive)?;
    needs
        .iter()
        .map(|need| {
            if with_functions {
                return system.look_up(drive, need);
            }
            let present = system.has(drive, need.narrow, &need.library)?;
            Ok(Answer { present, ..Answer::default() })
        })
        .collect()
}
