//! The report of an image.

use std::io;
use std::path::{Path, PathBuf};

use super::command::search_directories;
use super::judge::listed;
use super::survey::{names, survey_within};
use super::{
    Answer, Command, Drive, Grade, Reason, Report, Service, Surroundings, Verdict, answers, judge,
    survey, worst,
};

/// How much is read for a single program before it is run.
const GLANCE: usize = 200_000;

/// What is known of an image before its files are looked at.
#[derive(Debug)]
pub struct Assessment<'a> {
    /// Its name.
    pub subject: String,
    /// Its command.
    pub command: Command<'a>,
    /// Its programs that its base has not.
    pub programs: Vec<PathBuf>,
    /// Its services that its base has not.
    pub services: Vec<Service>,
    /// What speaks against it already.
    pub reasons: Vec<Reason>,
    /// What was left out already.
    pub left_out: Vec<String>,
}

/// A path of the tree as one of drive C:.
pub(super) fn shown(path: &Path) -> String {
    format!("C:\\{}", names(path).join("\\"))
}

/// The first program of a command whose file is there.
fn resolve(drive: &mut Drive, command: &Command<'_>) -> io::Result<Option<(PathBuf, Vec<String>)>> {
    for (program, arguments) in command.programs() {
        for names in command.candidates(&program) {
            if let Some(path) = drive.find(&names)?
                && drive.open(&path)?.is_some()
            {
                return Ok(Some((path, arguments)));
            }
        }
    }
    Ok(None)
}

/// What a command's arguments say of what it needs.
fn argument_reason(program: &Path, arguments: &[String]) -> Option<Reason> {
    let name = program.file_name()?.to_str()?;
    let serves_iis = name.eq_ignore_ascii_case("servicemonitor.exe")
        && arguments.first().is_some_and(|service| service.eq_ignore_ascii_case("w3svc"));
    serves_iis.then(|| {
        Reason::new(
            Grade::No,
            "IIS (w3svc) needs the HTTP.sys driver of the Windows kernel",
            "serve by another program, such as nginx, or by Kestrel of .NET 8 and later",
        )
    })
}

/// Judges a single program by what is cheap to read: headers, and which libraries are there.
/// `system` is the drive with Windows' own files, if it is another one.
pub fn glance(
    drive: &mut Drive,
    system: Option<&mut Drive>,
    path: &Path,
    search: &[Vec<String>],
) -> io::Result<Option<Verdict>> {
    let survey = survey_within(drive, &[path.to_owned()], search, GLANCE)?;
    let Some(program) = survey.programs.first() else { return Ok(None) };
    let system = system.unwrap_or(drive);
    // Wine's own programs have what they need.
    let found =
        if program.facts.is_wine() { Vec::new() } else { answers(system, &survey.needs, false)? };
    let around = Surroundings::of(system)?;
    Ok(Some(judge(program, shown(path), &survey.needs, Some(&found), &around)))
}

/// Makes the report of an image.
pub fn assess(drive: &mut Drive, input: Assessment<'_>) -> io::Result<Report> {
    let Assessment { subject, command, mut programs, mut services, mut reasons, mut left_out } =
        input;
    let line = command.words.join(" ");
    let entry = resolve(drive, &command)?;
    let mut first = None;
    if let Some((path, arguments)) = &entry {
        reasons.extend(argument_reason(path, arguments));
        programs.retain(|program| program != path);
        programs.insert(0, path.clone());
        first = Some(shown(path));
    }
    let search = search_directories(command.path);
    let mut files = Vec::new();
    for service in &services {
        let file = match service.file() {
            Some(names) if service.kind == "program" => drive.find(&names)?,
            _ => None,
        };
        if let Some(file) = &file
            && !programs.contains(file)
        {
            programs.push(file.clone());
        }
        files.push(file);
    }
    let mut surveyed = survey(drive, &programs, &search)?;
    left_out.append(&mut surveyed.left_out);
    let found: Vec<Answer> = answers(drive, &surveyed.needs, true)?;
    let around = Surroundings::of(drive)?;
    let verdicts: Vec<Verdict> = surveyed
        .programs
        .iter()
        .map(|program| judge(program, shown(&program.path), &surveyed.needs, Some(&found), &around))
        .collect();
    for (service, file) in services.iter_mut().zip(&files) {
        if let Some(file) = file
            && let Some(verdict) = verdicts.iter().find(|verdict| verdict.path == shown(file))
        {
            service.reasons.extend(verdict.reasons.iter().cloned());
            service.grade = worst(service.reasons.iter().map(|reason| reason.grade));
        }
    }
    let stuck: Vec<&str> = services
        .iter()
        .filter(|service| service.is_automatic() && service.grade.is_bad())
        .map(|service| service.name.as_str())
        .collect();
    if !stuck.is_empty() {
        let names = listed(stuck.iter());
        reasons.push(Reason::new(
            Grade::Likely,
            format!("services that should start by themselves will not run: {names}"),
            "",
        ));
    }
    if first.is_none() {
        reasons.push(if command.words.is_empty() {
            Reason::new(Grade::Likely, "it has no command", "give one: silo run IMAGE COMMAND")
        } else {
            Reason::new(
                Grade::No,
                format!("its command {:?} was not found on its drive C:", command.words[0]),
                "",
            )
        });
    }
    let own = first.and_then(|path| verdicts.iter().find(|verdict| verdict.path == path));
    let own = own.map(|verdict| verdict.grade);
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.grade));
    let grade = worst(reasons.iter().map(|reason| reason.grade).chain(own));
    Ok(Report {
        subject,
        grade,
        wine: String::new(),
        base: String::new(),
        command: line,
        reasons,
        programs: verdicts,
        services,
        left_out,
    })
}
