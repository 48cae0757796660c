//! Why a program ended before it began: what Windows says by a number, in words.

use std::io;

use super::assess::{glance, shown};
use super::judge::listed;
use super::{Command, Drive, Grade, answers, search_directories, survey};

/// Windows' numbers, and that of Wine for a function which it lacks.
mod status {
    pub(super) const DLL_NOT_FOUND: u32 = 0xC000_0135;
    pub(super) const INVALID_IMAGE_FORMAT: u32 = 0xC000_007B;
    pub(super) const ORDINAL_NOT_FOUND: u32 = 0xC000_0138;
    pub(super) const ENTRYPOINT_NOT_FOUND: u32 = 0xC000_0139;
    pub(super) const WINE_STUB: u32 = 0x8000_0100;
}

/// Whether an exit code is one that [`explain`] knows.
pub fn means_not_loaded(code: u32) -> bool {
    matches!(
        code,
        status::DLL_NOT_FOUND
            | status::INVALID_IMAGE_FORMAT
            | status::ORDINAL_NOT_FOUND
            | status::ENTRYPOINT_NOT_FOUND
            | status::WINE_STUB
    )
}

/// What is to be said of an exit code that means that a program could not be loaded, or called
/// what Wine lacks; `None` for all others.
pub fn explain(drive: &mut Drive, command: &Command<'_>, code: u32) -> Option<String> {
    if !means_not_loaded(code) {
        return None;
    }
    let loading = matches!(code, status::DLL_NOT_FOUND | status::INVALID_IMAGE_FORMAT);
    let found = if loading { load_failure(drive, command) } else { function(drive, command) };
    // A drive that cannot be read leaves what the number says.
    Some(found.ok().flatten().unwrap_or_else(|| {
        let what = match code {
            status::DLL_NOT_FOUND => "a library that the program needs is missing",
            status::INVALID_IMAGE_FORMAT => {
                "a library that the program needs is damaged, or for another processor"
            }
            status::WINE_STUB => "the program called a function that Wine does not have",
            _ => "a library that the program needs lacks a function",
        };
        format!("{what} ({code:#x}); `silo windows check` tells more")
    }))
}

/// The files that a command may mean, those that are there.
fn files(drive: &mut Drive, command: &Command<'_>) -> io::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for (program, _) in command.programs() {
        for names in command.candidates(&program) {
            if let Some(path) = drive.find(&names)? {
                files.push(path);
                break;
            }
        }
    }
    Ok(files)
}

fn load_failure(drive: &mut Drive, command: &Command<'_>) -> io::Result<Option<String>> {
    let search = search_directories(command.path);
    for path in files(drive, command)? {
        let Some(verdict) = glance(drive, None, &path, &search)? else { continue };
        let fatal: Vec<_> =
            verdict.reasons.iter().filter(|reason| reason.grade == Grade::No).collect();
        if fatal.is_empty() {
            continue;
        }
        let mut text = format!("{} cannot be loaded", verdict.path);
        for reason in fatal {
            text.push_str(&format!("\n  {}", reason.text));
            if !reason.advice.is_empty() {
                text.push_str(&format!("\n    -> {}", reason.advice));
            }
        }
        return Ok(Some(text));
    }
    Ok(None)
}

fn function(drive: &mut Drive, command: &Command<'_>) -> io::Result<Option<String>> {
    let search = search_directories(command.path);
    for path in files(drive, command)? {
        let surveyed = survey(drive, std::slice::from_ref(&path), &search)?;
        let found = answers(drive, &surveyed.needs, true)?;
        let lacking: Vec<String> = surveyed
            .needs
            .iter()
            .zip(&found)
            .flat_map(|(need, answer)| {
                let names = answer.missing.iter().chain(&answer.stubs);
                names.map(|name| format!("{}!{name}", need.library))
            })
            .collect();
        if !lacking.is_empty() {
            let which = if lacking.len() == 1 { "" } else { "one of " };
            let names = listed(lacking.iter());
            return Ok(Some(format!(
                "{} called {which}what Wine does not have: {names}",
                shown(&path)
            )));
        }
    }
    Ok(None)
}
