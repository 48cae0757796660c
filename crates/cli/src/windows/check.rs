//! The compatibility report: of an image by the engine, of files here.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde_json::json;
use silo_client::{Client, ClientError};
use silo_windows::check::{
    Drive, Grade, LookedUp, Need, Reason, Report, Survey, Verdict, judge, survey,
};

use crate::failure::{Failure, Outcome};

/// Most needs that the engine is asked about at once.
const MAX_NEEDS: usize = 20_000;

/// What a person means: a file or directory that is there, or an image.
pub(crate) fn is_file(subject: &str) -> bool {
    let is_path = subject.starts_with(['/', '.', '~']);
    is_path || subject.to_ascii_lowercase().ends_with(".exe") || fs_err::metadata(subject).is_ok()
}

/// The report of an image.
pub(crate) async fn image(client: &Client, name: &str) -> Outcome<Report> {
    Ok(client.get("/silo/windows/check").query("image", name).receive().await?)
}

/// What was found of a file, or of the programs in a directory.
pub(crate) struct Local {
    survey: Survey,
    /// The names of its programs.
    names: Vec<String>,
    left_out: Vec<String>,
}

/// Reads a program, or all programs of a directory.
pub(crate) fn local(subject: &str) -> Outcome<Local> {
    let failed = |error: std::io::Error| Failure::io(subject, &error);
    let path = Path::new(subject);
    let is_directory = fs_err::metadata(path).map_err(|e| Failure::new(e.to_string()))?.is_dir();
    let name = path.file_name().filter(|_| !is_directory);
    let root = match (name, path.parent()) {
        (None, _) => path,
        (Some(_), Some(parent)) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut drive = Drive::new(open(root).map_err(failed)?);
    let mut left_out = Vec::new();
    let programs = match name {
        Some(name) => vec![PathBuf::from(name)],
        None => {
            let mut found = Vec::new();
            let whole = drive.walk(Path::new(""), &mut |_| true, &mut |path| {
                if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("exe")) {
                    found.push(path.to_owned());
                }
            });
            if !whole.map_err(failed)? {
                left_out.push("files beyond the first 400000".to_owned());
            }
            found
        }
    };
    let mut survey = survey(&mut drive, &programs, &[]).map_err(failed)?;
    left_out.append(&mut survey.left_out);
    if survey.programs.is_empty() {
        return Err(Failure::new(match name {
            Some(_) => format!("{subject} is not a regular file"),
            None => format!("{subject} has no programs (.exe)"),
        }));
    }
    let names = survey.programs.iter().map(|program| match name {
        Some(_) => subject.to_owned(),
        None => root.join(&program.path).display().to_string(),
    });
    Ok(Local { names: names.collect(), survey, left_out })
}

fn open(path: &Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

impl Local {
    /// What its programs need of Windows.
    pub(crate) fn needs(&self) -> &[Need] {
        &self.survey.needs
    }

    /// Its report; without what a base has, or why there is none.
    pub(crate) fn report(self, subject: &str, base: Result<LookedUp, String>) -> Report {
        let mut left_out = self.left_out;
        let base = base.map_err(|why| {
            left_out.push(format!("libraries of Windows, which were not looked for: {why}"));
        });
        let found = base.as_ref().ok();
        let answers = found.map(|found| &found.answers[..]);
        let around = found.map(|found| found.surroundings.clone()).unwrap_or_default();
        let programs: Vec<Verdict> = self
            .survey
            .programs
            .iter()
            .zip(self.names)
            .map(|(program, name)| judge(program, name, &self.survey.needs, answers, &around))
            .collect();
        Report {
            subject: subject.to_owned(),
            grade: programs.iter().map(|verdict| verdict.grade).max().unwrap_or(Grade::Good),
            wine: found.map(|found| found.wine.clone()).unwrap_or_default(),
            base: found.map(|found| found.base.clone()).unwrap_or_default(),
            command: String::new(),
            reasons: Vec::new(),
            programs,
            services: Vec::new(),
            left_out,
        }
    }
}

/// Asks the engine what a base has; the error is why it cannot tell.
pub(crate) async fn look_up(
    client: &Client,
    base: &str,
    needs: &[Need],
) -> Result<LookedUp, String> {
    if needs.len() > MAX_NEEDS {
        return Err("there are too many".to_owned());
    }
    let request = client.post("/silo/windows/libraries").query("image", base);
    match request.json(&json!({ "Needs": needs })).receive::<LookedUp>().await {
        Ok(found) if found.answers.len() == needs.len() => Ok(found),
        Ok(_) => Err("the engine's answer is not whole".to_owned()),
        Err(ClientError::Engine { message, .. }) => Err(message),
        Err(error) => Err(silo_types::error::chain(&error)),
    }
}

/// A report for people.
pub(crate) fn show(report: &Report) -> String {
    let mut text = format!("{}: {}\n", report.subject, report.grade.name());
    match (report.base.as_str(), report.wine.as_str()) {
        ("", "") => {}
        ("", wine) => text.push_str(&format!("  with Wine {wine}\n")),
        (base, wine) => text.push_str(&format!("  with {base}, Wine {wine}\n")),
    }
    if !report.command.is_empty() {
        text.push_str(&format!("  command: {}\n", report.command));
    }
    reasons(&mut text, "  ", &report.reasons);
    for one in &report.left_out {
        text.push_str(&format!("  left out: {one}\n"));
    }
    if !report.programs.is_empty() {
        text.push('\n');
    }
    for verdict in &report.programs {
        text.push_str(&format!(
            "{:<9} {} ({})\n",
            verdict.grade.name(),
            verdict.path,
            verdict.kind
        ));
        reasons(&mut text, "          ", &verdict.reasons);
    }
    if !report.services.is_empty() {
        text.push_str("\nServices:\n");
    }
    for service in &report.services {
        text.push_str(&format!(
            "{:<9} {} ({}, {}): {}\n",
            service.grade.name(),
            service.name,
            service.kind,
            service.start,
            service.program
        ));
        reasons(&mut text, "          ", &service.reasons);
    }
    // Names come from the image: nothing in them is to reach the terminal as more than text.
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn reasons(text: &mut String, indent: &str, reasons: &[Reason]) {
    for reason in reasons {
        text.push_str(&format!("{indent}{}\n", reason.text.replace('\n', " ")));
        if !reason.advice.is_empty() {
            text.push_str(&format!("{indent}-> {}\n", reason.advice));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_images_are_told_apart() {
        for (subject, file) in [
            ("./app", true),
            ("/srv/app", true),
            ("x.exe", true),
            ("silo/servercore:ltsc2019", false),
            ("app:1", false),
            ("Cargo.toml", true),
        ] {
            assert_eq!(is_file(subject), file, "{subject}");
        }
    }

    #[test]
    fn reports_show_no_control_characters() {
        let report = Report {
            subject: "app:1".into(),
            grade: Grade::No,
            wine: "10.0".into(),
            base: "silo/servercore:ltsc2019".into(),
            command: "x.exe \u{1b}[31m".into(),
            reasons: Vec::new(),
            programs: vec![Verdict {
                path: "C:\\x.exe".into(),
                grade: Grade::No,
                kind: "64-bit x86, console".into(),
                reasons: vec![Reason {
                    grade: Grade::No,
                    text: "a.dll is missing\nreally".into(),
                    advice: "add it".into(),
                }],
            }],
            services: Vec::new(),
            left_out: Vec::new(),
        };
        let text = show(&report);
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("no        C:\\x.exe (64-bit x86, console)\n"), "{text}");
        assert!(text.contains("a.dll is missing really\n          -> add it\n"), "{text}");
    }
}
